import string

import pytest

from trimtab.model.reason import Reason, ReasonCode
from trimtab.model.ref import Ref
from trimtab.obs.wording import WORDING, say

REF = Ref("ServingPool", "ai", "chat")


@pytest.mark.parametrize("code", ReasonCode)
def test_every_reason_has_words_that_end_without_a_period(code: ReasonCode) -> None:
    assert WORDING[code]
    assert not WORDING[code].endswith(".")


@pytest.mark.parametrize("code", ReasonCode)
def test_every_placeholder_is_a_plain_name(code: ReasonCode) -> None:
    fields = [field for _, field, _, _ in string.Formatter().parse(WORDING[code]) if field is not None]
    assert all(field.isidentifier() for field in fields)


def test_numbers_and_words_fill_the_sentence() -> None:
    reason = Reason(ReasonCode.UNSCHEDULABLE, REF, (("unschedulable", 2), ("total", 3)), (("detail", "no GPUs"),))
    assert say(reason) == "2 of 3 pods have no node: no GPUs"


def test_whole_numbers_stay_whole_and_large_ones_readable() -> None:
    assert say(Reason(ReasonCode.REPLICAS_FROM_SPEC, REF, (("replicas", 3.0),))).endswith("for 3")
    assert say(Reason(ReasonCode.REPLICAS_FROM_SPEC, REF, (("replicas", 12_345_678.0),))).endswith("for 12345678")
