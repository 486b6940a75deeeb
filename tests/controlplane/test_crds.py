"""The CustomResourceDefinitions on a real API server: accepted, validating as pydantic does, readable."""

import asyncio
import re
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import yaml
from pydantic.fields import FieldInfo

from tests.support.kubectl import kubectl
from tests.support.objects import CASES, MINIMAL, Case
from tests.support.until import until
from trimtab.api import crd
from trimtab.api.definition import Definition
from trimtab.api.keys import GROUP, SCHEMA_HASH, VERSION
from trimtab.api.wire import Record
from trimtab.kube import BadRequest, Invalid, Kube, KubeError
from trimtab.kube.resources import CRDS, TRIMTAB_KINDS
from trimtab.local.cluster import LocalCluster

RESOURCES = {resource.kind: resource for resource in TRIMTAB_KINDS}
DEFINITIONS = {definition.kind: definition for definition in crd.DEFINITIONS}


@pytest.fixture(autouse=True)
async def definitions(kube: Kube) -> dict[str, dict[str, Any]]:
    """The definitions of this version, applied and served."""
    applied = {}
    for text in crd.files().values():
        document = yaml.safe_load(text)
        applied[document["spec"]["names"]["kind"]] = await kube.apply(CRDS, document, force=True)
    for name in [document["metadata"]["name"] for document in applied.values()]:
        await until(lambda name=name: _established(kube, name))
    return applied


def _conditions(document: dict[str, Any]) -> dict[str, str]:
    return {one["type"]: one["status"] for one in document.get("status", {}).get("conditions", [])}


async def _established(kube: Kube, name: str) -> bool:
    return _conditions(await kube.get(CRDS, name)).get("Established") == "True"


async def _create(kube: Kube, document: dict[str, Any], *, dry_run: bool = True) -> dict[str, Any]:
    """Create strictly: unknown fields are errors, as kubectl has it."""
    resource = RESOURCES[document["kind"]]
    query = {"fieldValidation": "Strict"} | ({"dryRun": "All"} if dry_run else {})
    created = await kube.request("POST", resource.path(document["metadata"].get("namespace")), document, query=query)
    assert isinstance(created, dict)
    return created


async def test_the_definitions_are_established_and_structural(
    kube: Kube, definitions: dict[str, dict[str, Any]]
) -> None:
    assert set(definitions) == set(MINIMAL)
    for kind, document in definitions.items():
        stored = await kube.get(CRDS, document["metadata"]["name"])
        conditions = _conditions(stored)
        assert conditions.get("NamesAccepted") == "True", kind
        assert "NonStructuralSchema" not in conditions, kind
        assert stored["metadata"]["annotations"][SCHEMA_HASH] == crd.schema_hash(kind)


async def test_the_verdicts_and_the_fields_agree_with_pydantic_for_every_object(kube: Kube, namespace: str) -> None:
    """One test, so that the round trips overlap; `tests/unit/api/test_objects.py` has pydantic's side."""
    slots = asyncio.Semaphore(16)

    async def judge(case: Case) -> str | None:
        async with slots:
            try:
                await _create(kube, case.document(namespace))
            except (Invalid, BadRequest) as refusal:
                verdict = str(refusal)
            else:
                verdict = ""
        if case.good:
            return f"{case}: refused: {verdict}" if verdict else None
        return None if case.field in verdict else f"{case}: expected {case.field} in: {verdict or 'accepted'}"

    complaints = [complaint for complaint in await asyncio.gather(*map(judge, CASES)) if complaint]
    assert not complaints, "\n".join(complaints)


async def test_defaults_are_filled_in_by_the_server_as_by_pydantic(kube: Kube, namespace: str) -> None:
    for case in (case for case in CASES if case.title in {"minimal", "everything set"}):
        stored = await _create(kube, case.document(namespace))
        model = DEFINITIONS[case.kind].model
        assert model.check(stored).spec == model.check(case.document(namespace)).spec, case
        assert _within(stored["spec"], model.check(case.document(namespace)).to_wire()["spec"]), case


