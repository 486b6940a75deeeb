"""Traces that are drawn by name, and traces made of traces."""

from itertools import pairwise

import numpy as np
import pytest

from trimtab.workload.arrivals import Gamma, MarkovModulated, Poisson
from trimtab.workload.catalog import Catalog, find_traces
from trimtab.workload.drawn import Independent, InverseCdf, Observed, draw_trace
from trimtab.workload.fault import TraceError
from trimtab.workload.generated import Generated, is_generated
from trimtab.workload.request import Trace, TraceRequest
from trimtab.workload.splice import compress, concatenate, overlay, thin

CONSTANT = Independent(InverseCdf.evenly(100), InverseCdf.evenly(7))


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return find_traces()


def resolve(catalog: Catalog, text: str) -> Generated:
    found = catalog.resolve(text)
    assert isinstance(found, Generated)
    return found


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_laws_by_name(catalog: Catalog) -> None:
    lengths = "input=100,output=7"
    assert resolve(catalog, f"poisson:rate=5,{lengths}").arrivals == Poisson(5.0)
    assert resolve(catalog, f"gamma:rate=5,cv=3,{lengths}").arrivals == Gamma(5.0, 3.0)
    assert resolve(catalog, f"mmpp:rates=2/20,dwell=60/5,{lengths}").arrivals == MarkovModulated((2, 20), (60, 5))
    assert resolve(catalog, f"poisson:rate=5,{lengths}").lengths == CONSTANT


def test_lengths_of_the_shipped_trace_unless_others_are_asked_for(catalog: Catalog) -> None:
    shipped = Observed.of(catalog.find("azure-conv").load(seed=0, start_seconds=0, duration_seconds=float("inf")))
    assert resolve(catalog, "poisson:rate=1").lengths == shipped
    assert resolve(catalog, "poisson:rate=1,lengths=azure-conv").lengths == shipped


def test_a_stretch_is_part_of_the_whole(catalog: Catalog) -> None:
    found = resolve(catalog, "gamma:rate=4,cv=2,input=10/90,output=5")
    whole = found.load(seed=3, start_seconds=0, duration_seconds=100)
    assert whole == found.load(seed=3, start_seconds=0, duration_seconds=100)
    assert whole.requests != found.load(seed=4, start_seconds=0, duration_seconds=100).requests
    assert whole.duration_seconds == 100
    late = found.load(seed=3, start_seconds=60, duration_seconds=40)
    assert [r.at_seconds + 60 for r in late.requests] == pytest.approx(
        [r.at_seconds for r in whole.requests if r.at_seconds >= 60]
    )


def test_rate_scale(catalog: Catalog) -> None:
    found = resolve(catalog, "poisson:rate=4,input=10,output=5")
    trace = found.load(seed=3, start_seconds=0, duration_seconds=2000, rate_scale=3.0)
    assert len(trace.requests) == pytest.approx(24_000, rel=0.03)


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ("poisson:", "", "'' is not NAME=VALUE"),
        ("poisson:rate", "", "'rate' is not NAME=VALUE"),
        ("poisson:rate=1,rate=2", "", "each once"),
        ("poisson:input=1,output=1", "rate", "missing"),
        ("poisson:rate=x", "rate", "could not convert"),
        ("poisson:rate=1/2", "rate", "2 numbers where one is needed"),
        ("poisson:rate=-1", "", "must be a number above 0"),
        ("poisson:rate=1,cv=3", "", "cv means nothing to poisson"),
        ("gamma:rate=1", "cv", "missing"),
        ("gamma:rate=1,cv=0", "", "cv must be a number above 0"),
        ("mmpp:rates=1/2,dwell=3", "", "two or more of each"),
        ("poisson:rate=1,input=5", "output", "missing"),
        ("poisson:rate=1,input=9/5,output=5", "input", "tokens must ascend"),
        ("poisson:rate=1,input=0,output=5", "input", "from 1 or more"),
        ("poisson:rate=1,input=5,output=99999999999", "output", "at most"),
        ("poisson:rate=1,input=5,output=5,lengths=azure-conv", "lengths", "either"),
        ("poisson:rate=1,lengths=nope", "", "neither a file nor a known trace"),
    ],
)
def test_a_law_that_is_not_well_put(text: str, field: str, message: str, catalog: Catalog) -> None:
    with pytest.raises(TraceError, match=message) as caught:
        catalog.resolve(text)
    assert caught.value.field == field


def test_names_and_files_are_no_laws(catalog: Catalog) -> None:
    assert not is_generated("azure-conv")
    assert not is_generated("C:rate=5")
    assert catalog.resolve("azure-conv") == catalog.find("azure-conv")


def test_too_many_and_too_few_requests() -> None:
    with pytest.raises(TraceError, match="about 10,000,000 requests"):
        draw_trace(Poisson(1e6), CONSTANT, seconds=10, arrivals_rng=rng(), lengths_rng=rng())
    with pytest.raises(TraceError, match="no request in 1e-06 s"):
        draw_trace(Poisson(1.0), CONSTANT, seconds=1e-6, arrivals_rng=rng(), lengths_rng=rng())


