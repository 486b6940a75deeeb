"""Fits of tests that do not look at intervals draw fewer samples for them."""

import pytest

from trimtab.sim.profiling import estimate


@pytest.fixture(autouse=True)
def few_samples(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "intervals" not in request.node.name:
        monkeypatch.setattr(estimate, "RESAMPLES", 25)
