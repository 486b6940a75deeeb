"""The one adapter over the Kubernetes client."""

from trimtab.kube.client import Kube, Listing, Object
from trimtab.kube.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    KubeError,
    NotFound,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from trimtab.kube.resources import Resource
from trimtab.kube.watch import Event, EventType, list_then_watch

__all__ = [
    "AlreadyExists",
    "BadRequest",
    "Conflict",
    "Event",
    "EventType",
    "Forbidden",
    "Gone",
    "Invalid",
    "Kube",
    "KubeError",
    "Listing",
    "NotFound",
    "Object",
    "Resource",
    "TooManyRequests",
    "Unauthorized",
    "Unavailable",
    "list_then_watch",
]
