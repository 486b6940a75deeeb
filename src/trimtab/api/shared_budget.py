"""SharedBudget: accelerators or watts that several pools share, and how they are divided."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from trimtab.api.common import CommonStatus, PolicySpec
from trimtab.api.definition import MODE, READY, REASON, Column, Definition
from trimtab.api.wire import (
    BigCount,
    CustomObject,
    Decimal,
    DnsLabel,
    DnsName,
    Keyed,
    Permille,
    Plain,
    Record,
    Rule,
    Weight,
)

Amount = Annotated[int, Field(strict=True, ge=0, le=2**53 - 1)]


class PoolRef(Record):
    """A reference to a pool in the namespace that stands beside it."""

    kind: Literal["ServingPool", "MultimodalPipeline"] = "ServingPool"
    """kind is `ServingPool` or `MultimodalPipeline`. Default: ServingPool."""

    name: DnsName
    """name is the name of the pool."""


class Member(Record):
    """A pool that draws from the budget."""

    namespace: DnsLabel
    """namespace is the namespace of the pool."""

    pool_ref: PoolRef
    """poolRef names the pool."""

    weight: Weight = 1
    """weight is the pool's share against the other members. 1 to 1000. Default: 1."""

    min: Amount = 0
    """min is what the pool always gets, in units of the resource. At least 0. Default: 0."""


class Equilibrium(Record):
    """How the equilibrium is looked for."""

    horizon_steps: Annotated[int, Field(strict=True, ge=1, le=64)] = 8
    """horizonSteps is over how many periods a plan looks ahead. 1 to 64. Default: 8."""

    iterations: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 3000
    """iterations is how often the members answer each other per plan. 1 to 100000. Default: 3000."""

    congestion_price_permille: Annotated[int, Field(strict=True, ge=0, le=10_000)] = 100
    """congestionPricePermille is what asking for more than there is costs a member, in thousandths of the value of a
    unit. 0 to 10000. Default: 100."""

    max_gap_permille: Permille = 20
    """maxGapPermille is how far from an equilibrium a plan may be before it is rejected, in thousandths. 0 to 1000.
    Default: 20."""


def _distinct(spec: "SharedBudgetSpec") -> bool:
    return len({(member.namespace, member.pool_ref) for member in spec.members}) == len(spec.members)


class SharedBudgetSpec(PolicySpec):
    """What is shared, by whom, and how."""

    resource: Literal["GPU", "Watts"]
    """resource is what is shared: `GPU` (accelerators) or `Watts`."""

    capacity: Annotated[int, Field(strict=True, ge=1, le=2**53 - 1)]
    """capacity is how much there is, in accelerators or watts. At least 1."""

    policy: Literal["Equilibrium", "MaxMin", "Cooperative", "Static"] = "Static"
    """policy divides it: `Static` by weight, `MaxMin` by weighted max-min fairness, `Cooperative` for the largest total
    value, `Equilibrium` so that no member gains by asking otherwise. Default: Static."""

    members: Annotated[tuple[Member, ...], Field(min_length=1, max_length=64), Plain()]
    """members are the pools that share it; a pool may be listed once. 1 to 64."""

    equilibrium: Equilibrium | None = None
    """equilibrium is how the equilibrium is looked for; only with policy Equilibrium. Absent: 8 steps, 3000
    iterations."""

    period_seconds: Annotated[int, Field(strict=True, ge=10, le=86_400)] = 300
    """periodSeconds is the time between two divisions, in seconds. 10 to 86400. Default: 300."""

    rules: ClassVar = (
        Rule(
            _distinct,
            # `namespace` is a reserved word of CEL, and escaped.
            "self.members.all(one, self.members.exists_one(other,"
            " other.__namespace__ == one.__namespace__ && other.poolRef == one.poolRef))",
            "spec.members: a pool is listed twice: keep one entry of it",
        ),
        Rule(
            lambda spec: sum(member.min for member in spec.members) <= spec.capacity,
            "self.members.map(member, member.min).sum() <= self.capacity",
            "members[].min: the minima add up to more than spec.capacity: lower them, or raise capacity",
        ),
        Rule(
            lambda spec: spec.equilibrium is None or spec.policy == "Equilibrium",
            "!has(self.equilibrium) || self.policy == 'Equilibrium'",
            "spec.equilibrium: means nothing without policy Equilibrium: remove it, or choose that policy",
        ),
    )


class Grant(Record):
    """What one member gets."""

    member: Annotated[str, Field(min_length=1, max_length=400)]
    """member is the pool, as `namespace/Kind/name`."""

    amount: BigCount
    """amount is what it gets, in units of the resource."""

    want: BigCount
    """want is what it asked for, in units of the resource."""


class Draw(Record):
    """The common random draw that the members act on, so that anyone can repeat it."""

    epoch: BigCount
    """epoch numbers the plans."""

    seed: BigCount
    """seed is the seed of the draw."""


class SharedBudgetStatus(CommonStatus):
    """How the budget is divided."""

    grants: Annotated[tuple[Grant, ...], Field(max_length=64), Keyed(("member",))] = ()
    """grants are what each member gets. At most 64."""

    gap_permille: Permille | None = None
    """gapPermille is how much the best-placed member could gain by asking otherwise, in thousandths; absent without a
    plan."""

    welfare: Decimal | None = None
    """welfare is the total value of the plan, as a decimal number; absent without a plan."""

    static_split_welfare: Decimal | None = None
    """staticSplitWelfare is the total value of a division by weight, for comparison, as a decimal number; absent
    without a plan."""

    draw: Draw | None = None
    """draw is the common random draw of the present plan; absent without one."""


class SharedBudget(CustomObject):
    """A SharedBudget is a number of accelerators or watts that several pools share, and how they are divided."""

    api_version: Literal["trimtab.dev/v1alpha1"] = "trimtab.dev/v1alpha1"
    kind: Literal["SharedBudget"] = "SharedBudget"
    spec: SharedBudgetSpec
    """spec is what is shared, by whom, and how."""
    status: SharedBudgetStatus = SharedBudgetStatus()
    """status is how the budget is divided; written by the operator."""


SHARED_BUDGET = Definition(
    model=SharedBudget,
    plural="sharedbudgets",
    short="sbud",
    namespaced=False,
    columns=(
        READY,
        REASON,
        Column("Resource", ".spec.resource", "What is shared: GPU or Watts."),
        Column("Capacity", ".spec.capacity", "How much there is.", "integer"),
        Column("Policy", ".spec.policy", "How it is divided."),
        MODE,
    ),
)
