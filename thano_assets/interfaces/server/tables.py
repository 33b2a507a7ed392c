"""``/table``: tables as the public client sees them. What it uploads or inserts is a file that COPY reads.

That COPY is a statement like any other: the table is an asset with lineage, each write gives it another data
version, and plans, predictions and checks notice.
"""

from __future__ import annotations

import io
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pyarrow as pa
from fastapi import APIRouter, Body, File, Form, Query, Request, UploadFile
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from thano_assets.errors import InvalidOption, NameExists, UnknownColumn, UnknownTable, did_you_mean
from thano_assets.interfaces.formats import objects, write_csv
from thano_assets.interfaces.server.queries import NAMED, UNNAMED, schema_of
from thano_assets.interfaces.server.sessions import check_right
from thano_assets.interfaces.server.uploads import write_rows
from thano_assets.resources.warehouse import TableInfo, literal, quote

if TYPE_CHECKING:
    from thano_assets.interfaces.server.app import Server
    from thano_assets.session import Session

router = APIRouter(tags=["table"])

_NAME = r"^\w{1,120}$"
_WINDOW = 4096  # rows that are written as CSV at a time
_IN_MEMORY = 1 << 20  # bytes of a CSV that need no file
IfExists = Literal["fail", "append", "replace"]


class ColumnAsked(BaseModel):
    """A column: its name and type, by DuckDB's or PostgreSQL's name of it."""

    model_config = ConfigDict(extra="ignore")
    name: str
    type: str
    default: Any = None
    is_nullable: bool = True


class ConstraintsAsked(BaseModel):
    """Constraints, which a table here has none of."""

    model_config = ConfigDict(extra="ignore")
    unique: list[Any] | None = None
    primary_key: Any = None
    foreign_keys: list[Any] | None = None


class TableAsked(BaseModel):
    """The columns that a table shall have."""

    model_config = ConfigDict(extra="ignore")
    columns: list[ColumnAsked] | None = None
    constraints: ConstraintsAsked | None = None


class TableBody(BaseModel):
    """A table's columns, and rows for it."""

    table: TableAsked | None = None
    data: list[dict[str, Any]] = Field(default_factory=list)


@router.get("/schema/", summary="Schemas")
def schemas(request: Request) -> dict[str, Any]:
    """The schemas: one of tables that have a name, one of results without."""
    check_right(request.scope["token"], "read", "A schema")
    return {"schemas": [{"name": NAMED}, {"name": UNNAMED}]}


@router.post("/schema/{name}", summary="Make a schema")
def add_schema(request: Request, name: str) -> dict[str, Any]:
    """Refused: a workspace has two schemas, and environments for what is to stand apart."""
    check_right(request.scope["token"], "write", "A schema")
    if name in (NAMED, UNNAMED):
        raise NameExists(f"There is a schema {name} already.")
    raise InvalidOption(
        "A workspace has no further schemas.", hint="`thano --env NAME serve` serves tables of their own."
    )


@router.get("/table/", summary="Tables")
def tables(
    request: Request,
    schema: str | None = None,
    verbose: bool = False,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=0, le=100)] = 100,
) -> dict[str, Any]:
    """The tables that there are; with ``verbose`` their columns too."""
    server: Server = request.app.state.server
    check_right(request.scope["token"], "read", "A table")
    schema_of(schema)
    with server.sessions.lend() as session:
        found = session.tables()
    server.log(request, "LIST TABLE")
    described = [_described(one) for one in found[offset : offset + limit]]
    if not verbose:
        described = [one | {"columns": [], "constraints": None} for one in described]
    return {"tables": described, "total": len(found)}


@router.get("/table/{name}", summary="A table")
def table(request: Request, name: str, schema: str | None = None) -> dict[str, Any]:
    """A table's columns."""
    server: Server = request.app.state.server
    check_right(request.scope["token"], "read", "A table")
    schema_of(schema)
    with server.sessions.lend() as session:
        found = _table(session, name)
    server.log(request, f"DESCRIBE {quote(name)}")
    return {"table": _described(found)}


@router.post("/table/{name}", summary="Make a table without rows")
def create(
    request: Request,
    name: str,
    asked: Annotated[TableBody, Body()],
    schema: str | None = None,
    if_not_exists: bool = False,
) -> dict[str, Any]:
    """Make a table that has columns and no rows yet."""
    server: Server = request.app.state.server
    check_right(request.scope["token"], "write", "A table")
    columns = _columns(asked.table)
    if not columns:
        raise InvalidOption("A table needs at least one column.")
    if if_not_exists:
        with server.sessions.lend() as session:
            if (there := _find(session, name)) is not None:
                return {"table": _described(there)}
    fill = partial(_write_empty, columns=columns)
    return _write(request, name, ".parquet", fill, schema=schema, if_exists="fail", columns=[])


