"""Dagster's web page behind a guard: only the page itself, and programs of this machine, may ask it.

Dagster's own server takes any ``Host`` and ``Origin`` and runs GraphQL mutations that a GET sends, so any web
page that is open beside it could launch or wipe runs with an ``<img>`` tag, or read them by DNS rebinding.
``python -m thano_assets.interfaces.dagster_page WORKSPACE_YAML PORT [HOST…]`` serves it on the loopback
address.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from thano_assets.resources.dagster_home import INFERENCE, TRAINING
from thano_assets.resources.environments import open_workspace

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Names under which a browser of this machine asks for the page.
LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_ADDRESS = "127.0.0.1"
_READS = ("GET", "HEAD")
_GRAPHQL_TYPES = ("application/json", "application/graphql")
_LINES_OF_A_LOG = 2000  # that the page is sent at a time, Dagster's own default
# Another page may not show this one in a frame, and have it clicked on.
_HEADERS = (
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"content-security-policy", b"frame-ancestors 'self'"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Guard:
    """ASGI middleware that passes on to ``app`` what its own page asks, and refuses the rest.

    - The ``Host`` is one of this page's, so that a foreign name which leads here (DNS rebinding) is refused.
    - An ``Origin``, which browsers send with whatever may change something and with every websocket, is the
      page's own. Programs send none.
    - GraphQL is asked by POST with a JSON body: what a link, a picture or a form can send is not taken.

    Args:
        app: Dagster's application.
        hosts: names without port under which the page is served.
    """

    def __init__(self, app: App, hosts: Iterable[str] = LOCAL_HOSTS) -> None:
        self._app = app
        self._hosts = frozenset(host.casefold() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self.refusal(scope)
        if refusal is None:
            if _is_graphql(scope):
                scope["query_string"] = b""  # Dagster would take a query from there, however it is spelled
            await self._app(scope, receive, _with_headers(send))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": refusal[1]})
        else:
            body = f"{refusal[1]}\n".encode()
            headers = [
                (b"content-type", b"text/plain; charset=utf-8"),
                (b"content-length", b"%d" % len(body)),
            ]
            await send({"type": "http.response.start", "status": refusal[0], "headers": headers})
            await send({"type": "http.response.body", "body": body})

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """The status and the sentence with which a connection is refused; ``None`` where it is not."""
        hosts = _values(scope, b"host")
        if len(hosts) != 1 or _name(hosts[0]) not in self._hosts:
            return (
                403,
                "This page has not that name; hosts under [dagster] in thano.toml adds names.",
            )
        origins = _values(scope, b"origin")
        site = _values(scope, b"sec-fetch-site")
        foreign = bool(origins) and (len(origins) > 1 or not _same(origins[0], hosts[0]))
        changes = scope["type"] == "http" and scope["method"] not in _READS
        if foreign or (changes and site not in ([], ["same-origin"], ["none"])):
            return 403, "Another web page may not ask this one."
        if scope["type"] == "websocket" or not _is_graphql(scope):
            return None
        if scope["method"] in _READS:
            asks_for_page = any("text/html" in value for value in _values(scope, b"accept"))
            return None if asks_for_page else (405, "GraphQL is asked by POST.")
        types = [value.partition(";")[0].strip().lower() for value in _values(scope, b"content-type")]
        if len(types) != 1 or types[0] not in _GRAPHQL_TYPES:
            return 415, "GraphQL is asked with a body of application/json."
        return None


def _is_graphql(scope: Scope) -> bool:
    return str(scope["path"]).rstrip("/").endswith("/graphql")


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def _name(host: str) -> str:
    """The name in a ``Host`` header, without its port; empty where it is none."""
    try:
        parts = urlsplit(f"//{host}")
        name, _ = parts.hostname, parts.port  # a port that is no number raises ValueError
    except ValueError:
        return ""
    if not name or "@" in host or parts.path or parts.query or parts.fragment:
        return ""
    return f"[{name}]" if ":" in name else name.rstrip(".")


def _same(origin: str, host: str) -> bool:
    scheme, _, address = origin.partition("://")
    return scheme in ("http", "https") and address.casefold() == host.casefold() and bool(_name(address))


def _with_headers(send: Send) -> Send:
    async def wrapped(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *_HEADERS]
        await send(message)

    return wrapped


def main(target: str, port: int, hosts: Sequence[str] = ()) -> None:
    """Serve Dagster's page for the code locations of the file ``target`` until stopped."""
    import uvicorn

    from thano_assets.orchestration.dagster_compat import web_application

    queue = open_workspace().settings.queue
    pools = {TRAINING: queue.training, INFERENCE: queue.inference}
    with web_application(target, _LINES_OF_A_LOG, pools) as app:
        uvicorn.run(Guard(app, (*LOCAL_HOSTS, *hosts)), host=_ADDRESS, port=port, log_level="warning")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
