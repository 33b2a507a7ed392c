"""The guard before Dagster's page: what a foreign page or name could send, and what the page itself sends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from thano_assets.interfaces.dagster_page import Guard

JSON = {"content-type": "application/json"}


def ask(
    scope: dict[str, Any], hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]")
) -> tuple[int, dict[str, Any]]:
    """The status of an answer (1000 for an accepted websocket, 1008 for a refused one), and what Dagster got."""
    passed: dict[str, Any] = {}
    answers: list[Any] = []

    async def app(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        passed.update(scope)
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        answers.append(message)

    headers = [(key.encode(), value.encode()) for key, value in scope.pop("headers").items()]
    headers += [(b"host", b"localhost")] if scope.pop("twice", False) else []
    whole = {"type": "http", "method": "GET", "path": "/", "query_string": b"", **scope, "headers": headers}
    asyncio.run(Guard(app, hosts)(whole, receive, send))
    first = answers[0]
    if first["type"] == "http.response.start":
        names = dict(first["headers"])
        assert first["status"] != 200 or names[b"content-security-policy"] == b"frame-ancestors 'self'"
        return first["status"], passed
    return (1000 if first["type"] == "websocket.accept" else first["code"]), passed


def scope(
    method: str = "GET", path: str = "/graphql", query: str = "", kind: str = "http", **headers: str
) -> dict[str, Any]:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return {
        "type": kind,
        "method": method,
        "path": path,
        "query_string": query.encode(),
        "headers": {"host": "127.0.0.1:3000", **given},
    }


OWN = "http://127.0.0.1:3000"
JSON_TYPE = "application/json"


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        # an <img>, a link, a form of another page
        (scope(query="query=mutation{wipe}"), 405),
        (scope(query="%71uery=mutation{wipe}"), 405),
        (scope("POST", query="query=mutation{wipe}"), 415),
        (scope("POST", content_type="application/x-www-form-urlencoded"), 415),
        (scope("POST", content_type="multipart/form-data; boundary=x"), 415),
        (scope("POST", content_type="text/plain; x=application/json"), 415),
        (scope("POST", content_type=JSON_TYPE, origin="http://evil.example"), 403),
        (scope("POST", content_type=JSON_TYPE, origin="null"), 403),
        (scope("POST", content_type=JSON_TYPE, origin="http://127.0.0.1:3001"), 403),
        (scope("POST", content_type=JSON_TYPE, sec_fetch_site="cross-site"), 403),
        (scope("POST", "/report_asset_materialization/x", origin="http://evil.example"), 403),
        # DNS rebinding
        (scope(path="/", host="evil.example"), 403),
        (scope(path="/", host="127.0.0.1.evil.example"), 403),
        (scope(path="/", host="localhost:80@evil.example"), 403),
        (scope(path="/", host=""), 403),
        (scope(path="/", host="localhost:x"), 403),
        ({**scope(path="/"), "twice": True}, 403),
        (scope(kind="websocket", origin="http://evil.example"), 1008),
        (scope(kind="websocket", host="evil.example"), 1008),
        # the page itself, and programs of this machine
        (scope(path="/"), 200),
        (scope(path="/", host="localhost:3000"), 200),
        (scope(path="/", host="LOCALHOST.:3000"), 200),
        (scope(path="/", host="[::1]:3000"), 200),
        (scope(path="/download_debug/1"), 200),
        (scope(accept="text/html"), 200),
        (scope("POST", content_type="application/json; charset=utf-8"), 200),
        (scope("POST", content_type=JSON_TYPE, origin=OWN, sec_fetch_site="same-origin"), 200),
        (scope("POST", "/report_asset_materialization/x", content_type=JSON_TYPE), 200),
        (scope(kind="websocket", origin=OWN), 1000),
        (scope(kind="websocket"), 1000),
    ],
)  # fmt: skip
def test_who_may_ask(asked: dict[str, Any], status: int) -> None:
    found, passed = ask(asked)
    assert found == status
    assert bool(passed) == (status in (200, 1000))


def test_a_query_in_the_address_never_reaches_dagster() -> None:
    asked = scope("POST", query="%71uery=mutation{wipe}", content_type=JSON_TYPE)
    _, passed = ask(asked)
    assert passed["query_string"] == b""
    asked = scope(path="/assets", query="open-nodes=a")
    assert ask(asked)[1]["query_string"] == b"open-nodes=a"


def test_a_setting_adds_names() -> None:
    asked = scope(path="/", host="dagster.example.com")
    assert ask(asked)[0] == 403
    asked = scope(path="/", host="dagster.example.com")
    assert ask(asked, ("localhost", "dagster.example.com"))[0] == 200
