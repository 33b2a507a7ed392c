"""``/query``: statements in, rows out, as the public client asks; the log of queries, and templates."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Body, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from thano_assets.errors import InvalidOption, NameExists, ThanoError, UnknownSchema
from thano_assets.interfaces.server.answers import SHOWN, records
from thano_assets.interfaces.server.errors import status_of
from thano_assets.interfaces.server.runs import Run
from thano_assets.interfaces.server.sessions import LONG, check_right, right_for
from thano_assets.interfaces.server.store import Template, now
from thano_assets.interfaces.server.templates import parameters as parameters_of
from thano_assets.interfaces.server.templates import rendered
from thano_assets.resources.warehouse import quote
from thano_assets.sql.statements import CreateTableAs, ModelQuery, QueryStatement, Statement
from thano_assets.sql.variables import names_in

if TYPE_CHECKING:
    from thano_assets.interfaces.server.app import Server
    from thano_assets.session import Session

router = APIRouter(tags=["query"])

#: The schema of tables that have a name, and that of results without one.
NAMED, UNNAMED = "public", "qm"
_LONGEST_NAME = 32


class Asked(BaseModel):
    """A query: its text, or a template's number or name; and values."""

    model_config = ConfigDict(extra="forbid")
    query_string: str | None = None
    template_id: int | None = None
    template_name: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)


class TemplateText(BaseModel):
    """A template's name and text; what is left out stays, or is made up."""

    name: str | None = Field(None, max_length=_LONGEST_NAME, pattern=r"^\w+$")
    query: str | None = None


@dataclass
class _Answered:
    """What came of a query, for its log and its answer."""

    kind: str | None = None
    rows: list[dict[str, Any]] | None = None
    total: int = 0
    table: str | None = None
    affected: int | None = None
    error: str | None = None


def schema_of(name: str | None) -> str:
    """A schema that there is.

    Raises:
        UnknownSchema: there is none of this name.
    """
    if name is None or name in (NAMED, UNNAMED):
        return name or NAMED
    raise UnknownSchema(
        f"There is no schema {name}.", hint=f"Tables are in '{NAMED}', results without a name in '{UNNAMED}'."
    )


@router.post("/query/", summary="Run statements")
async def execute(
    request: Request,
    asked: Annotated[Asked, Body()],
    schema: str | None = None,
    table_name: Annotated[str | None, Query(pattern=r"^\w+$")] = None,
    overwrite: bool = False,
    keep_temp_table: bool = True,
    max_results: Annotated[int, Query(ge=0, le=SHOWN)] = SHOWN,
) -> dict[str, Any]:
    """Run statements one after the other; the answer is the last one's.

    What is wrong with the request is an HTTP error; a statement that fails while it runs is told in
    ``error_result``. ``keep_temp_table`` changes nothing: a result without a name is kept as ``[statements]
    unnamed_results`` of the workspace says.
    """
    server: Server = request.app.state.server
    schema_of(schema)
    text = await asyncio.to_thread(_text, server, asked)
    began = now()

    def work() -> _Answered | Run:
        with server.sessions.lend(server.limits.max_seconds) as session:
            values = {name: value for name, value in asked.parameters.items() if name in names_in(text)}
            statements = session.parse(text, values)
            if not statements:
                raise InvalidOption("The query is empty.")
            if table_name is not None:
                statements[-1:] = _kept(session, statements[-1], table_name, overwrite)
            for statement in statements:
                check_right(request.scope["token"], right_for(statement), statement.kind)
            if not any(isinstance(statement, LONG) for statement in statements):
                return _answered(session, statements, max_results)
            whole = ";\n".join(statement.text.rstrip().rstrip(";") for statement in statements)
            return server.runs.start(whole, statements[-1].kind, server.name_of(request))

    answered = await asyncio.to_thread(work)
    if isinstance(answered, Run):  # nobody else's thread waits with it
        answered = _of_run(await server.runs.wait(answered), answered.request["kind"], max_results)
    entry: dict[str, Any] = {
        "query_id": uuid.uuid4().hex,
        "statement_type": answered.kind,
        "start_time": began,
        "end_time": now(),
        "query": text,
        "referer": "api",
        "state": "FAILED" if answered.error else "SUCCEEDED",
        "destination_table_name": answered.table,
        "destination_schema": answered.table and (NAMED if table_name else schema_of(schema)),
        "error_result": answered.error,
        "created_at": began,
        "total_records": answered.total,
        "affected_records": answered.affected,
    }
    await asyncio.to_thread(server.store.log, entry)
    shown = None if answered.rows is None or max_results == 0 else answered.rows
    return entry | {"records": None if shown is None else {"data": shown, "total": answered.total}}


@router.get("/query/log", summary="What was asked")
def query_log(
    request: Request,
    search: str | None = None,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=0, le=100)] = 100,
) -> dict[str, Any]:
    """Queries that were answered, newest first; ``search`` is looked for in their text."""
    server: Server = request.app.state.server
    check_right(request.scope["token"], "read", "The log")
    found, total = server.store.logged(search, offset, limit)
    return {"query_logs": found, "total": total}


