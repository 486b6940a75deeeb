"""A small experiment whose outcome is known: one policy is better by a fifth, one is the same, one is worse."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab.model.problem import Problem
from trimtab.sim.experiment import Claim, Metric, Part, Plot, Row, Setting
from trimtab.sim.streams import stream

SETTINGS = tuple(
    Setting(f"rate {rate:g}, {slots} slots", {"rate": rate, "slots": slots}) for slots in (1, 4) for rate in (0.5, 1, 4)
)
METRICS = (
    Metric("jct", "Mean completion time", "s", relative=True),
    Metric("met", "Attainment", "%", better="higher"),
)


def run(seed: int, setting: Setting, data: Path | None) -> list[Row]:
    del data
    rng = stream(seed, setting.name, "noise")
    base, met = rng.normal(10, 2), rng.normal(80, 1)
    same = base + rng.normal(0, 0.1)
    return [
        {"policy": "fcfs", "jct": base, "met": met, "jobs": 50},
        {"policy": "short <first>", "jct": 0.8 * base + rng.normal(0, 0.1), "met": met + 2 + rng.normal(0, 0.1)},
        {"policy": "same", "jct": same, "met": None},
        {"policy": "slow", "jct": 1.3 * same, "met": met - 3},
    ]


def fail_on_seed_two(seed: int, setting: Setting, data: Path | None) -> list[Row]:
    if seed == 2:
        raise Problem("the pool has no server", fix="give it one")
    return run(seed, setting, data)


def break_down(seed: int, setting: Setting, data: Path | None) -> list[Row]:
    raise ZeroDivisionError(seed, setting.name, data)


MAIN = Part(
    name="main",
    title="The main table",
    about="First paragraph.\n\nSecond paragraph.",
    settings=SETTINGS,
    run=run,
    metrics=METRICS,
    baseline="fcfs",
    plots=(
        Plot("rate", "jct", "Arrival rate", "Mean completion time", logarithmic=True, panel="slots"),
        Plot("rate", "jct", "Arrival rate", "Mean completion time", difference=True, settings=("rate 1, 1 slots",)),
    ),
    claims=(
        Claim("Short first is faster", "short <first>", "fcfs", "jct"),
        Claim("Same is faster", "same", "fcfs", "jct", settings=("rate 1, 1 slots",)),
        Claim("Slow is faster", "slow", "fcfs", "jct", settings=("rate 1, 1 slots",)),
        Claim("Slow is at most half slower", "slow", "fcfs", "jct", settings=("rate 1, 1 slots",), margin=0.5),
        Claim("Slow meets at most 5 points less", "slow", "fcfs", "met", settings=("rate 1, 1 slots",), margin=5),
    ),
    expected={("rate 1, 1 slots", "short <first>", "jct"): -0.245, ("rate 1, 1 slots", "fcfs", "jct"): 9.5},
    seconds_per_run=0.001,
    sources=("Arrivals are drawn.",),
)
FOREST = Part("forest", "Without a plot of its own", "", SETTINGS[:2], run, METRICS, "fcfs", seeds=3)
NEEDY = Part("needy", "With a data set", "", SETTINGS[:1], run, METRICS, needs=("made-up-set",))


@dataclass(frozen=True)
class Toy:
    name: str = "toy"
    title: str = "A toy"
    about: str = "Which policy is faster?\n\nNothing follows for real engines."
    seeds: int = 8
    own_parts: tuple[Part, ...] = (MAIN, FOREST, NEEDY)

    def parts(self) -> Sequence[Part]:
        return self.own_parts


TOY = Toy()
