"""``/table``: tables as the public client sees them. What it uploads or inserts is a file that COPY reads.

An upload is kept under ``data/uploads/TABLE/`` and its COPY is a statement like any other: the table is an
asset with lineage, each write gives it another data version, and plans, predictions and checks notice.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
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
from thano_assets.interfaces.server.store import now
from thano_assets.resources.warehouse import TableInfo, literal, quote
from thano_assets.sql.statements import Copy

if TYPE_CHECKING:
    from thano_assets.interfaces.server.app import Server
    from thano_assets.resources.workspace import Workspace
    from thano_assets.session import Session

router = APIRouter(tags=["table"])

_UPLOADS = "uploads"
_NAME = r"^\w{1,120}$"
_SHEETS = (".xlsx", ".xls", ".xlsm", ".xlsb", ".odf", ".ods", ".odt")
#: Writes after which what was written is put together in one file, so that a table stays one statement.
_PARTS = 20
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
    schema_of(schema)
    columns = _columns(asked.table)
    if not columns:
        raise InvalidOption("A table needs at least one column.")
    with server.sessions.lend(server.limits.max_seconds) as session:
        if if_not_exists and _find(session, name) is not None:
            return {"table": _described(_table(session, name))}
        with _upload(server, name, ".parquet") as path:
            _write_empty(path, columns)
            _copy(server, session, request, name, path, "fail", {})
        return {"table": _described(_table(session, name))}


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
    shutil.rmtree(_folder(server.workspace, found.name), ignore_errors=True)
    server.log(request, statement)
    return {"message": f"The table {found.name} is gone.", "table_name": found.name, "schema": NAMED}


@router.post("/table/{name}/upload/csv", summary="Upload a CSV file")
def upload_csv(
    request: Request,
    name: str,
    file: Annotated[UploadFile, File()],
    body: Annotated[str | None, Form()] = None,
    schema: str | None = None,
    if_exists: IfExists = "fail",
) -> dict[str, Any]:
    """Make a table of a CSV file, add the file's rows to it, or put them in the place of its own."""
    return _uploaded(request, name, file, ".csv", body, schema, if_exists)


@router.post("/table/{name}/upload/excel", summary="Upload a workbook")
def upload_excel(
    request: Request,
    name: str,
    file: Annotated[UploadFile, File()],
    body: Annotated[str | None, Form()] = None,
    schema: str | None = None,
    if_exists: IfExists = "fail",
) -> dict[str, Any]:
    """The same with the first sheet of a workbook."""
    ending = Path(file.filename or "").suffix.lower()
    if ending != ".xlsx":
        raise InvalidOption(
            f"A workbook is a file .xlsx, and this one is '{ending or 'without an ending'}'.",
            hint="Save it as Excel Workbook (.xlsx)." if ending in _SHEETS else "CSV files go to upload/csv.",
        )
    return _uploaded(request, name, file, ending, body, schema, if_exists)


@router.post("/table/{name}/upload/json", summary="Upload rows")
def upload_json(
    request: Request,
    name: str,
    asked: Annotated[TableBody, Body()],
    schema: str | None = None,
    if_exists: IfExists = "fail",
) -> dict[str, Any]:
    """The same with rows as objects."""
    server: Server = request.app.state.server
    check_right(request.scope["token"], "write", "An upload")
    schema_of(schema)
    if not asked.data:
        raise InvalidOption("There are no rows to upload.")
    with server.sessions.lend(server.limits.max_seconds) as session:
        with _upload(server, name, ".jsonl") as path:
            names = list(dict.fromkeys(key for row in asked.data for key in row))
            _write_rows(path, names, asked.data)
            _copy(server, session, request, name, path, if_exists, _types(_columns(asked.table)))
        return {"table": _described(_table(session, name))}


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
    schema_of(schema)
    with server.sessions.lend(server.limits.max_seconds) as session:
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
        if given:
            with _upload(server, found.name, ".jsonl") as path:
                _write_rows(path, list(known.values()), given)
                types = {column.name: column.type for column in found.columns}
                _copy(server, session, request, found.name, path, "append", types)
        return {"table": _described(_table(session, name))}


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


def remove_leftovers(workspace: Workspace, session: Session) -> int:
    """Remove uploads that no statement reads, of a server that was killed in the middle; their number."""
    root = workspace.data / _UPLOADS
    if not root.is_dir():
        return 0
    statements = "\n".join(entry.text for entry in session.catalog.entries())
    count, before = 0, time.time() - workspace.settings.server.max_seconds
    for path in root.glob("*/*"):
        place = path.relative_to(workspace.data).as_posix()
        # What is younger may be another server's, whose COPY is still to come.
        if path.stat().st_mtime < before and place not in statements:
            path.unlink(missing_ok=True)
            count += 1
    for folder in root.iterdir():
        with suppress(OSError):
            folder.rmdir()
    return count


