"""The one adapter over the Kubernetes client: raw objects in and out, a time-out and a field manager on every call."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import orjson
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import KUBE_CONFIG_DEFAULT_LOCATION, ConfigException, load_incluster_config, load_kube_config

from trimtab.kube.errors import KubeError, NotFound, Unavailable, from_response
from trimtab.kube.resources import Resource

Object = dict[str, Any]

_JSON = "application/json"
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_OPERATIONS = "application/json-patch+json"
_ERROR = 400
_UNAUTHORIZED = 401


@dataclass(frozen=True, slots=True)
class Listing:
    """The answer to a list, or one page of it: items and the version from which a watch may go on after the last."""

    items: list[Object]
    resource_version: str


@dataclass(frozen=True, slots=True)
class _Call:
    method: str
    path: str
    limit: aiohttp.ClientTimeout
    body: Any = None
    query: Mapping[str, str] = field(default_factory=dict)
    content_type: str = _JSON


@dataclass(slots=True)
class Kube:
    """A connection to one API server.

    Every call raises a `trimtab.kube.errors.KubeError`; nothing of the underlying client leaks out. Nothing is
    retried here except one refused token, which is read again from its file: callers are level-triggered loops.
    """

    api: ApiClient
    field_manager: str
    timeout_seconds: float
    reload: Callable[[], Any] = field(repr=False)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        kubeconfig: str | os.PathLike[str] | None = None,
        *,
        field_manager: str = "trimtab",
        timeout_seconds: float = 10.0,
        connections: int = 32,
    ) -> AsyncIterator[Self]:
        """Connect with `kubeconfig`, else `$KUBECONFIG`, else `~/.kube/config`, else the pod's service account.

        Args:
            kubeconfig: path of a kubeconfig file.
            field_manager: who we are in `managedFields`, e.g. `trimtab-operator`.
            timeout_seconds: limit for each call, watches excepted.
            connections: how many calls may be in flight at once.

        Raises:
            Unavailable: no usable configuration; the message says what was tried.
        """
        configuration = Configuration()
        configuration.connection_pool_maxsize = connections

        async def load() -> None:
            await _configure(configuration, kubeconfig)

        await load()
        # trust_env would read ~/.netrc in a thread for every request; of the environment we want the proxy only.
        configuration.proxy = configuration.proxy or _proxy(configuration.host)
        configuration.client_session_kwargs = {"trust_env": False}
        api = ApiClient(configuration)
        api.user_agent = field_manager
        try:
            yield cls(api, field_manager, timeout_seconds, load)
        finally:
            await api.close()
            await asyncio.sleep(0)  # aborted connections end in the next turn of the loop

    # Requests

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = _JSON,
        timeout_seconds: float | None = None,
    ) -> Object:
        """Send one request and return the answer, which Kubernetes always makes a JSON object.

        Raises:
            Unavailable: the answer is something else, e.g. the page of a proxy.
        """
        limit = aiohttp.ClientTimeout(total=timeout_seconds or self.timeout_seconds)
        answer = _decoded(await self._read(_Call(method, path, limit, body, query or {}, content_type)))
        if not isinstance(answer, dict):
            raise Unavailable(0, "BadAnswer", f"{method} {path}: the answer is no JSON object")
        return answer

    async def text(self, path: str, *, query: Mapping[str, str] | None = None) -> str:
        """Return an answer that is plain text, e.g. a pod's log."""
        limit = aiohttp.ClientTimeout(total=self.timeout_seconds)
        return (await self._read(_Call("GET", path, limit, query=query or {}))).decode(errors="replace")

    async def stream(self, path: str, query: Mapping[str, str], idle_seconds: float) -> AsyncGenerator[bytes]:
        """Yield the lines of a long answer (a watch, a followed log) until the server ends it.

        Raises:
            Unavailable: no line came for `idle_seconds`, or the connection broke.
        """
        limit = aiohttp.ClientTimeout(total=None, sock_connect=self.timeout_seconds, sock_read=idle_seconds)
        response = await self._open(_Call("GET", path, limit, query=query))
        try:
            async for line in response.content:
                yield line
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _unavailable(error) from error
        finally:
            if response.connection is not None and response.connection.transport is not None:
                response.connection.transport.abort()  # a polite end of TLS would outlive us
            response.close()

    async def _read(self, call: _Call) -> bytes:
        response = await self._open(call)
        try:
            return await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unavailable(error) from error

    async def _open(self, call: _Call) -> aiohttp.ClientResponse:
        """Return an answer whose status is no error, its body unread."""
        response = await self._send(call)
        if response.status == _UNAUTHORIZED:  # the token may have been renewed on disk
            response.release()
            await self.reload()
            response = await self._send(call)
        if response.status >= _ERROR:
            raise from_response(response.status, await response.read(), response.headers.get("Retry-After"))
        return response

    async def _send(self, call: _Call) -> aiohttp.ClientResponse:
        url = self.api.configuration.host + call.path + (f"?{urlencode(call.query)}" if call.query else "")
        headers = {"Accept": _JSON, "Content-Type": call.content_type, "User-Agent": self.api.user_agent}
        try:
            await self.api.update_params_for_auth(headers, [], ["BearerToken"], call.path, call.method, call.body)
            answer = await self.api.rest_client.request(
                call.method, url, headers=headers, body=call.body, _request_timeout=call.limit
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unavailable(error) from error
        response: aiohttp.ClientResponse = answer.response
        return response

    # Reading

    async def get(self, resource: Resource, name: str, namespace: str | None = None, subresource: str = "") -> Object:
        """Return one object, or one of its subresources."""
        return await self.request("GET", resource.path(namespace, name, subresource))

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 500,
    ) -> Listing:
        """Return all matching objects; pages of `limit` are joined."""
        items: list[Object] = []
        version = ""
        async for page in self.pages(
            resource, namespace, label_selector=label_selector, field_selector=field_selector, limit=limit
        ):
            items += page.items
            version = page.resource_version
        return Listing(items, version)

    async def pages(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 500,
    ) -> AsyncGenerator[Listing]:
        """Yield all matching objects in pages of `limit`; the next page is asked for when the last one is done with.

        Raises:
            Gone: the caller took so long that the server has forgotten the version that it was listing.
        """
        query = selectors(label_selector, field_selector) | {"limit": str(limit)}
        while True:
            page = await self.request("GET", resource.path(namespace), query=query)
            metadata = page["metadata"]
            yield Listing([_named(item, resource) for item in page.pop("items")], metadata["resourceVersion"])
            if not metadata.get("continue"):
                return
            query["continue"] = metadata["continue"]

    # Writing

    async def create(self, resource: Resource, obj: Object, *, dry_run: bool = False) -> Object:
        """Create an object in the namespace that it names."""
        path = resource.path(obj["metadata"].get("namespace"))
        return await self.request("POST", path, obj, query=self._writing(dry_run=dry_run))

    async def apply(
        self, resource: Resource, obj: Object, *, force: bool = False, dry_run: bool = False, subresource: str = ""
    ) -> Object:
        """Server-side apply. With `force`, fields that others own become ours: only for objects that we own.

        Raises:
            Conflict: without `force`, when another manager owns a field; `.managers` names them.
            Invalid: the object breaks its schema; `.causes` names the fields.
        """
        metadata = obj["metadata"]
        body = {"apiVersion": resource.api_version, "kind": resource.kind} | obj
        query = self._writing(dry_run=dry_run) | {"force": "true" if force else "false", "fieldValidation": "Strict"}
        path = resource.path(metadata.get("namespace"), metadata["name"], subresource)
        return await self.request("PATCH", path, body, query=query, content_type=_APPLY)

    async def merge_patch(
        self, resource: Resource, name: str, patch: Object, namespace: str | None = None, subresource: str = ""
    ) -> Object:
        """Apply a JSON merge patch; lists are replaced, null removes a field."""
        path = resource.path(namespace, name, subresource)
        return await self.request("PATCH", path, patch, query=self._writing(), content_type=_MERGE)

    async def json_patch(
        self,
        resource: Resource,
        name: str,
        operations: Sequence[Object],
        namespace: str | None = None,
        subresource: str = "",
    ) -> Object:
        """Apply JSON patch operations; start with a `test` of `/metadata/resourceVersion` to act on what was seen.

        Raises:
            Invalid: a `test` operation failed: the object has changed.
        """
        path = resource.path(namespace, name, subresource)
        return await self.request("PATCH", path, operations, query=self._writing(), content_type=_OPERATIONS)

    async def replace(
        self, resource: Resource, name: str, obj: Object, namespace: str | None = None, subresource: str = ""
    ) -> Object:
        """Replace an object; with a resource version in it, only if it is still that version (else `Conflict`)."""
        return await self.request("PUT", resource.path(namespace, name, subresource), obj, query=self._writing())

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        propagation: str = "Background",
        grace_seconds: int | None = None,
        uid: str | None = None,
    ) -> None:
        """Delete an object; one that is gone already is no error.

        Args:
            resource: its type.
            name: its name.
            namespace: its namespace.
            propagation: what happens to what it owns: `Background`, `Foreground` or `Orphan`.
            grace_seconds: overrides a pod's own grace period.
            uid: delete only this incarnation.
        """
        options: Object = {"propagationPolicy": propagation}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            await self.request("DELETE", resource.path(namespace, name), options)
        except NotFound:
            return

    def _writing(self, *, dry_run: bool = False) -> dict[str, str]:
        return {"fieldManager": self.field_manager} | ({"dryRun": "All"} if dry_run else {})


