"""What every request has to pass: its host and origin, its size and its token; and the line it leaves.

ASGI middleware rather than FastAPI's dependencies, so that no route can be without it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from thano_assets.interfaces.server.errors import body_of
from thano_assets.interfaces.server.store import now

if TYPE_CHECKING:
    from thano_assets.resources.access import Tokens

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
#: Asked by machines that watch the server, and by the page that describes it, without a token; they tell
#: nothing of the workspace.
OPEN_PATHS = ("/healthz", "/readyz", "/docs", "/openapi.json")
_OPEN_FOLDER = "/docs-files/"
_READS = ("GET", "HEAD", "OPTIONS")


class Guard:
    """Refuses what may not be asked, and passes on the rest.

    - The ``Host`` is a name of this server, so that a foreign name which leads here is refused (DNS
      rebinding).
    - An ``Origin``, which browsers send, is the server's own: another web page cannot ask in a person's name.
    - The body has at most ``most_bytes`` bytes.
    - The ``Authorization`` is ``Bearer`` and a token, where there are tokens or ``needs_token`` says so.

    Args:
        app: What is asked.
        tokens: The workspace's.
        needs_token: Whether nobody is let in without a token, even while there is none.
        hosts: Names without port by which the server may be reached; ``None``: any.
        most_bytes: Of a request's body.
        log: Is given a line of JSON for each request: neither texts nor tokens.
    """

    def __init__(
        self,
        app: App,
        *,
        tokens: Tokens,
        needs_token: bool,
        hosts: Iterable[str] | None,
        most_bytes: int,
        log: Callable[[str], object] = lambda line: print(line, file=sys.stderr, flush=True),
    ) -> None:
        self._app, self._tokens, self._needs_token = app, tokens, needs_token
        self._hosts = None if hosts is None else frozenset(host.casefold() for host in hosts)
        self._most = most_bytes
        self._log = log

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500
        headers = [(key.lower(), value.decode("latin-1")) for key, value in scope["headers"]]

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {
                    **message,
                    "headers": [*message.get("headers", []), (b"x-content-type-options", b"nosniff")],
                }
            await send(message)

        scope["token"] = None
        try:
            refusal = self._refusal(scope, headers)
            if refusal is not None:
                await _answer(noted, *refusal)
            else:
                await self._bounded(scope, receive, noted)
        finally:
            token = scope["token"]
            line = {
                "time": now(),
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "milliseconds": round(1000 * (time.perf_counter() - started), 2),
                "token": None if token is None else token.name,
                "client": (scope.get("client") or [None])[0],
            }
            self._log(json.dumps(line, ensure_ascii=False))

    def _refusal(self, scope: Message, headers: list[tuple[bytes, str]]) -> tuple[int, str] | None:
        hosts = [value for key, value in headers if key == b"host"]
        if len(hosts) != 1 or (self._hosts is not None and _name(hosts[0]) not in self._hosts):
            return 403, "The server has not that name; hosts under [server] in thano.toml adds names."
        origins = [value for key, value in headers if key == b"origin"]
        if origins and (len(origins) > 1 or urlsplit(origins[0]).netloc.casefold() != hosts[0].casefold()):
            return 403, "Another web page may not ask this server."
        site = [value for key, value in headers if key == b"sec-fetch-site"]
        if scope["method"] not in _READS and site not in ([], ["same-origin"], ["none"]):
            return 403, "Another web page may not ask this server."
        if scope["path"] in OPEN_PATHS or scope["path"].startswith(_OPEN_FOLDER):
            return None
        lengths = [value for key, value in headers if key == b"content-length"]
        if lengths and (not lengths[0].isdigit() or int(lengths[0]) > self._most):
            return 413, self._too_large()
        given = [value for key, value in headers if key == b"authorization"]
        if not given and not self._needs_token and not self._tokens.all():
            return None
        scheme, _, text = (given[0] if len(given) == 1 else "").partition(" ")
        found = self._tokens.find(text.strip()) if scheme.casefold() == "bearer" else None
        if found is None and (self._needs_token or self._tokens.all()):
            return 401, "The request has no valid access token; `thano token create` makes one."
        scope["token"] = found
        return None

    async def _bounded(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass the request on, and refuse it once its body is too large, whatever its headers said."""
        read, begun, over = 0, False, False

        async def counted() -> Message:
            nonlocal read, over
            message = await receive()
            read += len(message.get("body", b""))
            over = over or read > self._most
            return {"type": "http.disconnect"} if over else message

        async def noted(message: Message) -> None:
            nonlocal begun
            if over and not begun:  # what the application makes of a body that ends in its middle
                return
            begun = True
            await send(message)

        try:
            await self._app(scope, counted, noted)
        except Exception:
            if not over:
                raise
        if over and not begun:
            await _answer(send, 413, self._too_large())

    def _too_large(self) -> str:
        return (
            f"The request has more than {self._most:,} bytes; max_body_mb under [server] in thano.toml is "
            "the limit."
        )


def _name(host: str) -> str:
    """A ``Host`` without its port."""
    if host.startswith("["):
        return host.partition("]")[0].casefold() + "]"
    return host.partition(":")[0].casefold()


async def _answer(send: Send, status: int, message: str) -> None:
    body = json.dumps(body_of(status, message), ensure_ascii=False).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
