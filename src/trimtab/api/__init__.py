"""The custom resources of Trimtab as pydantic models, and the wire formats of its neighbors."""

from trimtab.api.power_domain import PowerDomain
from trimtab.api.serving_pool import ServingPool

__all__ = ["PowerDomain", "ServingPool"]
