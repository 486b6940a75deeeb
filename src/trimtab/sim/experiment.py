"""What an experiment of the lab is: parts, each a table of policies compared under the same conditions.

An experiment is one file in `trimtab.sim.experiments` that says what is compared and runs one seed of it. Everything
else (sweeps, intervals, tables, plots, reports) is the same for all of them and lives beside this module.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Cell = float | int | str | bool | None
"""One value of a table."""

Row = Mapping[str, Cell]
"""What one policy did under one seed: a column `policy` and the part's metrics by name."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One point of a sweep.

    Attributes:
        name: Unique in its part; what a table calls it.
        values: The numbers behind it, which become columns of the CSV.
    """

    name: str
    values: Mapping[str, Cell]


@dataclass(frozen=True, slots=True)
class Metric:
    """A column that policies are compared by.

    Attributes:
        name: The column of the rows.
        title: What a table calls it.
        unit: "s", "%", ...; empty for counts and ratios.
        better: Which direction is good.
        relative: Whether differences to the baseline are given relative to it (a ratio of means) or as they are.
    """

    name: str
    title: str
    unit: str = ""
    better: Literal["lower", "higher"] = "lower"
    relative: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """A statement that the part is there to test: `policy` is better than `against` in `metric`.

    Claims of one part are tested together, with Holm's correction.

    Attributes:
        settings: Names of the settings where it is tested; empty: all of them.
        margin: By how much `policy` may be worse and the claim still hold ("never more than 0.5 points below"), in the
            metric's unit, or as a part of `against` (0.01 is 1 %) where the metric is relative; 0 claims a gain.
    """

    text: str
    policy: str
    against: str
    metric: str
    settings: tuple[str, ...] = ()
    margin: float = 0.0


@dataclass(frozen=True, slots=True)
class Plot:
    """Lines of a metric over a column of the settings, one line per policy.

    Attributes:
        x: A column of the settings' values; numbers make an axis, words make places on one.
        y: A metric's name.
        logarithmic: Whether x is.
        panel: A column of the settings' values; each of its values gets axes of its own.
        difference: Whether the difference to the part's baseline is drawn instead of the metric itself.
        settings: Names of the settings that are drawn; empty: all of them.
    """

    x: str
    y: str
    x_title: str
    y_title: str
    logarithmic: bool = False
    panel: str | None = None
    difference: bool = False
    settings: tuple[str, ...] = ()


Run = Callable[[int, Setting, Path | None], Sequence[Row]]
"""Runs every policy under one seed and setting, with the folder of data sets if there is one.

A function of a module, so that any worker process can be sent to it. The policies of one call share arrivals, lengths
and noise; the same arguments give the same rows everywhere.
"""


@dataclass(frozen=True, slots=True)
class Part:
    """One table of an experiment.

    Attributes:
        name: Unique in its experiment; part of file names.
        title: One line.
        about: What is varied and what to look at, for somebody who has not read the paper.
        run: See `Run`.
        baseline: The policy that differences are taken from.
        seeds: How many seeds it needs by default; None: as many as the experiment says.
        expected: Figures to be shown beside those measured, by (setting, policy, metric). Where the metric is relative
            and the policy is not the baseline, the figure is the relative difference to it (-0.25 is 25 % less).
        needs: Data sets (folders of the data folder) without which the part is skipped, and said to be.
        seconds_per_run: What one call of `run` takes on one core, about; None: not known.
        sources: Where its numbers come from and under which licence, one sentence each; those of `needs` are added.
    """

    name: str
    title: str
    about: str
    settings: tuple[Setting, ...]
    run: Run
    metrics: tuple[Metric, ...]
    baseline: str | None = None
    seeds: int | None = None
    plots: tuple[Plot, ...] = ()
    claims: tuple[Claim, ...] = ()
    expected: Mapping[tuple[str, str, str], float] | None = None
    needs: tuple[str, ...] = ()
    seconds_per_run: float | None = None
    sources: tuple[str, ...] = ()


class Experiment(Protocol):
    """One question, answered by a few tables.

    Attributes:
        name: What `trimtab lab run` is given.
        title: One line.
        about: What is compared and how, what to look at and what must not be concluded.
        seeds: How many seeds each part runs by default.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - see the attributes
    @property
    def title(self) -> str: ...  # noqa: D102
    @property
    def about(self) -> str: ...  # noqa: D102
    @property
    def seeds(self) -> int: ...  # noqa: D102

    def parts(self) -> Sequence[Part]:
        """Return the tables, in the order of reading."""
