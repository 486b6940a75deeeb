"""What something is about: a reference to an object, or to a named part of one."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """A reference to one object, or to one part of it.

    Attributes:
        kind: the object's kind, e.g. `ServingPool`.
        namespace: empty for cluster-scoped objects.
        name: the object's name.
        part: a container, stage, model or queue inside the object; empty for the whole.
    """

    kind: str
    namespace: str
    name: str
    part: str = ""

    def __str__(self) -> str:
        """Return `Kind/namespace/name[:part]`, the form that logs and messages use."""
        path = "/".join(piece for piece in (self.kind, self.namespace, self.name) if piece)
        return f"{path}:{self.part}" if self.part else path
