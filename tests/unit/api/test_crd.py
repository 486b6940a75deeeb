"""The generated CustomResourceDefinitions, and what the generator refuses."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
import yaml
from pydantic import Field

from tests.support.objects import MODELS
from trimtab.api import crd
from trimtab.api.definition import Definition
from trimtab.api.keys import SCHEMA_HASH
from trimtab.api.wire import ChangeRule, Count, CustomObject, Record, Rule, Ruled

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = {definition.kind: crd.definition_of(definition) for definition in crd.DEFINITIONS}
BOUNDED = ("maxLength", "enum")


def _schema(kind: str) -> dict[str, Any]:
    root = DOCUMENTS[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert isinstance(root, dict)
    return root


def _fields(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every field below `schema` with its path; items of lists and values of maps too."""
    for name, child in schema.get("properties", {}).items():
        yield f"{path}.{name}", child
        yield from _fields(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield f"{path}[]", schema[key]
            yield from _fields(schema[key], f"{path}[]")


@pytest.fixture(params=sorted(DOCUMENTS))
def fields(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    found = dict(_fields(_schema(request.param), request.param))
    return {path: field for path, field in found.items() if not path.endswith(".metadata")}


def test_every_field_is_described_and_the_text_begins_with_its_name(fields: dict[str, dict[str, Any]]) -> None:
    wrong = [
        path
        for path, field in fields.items()
        if not path.endswith("[]") and not field.get("description", "").startswith(path.rsplit(".", 1)[-1] + " ")
    ]
    assert wrong == []


def test_every_list_has_a_list_type_and_a_bound(fields: dict[str, dict[str, Any]]) -> None:
    lists = {path: field for path, field in fields.items() if field.get("type") == "array"}
    assert [path for path, field in lists.items() if "maxItems" not in field] == []
    assert [path for path, field in lists.items() if "x-kubernetes-list-type" not in field] == []


def test_every_key_of_a_map_list_is_a_required_field_of_its_items(fields: dict[str, dict[str, Any]]) -> None:
    for path, field in fields.items():
        keys = field.get("x-kubernetes-list-map-keys", [])
        assert (field.get("x-kubernetes-list-type") == "map") == bool(keys), path
        assert set(keys) <= set(field["items"]["required"] if keys else []), path


def test_every_text_and_every_map_is_bounded(fields: dict[str, dict[str, Any]]) -> None:
    texts = {path: field for path, field in fields.items() if field.get("type") == "string"}
    assert [path for path, field in texts.items() if not any(bound in field for bound in BOUNDED)] == []
    maps = {path: field for path, field in fields.items() if "additionalProperties" in field}
    assert [path for path, field in maps.items() if "maxProperties" not in field] == []


def test_every_number_is_a_bounded_integer_with_a_format(fields: dict[str, dict[str, Any]]) -> None:
    assert [path for path, field in fields.items() if field.get("type") == "number"] == []
    for path, field in fields.items():
        if field.get("type") == "integer":
            assert field["minimum"] <= field["maximum"], path
            assert field["format"] == ("int32" if field["maximum"] < 2**31 else "int64"), path


def test_every_field_has_a_type_and_nothing_unstructural(fields: dict[str, dict[str, Any]]) -> None:
    for path, field in fields.items():
        assert "type" in field or field.get("x-kubernetes-int-or-string"), path
        assert not {"$ref", "oneOf", "allOf", "not", "const", "title", "$defs"} & field.keys(), path


def test_a_status_has_no_defaults_and_a_spec_says_each_of_its_own() -> None:
    for kind in DOCUMENTS:
        fields = dict(_fields(_schema(kind), kind))
        assert [path for path, field in fields.items() if ".status." in path and "default" in field] == []
        for path, field in fields.items():
            if "default" in field and field.get("type") != "object":
                default = field["default"]
                said = str(default).lower() if isinstance(default, bool) else str(default)
                assert f"Default: {said}." in field["description"], path


@pytest.mark.parametrize("kind", sorted(DOCUMENTS))
def test_every_rule_says_which_field_and_what_to_do(kind: str) -> None:
    nodes = [_schema(kind), *(field for _, field in _fields(_schema(kind), kind))]
    for rule in (rule for node in nodes for rule in node.get("x-kubernetes-validations", [])):
        field, colon, advice = rule["message"].partition(": ")
        assert colon, rule
        assert field[0].islower(), rule
        assert " " not in field, rule
        assert len(advice.split()) >= 4, rule


def test_the_files_are_those_that_are_committed_and_small() -> None:
    for folder in (ROOT / "crds", ROOT / "helm" / "trimtab" / "crds"):
        assert {path.name: path.read_text() for path in folder.iterdir()} == crd.files()
    assert all(len(text) < 100_000 for text in crd.files().values())
    assert all(not text.count("&id0") for text in crd.files().values())


def test_the_files_are_the_same_each_time_and_carry_the_hash_of_this_version() -> None:
    assert crd.files() == crd.files()
    assert (ROOT / "src/trimtab/api/schema_hashes.py").read_text() == crd.hashes_module()
    for text in crd.files().values():
        document = yaml.safe_load(text)
        kind = document["spec"]["names"]["kind"]
        assert document["metadata"]["annotations"][SCHEMA_HASH] == crd.schema_hash(kind)
    assert len(set(map(crd.schema_hash, MODELS))) == len(MODELS)


def test_an_unknown_kind_has_no_hash() -> None:
    with pytest.raises(KeyError):
        crd.schema_hash("Deployment")


def test_kinds_that_have_replicas_have_a_scale_subresource() -> None:
    for kind, document in DOCUMENTS.items():
        version = document["spec"]["versions"][0]
        scaled = "replicas" in _schema(kind)["properties"]["spec"].get("properties", {})
        assert ("scale" in version["subresources"]) == scaled
        for path in version["subresources"].get("scale", {}).values():
            _, part, field = path.split(".")
            assert field in _schema(kind)["properties"][part]["properties"]


def test_columns_are_known_fields_and_end_with_the_age() -> None:
    for kind, document in DOCUMENTS.items():
        columns = document["spec"]["versions"][0]["additionalPrinterColumns"]
        assert [column["name"] for column in columns[:2]] == ["Ready", "Reason"], kind
        assert columns[-1]["name"] == "Age", kind
        for column in columns:
            _, part, *rest = column["jsonPath"].split("[")[0].split(".")
            properties = _schema(kind)["properties"]
            assert part == "metadata" or rest[0] in properties[part]["properties"], column


# What the generator makes of a small kind, and what it refuses


def _convert(model: type[CustomObject]) -> dict[str, Any]:
    document = crd.definition_of(Definition(model, "things", "th", namespaced=True, columns=()))
    return document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]  # type: ignore[no-any-return]


class Part(Record):
    """A part."""

    size: Count = 3
    """size is how large it is."""


class ThingSpec(Ruled):
    """The spec of a thing."""

    part: Part = Part()
    """part is
    a part.

    It may be small.
    """
    maybe: Part | None = None
    """maybe is another part."""
    only: Literal["This"] = "This"
    """only is one word."""
    above: Annotated[int, Field(gt=0, lt=5)] = 1
    """above is between 0 and 5."""
    rules: ClassVar = (Rule(lambda _: True, "true", "spec.part: is right as it is"),)
    changes: ClassVar = (ChangeRule("self == oldSelf", "spec.part: cannot be changed at all"),)


class Thing(CustomObject):
    """A thing."""

    spec: ThingSpec
    status: Part = Part()


def test_references_are_inlined_and_the_field_keeps_its_own_description() -> None:
    schema = _convert(Thing)
    assert schema["properties"]["part"] == {
        "type": "object",
        "description": "part is a part.\n\nIt may be small.",
        "default": {"size": 3},
        "properties": {
            "size": {
                "type": "integer",
                "description": "size is how large it is.",
                "default": 3,
                "format": "int32",
                "maximum": 2**31 - 1,
                "minimum": 0,
            }
        },
    }


def test_an_optional_field_may_be_absent_and_has_no_null() -> None:
    maybe = _convert(Thing)["properties"]["maybe"]
    assert maybe["type"] == "object"
    assert "default" not in maybe
    assert "anyOf" not in maybe


def test_constants_and_exclusive_bounds_take_the_older_form() -> None:
    properties = _convert(Thing)["properties"]
    assert properties["only"]["enum"] == ["This"]
    above = properties["above"]
    assert (above["minimum"], above["exclusiveMinimum"]) == (0, True)
    assert (above["maximum"], above["exclusiveMaximum"]) == (5, True)


def test_rules_and_rules_of_change_reach_the_schema() -> None:
    assert [rule["rule"] for rule in _convert(Thing)["x-kubernetes-validations"]] == ["true", "self == oldSelf"]


class Tree(Record):
    """A tree."""

    left: "Tree | None" = None
    """left is a tree."""


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        (Tree, r"spec\.field\.left: Tree contains itself"),
        (int | str, r"spec\.field: a union"),
        (float, r"spec\.field: no floats"),
        (int, r"spec\.field: an integer needs a minimum"),
        (Annotated[int, Field(ge=0)], r"spec\.field: an integer needs a maximum"),
        (tuple[str, str], r"spec\.field: prefixItems"),
        (dict[Annotated[str, Field(pattern="^a")], str], r"spec\.field: patternProperties"),
    ],
)
def test_what_no_structural_schema_can_say_is_refused_with_its_path(annotation: Any, reason: str) -> None:
    spec = type("OddSpec", (Record,), {"__annotations__": {"field": annotation}, "__doc__": "Odd."})
    odd = type("Odd", (CustomObject,), {"__annotations__": {"spec": spec, "status": Part}, "__doc__": "Odd."})
    with pytest.raises(crd.NotStructuralError, match=rf"Odd\.{reason}"):
        crd.definition_of(Definition(odd, "odds", "odd", namespaced=True, columns=()))
