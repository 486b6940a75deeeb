from typing import Any

from tests.support.process_node import container
from trimtab.local.process_node.services import (
    Backend,
    Service,
    ServicePort,
    endpoints,
    parse_service,
    variables,
)

WEB = Service(
    "shop", "web-site", "u", {"app": "web"}, (ServicePort(80, "http", "http"), ServicePort(9090, 9090, "metrics"))
)
MAIN = container(ports=[{"name": "http", "containerPort": 8000}])


def a_backend(ip: str, **changes: Any) -> Backend:
    fields = {"namespace": "shop", "name": ip, "ip": ip, "ready": True, "labels": {"app": "web"}, "containers": (MAIN,)}
    return Backend(**(fields | changes))


def a_service(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "shop", "name": "web", "uid": "u"}, "spec": spec}


def test_a_service_is_read_with_its_defaults() -> None:
    obj = a_service(selector={"app": "web"}, ports=[{"port": 80}, {"port": 53, "protocol": "UDP"}], clusterIP="None")

    assert parse_service(obj) == Service("shop", "web", "u", {"app": "web"}, (ServicePort(80, 80),))


def test_services_that_nothing_can_stand_behind_are_left_out() -> None:
    assert parse_service(a_service(ports=[{"port": 443}])) is None
    assert parse_service(a_service(selector={"a": "b"})) is None
    assert parse_service(a_service(selector={"a": "b"}, ports=[{"port": 53, "protocol": "UDP"}])) is None


def test_ready_pods_of_the_selector_stand_behind_a_named_port_in_a_stable_order() -> None:
    backends = [
        a_backend("127.20.1.2"),
        a_backend("127.20.1.1"),
        a_backend("127.20.1.3", ready=False),
        a_backend("127.20.1.4", labels={"app": "other"}),
        a_backend("127.20.1.5", namespace="other"),
        a_backend("127.20.1.6", containers=(container(),)),
    ]

    assert endpoints(WEB, WEB.ports[0], backends) == (("127.20.1.1", 8000), ("127.20.1.2", 8000))
    assert endpoints(WEB, WEB.ports[1], backends[:1]) == (("127.20.1.2", 9090),)


def test_a_service_may_publish_pods_that_are_not_ready() -> None:
    service = Service("shop", "web", "u", {"app": "web"}, WEB.ports, publish_not_ready=True)

    assert endpoints(service, WEB.ports[0], [a_backend("127.20.1.3", ready=False)]) == (("127.20.1.3", 8000),)


def test_a_port_is_found_by_name_or_number_and_is_the_first_by_default() -> None:
    assert WEB.port("metrics") == WEB.port("9090") == WEB.ports[1]
    assert WEB.port("") == WEB.ports[0]
    assert WEB.port("none") is None


def test_variables_have_the_form_that_the_kubelet_gives_them() -> None:
    assert variables(WEB, "127.20.128.0") == {
        "WEB_SITE_SERVICE_HOST": "127.20.128.0",
        "WEB_SITE_SERVICE_PORT": "80",
        "WEB_SITE_SERVICE_PORT_HTTP": "80",
        "WEB_SITE_SERVICE_PORT_METRICS": "9090",
    }