@router.get("/query/template", summary="Query templates")
def templates(
    request: Request,
    search: str | None = None,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=0, le=100)] = 100,
    order_by: Literal["recent", "name_asc", "name_desc"] = "recent",
) -> dict[str, Any]:
    """Templates whose name holds ``search``."""
    server: Server = request.app.state.server
    check_right(request.scope["token"], "read", "A template")
    found, total = server.store.templates(search, order_by, offset, limit)
    return {"query_templates": [_template(one) for one in found], "total": total}


@router.post("/query/template", summary="Keep a query template")
def add_template(
    request: Request, asked: Annotated[TemplateText, Body()], dry_run: bool = False
) -> dict[str, Any]:
    """Keep a query with ``{{ name }}`` in the places of values; ``dry_run`` only looks at it."""
    server: Server = request.app.state.server
    check_right(request.scope["token"], "write", "A template")
    name = asked.name or f"query_template_{uuid.uuid4().hex[:8]}"
    query = asked.query or ""
    parameters_of(query)
    if dry_run:
        return {"query_template": _template(Template(-1, name, query, now(), now()))}
    return {"query_template": _template(server.store.add_template(name, query))}


@router.get("/query/template/{name}", summary="A query template")
def template(request: Request, name: str) -> dict[str, Any]:
    """A template by its name."""
    server: Server = request.app.state.server
    check_right(request.scope["token"], "read", "A template")
    return {"query_template": _template(server.store.template(name))}


@router.put("/query/template/{name}", summary="Change a query template")
def change_template(request: Request, name: str, asked: Annotated[TemplateText, Body()]) -> dict[str, Any]:
    """Give a template another name, another query, or both."""
    server: Server = request.app.state.server
    check_right(request.scope["token"], "write", "A template")
    if asked.query is not None:
        parameters_of(asked.query)
    return {"query_template": _template(server.store.change_template(name, asked.name, asked.query))}


@router.delete("/query/template/{name}", summary="Forget a query template")
def drop_template(request: Request, name: str) -> dict[str, str]:
    """Forget a template."""
    server: Server = request.app.state.server
    check_right(request.scope["token"], "write", "A template")
    server.store.drop_template(name)
    return {"message": f"The query template {name} is gone."}


def _template(one: Template) -> dict[str, Any]:
    return vars(one) | {"parameters": parameters_of(one.query)}


def _text(server: Server, asked: Asked) -> str:
    """The query's text, with the values in the places of ``{{ name }}``."""
    given = [asked.query_string is not None, asked.template_id is not None, asked.template_name is not None]
    if sum(given) != 1:
        raise InvalidOption("A query has exactly one of query_string, template_id and template_name.")
    if asked.query_string is not None:
        text = asked.query_string
        # Without parameters, braces are DuckDB's own: of structs inside structs.
        is_template = asked.parameters and ("{{" in text or "{%" in text)
        return rendered(text, asked.parameters) if is_template else text
    kept = server.store.template(asked.template_name, asked.template_id)
    return rendered(kept.query, asked.parameters)


def _kept(session: Session, statement: Statement, name: str, overwrite: bool) -> list[Statement]:
    """The statement that keeps what ``statement`` gives as a table."""
    if not isinstance(statement, (QueryStatement, ModelQuery)):
        raise InvalidOption(
            f"table_name is for what gives rows, and {statement.kind} does not.", hint="Leave it out."
        )
    create = "CREATE OR REPLACE TABLE" if overwrite else "CREATE TABLE"
    found = session.parse(f"{create} {quote(name)} AS {statement.text.rstrip().rstrip(';')}")
    if not overwrite and name.casefold() in {known.casefold() for known in session.table_names()}:
        raise NameExists(f"There is a table {name} already.", hint="overwrite=True takes its place.")
    return found


def _answered(session: Session, statements: list[Statement], count: int) -> _Answered:
    found = _Answered(statements[-1].kind)
    try:
        for statement in statements:
            result = session.execute_statement(statement)
    except ThanoError as error:
        if status_of(error) in (403, 503, 504):
            raise
        found.error = error.pretty()
        return found
    found.kind = result.kind
    found.table = result.kept_as
    found.total = result.row_count or 0
    if result.head(0) is not None:
        found.rows = records(result, count)
    if isinstance(statements[-1], CreateTableAs):
        found.affected = result.row_count
    return found


def _of_run(end: Mapping[str, Any], kind: str, count: int) -> _Answered:
    if end["event"] == "succeeded":
        result = end["result"]
        rows = result["records"][:count]
        return _Answered(result["kind"], rows, result["row_count"] or len(rows), result["table"])
    told = end.get("error") or {"message": "The run was cancelled."}
    return _Answered(kind, error=" ".join(filter(None, (told["message"], told.get("hint")))))
