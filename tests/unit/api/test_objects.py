"""The table of good and bad objects, through pydantic."""

import pytest
from pydantic import ValidationError

from tests.support.objects import CASES, MINIMAL, MODELS, Case
from trimtab.api.errors import field_errors


@pytest.mark.parametrize("case", [case for case in CASES if case.good], ids=str)
def test_a_good_object_is_accepted_and_survives_a_round_trip(case: Case) -> None:
    model = MODELS[case.kind]
    parsed = model.check(case.document())
    assert model.check(parsed.to_wire()) == parsed


@pytest.mark.parametrize("case", [case for case in CASES if not case.good], ids=str)
def test_a_bad_object_is_refused_and_the_field_is_named(case: Case) -> None:
    with pytest.raises(ValidationError) as refusal:
        MODELS[case.kind].check(case.document())
    messages = [str(error) for error in field_errors(refusal.value)]
    assert any(case.field in message for message in messages), messages


def test_the_table_is_large_and_has_both_verdicts_for_every_kind() -> None:
    assert len(CASES) >= 120
    assert {(case.kind, case.good) for case in CASES} == {(kind, good) for kind in MINIMAL for good in (True, False)}
    assert len({str(case) for case in CASES}) == len(CASES)
