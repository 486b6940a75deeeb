"""Which models a server offers, asked before a replay begins."""

import orjson

from trimtab.api.openai import MODELS
from trimtab.model.problem import Problem
from trimtab.workload.gather import fetch
from trimtab.workload.wire import AnswerLost, Client

_OK = 200
_UNAUTHORIZED = frozenset({401, 403})


async def choose_model(client: Client, wanted: str | None, *, patience_seconds: float = 10.0) -> str:
    """Return the model to ask for: the wanted one, or the only one there is.

    A server without a list of models is believed to have the wanted one.

    Args:
        client: connected to the server.
        wanted: its name; None: whatever the server offers, if that is one model.
        patience_seconds: how long the server may take to answer.

    Raises:
        Problem: no server, no right to ask, no such model, or several to choose from.
    """
    try:
        status, body = await fetch(client, MODELS, patience_seconds=patience_seconds)
    except AnswerLost as lost:
        raise Problem(f"no server: {lost}", fix="start it, or correct --url") from lost
    except TimeoutError as error:
        late = f"GET {MODELS} had no answer in {patience_seconds:g} s"
        raise Problem(late, fix="check that the server at --url is ready") from error
    if status in _UNAUTHORIZED:
        raise Problem(f"GET {MODELS} answered {status}", fix="put the key into OPENAI_API_KEY, or pass --header")
    offered = _names(body) if status == _OK else []
    if wanted and (wanted in offered or not offered):
        return wanted
    if len(offered) == 1 and not wanted:
        return offered[0]
    known = ", ".join(offered) or "none that it tells of"
    what = f"the server does not offer {wanted}" if wanted else "which model to ask for is not clear"
    raise Problem(what, fix=f"pass --model with one of: {known}")


def _names(body: bytes) -> list[str]:
    try:
        return [str(model["id"]) for model in orjson.loads(body)["data"]]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return []
