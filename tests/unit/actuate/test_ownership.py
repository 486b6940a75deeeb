from typing import Any

from trimtab.actuate.ownership import fingerprint, latest_writer, only_apply_holds_replicas, replica_writers
from trimtab.model.pool import Writer

US = "trimtab-operator"


def an_object(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"managedFields": list(entries)}}


def owns(
    manager: str, operation: str = "Update", subresource: str = "", time: str = "", **fields: Any
) -> dict[str, Any]:
    entry = {"manager": manager, "operation": operation, "fieldsV1": {"f:spec": fields or {"f:replicas": {}}}}
    return entry | ({"subresource": subresource} if subresource else {}) | ({"time": time} if time else {})


def test_the_fingerprint_is_of_our_apply_alone() -> None:
    ours = owns(US, "Apply", **{"f:template": {}})
    assert fingerprint(an_object(ours), US) == fingerprint(an_object(ours, owns("kubectl"), owns(US)), US) != ""
    assert fingerprint(an_object(owns(US), owns(US, "Apply", "scale")), US) == ""


def test_the_fingerprint_changes_when_a_field_is_lost_and_not_with_their_order() -> None:
    both = owns(US, "Apply", **{"f:a": {}, "f:b": {}})
    assert fingerprint(an_object(both), US) == fingerprint(an_object(owns(US, "Apply", **{"f:b": {}, "f:a": {}})), US)
    assert fingerprint(an_object(both), US) != fingerprint(an_object(owns(US, "Apply", **{"f:a": {}})), US)


def test_the_writers_of_replicas_are_named_with_how_they_write() -> None:
    found = replica_writers(
        an_object(owns("kubectl", subresource="scale"), owns("flux", "Apply"), owns("x", **{"f:y": {}})), US
    )
    assert found == (False, (Writer("flux", declarative=True), Writer("kubectl")))
    assert replica_writers(an_object(owns(US, subresource="scale")), US) == (True, ())


def test_an_object_without_managed_fields_has_no_writers() -> None:
    assert replica_writers({"metadata": {}}, US) == (False, ())


def test_replicas_must_be_handed_over_only_while_nothing_else_owns_them() -> None:
    ours = owns(US, "Apply")
    assert only_apply_holds_replicas(an_object(ours), US)
    assert not only_apply_holds_replicas(an_object(ours, owns(US, "Apply", "scale")), US)
    assert not only_apply_holds_replicas(an_object(ours, owns("autoscaler", subresource="scale")), US)
    assert not only_apply_holds_replicas(an_object(owns("autoscaler")), US)


def test_the_latest_writer_of_the_object_is_blamed_not_of_its_status() -> None:
    obj = an_object(
        owns("kubectl-edit", time="2026-01-02T00:00:00Z"),
        owns("helm", time="2026-01-01T00:00:00Z"),
        owns("controller", subresource="status", time="2026-01-03T00:00:00Z"),
        owns(US, "Apply", time="2026-01-04T00:00:00Z"),
    )
    assert latest_writer(obj, US) == "kubectl-edit"
    assert latest_writer(an_object(owns(US, "Apply")), US) == "somebody"
