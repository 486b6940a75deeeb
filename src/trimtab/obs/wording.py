"""The words for each reason, and the only place for them: log lines, Events, conditions and reports all ask here."""

from typing import Final

from trimtab.model.reason import Reason, ReasonCode

# Each text may use the reason's numbers and words by name, and `subject`.
WORDING: Final[dict[ReasonCode, str]] = {
    ReasonCode.NOT_YET_IMPLEMENTED: "This kind is accepted and validated; nothing acts on it yet",
    ReasonCode.NOT_YET_OBSERVED: "The workload has not been seen yet",
    ReasonCode.NOT_MEASURED: "Nothing measures this yet",
    ReasonCode.NO_OBJECTIVES: "The pool declares no service levels",
    ReasonCode.NO_PODS: "There are no pods to place",
    ReasonCode.ALL_SCHEDULED: "Every pod has a node",
    ReasonCode.UNSCHEDULABLE: "{unschedulable} of {total} pods have no node: {detail}",
    ReasonCode.ALL_REPLICAS_READY: "{ready} of {desired} replicas are ready",
    ReasonCode.REPLICAS_NOT_READY: "{ready} of {desired} replicas are ready",
    ReasonCode.SCALED_TO_ZERO: "No replicas are wanted",
    ReasonCode.NOT_CONTESTED: "Nobody else writes what this object holds",
    ReasonCode.OVERLAPS: "{target} is already held by {holder}; point one of the two elsewhere",
    ReasonCode.TEMPLATE_INVALID: (
        "The API server refuses spec.workload.template; what ran before keeps running: {detail}"
    ),
    ReasonCode.SPEC_INVALID: "The spec cannot be read: {detail}",
    ReasonCode.NAME_TAKEN: "{target} exists and belongs to {owner}; delete it, or rename this pool",
    ReasonCode.APPLY_REFUSED: "The API server refuses {target}: {detail}",
    ReasonCode.PODS_REFUSED: "Pods cannot be created: {detail}",
    ReasonCode.WORKLOAD_MISSING: "{target} does not exist",
    ReasonCode.TARGET_NOT_FOUND: "spec.targetRef: {target} does not exist in this namespace",
    ReasonCode.TARGET_NOT_SCALABLE: "spec.targetRef: {target} has no scale subresource",
    ReasonCode.TARGET_FORBIDDEN: (
        "spec.targetRef: our role does not allow {target}; grant get, list, watch and scale on it"
    ),
    ReasonCode.SCHEMA_MISMATCH: (
        "The installed {crd} does not match this operator; run: kubectl apply --server-side -f crds/"
    ),
    ReasonCode.REPLICAS_FROM_SPEC: "spec.replicas asks for {replicas}",
    ReasonCode.REPLICAS_FROM_SCALE: "The pool's /scale asks for {replicas}",
    ReasonCode.REPLICAS_REPAIRED: (
        "{managers} changed the replicas of an object that this pool owns; set back to {replicas}"
    ),
    ReasonCode.NO_REPLICAS_GIVEN: "spec.replicas is absent, so policy {policy} asks for nothing",
    ReasonCode.POLICY_NOT_YET_IMPLEMENTED: (
        "Policy {policy} is not available yet: the pool keeps the replicas that it started with"
    ),
    ReasonCode.SCALED_BY_AUTOSCALER: "{scaler} owns the replicas, so they are never written from here",
    ReasonCode.KNOB_CONTESTED: (
        "{managers} took {knob} of {target}; to take it back: kubectl trimtab resume {object} {knob}"
    ),
    ReasonCode.WAITS_FOR_APPROVAL: "Waits for approval of proposal {id}",
    ReasonCode.REPLICAS_SET: "{target}: replicas set from {was} to {value}: {why}",
    ReasonCode.REPLICAS_WOULD_BE_SET: "{target}: mode Observe; else replicas would go from {was} to {value}: {why}",
    ReasonCode.REPLICAS_PROPOSED: (
        "{target}: replicas {was} to {value} proposed: {why}; to approve: kubectl trimtab approve {object} {id}"
    ),
    ReasonCode.REPLICAS_REFUSED: "{target}: replicas {was} to {value} refused: {detail}",
    ReasonCode.GAVE_WAY: "{policy} wanted {wanted}, {winner} and the bounds allow {allowed}",
    ReasonCode.RELEASED: "A person released this object: nothing is changed until the annotation is removed",
    ReasonCode.RESTORED: "{target}: {knob} set back to {was}, the value before this pool held it",
    ReasonCode.KEPT: "{target}: {knob} stays at {value}; before this pool held it, it was {was}",
    ReasonCode.RESTORE_REFUSED: (
        "{target}: {knob} cannot be set back to {was}: {detail}; allow it, set spec.deletionPolicy to Keep, or run:"
        " kubectl trimtab release {object}"
    ),
    ReasonCode.DRIFT_REPAIRED: "{managers} changed {target}, which this pool owns; set back",
    ReasonCode.OBJECT_RECREATED: "{target} was deleted; created again",
    # Queues: clients of the gateway read these in the error's message.
    ReasonCode.QUEUE_FULL: "{waiting} requests already wait, as many as this pool allows",
    ReasonCode.QUEUE_TIMEOUT: "The request waited {waited_seconds} s, as long as this pool allows",
    ReasonCode.NO_READY_ENDPOINT: "No engine of this pool is ready; the request waited {waited_seconds} s for one",
    # Placement: the scheduler puts "N " before these and joins them with commas.
    ReasonCode.POWER_DOMAIN_FULL: (
        "node(s) in power domain {domain} with {left_watts} W of {usable_watts} W left for a pod of {pod_watts} W"
    ),
    ReasonCode.POWER_DOMAIN_HELD: (
        "node(s) in power domain {domain} with {left_watts} W of {usable_watts} W left for a pod of {pod_watts} W"
        " ({held_watts} W held for pods that are being bound)"
    ),
    ReasonCode.POWER_DOMAIN_TOO_SMALL: (
        "node(s) in power domain {domain} whose {usable_watts} W cannot power a pod of {pod_watts} W"
    ),
}


def say(reason: Reason) -> str:
    """Return the sentence for people: condition message, Event note, log field, report line."""
    values = {name: _number(value) for name, value in reason.numbers} | dict(reason.words)
    return WORDING[reason.code].format(subject=reason.subject, **values)


def _number(value: float) -> str:
    return f"{value:g}" if abs(value) < 1e6 else f"{value:.0f}"  # noqa: PLR2004 - six digits are what :g keeps
