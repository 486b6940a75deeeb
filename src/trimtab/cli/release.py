"""`trimtab release`: give back every knob that Trimtab holds, and take its finalizers off."""

import asyncio
import time

import click

from trimtab.actuate.release import give_back, is_held
from trimtab.api import keys
from trimtab.cli.objects import annotate, connected, namespace_option, read
from trimtab.kube import Kube, NotFound, Object, Resource
from trimtab.kube.resources import TRIMTAB_KINDS
from trimtab.model.problem import Problem

_POLL_SECONDS = 0.25

Found = list[tuple[Resource, Object]]


@click.command()
@click.argument("named", metavar="OBJECT", required=False)
@click.option("--all", "everything", is_flag=True, help="Release every object of every kind, in all namespaces.")
@click.option("--undo", is_flag=True, help="Let released objects act again.")
@click.option(
    "--wait-seconds",
    default=15.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="How long the operator may take; what it does not do in time is done from here.",
)
@namespace_option
def release(named: str | None, everything: bool, undo: bool, wait_seconds: float, namespace: str) -> None:
    """Release OBJECT, or everything with --all: knobs are given back, finalizers removed.

    Sizes are restored or kept as each object's `deletionPolicy` says. A released object changes nothing until
    `--undo`. Works without a running operator, so that nothing is stuck after it is gone.
    """
    if (named is None) != everything:
        raise Problem("name one object, or give --all", fix="e.g. trimtab release spool/chat -n ai")

    async def work(kube: Kube) -> list[str]:
        found = await _all(kube) if named is None else [await read(kube, named, namespace)]
        if undo:
            return await _undo(kube, found)
        return await _release(kube, found, wait_seconds)

    for line in connected(work):
        click.echo(line)


async def _all(kube: Kube) -> Found:
    found: Found = []
    for resource in TRIMTAB_KINDS:
        try:
            found += [(resource, obj) for obj in (await kube.list(resource)).items]
        except NotFound:  # the kind is not installed
            continue
    return found


async def _undo(kube: Kube, found: Found) -> list[str]:
    released = [one for one in found if keys.RELEASE in (one[1]["metadata"].get("annotations") or {})]
    for resource, obj in released:
        await annotate(kube, resource, obj, keys.RELEASE, None)
    return [f"{_name(*one)}: acts again" for one in released] or ["nothing was released"]


async def _release(kube: Kube, found: Found, wait_seconds: float) -> list[str]:
    held = [one for one in found if is_held(one[1])]
    for resource, obj in held:
        await annotate(kube, resource, obj, keys.RELEASE, "trimtab release")
    left = await _wait(kube, held, wait_seconds)
    lines = [f"{_name(*one)}: released by the operator" for one in held if not any(one[1] is obj for _, obj in left)]
    for resource, obj in left:
        lines += [f"{_name(resource, obj)}: {what}" for what in await give_back(kube, resource, obj)]
        lines.append(f"{_name(resource, obj)}: released from here; no operator did it within {wait_seconds:g} s")
    return lines or ["nothing is held"]


async def _wait(kube: Kube, held: Found, seconds: float) -> Found:
    """Return what the operator has not released in time."""
    deadline = time.monotonic() + seconds
    left = held
    while left and time.monotonic() < deadline:
        left = [one for one in left if await _is_still_held(kube, *one)]
        if left:
            await asyncio.sleep(_POLL_SECONDS)
    return left


async def _is_still_held(kube: Kube, resource: Resource, obj: Object) -> bool:
    metadata = obj["metadata"]
    try:
        return is_held(await kube.get(resource, metadata["name"], metadata.get("namespace")))
    except NotFound:
        return False


def _name(resource: Resource, obj: Object) -> str:
    metadata = obj["metadata"]
    path = "/".join(part for part in (metadata.get("namespace"), metadata["name"]) if part)
    return f"{resource.kind} {path}"
