"""How a kind is presented by the API server: names, scope, columns and the scale subresource."""

from dataclasses import dataclass

from trimtab.api.wire import CustomObject


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`.

    Attributes:
        name: its heading.
        path: JSON path of the value.
        description: what `kubectl get -o wide` readers may want to know.
        type: `string`, `integer` or `date`.
        wide: show it with `-o wide` only.
    """

    name: str
    path: str
    description: str
    type: str = "string"
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Definition:
    """A kind as it is registered.

    Attributes:
        model: the pydantic model; its docstring describes the kind.
        plural: the resource name.
        short: the short name for kubectl.
        namespaced: whether its objects live in namespaces.
        columns: what `kubectl get` shows between the name and the age.
        scaled: whether it has `/scale`, on `spec.replicas`, `status.replicas` and `status.selector`.
    """

    model: type[CustomObject]
    plural: str
    short: str
    namespaced: bool
    columns: tuple[Column, ...]
    scaled: bool = False

    @property
    def kind(self) -> str:
        """The kind's name."""
        return self.model.__name__


READY = Column("Ready", '.status.conditions[?(@.type=="Ready")].status', "Whether the object is as specified.")
REASON = Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', "Why it is, or is not.")
MODE = Column("Mode", ".spec.mode", "What policies may change: Observe, Propose or Enforce.")
