"""The custom resources of Trimtab as pydantic models, and the wire formats of its neighbors."""

from trimtab.api.microservice_slo import MicroserviceSLO
from trimtab.api.multimodal_pipeline import MultimodalPipeline
from trimtab.api.multimodal_stage import MultimodalStage
from trimtab.api.node_policy import NodePolicy
from trimtab.api.node_state import NodeState
from trimtab.api.power_domain import PowerDomain
from trimtab.api.serving_pool import ServingPool
from trimtab.api.shared_budget import SharedBudget

__all__ = [
    "MicroserviceSLO",
    "MultimodalPipeline",
    "MultimodalStage",
    "NodePolicy",
    "NodeState",
    "PowerDomain",
    "ServingPool",
    "SharedBudget",
]
