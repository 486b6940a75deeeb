"""`trimtab resume OBJECT KNOB`: take a contested knob back from whoever took it."""

import click

from trimtab.api import keys
from trimtab.cli.objects import annotate, connected, namespace_option, read
from trimtab.kube import Kube
from trimtab.model.knob import REPLICAS
from trimtab.model.problem import Problem


@click.command()
@click.argument("named", metavar="OBJECT")
@click.argument("knob", metavar="KNOB", type=click.Choice([REPLICAS]))
@namespace_option
def resume(named: str, knob: str, namespace: str) -> None:
    """Take KNOB of OBJECT back, e.g. `trimtab resume spool/chat replicas -n ai`.

    A knob is contested when another manager wrote it while Trimtab held it; until then Trimtab leaves it alone.
    """

    async def work(kube: Kube) -> None:
        resource, obj = await read(kube, named, namespace)
        conditions = (obj.get("status") or {}).get("conditions") or ()
        if not any(one["type"] == "KnobContested" and one["status"] == "True" for one in conditions):
            raise Problem(f"{named}: no knob is contested", fix=f"trimtab explain {named} says what holds of it")
        await annotate(kube, resource, obj, keys.RESUME, knob)

    connected(work)
    click.echo(f"{named}: {knob} will be taken back")
