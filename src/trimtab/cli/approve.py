"""`trimtab approve OBJECT ID...`: let proposals of an object in mode Propose be carried out."""

import click

from trimtab.api import keys
from trimtab.cli.objects import annotate, connected, namespace_option, read
from trimtab.kube import Kube
from trimtab.model.problem import Problem


@click.command()
@click.argument("named", metavar="OBJECT")
@click.argument("ids", metavar="ID...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Approve whatever the object proposes now.")
@namespace_option
def approve(named: str, ids: tuple[str, ...], everything: bool, namespace: str) -> None:
    """Approve proposals of OBJECT, e.g. `trimtab approve spool/chat -n ai 1f2e3d4c`.

    The same as the annotation `trimtab.dev/approve: <id>[,<id>]`. `trimtab explain OBJECT` lists what is proposed.
    """

    async def work(kube: Kube) -> tuple[str, ...]:
        resource, obj = await read(kube, named, namespace)
        proposed = [one["id"] for one in (obj.get("status") or {}).get("proposals") or ()]
        chosen = tuple(proposed) if everything else ids
        _check(named, chosen, proposed)
        await annotate(kube, resource, obj, keys.APPROVE, ",".join(chosen))
        return chosen

    for one in connected(work):
        click.echo(f"{named}: proposal {one} approved")


def _check(named: str, chosen: tuple[str, ...], proposed: list[str]) -> None:
    waiting = ", ".join(proposed) or "nothing"
    if not chosen:
        raise Problem(f"{named}: no proposal was named", fix=f"name one of: {waiting}, or give --all")
    unknown = [one for one in chosen if one not in proposed]
    if unknown:
        raise Problem(f"{named} does not propose {', '.join(unknown)}", fix=f"what waits for approval is: {waiting}")
