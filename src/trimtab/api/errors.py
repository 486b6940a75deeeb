"""Validation errors in the words of Kubernetes: the path of the field, then what is wrong with it."""

from dataclasses import dataclass

from pydantic import ValidationError


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing that is wrong with an object.

    Attributes:
        field: the path as Kubernetes writes it, e.g. `spec.models[0].name`.
        message: what is wrong and, for rules of ours, how to put it right.
    """

    field: str
    message: str

    def __str__(self) -> str:
        """Return both on one line."""
        return f"{self.field}: {self.message}"


def field_errors(error: ValidationError) -> tuple[FieldError, ...]:
    """Return what is wrong with an object, in the order of its fields."""
    return tuple(
        FieldError(_path(detail["loc"]), detail["msg"].removeprefix("Value error, "))
        for detail in error.errors(include_url=False, include_context=False, include_input=False)
    )


def _path(location: tuple[int | str, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".") or "object"
