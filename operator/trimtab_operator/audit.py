"""The pools as listed: before the first decision, and now and then afterwards.

kopf does not report objects that were deleted while its watch was down, and it begins to report objects before it has
seen all of them. Who holds a workload can be decided only when all claimants are known, so the list comes first.
"""

from collections.abc import Callable

import structlog

from trimtab.kube import KubeError
from trimtab.kube.resources import SERVING_POOLS
from trimtab_operator.handlers.kinds import take_pool
from trimtab_operator.parse import key_of
from trimtab_operator.records import Key
from trimtab_operator.runtime import Runtime

_log = structlog.get_logger(__name__)

_FIRST_SECONDS = 10.0
_PERIOD_SECONDS = 300.0


async def take_stock(runtime: Runtime, on_page: Callable[[], None] = lambda: None) -> None:
    """Bring the store in line with the list of all pools, of which one page is in memory at a time.

    Args:
        runtime: the process.
        on_page: called for each page, so that a long list shows as progress.

    Raises:
        KubeError: the server could not be asked.
    """
    store = runtime.store
    present: set[tuple[Key, str]] = set()
    async for page in runtime.kube.pages(SERVING_POOLS):
        on_page()
        for item in page.items:
            present.add((key_of(item), item["metadata"]["uid"]))
            take_pool(store, None, item)
    for key, record in list(store.pools.items()):
        if (key, record.asked.uid) not in present:
            await _drop_if_gone(runtime, key, record.asked.uid)


async def _drop_if_gone(runtime: Runtime, key: Key, uid: str) -> None:
    """Drop a pool that the list lacked, unless it was created after the list was made."""
    listed_again = await runtime.kube.list(SERVING_POOLS, key[0], field_selector=f"metadata.name={key[1]}")
    if all(item["metadata"]["uid"] != uid for item in listed_again.items):
        runtime.store.drop_pool(key)
        _log.info("pool is gone", pool="/".join(key))


async def keep_stock(runtime: Runtime) -> None:
    """Take stock again and again, for ever: soon after the first time, since kopf began to watch a moment after it."""
    seconds = _FIRST_SECONDS
    while True:
        await runtime.clock.sleep(seconds)
        seconds = _PERIOD_SECONDS
        try:
            await take_stock(runtime)
        except KubeError as error:
            _log.warning("stock not taken", error=error.message)
