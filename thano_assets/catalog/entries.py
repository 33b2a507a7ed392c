"""What one entry of the catalog is: a name, its kind, and the statements that make it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from thano_assets.catalog.kinds import EntryKind
from thano_assets.sql import parse
from thano_assets.sql.query import Query
from thano_assets.sql.reads import tables_read
from thano_assets.sql.statements import (
    BuildModel,
    Copy,
    CreateTableAs,
    Expect,
    FitModel,
    GetThanosql,
    ModelQuery,
    Statement,
    UploadModel,
)

#: The name of the pre-built classifier where ``GET THANOSQL MODEL`` is not told another.
PREBUILT_NAME = "tutorial_text_classification"
#: Names by which GET THANOSQL MODEL fetches the pre-built classifier: ThanoSQL's, and its own.
PREBUILT_NAMES = ("electra", PREBUILT_NAME)


#: How automatic names end.
AUTOMATIC = re.compile(r"_[0-9a-f]{6}$")


@dataclass(frozen=True)
class Entry:
    """A name and the text that defines it.

    ``text`` holds one statement, or, for a table that grew by ``COPY … if_exists='append'``,
    the statements that make it, in order.
    """

    kind: EntryKind
    name: str
    text: str

    @cached_property
    def statements(self) -> tuple[Statement, ...]:
        """The parsed statements of :attr:`text`.

        Raises:
            ThanoError: the text, edited by hand perhaps, is no longer a legal statement.
        """
        return tuple(parse(self.text))

    @property
    def statement(self) -> Statement:
        """The statement that defines the name (the first, where later ones append)."""
        return self.statements[0]

    def option(self, name: str) -> Any:
        """What the statements say of an option, the last one that says it; ``None`` where none does."""
        found = None
        for statement in self.statements:
            inner = statement.inner
            if isinstance(inner, Statement):
                found = inner.options.get(name) or found
        return found

    @property
    def is_unnamed(self) -> bool:
        """Whether it is a result that nobody named: of a bare PREDICT, EVALUATE and their like."""
        if not AUTOMATIC.search(self.name):
            return False
        statement = self.statement
        if not isinstance(statement, CreateTableAs) or isinstance(statement.body, Query):
            return False
        return self.name == automatic_name(statement.body)

    @property
    def digest(self) -> str:
        """Identity of the definition, free of white space, comments and option order (hex SHA-256)."""
        canonical = "\n".join(statement.canonical() for statement in self.statements)
        return hashlib.sha256(canonical.encode()).hexdigest()


def entry_of(statement: Statement) -> Entry | None:
    """The catalog entry that ``statement`` defines, ``None`` where it defines nothing.

    A bare PREDICT, EXPLAIN PREDICT, EVALUATE, CONVERT or SEARCH gets a name made of what it does, so that
    the same statement, however it is spaced, always names the same table.
    """
    match statement:
        case Copy(table=name):
            return Entry(EntryKind.TABLE, name, _file_text(statement.text))
        case CreateTableAs(name=name, body=body):
            return Entry(_body_kind(body), name, _file_text(statement.text))
        case BuildModel(name=name) | FitModel(name=name) | UploadModel(name=name):
            return Entry(EntryKind.MODEL, name, _file_text(statement.text))
        case GetThanosql(what="MODEL"):
            name = str(statement.options.get("model_name") or PREBUILT_NAME)
            return Entry(EntryKind.MODEL, name, _file_text(statement.text))
        case ModelQuery():
            name = automatic_name(statement)
            text = f'CREATE OR REPLACE TABLE "{name}" AS\n{statement.text.strip()}'
            return Entry(_body_kind(statement), name, _file_text(text))
        case Expect(table=name):
            digest = hashlib.sha256(statement.canonical().encode()).hexdigest()[:6]
            return Entry(EntryKind.CHECK, f"{name}_{digest}", _file_text(statement.text))
    return None


def is_about(check: Entry, table: str) -> bool:
    """Whether the EXPECT of ``check`` is about ``table``; the name tells, nothing is parsed."""
    return check.name.rpartition("_")[0].casefold() == table.casefold()


def _file_text(text: str) -> str:
    return text.strip() + "\n;\n"


def _body_kind(body: Query | ModelQuery) -> EntryKind:
    return EntryKind.TABLE if isinstance(body, Query) else EntryKind(body.makes)


def automatic_name(statement: ModelQuery) -> str:
    """``predict_<model>_<table>_<digest>``: readable, and the same for the same statement."""
    words = [statement.option_kind, statement.model.name]
    rendered = statement.query.render(nested_names(statement.query))
    tables = tables_read(rendered.text).tables
    if tables:
        words.append(tables[0].name)
    stem = re.sub(r"\W+", "_", "_".join(words)).strip("_").lower()[:48]
    return f"{stem}_{hashlib.sha256(statement.canonical().encode()).hexdigest()[:6]}"


def nested_names(query: Query) -> list[str]:
    """The names that take the place of the statements nested in ``query``, in their order."""
    names = []
    for number, nested in enumerate(query.nested):
        match nested.statement:
            case ModelQuery():
                names.append(automatic_name(nested.statement))
            case _:
                names.append(
                    f"nested_{number}_{hashlib.sha256(nested.statement.canonical().encode()).hexdigest()[:6]}"
                )
    return names


def query_of(statement: Statement) -> Query | None:
    """The query that ``statement`` reads its rows from, if it has one."""
    if isinstance(statement, CreateTableAs):
        body = statement.body
        return body if isinstance(body, Query) else body.query
    query = getattr(statement, "query", None)
    return query if isinstance(query, Query) else None


def nested_entries(statement: Statement) -> list[Entry]:
    """Entries of the statements nested in ``statement``'s query, innermost first."""
    query = statement.rows_from
    found: list[Entry] = []
    for nested in query.nested if query else ():
        found.extend(nested_entries(nested.statement))
        entry = entry_of(nested.statement)
        if entry is not None:
            found.append(entry)
    return found