def _uploaded(
    request: Request,
    name: str,
    file: UploadFile,
    ending: str,
    body: str | None,
    schema: str | None,
    if_exists: IfExists,
) -> dict[str, Any]:
    server: Server = request.app.state.server
    check_right(request.scope["token"], "write", "An upload")
    schema_of(schema)
    try:
        asked = TableBody.model_validate_json(body) if body else TableBody()
    except ValidationError as error:
        raise InvalidOption(f"The part 'body' is wrong: {error.errors()[0]['msg']}.") from error
    with server.sessions.lend(server.limits.max_seconds) as session:
        with _upload(server, name, ending) as path:
            with path.open("wb") as out:
                shutil.copyfileobj(file.file, out)
            _copy(server, session, request, name, path, if_exists, _types(_columns(asked.table)))
        return {"table": _described(_table(session, name))}


def _copy(
    server: Server,
    session: Session,
    request: Request,
    name: str,
    path: Path,
    if_exists: IfExists,
    types: dict[str, str],
) -> None:
    """Bring an uploaded file in, by a COPY."""
    there = _find(session, name)
    if there is not None and if_exists == "fail":
        raise NameExists(f"There is a table {there.name} already.", hint="if_exists says what to do.")
    options = [f"if_exists = {literal(if_exists)}"] if there is not None else []
    if types:
        pairs = ", ".join(f"{literal(column)}: {literal(kind)}" for column, kind in types.items())
        options.append(f"columns = {{{pairs}}}")
    given = f" OPTIONS ({', '.join(options)})" if options else ""
    place = path.relative_to(server.workspace.data).as_posix()
    statement = f"COPY {quote(there.name if there else name)}{given} FROM {literal(place)}"
    session.execute(statement)
    server.log(request, statement)
    if if_exists == "replace":
        for other in path.parent.iterdir():
            if other != path:
                other.unlink(missing_ok=True)
    elif len(list(path.parent.iterdir())) > _PARTS:
        _put_together(server, session, there.name if there else name, path)


def _put_together(server: Server, session: Session, name: str, path: Path) -> None:
    """Make one file of what was written to a table, and one COPY; the rows, and so its version, stay.

    A table that has rows from elsewhere too is left as it is: it would lose where they came from.
    """
    import pyarrow.parquet as pq

    entry = session.catalog.relation(name)
    parts = [] if entry is None else [one for one in session.parse(entry.text) if isinstance(one, Copy)]
    if not parts or not all((one.path or "").startswith(f"{_UPLOADS}/") for one in parts):
        return
    before = list(path.parent.iterdir())
    whole = path.with_suffix(".parquet").with_stem(f"{path.stem}_whole")
    with session.warehouse.read() as connection:
        reader = connection.sql(f"SELECT * FROM {quote(name)}").to_arrow_reader(1 << 16)
        with pq.ParquetWriter(whole, reader.schema) as writer:
            for batch in reader:
                writer.write_batch(batch)
    place = whole.relative_to(server.workspace.data).as_posix()
    session.execute(f"COPY {quote(name)} OPTIONS (if_exists = 'replace') FROM {literal(place)}")
    for old in before:
        old.unlink(missing_ok=True)


@contextmanager
def _upload(server: Server, name: str, ending: str) -> Iterator[Path]:
    """A file for an upload, which is removed where its COPY fails."""
    if not re.match(_NAME, name):
        raise InvalidOption(
            f"'{name[:60]}' is no name of a table.",
            hint="It has 1 to 120 letters, digits and '_'.",
        )
    folder = _folder(server.workspace, name)
    path = folder / f"{now()[:19].replace(':', '').replace('-', '')}_{uuid.uuid4().hex[:8]}{ending}"
    with server.workspace.lock(f"upload-{name}"):  # what one replaces, another may be adding to
        folder.mkdir(parents=True, exist_ok=True)
        try:
            yield path
        except BaseException:
            path.unlink(missing_ok=True)
            with suppress(OSError):
                folder.rmdir()
            raise


def _folder(workspace: Workspace, name: str) -> Path:
    return workspace.data / _UPLOADS / name


def _write_rows(path: Path, names: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps({name: row.get(name) for name in names}, ensure_ascii=False) + "\n")


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


def _types(columns: Sequence[ColumnAsked]) -> dict[str, str]:
    return {column.name: column.type for column in columns}


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