def _decoded(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _named(item: Object, resource: Resource) -> Object:
    """Say what an item is: in a list, the server does not."""
    item.setdefault("apiVersion", resource.api_version)
    item.setdefault("kind", resource.kind)
    return item


def selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    """Return the query of a list or watch that these selectors make; empty ones are left out."""
    given = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {key: value for key, value in given.items() if value}


def _unavailable(error: Exception) -> KubeError:
    reason = "Timeout" if isinstance(error, (TimeoutError, asyncio.TimeoutError)) else type(error).__name__
    return Unavailable(0, reason, f"the API server did not answer: {str(error) or reason}")


def _proxy(server: str) -> str | None:
    """Return the proxy that the environment asks for on the way to `server`, or None."""
    address = urlsplit(server)
    if proxy_bypass(address.hostname or ""):
        return None
    return getproxies().get(address.scheme)


async def _configure(configuration: Configuration, kubeconfig: str | os.PathLike[str] | None) -> None:
    path = str(kubeconfig or os.environ.get("KUBECONFIG") or "")
    try:
        if path or os.path.exists(os.path.expanduser(KUBE_CONFIG_DEFAULT_LOCATION)):  # noqa: ASYNC240, PTH110, PTH111 once, at start
            await load_kube_config(config_file=path or None, client_configuration=configuration, persist_config=False)
        else:
            load_incluster_config(client_configuration=configuration)
    except (ConfigException, OSError) as error:
        tried = path or f"{KUBE_CONFIG_DEFAULT_LOCATION}, then the pod's service account"
        raise Unavailable(0, "NoConfiguration", f"no access to a cluster: tried {tried}: {error}") from error
