"""The application: what is asked where, with one guard before everything."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from thano_assets import __version__
from thano_assets.errors import ThanoError
from thano_assets.interfaces.server import files, models, queries, tables
from thano_assets.interfaces.server.errors import body_of, status_of
from thano_assets.interfaces.server.guard import LOCAL_HOSTS, Guard
from thano_assets.interfaces.server.metrics import Metrics
from thano_assets.interfaces.server.runs import Runs
from thano_assets.interfaces.server.sessions import Sessions, check_right, confined, right_for
from thano_assets.interfaces.server.store import Store, now
from thano_assets.interfaces.server.uploads import Uploads
from thano_assets.resources.access import Tokens
from thano_assets.sql.variables import with_values

if TYPE_CHECKING:
    from thano_assets.resources.workspace import Workspace

_log = logging.getLogger(__name__)
router = APIRouter()


class Server:
    """What the routes share, for one workspace."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = confined(workspace)
        self.limits = workspace.settings.server
        self.tokens = Tokens(workspace)
        self.store = Store(workspace.server)
        self.sessions = Sessions(workspace, self.limits.max_rows)
        self.runs = Runs(workspace, self.limits.max_runs)
        self.metrics = Metrics()
        self.service = models.Service(workspace, self.metrics, self.limits.max_rows)
        self.uploads = Uploads(workspace)
        with self.sessions.lend() as session:  # of a server that was killed in the middle of an upload
            self.uploads.remove_unread(session, seconds=self.limits.max_seconds)

    @staticmethod
    def name_of(request: Request) -> str | None:
        """The name of a request's token."""
        token = request.scope["token"]
        return None if token is None else str(token.name)

    def log(self, request: Request, statement: str) -> None:
        """Remember a statement that the server ran for somebody."""
        moment = now()
        self.store.log(
            {
                "statement_type": statement.partition(" ")[0],
                "start_time": moment,
                "end_time": moment,
                "query": statement,
                "referer": request.scope["path"],
                "state": "SUCCEEDED",
                "total_records": 0,
            }
        )

    def close(self) -> None:
        """Let go of everything; runs go on."""
        self.runs.close()
        self.service.close()
        self.sessions.close()


class RunAsked(BaseModel):
    """Statements to run, and the values of ``$name`` in them."""

    model_config = ConfigDict(extra="forbid")
    statement: str
    values: dict[str, Any] = Field(default_factory=dict)


@router.post("/runs", status_code=202, tags=["runs"], summary="Start a run")
def start_run(request: Request, asked: Annotated[RunAsked, Body()], response: Response) -> dict[str, Any]:
    """Run statements in a process of their own; the answer comes at once."""
    server: Server = request.app.state.server
    with server.sessions.lend() as session:
        statements = session.parse(asked.statement, asked.values)
    if not statements:
        raise ThanoError("There is no statement to run.")
    for statement in statements:
        check_right(request.scope["token"], right_for(statement), statement.kind)
    text = with_values(asked.statement, asked.values)
    run = server.runs.start(text, statements[-1].kind, server.name_of(request))
    response.headers["Location"] = f"/api/v1/runs/{run.id}"
    return run.state(server.workspace.settings.dagster.url)


@router.get("/runs", tags=["runs"], summary="Runs")
def runs(
    request: Request,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> dict[str, Any]:
    """Runs that were started over HTTP, newest first."""
    server: Server = request.app.state.server
    check_right(request.scope["token"], "read", "A run")
    found = server.runs.all()
    url = server.workspace.settings.dagster.url
    return {"runs": [run.state(url) for run in found[offset : offset + limit]], "total": len(found)}


@router.get("/runs/{run_id}", tags=["runs"], summary="A run")
def run_state(request: Request, run_id: str) -> dict[str, Any]:
    """A run's state: queued, running, succeeded, failed or cancelled; progress; result or error."""
    server: Server = request.app.state.server
    check_right(request.scope["token"], "read", "A run")
    return server.runs.get(run_id).state(server.workspace.settings.dagster.url)


@router.get("/runs/{run_id}/events", tags=["runs"], summary="A run's events")
def run_events(request: Request, run_id: str) -> StreamingResponse:
    """What happens, as server-sent events, until the run has ended; ``Last-Event-ID`` goes on from there."""
    server: Server = request.app.state.server
    check_right(request.scope["token"], "read", "A run")
    run = server.runs.get(run_id)
    last = request.headers.get("last-event-id", "")

    async def lines() -> AsyncIterator[str]:
        async for event in server.runs.follow(run, int(last) if last.isdigit() else 0):
            if event is None:
                yield ": still at it\n\n"
                continue
            facts = {name: value for name, value in event.items() if name not in ("event", "number")}
            data = json.dumps(facts, ensure_ascii=False)
            yield f"id: {event['number']}\nevent: {event['event']}\ndata: {data}\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream", headers={"cache-control": "no-store"})