@router.delete("/table/{name}", summary="Drop a table")
def drop(request: Request, name: str, schema: str | None = None) -> dict[str, str]:
    """Drop a table, and the files that were uploaded for it."""
    server: Server = request.app.state.server
    check_right(request.scope["token"], "write", "A table")
    schema_of(schema)
    with server.sessions.lend(server.limits.max_seconds) as session:
        found = _table(session, name)
        statement = f"DROP TABLE {quote(found.name)}"
        session.execute(statement)
        server.uploads.remove_unread(session, found.name)
    server.log(request, statement)
    return {"message": f"The table {found.name} is gone.", "table_name": found.name, "schema": NAMED}


@router.post("/table/{name}/upload/json", summary="Upload rows")
def upload_rows(
    request: Request,
    name: str,
    asked: Annotated[TableBody, Body()],
    schema: str | None = None,
    if_exists: IfExists = "fail",
) -> dict[str, Any]:
    """Make a table of rows, add them to one, or put them in the place of its own."""
    if not asked.data:
        raise InvalidOption("There are no rows to upload.")
    names = list(dict.fromkeys(key for row in asked.data for key in row))
    fill = partial(write_rows, names=names, rows=asked.data)
    columns = _columns(asked.table)
    return _write(request, name, ".jsonl", fill, schema=schema, if_exists=if_exists, columns=columns)


@router.post("/table/{name}/upload/{kind}", summary="Upload a CSV file or a workbook")
def upload_file(
    request: Request,
    name: str,
    kind: Literal["csv", "excel"],
    file: Annotated[UploadFile, File()],
    body: Annotated[str | None, Form()] = None,
    schema: str | None = None,
    if_exists: IfExists = "fail",
) -> dict[str, Any]:
    """The same with a CSV file, or the first sheet of a workbook."""
    ending = ".csv" if kind == "csv" else Path(file.filename or "").suffix.lower()
    if kind == "excel" and ending != ".xlsx":
        raise InvalidOption(
            f"A workbook is a file .xlsx, and this one is '{ending or 'without an ending'}'.",
            hint="Save it as Excel Workbook (.xlsx).",
        )
    try:
        asked = TableBody.model_validate_json(body) if body else TableBody()
    except ValidationError as error:
        raise InvalidOption(f"The part 'body' is wrong: {error.errors()[0]['msg']}.") from error

    def fill(path: Path) -> None:
        with path.open("wb") as out:
            shutil.copyfileobj(file.file, out)

    columns = _columns(asked.table)
    return _write(request, name, ending, fill, schema=schema, if_exists=if_exists, columns=columns)


@router.post("/table/{name}/records", summary="Insert rows")
def insert(
    request: Request,
    name: str,
    rows: Annotated[list[dict[str, Any]], Body()],
    schema: str | None = None,
    on_conflict: Literal["fail", "skip"] = "fail",
) -> dict[str, Any]:
    """Add rows to a table; a column that a row lacks is NULL there."""
    server: Server = request.app.state.server
    check_right(request.scope["token"], "write", "An insert")
    with server.sessions.lend() as session:
        found = _table(session, name)
    known = {column.name.casefold(): column.name for column in found.columns}
    given = []
    for row in rows:
        unknown = [key for key in row if key.casefold() not in known]
        if unknown:
            raise UnknownColumn(
                f"The table {found.name} has no column {unknown[0]}.",
                hint=did_you_mean(unknown[0], list(known.values()), "columns"),
            )
        given.append({known[key.casefold()]: value for key, value in row.items()})
    if not given:
        return {"table": _described(found)}
    fill = partial(write_rows, names=list(known.values()), rows=given)
    columns = [ColumnAsked(name=column.name, type=column.type) for column in found.columns]
    return _write(request, found.name, ".jsonl", fill, schema=schema, if_exists="append", columns=columns)


@router.get("/table/{name}/records", summary="Rows of a table")
def table_records(
    request: Request,
    name: str,
    schema: str | None = None,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=0, le=100)] = 100,
) -> dict[str, Any]:
    """Some rows of a table, and how many it has."""
    server: Server = request.app.state.server
    check_right(request.scope["token"], "read", "A table")
    schema_of(schema)
    with server.sessions.lend(server.limits.max_seconds) as session:
        found = _table(session, name)
        query = f"SELECT * FROM {quote(found.name)} LIMIT {limit} OFFSET {offset}"
        rows = session.execute(query).arrow()
    server.log(request, query)
    return {"records": list(objects(rows)), "total": found.rows}