class TestLengths:
    def test_quantiles(self) -> None:
        law = InverseCdf((0.0, 0.5, 1.0), (16, 200, 4000))
        drawn = np.array(law.at(rng().random(40_000)))
        assert law == InverseCdf.evenly(16, 200, 4000)
        assert (drawn.min() >= 16, drawn.max() <= 4000) == (True, True)
        assert np.mean(drawn < 200) == pytest.approx(0.5, abs=0.01)
        assert np.mean(drawn < 108) == pytest.approx(0.25, abs=0.01), "straight between the quantiles"

    def test_recorded_pairs_stay_together(self) -> None:
        pairs = tuple((n, 1000 - n) for n in range(1, 900))
        drawn = Observed(pairs).draw(rng(), 5000)
        assert {a + b for a, b in drawn} == {1000}
        assert len(set(drawn)) > 800

    def test_arrivals_do_not_move_lengths(self) -> None:
        lengths = Independent(InverseCdf.evenly(1, 1000), InverseCdf.evenly(1, 1000))
        traces = [
            draw_trace(law, lengths, seconds=50, arrivals_rng=rng(1), lengths_rng=rng(2))
            for law in (Poisson(10.0), Gamma(10.0, 3.0))
        ]
        one, other = ([(r.input_tokens, r.output_tokens) for r in trace.requests] for trace in traces)
        assert len(one) != len(other)
        assert all(a == b for a, b in zip(one, other, strict=False))

    @pytest.mark.parametrize(
        ("levels", "tokens"),
        [((), ()), ((0.0, 1.0), (1,)), ((0.0, 0.5), (1, 2)), ((0.0, 1.0, 1.0), (1, 2, 3)), ((0.0, 1.0), (5, 4))],
    )
    def test_no_distribution(self, levels: tuple[float, ...], tokens: tuple[float, ...]) -> None:
        with pytest.raises(ValueError, match=r"levels|tokens"):
            InverseCdf(levels, tokens)


def trace(name: str, *times: float, blocks: int | None = None, seconds: float = 10.0) -> Trace:
    ids = () if blocks is None else (blocks, blocks + 1)
    return Trace(name, f"{name}.csv", tuple(TraceRequest(t, 600, 5, ids) for t in times), seconds, (f"about {name}",))


class TestSplicing:
    def test_one_after_the_other(self) -> None:
        whole = concatenate([trace("a", 0, 4), trace("b", 1, 9)], pause_seconds=5)
        assert [r.at_seconds for r in whole.requests] == [0, 4, 16, 24]
        assert (whole.name, whole.duration_seconds, whole.notes) == ("a+b", 25, ("about a", "about b"))

    def test_on_top_of_each_other(self) -> None:
        whole = overlay([trace("a", 0, 4), trace("b", 1, 9, seconds=20)])
        assert [r.at_seconds for r in whole.requests] == [0, 1, 4, 9]
        assert (whole.name, whole.duration_seconds) == ("a&b", 20)

    @pytest.mark.parametrize("put_together", [concatenate, overlay])
    def test_parts_share_no_prefix(self, put_together: object) -> None:
        whole = put_together([trace("a", 0, 1, blocks=7), trace("b", 0, blocks=8), trace("a", 2, blocks=7)])  # type: ignore[operator]
        seen = {r.blocks for r in whole.requests}
        assert len(seen) == 3
        assert not any(set(a) & set(b) for a, b in pairwise(sorted(seen)))
        assert all(second == first + 1 for first, second in seen), "prefixes inside a part are kept"

    def test_compressed(self) -> None:
        fast = compress(trace("a", 0, 4, 8), 2)
        assert [r.at_seconds for r in fast.requests] == [0, 2, 4]
        assert fast.duration_seconds == 5

    def test_thinned(self) -> None:
        whole = trace("a", *map(float, range(20_000)), seconds=20_000)
        fewer = thin(whole, 0.25, rng())
        assert len(fewer.requests) == pytest.approx(5000, rel=0.05)
        assert set(fewer.requests) <= set(whole.requests)
        assert (thin(whole, 1.0, rng()), fewer.duration_seconds) == (whole, 20_000)

    def test_thinning_a_bursty_process_brings_it_nearer_to_poisson(self) -> None:
        """Kept with probability p, counts have the dispersion 1 + p (D - 1)."""
        arrivals = Gamma(20.0, 3.0).times(rng(4), 10_000)
        fewer = thin(trace("a", *arrivals, seconds=10_000), 0.1, rng(5))
        counts = np.histogram([r.at_seconds for r in fewer.requests], np.arange(0, 10_001, 50))[0]
        assert counts.var() / counts.mean() == pytest.approx(1 + 0.1 * 8, rel=0.25)

    @pytest.mark.parametrize("factor", [0.0, -1.0, float("inf"), float("nan")])
    def test_no_factor(self, factor: float) -> None:
        with pytest.raises(TraceError, match=r"a\.csv: compressed by"):
            compress(trace("a", 0), factor)

    @pytest.mark.parametrize("part", [0.0, -0.5, 1.5, float("nan")])
    def test_no_part(self, part: float) -> None:
        with pytest.raises(TraceError, match="the part must be above 0"):
            thin(trace("a", 0), part, rng())

    def test_nothing_left(self) -> None:
        with pytest.raises(TraceError, match="none of 1 requests is left"):
            thin(trace("a", 0), 1e-9, rng())
        for put_together in (concatenate, overlay):
            with pytest.raises(TraceError, match="no trace"):
                put_together([])
