"""Extender and operator of the chart, with their own rights: what one may not write, the other carries."""

from collections import Counter
from urllib.parse import urlsplit

from tests.controlplane.conftest import Installed
from tests.support.extender import Served, known
from tests.support.placement import Hall
from trimtab.api import keys
from trimtab.kube import Kube
from trimtab.kube.resources import NODES


async def test_the_operator_wakes_pods_that_a_raised_limit_has_made_room_for(
    installed: Installed, kube: Kube, namespace: str
) -> None:
    extender = Served(urlsplit(installed.extender.ready).hostname or "")
    hall = Hall(kube, namespace)
    try:
        await hall.build("a")
        await hall.limit("a", 100)
        await known(extender, hall, a=100)
        await hall.pods("p", 3, watts=700)
        assert await hall.decided(3) == Counter({"": 3})
        await hall.limit("a", 10_000)
        assert await hall.bound(3) == Counter({"a": 3})
        nodes = (await kube.list(NODES, label_selector=f"{keys.ROW}={hall.row('a')}")).items
        epochs = [node["metadata"]["annotations"].get(keys.PLACEMENT_EPOCH) for node in nodes]
        assert [epoch for epoch in epochs if epoch] == [str(extender.state()["placement_epoch"])]
    finally:
        await hall.tear_down()