@router.delete("/runs/{run_id}", status_code=202, tags=["runs"], summary="Cancel a run")
def cancel_run(request: Request, run_id: str) -> dict[str, Any]:
    """Stop a run; what it has begun is undone. One that has ended stays as it is."""
    server: Server = request.app.state.server
    run = server.runs.get(run_id)
    with server.sessions.lend() as session:
        for statement in session.parse(run.request["statement"]):
            check_right(request.scope["token"], right_for(statement), statement.kind)
    server.runs.cancel(run)
    return run.state(server.workspace.settings.dagster.url)


def create_app(
    workspace: Workspace,
    *,
    loopback: bool = True,
    log: Callable[[str], object] | None = None,
) -> FastAPI:
    """The application for a workspace.

    Args:
        workspace: Whose statements, models and runs are served. Statements read files of its ``data/`` only.
        loopback: Whether only this machine reaches it. Otherwise nobody is let in without a token.
        log: Is given a line of JSON for each request; standard error by default.
    """
    server = Server(workspace)
    if not server.limits.hub:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")

    @asynccontextmanager
    async def living(_app: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=_import_what_is_needed_later, daemon=True).start()
        yield
        server.close()

    app = FastAPIOffline(
        title="Thano",
        version=__version__,
        description="SQL statements that train, judge and use text classifiers.",
        lifespan=living,
        docs_url="/docs",
        redoc_url=None,
        static_url="/docs-files",
        # The guard decides who is let in; this is for the page, which then asks for a token.
        dependencies=[Depends(HTTPBearer(auto_error=False, description="thano token create NAME"))],
    )
    app.state.server = server
    for each in (router, queries.router, tables.router, models.router):
        app.include_router(each, prefix="/api/v1")
    app.include_router(files.router, prefix="/fm/api/v1")
    app.add_exception_handler(ThanoError, _known_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(UnicodeEncodeError, _half_character)
    app.add_exception_handler(Exception, _unforeseen)

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", include_in_schema=False)
    def readyz() -> dict[str, str]:
        with server.sessions.lend(10) as session:
            session.execute("SELECT 1")
        return {"status": "ok"}

    @app.get("/metrics", tags=["watching"], summary="Figures for Prometheus")
    def metrics() -> Response:
        return Response(server.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    app.add_middleware(_Measured, metrics=server.metrics)
    hosts = (*LOCAL_HOSTS, *server.limits.hosts)
    more = {} if log is None else {"log": log}
    app.add_middleware(
        Guard,
        tokens=server.tokens,
        needs_token=not loopback,
        hosts=hosts if loopback or server.limits.hosts else None,
        most_bytes=server.limits.max_body_mb * 1_000_000,
        **more,
    )
    return app


def _import_what_is_needed_later() -> None:
    """Dagster, for the first statement that makes something, takes two seconds to import."""
    import thano_assets.orchestration.resources
    import thano_assets.orchestration.runner  # noqa: F401


class _Measured:
    """Counts requests and their seconds, by the path that the API has, not by the one that was asked."""

    def __init__(self, app: Any, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def noted(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            route = scope.get("route")
            path = getattr(route, "path", "other")
            self._metrics.requests.labels(scope["method"], path, status).inc()
            self._metrics.seconds.labels(scope["method"], path).observe(time.perf_counter() - started)


def _known_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ThanoError)
    status = status_of(error)
    return JSONResponse(body_of(status, str(error), error), status)


def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    message = f"{place}: {first['msg']}." if place else f"{first['msg']}."
    return JSONResponse(body_of(422, message), 422)


def _refused(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return JSONResponse(body_of(error.status_code, str(error.detail)), error.status_code, error.headers)


def _half_character(_request: Request, error: Exception) -> JSONResponse:
    """JSON can name half of a character, which is no text anywhere else."""
    assert isinstance(error, UnicodeEncodeError)
    half = f"\\u{ord(error.object[error.start]):04x}"
    return JSONResponse(body_of(400, f"A text has half a character, {half}. Send the whole one."), 400)


def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    message = "The server could not answer; its log has the reason."
    return JSONResponse(body_of(500, message), 500)
