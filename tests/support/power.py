"""Builders for placement: domains, pods and a ledger with some nodes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trimtab.decide.charges import Ledger
from trimtab.model.power import Domain, PodFacts, PoolKey


@dataclass(frozen=True)
class Labels:
    """A selector of exact labels."""

    wanted: tuple[tuple[str, str], ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(labels.get(key) == value for key, value in self.wanted)


def a_domain(name: str = "row-1", watts: int | None = 1000, level: str = "Row", **rest: Any) -> Domain:
    """A domain of the nodes whose label `row`, `rack` ... carries its name; a Site has every node."""
    wanted = () if level == "Site" else ((level.lower(), name),)
    return Domain(name=name, level=level, nodes=rest.pop("nodes", Labels(wanted)), limit_watts=watts, **rest)


def a_pod(
    uid: str = "u1", watts: int | None = 100, node: str = "", nominated: str = "", pool: PoolKey | None = None
) -> PodFacts:
    return PodFacts(uid, "ai", f"pod-{uid}", watts, pool, node, nominated)


def a_ledger(*domains: Domain, rows: Mapping[str, int] | None = None, hold_seconds: float = 30.0) -> Ledger:
    """A ledger with `rows[row]` nodes named `<row>-n0`, `<row>-n1` ... in each row."""
    ledger = Ledger(hold_seconds)
    for domain in domains:
        ledger.set_domain(domain)
    for row, count in (rows or {}).items():
        for index in range(count):
            ledger.set_node(f"{row}-n{index}", {"row": row}, "h100")
    ledger.settle(0.0)
    return ledger


def charged(ledger: Ledger) -> dict[str, int]:
    """What each domain is charged."""
    return {book.domain.name: book.charged for book in ledger.books()}


def held(ledger: Ledger) -> dict[str, int]:
    """What is held in each domain."""
    return {book.domain.name: book.held for book in ledger.books()}
