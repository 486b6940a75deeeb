"""Time to parse a ServingPool, rules included, against reading the same object with orjson.

The operator parses every pool once at start and again at each change: 10,000 pools must not be felt. Two pools are
measured, the smallest that is valid and one with every field set, both as the table of the tests has them.
"""

import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.objects import CASES

from trimtab.api import ServingPool

ROUNDS, REPEATS = 7, 2000


def microseconds(work: Callable[[], Any]) -> float:
    """The median over rounds of the mean time of one call."""
    work()
    rounds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(REPEATS):
            work()
        rounds.append((time.perf_counter() - started) / REPEATS * 1e6)
    return statistics.median(rounds)


def main() -> None:
    figures: dict[str, Any] = {}
    for title in ("minimal", "everything set"):
        document = next(case for case in CASES if case.kind == "ServingPool" and case.title == title).document()
        text = orjson.dumps(document)
        parse = microseconds(lambda document=document: ServingPool.model_validate(document))
        floor = microseconds(lambda text=text: orjson.loads(text))
        key = title.replace(" ", "_")
        figures |= {f"{key}_parse_us": round(parse, 1), f"{key}_orjson_us": round(floor, 1), f"{key}_bytes": len(text)}
        print(f"{title}: {parse:.1f} µs to parse, {floor:.1f} µs to read {len(text)} bytes with orjson")
    figures |= {"python": platform.python_version(), "pydantic": version("pydantic"), "unit": "µs, median of rounds"}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