@router.get("/table/{name}/records/csv", summary="A table as CSV")
def table_csv(
    request: Request,
    name: str,
    schema: str | None = None,
    timezone_offset: Annotated[int, Query(ge=-24, le=24)] = 9,
) -> StreamingResponse:
    """All rows of a table; the file's name has the time, ``timezone_offset`` hours from UTC."""
    server: Server = request.app.state.server
    check_right(request.scope["token"], "read", "A table")
    schema_of(schema)
    query = f"SELECT * FROM {quote(name)}"
    # Written down at once: a client that reads slowly would else keep others from writing.
    file = tempfile.SpooledTemporaryFile(_IN_MEMORY, "w+", encoding="utf-8", newline="")  # noqa: SIM115
    with server.sessions.lend(server.limits.max_seconds) as session:
        found = _table(session, name)
        with session.warehouse.read() as connection:
            reader = connection.sql(query).to_arrow_reader(_WINDOW)
            write_csv(pa.Table.from_batches([], reader.schema), file)
            for batch in reader:
                out = io.StringIO()
                write_csv(pa.Table.from_batches([batch]), out)
                out.seek(0)
                out.readline()  # the header
                shutil.copyfileobj(out, file)
    server.log(request, query)

    def parts() -> Iterator[str]:
        with file:
            file.seek(0)
            while part := file.read(1 << 16):
                yield part

    moment = datetime.now(UTC) + timedelta(hours=timezone_offset)
    title = f"{found.name}_{moment:%Y%m%d_%H%M%S}.csv"
    ascii_name = re.sub(r"[^A-Za-z0-9_.-]", "_", title)
    return StreamingResponse(
        parts(),
        media_type="text/csv; charset=utf-8",
        headers={"content-disposition": f"attachment; filename={ascii_name}"},
    )


def _write(
    request: Request,
    table: str,
    ending: str,
    fill: Callable[[Path], object],
    *,
    schema: str | None,
    if_exists: IfExists,
    columns: list[ColumnAsked],
) -> dict[str, Any]:
    """Have ``fill`` write a file, and bring it in as a table; the table."""
    server: Server = request.app.state.server
    check_right(request.scope["token"], "write", "An upload")
    schema_of(schema)
    if not re.match(_NAME, table):
        raise InvalidOption(f"'{table[:60]}' is no name of a table.", hint="It has letters, digits and '_'.")
    with server.sessions.lend(server.limits.max_seconds) as session:
        there = _find(session, table)
        table = there.name if there is not None else table
        types = {column.name: column.type for column in columns}
        with server.uploads.file(session, table, ending) as path:
            fill(path)
            statement = server.uploads.copy(session, table, _find(session, table), path, if_exists, types)
        server.log(request, statement)
        return {"table": _described(_table(session, table))}


def _write_empty(path: Path, columns: Sequence[ColumnAsked]) -> None:
    import duckdb

    listed = ", ".join(f"{quote(column.name)} {column.type}" for column in columns)
    if any(not re.fullmatch(r"[\w ,()\[\]]+", column.type) for column in columns):
        raise InvalidOption("A type of a column has letters, digits, brackets and commas only.")
    with duckdb.connect() as connection:
        try:
            connection.execute(f"CREATE TABLE made ({listed})")
            connection.execute(f"COPY made TO {literal(str(path))} (FORMAT parquet)")
        except duckdb.Error as error:
            raise InvalidOption(f"The columns are wrong: {str(error).splitlines()[0]}") from error


def _columns(asked: TableAsked | None) -> list[ColumnAsked]:
    """The columns that are asked for.

    Raises:
        InvalidOption: with what a table here does not have.
    """
    if asked is None:
        return []
    constraints = asked.constraints
    if constraints is not None and (
        constraints.unique or constraints.primary_key or constraints.foreign_keys
    ):
        raise InvalidOption(
            "A table here has no keys and no constraints.", hint="EXPECT … ON TABLE states what must hold."
        )
    for column in asked.columns or []:
        if column.default is not None or not column.is_nullable:
            raise InvalidOption(
                f"The column {column.name} has a default or NOT NULL, which a table here has not.",
                hint=f"EXPECT {column.name} IS NOT NULL ON TABLE … states that none is missing.",
            )
    return asked.columns or []


def _find(session: Session, name: str) -> TableInfo | None:
    return next((one for one in session.tables() if one.name.casefold() == name.casefold()), None)


def _table(session: Session, name: str) -> TableInfo:
    """A table by its name.

    Raises:
        UnknownTable: there is none.
    """
    found = _find(session, name)
    if found is None:
        hint = did_you_mean(name, session.table_names(), "tables")
        raise UnknownTable(f"There is no table {name}.", hint=hint)
    return found


def _described(one: TableInfo) -> dict[str, Any]:
    return {
        "name": one.name,
        "schema": NAMED,
        "columns": [
            {"id": place, "name": column.name, "type": column.type, "default": None, "is_nullable": True}
            for place, column in enumerate(one.columns, start=1)
        ],
        "constraints": {"unique": [], "primary_key": None, "foreign_keys": []},
        "rows": one.rows,
    }