def _within(part: Any, whole: Any) -> bool:
    """Whether everything in `part` is in `whole`; pydantic also writes out empty lists."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(name in whole and _within(value, whole[name]) for name, value in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return len(part) == len(whole) and all(map(_within, part, whole))
    return bool(part == whole)


def _described(schema: dict[str, Any], path: str) -> Iterator[str]:
    """Yield the paths of fields without a description."""
    for name, child in schema.get("properties", {}).items():
        field = f"{path}.{name}"
        if not (child.get("description") or any(part.get("description") for part in child.get("allOf", []))):
            yield field
        yield from _described(child, field)
    for inner in (schema.get("items"), schema.get("additionalProperties")):
        if isinstance(inner, dict):
            yield from _described(inner, f"{path}[]")


async def test_the_published_schema_explains_every_field(kube: Kube) -> None:
    """`kubectl explain` reads this document."""
    document = await _published(kube)
    schemas = document["components"]["schemas"]
    for kind in RESOURCES:
        schema = next(body for name, body in schemas.items() if name.endswith(f".{VERSION}.{kind}"))
        assert list(_described(schema, kind)) == []


async def _published(kube: Kube) -> dict[str, Any]:
    """The OpenAPI document of the group, once the server has published all eight kinds."""

    async def probe() -> dict[str, Any] | None:
        try:
            document: dict[str, Any] = await kube.request("GET", f"/openapi/v3/apis/{GROUP}/{VERSION}")
        except KubeError:
            return None
        names = document["components"]["schemas"]
        complete = all(any(name.endswith(f".{VERSION}.{kind}") for name in names) for kind in RESOURCES)
        return document if complete else None

    return await until(probe)


async def test_discovery_has_short_names_categories_and_scale(kube: Kube) -> None:
    document = await kube.request("GET", f"/apis/{GROUP}/{VERSION}")
    found = {entry["name"]: entry for entry in document["resources"]}
    for kind, definition in DEFINITIONS.items():
        entry = found[definition.plural]
        assert (entry["kind"], entry["shortNames"]) == (kind, [definition.short])
        assert entry["categories"] == ["trimtab"]
        assert f"{definition.plural}/status" in found
        assert (f"{definition.plural}/scale" in found) == definition.scaled


async def test_the_columns_of_a_pool_show_its_state(kube: Kube, cluster: LocalCluster, namespace: str) -> None:
    pool = {"kind": "ServingPool", "apiVersion": f"{GROUP}/{VERSION}", "spec": MINIMAL["ServingPool"]}
    await _create(kube, pool | {"metadata": {"name": "chat", "namespace": namespace}}, dry_run=False)
    resource = RESOURCES["ServingPool"]
    ready = {
        "type": "Ready",
        "status": "False",
        "reason": "NotEnoughReplicas",
        "message": "0 of 1 replicas are Ready",
        "lastTransitionTime": "2031-01-01T00:00:00Z",
    }
    status = {"status": {"conditions": [ready], "readyReplicas": 0, "replicas": 1}}
    await kube.merge_patch(resource, "chat", status, namespace=namespace, subresource="status")

    heading, row = (await kubectl(cluster, "get", "spool", "-n", namespace)).splitlines()

    assert re.split(r"\s{2,}", heading.strip()) == [
        "NAME",
        "READY",
        "REASON",
        "DESIRED",
        "READY REPLICAS",
        "OBJECTIVES",
        "MODE",
        "AGE",
    ]
    assert row.split()[:5] == ["chat", "False", "NotEnoughReplicas", "1", "0"]
    assert "Observe" in row


async def test_the_category_lists_every_kind(kube: Kube, cluster: LocalCluster, namespace: str) -> None:
    for kind in MINIMAL:
        document = Case(kind, "", {"metadata.name": f"of-{namespace}"}).document(namespace)
        await _create(kube, document, dry_run=False)
    listed = await kubectl(cluster, "get", "trimtab", "-A", "-o", "name")
    names = {line.split(".")[0] for line in listed.splitlines() if line.endswith(f"/of-{namespace}")}
    assert names == {kind.lower() for kind in MINIMAL}
    for kind in MINIMAL:
        path = RESOURCES[kind].path(namespace, f"of-{namespace}")
        await kube.request("DELETE", path)


@pytest.mark.parametrize("definition", crd.DEFINITIONS, ids=lambda definition: definition.kind)
async def test_explain_reads_well(kube: Kube, cluster: LocalCluster, definition: Definition) -> None:
    await _published(kube)
    text = await kubectl(cluster, "explain", f"{definition.short}.spec")
    assert f"KIND:       {definition.kind}" in text
    fields = re.findall(r"^  (\w+)\t<", text, re.MULTILINE)
    assert set(fields) == {info.alias or name for name, info in _spec_fields(definition)}
    for field in fields:
        assert re.search(rf"^    {field} ", text, re.MULTILINE), f"the text of {field} begins with its name"


def _spec_fields(definition: Definition) -> Iterable[tuple[str, FieldInfo]]:
    spec = definition.model.model_fields["spec"].annotation
    assert spec is not None
    assert issubclass(spec, Record)
    return spec.model_fields.items()


@pytest.mark.parametrize("kind", ["ServingPool", "MultimodalStage"])
async def test_scale_reads_and_writes_replicas(kube: Kube, namespace: str, kind: str) -> None:
    document = {"kind": kind, "apiVersion": f"{GROUP}/{VERSION}", "spec": MINIMAL[kind]}
    await _create(kube, document | {"metadata": {"name": "chat", "namespace": namespace}}, dry_run=False)
    resource = RESOURCES[kind]
    status = {"status": {"replicas": 2, "selector": "trimtab.dev/pool=chat"}}
    await kube.merge_patch(resource, "chat", status, namespace=namespace, subresource="status")

    patch = {"spec": {"replicas": 7}}
    scale = await kube.merge_patch(resource, "chat", patch, namespace=namespace, subresource="scale")

    assert (scale["kind"], scale["spec"]) == ("Scale", patch["spec"])
    assert scale["status"] == {"replicas": 2, "selector": "trimtab.dev/pool=chat"}
    assert (await kube.get(resource, "chat", namespace=namespace))["spec"]["replicas"] == 7
    too_many = {"spec": {"replicas": 10_001}}
    with pytest.raises(Invalid, match="replicas"):
        await kube.merge_patch(resource, "chat", too_many, namespace=namespace, subresource="scale")


@pytest.mark.parametrize(
    ("change", "field"),
    [({"role": "Decode"}, "spec.role"), ({"pipelineRef": {"name": "other"}}, "spec.pipelineRef")],
)
async def test_a_stage_keeps_its_role_and_its_pipeline(
    kube: Kube, namespace: str, change: dict[str, Any], field: str
) -> None:
    stage = {"kind": "MultimodalStage", "apiVersion": f"{GROUP}/{VERSION}", "spec": MINIMAL["MultimodalStage"]}
    await _create(kube, stage | {"metadata": {"name": "encode", "namespace": namespace}}, dry_run=False)
    with pytest.raises(Invalid, match=field):
        await kube.merge_patch(RESOURCES["MultimodalStage"], "encode", {"spec": change}, namespace=namespace)


async def test_an_object_stored_under_a_laxer_definition_stays_updatable(kube: Kube, namespace: str) -> None:
    """Ratcheting: what was stored may stay as it is; only what is changed must be right."""
    resource = RESOURCES["ServingPool"]
    current = yaml.safe_load(crd.files()[f"{GROUP}_servingpools.yaml"])
    lax = yaml.safe_load(crd.files()[f"{GROUP}_servingpools.yaml"])
    spec = lax["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    del spec["properties"]["engine"]["properties"]["port"]["maximum"]
    del spec["properties"]["scaling"]["x-kubernetes-validations"]
    pool = {"kind": "ServingPool", "apiVersion": f"{GROUP}/{VERSION}", "spec": dict(MINIMAL["ServingPool"])}
    pool["metadata"] = {"name": "old", "namespace": namespace}
    pool["spec"] |= {"engine": {"port": 70_000}, "scaling": {"policy": "External", "minReplicas": 5, "maxReplicas": 2}}

    await kube.apply(CRDS, lax, force=True)
    await until(lambda: _accepted(kube, pool, dry_run=False))
    await kube.apply(CRDS, current, force=True)
    twin = pool | {"metadata": {"name": "twin", "namespace": namespace}}
    await until(lambda: _refused(kube, twin))

    await kube.merge_patch(resource, "old", {"metadata": {"labels": {"seen": "yes"}}}, namespace=namespace)
    await kube.merge_patch(resource, "old", {"spec": {"replicas": 2}}, namespace=namespace)
    status = {"status": {"readyReplicas": 1}}
    await kube.merge_patch(resource, "old", status, namespace=namespace, subresource="status")
    with pytest.raises(Invalid, match="port"):
        await kube.merge_patch(resource, "old", {"spec": {"engine": {"port": 70_001}}}, namespace=namespace)
    await kube.merge_patch(resource, "old", {"spec": {"engine": {"port": 8000}}}, namespace=namespace)


async def _accepted(kube: Kube, document: dict[str, Any], *, dry_run: bool) -> bool:
    try:
        await _create(kube, document, dry_run=dry_run)
    except Invalid:
        return False
    return True


async def _refused(kube: Kube, document: dict[str, Any]) -> bool:
    """The server takes a moment to serve a changed definition."""
    return not await _accepted(kube, document, dry_run=True)
