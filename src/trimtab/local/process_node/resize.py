"""What fits on the node: admission of pods, and verdicts on in-place resize."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum

from trimtab.local.process_node import quantity
from trimtab.local.process_node.spec import Container, Pod

Amounts = Mapping[str, Decimal]

RESIZABLE = ("cpu", "memory")


class ResizeVerdict(StrEnum):
    """The API's reasons of a pending resize, and the verdict that there is nothing to wait for."""

    ACCEPTED = "Accepted"
    DEFERRED = "Deferred"
    INFEASIBLE = "Infeasible"


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict and the words for the condition's message."""

    verdict: ResizeVerdict
    message: str = ""


def amounts(written: Mapping[str, str]) -> dict[str, Decimal]:
    """Return quantities as numbers."""
    return {resource: quantity.parse(text) for resource, text in written.items()}


def pod_requests(pod: Pod) -> dict[str, Decimal]:
    """Return what the scheduler charges: the larger of all main containers and each init, beside the sidecars."""
    running = [amounts(container.requests) for container in pod.containers]
    sidecars: list[dict[str, Decimal]] = []
    peaks: list[dict[str, Decimal]] = []
    for init in pod.inits:
        own = amounts(init.requests)
        if init.sidecar:
            sidecars.append(own)
        peaks.append(quantity.total([*sidecars, *([] if init.sidecar else [own])]))
    return quantity.largest([quantity.total([*running, *sidecars]), *peaks])


def shortage(allocatable: Amounts, taken: Iterable[Amounts], wanted: Amounts) -> str | None:
    """Return the first resource, by name, that does not fit; None if all do. Resources the node lacks count as 0."""
    used = quantity.total(taken)
    for resource, amount in sorted(wanted.items()):
        if amount and used.get(resource, Decimal()) + amount > allocatable.get(resource, Decimal()):
            return resource
    return None


def judge(allocatable: Amounts, others: Iterable[Amounts], wanted: Amounts) -> Judged:
    """Return whether a resize may happen, must wait for others to leave, or can never fit this node."""
    resizable = {resource: wanted[resource] for resource in RESIZABLE if resource in wanted}
    never = shortage(allocatable, (), resizable)
    if never is not None:
        return Judged(
            ResizeVerdict.INFEASIBLE,
            f"Node didn't have enough capacity: {never}, requested: {resizable[never]}, capacity: "
            f"{allocatable.get(never, Decimal())}",
        )
    yet = shortage(allocatable, others, resizable)
    if yet is not None:
        return Judged(ResizeVerdict.DEFERRED, f"Node didn't have enough resource: {yet}, requested: {resizable[yet]}")
    return Judged(ResizeVerdict.ACCEPTED)


def with_allocated(pod: Pod, allocated: Mapping[str, Container]) -> Pod:
    """Return the pod with the resources that its containers were given rather than those it asks for."""

    def given(container: Container) -> Container:
        held = allocated.get(container.name, container)
        return replace(container, requests=held.requests, limits=held.limits)

    return replace(pod, inits=tuple(map(given, pod.inits)), containers=tuple(map(given, pod.containers)))


def must_restart(before: Container, after: Container) -> bool:
    """Return whether a resize changes a resource whose policy is to restart the container."""
    return any(
        before.requests.get(resource) != after.requests.get(resource)
        or before.limits.get(resource) != after.limits.get(resource)
        for resource in after.restart_on_resize
    )
