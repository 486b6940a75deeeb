"""CustomResourceDefinitions from the pydantic models; `make gen` writes them into `crds/` and the chart.

Kubernetes wants *structural* OpenAPI 3.0 schemas, which are narrower than the JSON schema that pydantic writes: no
references, no unions, every value typed. What cannot be said in one is refused here, with the path of the field.
"""

import hashlib
import json
from inspect import cleandoc
from typing import Any

import yaml

from trimtab.api.definition import Column, Definition
from trimtab.api.keys import GROUP, SCHEMA_HASH, VERSION
from trimtab.api.microservice_slo import MICROSERVICE_SLO
from trimtab.api.multimodal_pipeline import MULTIMODAL_PIPELINE
from trimtab.api.multimodal_stage import MULTIMODAL_STAGE
from trimtab.api.node_policy import NODE_POLICY
from trimtab.api.node_state import NODE_STATE
from trimtab.api.power_domain import POWER_DOMAIN
from trimtab.api.schema_hashes import SCHEMA_HASHES
from trimtab.api.serving_pool import SERVING_POOL
from trimtab.api.shared_budget import SHARED_BUDGET

DEFINITIONS = (
    SERVING_POOL,
    MULTIMODAL_PIPELINE,
    MULTIMODAL_STAGE,
    MICROSERVICE_SLO,
    POWER_DOMAIN,
    SHARED_BUDGET,
    NODE_POLICY,
    NODE_STATE,
)

CATEGORY = "trimtab"
HEADER = "# Generated from src/trimtab/api by `make gen`: do not edit.\n"
AGE = Column("Age", ".metadata.creationTimestamp", "Time since the object was created.", "date")
INT32 = 2**31 - 1

API_VERSION_TEXT = "apiVersion is the group and version of this object: `trimtab.dev/v1alpha1`."
KIND_TEXT = "kind is the kind of this object."

DROPPED = frozenset({"title", "examples"})
FIRST = ("type", "description", "default", "enum", "format", "required", "properties", "items")
REFUSED = frozenset({"prefixItems", "patternProperties", "propertyNames", "oneOf", "allOf", "not", "$defs"})


class NotStructuralError(ValueError):
    """A model cannot be said as a structural schema; the message has the path of the field and the reason."""


def schema_hash(kind: str) -> str:
    """Return the hash of the kind's definition that this version of Trimtab was built with.

    It equals the annotation `trimtab.dev/schema-hash` of the CRD if the cluster has that very definition.

    Raises:
        KeyError: no such kind.
    """
    return SCHEMA_HASHES[kind]


def definition_of(definition: Definition) -> dict[str, Any]:
    """Return the CustomResourceDefinition object of one kind.

    Raises:
        NotStructuralError: a field cannot be expressed; the message names it.
    """
    spec = _crd_spec(definition)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{definition.plural}.{GROUP}",
            "annotations": {SCHEMA_HASH: _digest(spec)},
            "labels": {"app.kubernetes.io/name": "trimtab"},
        },
        "spec": spec,
    }


def _crd_spec(definition: Definition) -> dict[str, Any]:
    subresources: dict[str, Any] = {"status": {}}
    if definition.scaled:
        subresources["scale"] = {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        }
    return {
        "group": GROUP,
        "scope": "Namespaced" if definition.namespaced else "Cluster",
        "names": {
            "kind": definition.kind,
            "listKind": f"{definition.kind}List",
            "plural": definition.plural,
            "singular": definition.kind.lower(),
            "shortNames": [definition.short],
            "categories": [CATEGORY],
        },
        "versions": [
            {
                "name": VERSION,
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": _root_schema(definition)},
                "subresources": subresources,
                "additionalPrinterColumns": [_column(column) for column in (*definition.columns, AGE)],
            }
        ],
    }


def _column(column: Column) -> dict[str, Any]:
    shown = {"name": column.name, "type": column.type, "jsonPath": column.path, "description": column.description}
    return shown | ({"priority": 1} if column.wide else {})


