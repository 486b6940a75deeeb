"""Naming an object on the command line, as kubectl does: `spool/chat -n ai`."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

import click

from trimtab.api.crd import DEFINITIONS
from trimtab.kube import Kube, NotFound, Object, Resource
from trimtab.kube.resources import TRIMTAB_KINDS
from trimtab.model.problem import Problem

Command = TypeVar("Command", bound=Callable[..., Any])
Result = TypeVar("Result")

MANAGER: Final = "trimtab-cli"

namespace_option = click.option(
    "-n", "--namespace", default="default", show_default=True, help="Namespace of the object, as with kubectl."
)


def find_kind(text: str) -> Resource:
    """Return the resource that a kind, plural or short name means, in any case.

    Raises:
        Problem: there is no such kind; the fix lists them.
    """
    wanted = text.lower()
    for definition in DEFINITIONS:
        if wanted in {definition.short, definition.plural, definition.kind.lower()}:
            return next(resource for resource in TRIMTAB_KINDS if resource.kind == definition.kind)
    known = ", ".join(f"{one.short} ({one.kind})" for one in DEFINITIONS)
    raise Problem(f"{text!r} is no kind of Trimtab", fix=f"use one of {known}")


def split(text: str) -> tuple[Resource, str]:
    """Return the kind and name that `KIND/NAME` means.

    Raises:
        Problem: it is not of that form, or there is no such kind.
    """
    kind, slash, name = text.partition("/")
    if not slash or not name:
        raise Problem(f"{text!r} does not name an object", fix="write KIND/NAME, e.g. spool/chat")
    return find_kind(kind), name


async def read(kube: Kube, text: str, namespace: str) -> tuple[Resource, Object]:
    """Return an object by its name on the command line.

    Raises:
        Problem: there is no such object.
    """
    resource, name = split(text)
    try:
        return resource, await kube.get(resource, name, namespace if resource.namespaced else None)
    except NotFound as error:
        where = f" in namespace {namespace}" if resource.namespaced else ""
        fix = f"kubectl get {resource.plural} -A" if resource.namespaced else f"kubectl get {resource.plural}"
        raise Problem(f"there is no {resource.kind} {name}{where}", fix=f"{fix} lists all of them") from error


async def annotate(kube: Kube, resource: Resource, obj: Object, key: str, value: str | None) -> None:
    """Set an annotation of an object, or remove it with None."""
    metadata = obj["metadata"]
    patch = {"metadata": {"annotations": {key: value}}}
    await kube.merge_patch(resource, metadata["name"], patch, metadata.get("namespace"))


def connected(work: Callable[[Kube], Awaitable[Result]]) -> Result:
    """Run `work` with a connection to the cluster of the current kubeconfig.

    Raises:
        KubeError: the server could not be asked, or refused.
    """

    async def run() -> Result:
        async with Kube.connect(field_manager=MANAGER) as kube:
            return await work(kube)

    call: Coroutine[Any, Any, Result] = run()
    return asyncio.run(call)
