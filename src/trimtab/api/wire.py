"""What every record on the Kubernetes wire shares: naming, strictness, bounded types, list types and rules."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule over several fields, said twice: for the API server and for Python.

    The table of objects in the tests runs through both, so that they cannot drift apart.

    Attributes:
        holds: the rule over a parsed record.
        cel: the same rule in CEL, where `self` is the record; it sees defaults already filled in.
        message: what a user reads when it is broken; it names the field and the fix.
    """

    holds: Callable[[Any], bool]
    cel: str
    message: str


@dataclass(frozen=True, slots=True)
class ChangeRule:
    """One rule over an update: only the API server sees both states.

    Attributes:
        cel: the rule in CEL, where `self` is the new record and `oldSelf` the stored one.
        message: what a user reads when it is broken; it names the field and the fix.
    """

    cel: str
    message: str


class Record(BaseModel):
    """A frozen record: camelCase on the wire, snake_case in Python.

    Unknown fields are ignored, since a live object may come from a newer version; `CustomObject.check` refuses them.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
        defer_build=True,  # a process pays for the kinds that it reads, not for all eight
    )

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON form: camelCase names, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Ruled(Record):
    """A record with rules across its fields; all the broken ones are named in one error."""

    rules: ClassVar[tuple[Rule, ...]] = ()
    changes: ClassVar[tuple[ChangeRule, ...]] = ()

    @model_validator(mode="after")
    def _keep_rules(self) -> Self:
        broken = [rule.message for rule in self.rules if not rule.holds(self)]
        if broken:
            raise ValueError("; ".join(broken))
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Carry the rules into the schema, where the CRD generator finds them."""
        json_schema = handler.resolve_ref_schema(handler(schema))
        rules: tuple[Rule | ChangeRule, ...] = (*cls.rules, *cls.changes)
        if rules:
            json_schema["x-kubernetes-validations"] = [{"rule": rule.cel, "message": rule.message} for rule in rules]
        return json_schema


@dataclass(frozen=True, slots=True)
class Keyed:
    """A list that is a map: no two items share the values of `keys`, and server-side apply merges by them."""

    keys: tuple[str, ...] = ("name",)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Refuse duplicates after the items are parsed."""
        return core_schema.no_info_after_validator_function(self._refuse_duplicates, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Mark the list as a map."""
        keys = [to_camel(key) for key in self.keys]
        return handler(schema) | {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys}

    def _refuse_duplicates(self, items: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(items) > 1:
            seen = set()
            for item in items:
                key = tuple(getattr(item, name) for name in self.keys)
                if key in seen:
                    raise ValueError(f"Duplicate value: {', '.join(map(str, key))} is listed twice; keep one of them")
                seen.add(key)
        return items


@dataclass(frozen=True, slots=True)
class Plain:
    """A list of one owner: `set` where order means nothing, `atomic` where it does."""

    list_type: str = "atomic"

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Refuse duplicates in a set."""
        inner = handler(source)
        return (
            inner
            if self.list_type == "atomic"
            else core_schema.no_info_after_validator_function(_refuse_repeats, inner)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Mark the list."""
        return handler(schema) | {"x-kubernetes-list-type": self.list_type}


def _refuse_repeats(items: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(items)) != len(items):
        raise ValueError("Duplicate value: an item is listed twice; keep one of them")
    return items


Percent = Annotated[int, Field(strict=True, ge=1, le=100)]
Permille = Annotated[int, Field(strict=True, ge=0, le=1000)]
Count = Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)]
BigCount = Annotated[int, Field(strict=True, ge=0, le=2**53 - 1)]
Positive = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]
Replicas = Annotated[int, Field(strict=True, ge=0, le=10_000)]
Port = Annotated[int, Field(strict=True, ge=1, le=65_535)]
Seconds = Annotated[int, Field(strict=True, ge=1, le=604_800)]
Milliseconds = Annotated[int, Field(strict=True, ge=1, le=3_600_000)]
Watts = Annotated[int, Field(strict=True, ge=0, le=2**53 - 1)]
Celsius = Annotated[int, Field(strict=True, ge=-50, le=150)]
Weight = Annotated[int, Field(strict=True, ge=1, le=1000)]
Switch = Annotated[bool, Field(strict=True)]

SERVICE_NAME = re.compile("[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
LABEL_KEY = r"^([-.a-z0-9]+/)?[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$"
SUBDOMAIN = r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"
DnsLabel = Annotated[str, Field(min_length=1, max_length=63, pattern=LABEL)]
DnsName = Annotated[str, Field(min_length=1, max_length=253, pattern=SUBDOMAIN)]
VariantName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-._a-z0-9]*[a-z0-9])?$")]
ModelName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9]([-._:/A-Za-z0-9]*[A-Za-z0-9])?$")]
LabelKey = Annotated[str, Field(min_length=1, max_length=317, pattern=LABEL_KEY)]
LabelValue = Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?)?$")]
CamelCase = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9]*$")]
Uri = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[a-z][-+.a-z0-9]*://[^\s]+$")]
HttpUrl = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^https?://[^\s]+$")]
Word = Annotated[str, Field(max_length=253)]
Text = Annotated[str, Field(max_length=1024)]
Prose = Annotated[str, Field(max_length=8192)]
Decimal = Annotated[str, Field(max_length=32, pattern=r"^-?[0-9]+(\.[0-9]+)?$")]
Time = Annotated[AwareDatetime, WithJsonSchema({"type": "string", "format": "date-time", "maxLength": 64})]

QUANTITY = r"^[0-9]+(\.[0-9]{1,3})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Quantity = Annotated[
    str,
    Field(max_length=32, pattern=QUANTITY),
    BeforeValidator(_as_text),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "maxLength": 32,
            "pattern": QUANTITY,
            "x-kubernetes-int-or-string": True,
        }
    ),
]
"""A Kubernetes quantity such as `100m`, `4` or `8Gi`; `trimtab.api.quantity` turns it into a number."""


class OwnerReference(Record):
    """The object that owns another one."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool = False


class Metadata(Record):
    """The part of ObjectMeta that Trimtab reads."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: AwareDatetime | None = None
    deletion_timestamp: AwareDatetime | None = None
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[OwnerReference, ...] = ()


SERVICE_NAME_RULE = Rule(
    lambda owner: SERVICE_NAME.fullmatch(owner.metadata.name) is not None,
    f"self.metadata.name.matches('^{SERVICE_NAME.pattern}$')",
    "metadata.name: names a Service: use up to 63 lower-case letters, digits and '-', first a letter",
)


class CustomObject(Ruled):
    """A custom resource as the API server stores it; `spec` and `status` come with each kind."""

    metadata: Metadata

    @classmethod
    def check(cls, document: Mapping[str, Any]) -> Self:
        """Parse what a person wrote: as the API server does with strict field validation, unknown fields are errors.

        Raises:
            pydantic.ValidationError: names each field that is wrong, with the reason.
        """
        body = _without_nulls(document) | {"metadata": {"name": "", **_known(document.get("metadata", {}))}}
        return cls.model_validate(body, extra="forbid", by_alias=True, by_name=False)


def _without_nulls(node: Any) -> Any:
    """Drop what is null, as the API server does: it means absent."""
    if isinstance(node, Mapping):
        return {key: _without_nulls(value) for key, value in node.items() if value is not None}
    return [_without_nulls(item) for item in node] if isinstance(node, list) else node


def _known(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Drop what Trimtab does not read of ObjectMeta: the API server checks it, not the kind's schema."""
    known = {to_camel(name) for name in Metadata.model_fields}
    return {name: value for name, value in metadata.items() if name in known}