def _digest(spec: dict[str, Any]) -> str:
    canonical = json.dumps(spec, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _root_schema(definition: Definition) -> dict[str, Any]:
    raw = definition.model.model_json_schema(by_alias=True)
    parts, definitions = raw["properties"], raw.get("$defs", {})
    head = {"type": "object", "description": _flowing(raw["description"]), "required": ["spec"]}
    rules = {key: raw[key] for key in ("x-kubernetes-validations",) if key in raw}
    return {
        **head,
        "properties": {
            "apiVersion": {"type": "string", "description": API_VERSION_TEXT, "maxLength": 64},
            "kind": {"type": "string", "description": KIND_TEXT, "maxLength": 64},
            "metadata": {"type": "object"},  # the API server describes it itself
            "spec": _Structural(definitions).convert(parts["spec"], f"{definition.kind}.spec"),
            # What nobody has observed must not look observed: a status has no defaults.
            "status": _Structural(definitions, defaults=False).convert(parts["status"], f"{definition.kind}.status"),
        },
        **rules,
    }


class _Structural:
    """Converts one JSON schema of pydantic, with its definitions, into a structural schema."""

    def __init__(self, definitions: dict[str, Any], *, defaults: bool = True) -> None:
        self._definitions = definitions
        self._dropped = DROPPED if defaults else DROPPED | {"default"}

    def convert(self, node: dict[str, Any], path: str, trail: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return the structural form of `node`; `trail` holds the definitions that are being inlined."""
        node, trail = self._inlined(node, path, trail)
        node = _collapsed(node, path)
        if "$ref" in node:
            node, trail = self._inlined(node, path, trail)
        schema = {key: value for key, value in node.items() if key not in self._dropped}
        for key in sorted(REFUSED & schema.keys()):
            raise NotStructuralError(f"{path}: {key} cannot be said in a structural schema")
        _normalize(schema, path)
        schema = {key: schema[key] for key in sorted(schema, key=_reading_order)}
        if "properties" in schema:
            schema["properties"] = {
                name: self.convert(child, f"{path}.{name}", trail) for name, child in schema["properties"].items()
            }
        if isinstance(schema.get("items"), dict):
            schema["items"] = self.convert(schema["items"], f"{path}[]", trail)
        if isinstance(schema.get("additionalProperties"), dict):
            schema["additionalProperties"] = self.convert(schema["additionalProperties"], f"{path}.*", trail)
        return schema

    def _inlined(
        self, node: dict[str, Any], path: str, trail: tuple[str, ...]
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        if "$ref" not in node:
            return node, trail
        name = node["$ref"].rsplit("/", 1)[-1]
        if name in trail:
            raise NotStructuralError(f"{path}: {name} contains itself, and a structural schema cannot recurse")
        siblings = {key: value for key, value in node.items() if key != "$ref"}
        return {**self._definitions[name], **siblings}, (*trail, name)


def _collapsed(node: dict[str, Any], path: str) -> dict[str, Any]:
    """Turn `X | None` into X that may be absent; refuse every other union."""
    if "anyOf" not in node or "x-kubernetes-int-or-string" in node:
        return node
    options = [option for option in node["anyOf"] if option != {"type": "null"}]
    if len(options) != 1:
        raise NotStructuralError(f"{path}: a union of several types cannot be said in a structural schema")
    siblings = {
        key: value for key, value in node.items() if key != "anyOf" and not (key == "default" and value is None)
    }
    return {**options[0], **siblings}


def _normalize(schema: dict[str, Any], path: str) -> None:
    """Bring keywords of JSON schema 2020-12 into the form of OpenAPI 3.0, in place."""
    if "const" in schema:
        schema["enum"] = [schema.pop("const")]
    if schema.get("additionalProperties") is False:
        del schema["additionalProperties"]
    if "description" in schema:
        schema["description"] = _flowing(schema["description"])
    if "default" in schema:
        _tidy_default(schema)
    if schema.get("type") == "integer":
        _bound(schema, path)
    if schema.get("type") == "number":
        raise NotStructuralError(f"{path}: no floats: use an integer with the unit in its name")


def _reading_order(key: str) -> tuple[int, str]:
    return (FIRST.index(key) if key in FIRST else len(FIRST), key)


def _bound(schema: dict[str, Any], path: str) -> None:
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if exclusive in schema:
            schema[bound], schema[exclusive] = schema[exclusive], True
        if bound not in schema:
            raise NotStructuralError(f"{path}: an integer needs a {bound}")
    schema["format"] = "int32" if schema["maximum"] <= INT32 else "int64"


def _tidy_default(schema: dict[str, Any]) -> None:
    default = _present(schema["default"])
    if default in ([], {}):
        del schema["default"]
    else:
        schema["default"] = default


def _present(value: Any) -> Any:
    """Drop what is absent from a default, so that it stays absent in the object."""
    if isinstance(value, dict):
        return {key: _present(item) for key, item in value.items() if item is not None and item not in ([], {})}
    return value


def _flowing(text: str) -> str:
    """Join the lines of each paragraph, since readers wrap by themselves."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in cleandoc(text).split("\n\n"))


class _Plain(yaml.SafeDumper):
    """Writes every value out: anchors would be harder to read."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def files() -> dict[str, str]:
    """Return the content of each generated CRD file, by its name."""
    return {f"{GROUP}_{one.plural}.yaml": HEADER + _as_yaml(definition_of(one)) for one in DEFINITIONS}


def _as_yaml(document: dict[str, Any]) -> str:
    return yaml.dump(document, Dumper=_Plain, sort_keys=False, width=110, allow_unicode=True)


def hashes_module() -> str:
    """Return the source of `schema_hashes.py`."""
    lines = [
        '"""The hash of each CustomResourceDefinition that belongs to this version. Generated by `make gen`."""',
        "",
        "SCHEMA_HASHES = {",
        *(f'    "{one.kind}": "{_digest(_crd_spec(one))}",' for one in DEFINITIONS),
        "}",
        "",
    ]
    return "\n".join(lines)
