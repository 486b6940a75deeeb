"""The data sets that the calibration report knows."""

from trimtab.sim.calibration.ground_truth import GroundTruth
from trimtab.sim.calibration.kv_offload import KvOffload
from trimtab.sim.calibration.source import Source


def sources() -> tuple[Source, ...]:
    """All of them, in the order of the report."""
    return (GroundTruth(), KvOffload())
