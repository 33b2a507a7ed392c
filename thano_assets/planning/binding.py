"""A statement bound to a workspace: the entries it defines, checked against what is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thano_assets.assets.models.bases import check_models
from thano_assets.catalog import Entry, EntryKind, entry_of
from thano_assets.catalog.entries import (
    PREBUILT_NAME,
    nested_entries,
    nested_names,
)
from thano_assets.catalog.overlay import Entries, Overlay
from thano_assets.errors import (
    InvalidOption,
    QueryError,
    ThanoError,
    UnsupportedStatement,
)
from thano_assets.graph import Graph
from thano_assets.graph.build import Key, model_ref, names_read, prebuilt_entry
from thano_assets.graph.names import check_reads
from thano_assets.resources.files import may_be_read
from thano_assets.sql.grammar import STATEMENT_SPECS
from thano_assets.sql.reads import tables_read
from thano_assets.sql.statements import (
    Copy,
    CreateTableAs,
    Expect,
    FitModel,
    ModelQuery,
    ModelRef,
    Plan,
    QueryStatement,
    Search,
    Statement,
)

if TYPE_CHECKING:
    from thano_assets.resources.workspace import Workspace


@dataclass(frozen=True)
class Bound:
    """A statement that materializes something.

    Attributes:
        statement: The statement.
        entries: What the catalog keeps of it: the entries of nested statements, then its own.
        graph: The catalog's graph with these entries in it.
        targets: Keys of the assets to make, in order; the last is the statement's own answer.
    """

    statement: Statement
    entries: list[Entry]
    graph: Graph
    targets: list[Key]


def check_served(statement: Statement) -> None:
    """Check that this version runs the statement, everything nested in it, and all its options.

    Raises:
        UnsupportedStatement: it is legal, and not there yet.
    """
    for part in parts(statement):
        if not STATEMENT_SPECS[part.option_kind].available:
            raise UnsupportedStatement(
                f"{part.option_kind} is part of the language, but this version does not run it yet.",
                hint="What it runs is listed in docs/language.md.",
            ).at(part.source, part.span.start, len(part.kind))
        if isinstance(part, Search) and part.what == "TEXT" and part.options.get("search_input") is None:
            raise InvalidOption(
                "SEARCH TEXT has no search_input.",
                hint="Say what to search for: OPTIONS (search_input='a boring film', …).",
            ).at(part.source, part.span.start, len(part.kind))
        for name in part.options.unavailable():
            span = part.options.place(name)
            raise UnsupportedStatement(
                f"Option {name} is part of the language, but this version does not act on it yet.",
                hint="Leave it out.",
            ).at(part.source, span.start, span.end - span.start)


def check_files(statement: Statement, workspace: Workspace) -> None:
    """Check that the queries of a statement read no file but those that COPY may read.

    DuckDB itself lets a query read its own database file and the snapshots, whatever its settings.

    Raises:
        QueryError: one does, or what it reads is told only when it runs.
    """
    for part in parts(statement):
        query = part.rows_from
        place: Callable[[int], int]
        if query is not None:
            rendered = query.render(nested_names(query))
            text, place = rendered.text, rendered.to_source
        elif isinstance(part, Expect):
            before = "SELECT * FROM t WHERE "
            start = part.condition_span.start - len(before)
            text, place = before + part.condition_span.slice(part.source), start.__add__
        else:
            continue
        for read in tables_read(text).files:
            if not may_be_read(workspace, read.path_or_function):
                raise QueryError(
                    f"A query may not read {read.path_or_function}.",
                    hint="COPY table FROM 'path' brings in files of the data folder; queries read tables.",
                ).at(part.source, max(part.span.start, place(max(read.offset, 0))))


def parts(statement: Statement) -> Iterator[Statement]:
    """The statement and every statement inside it."""
    yield statement
    if isinstance(statement, Plan):
        yield from parts(statement.statement)
    if isinstance(statement, CreateTableAs) and isinstance(statement.body, Statement):
        yield from parts(statement.body)
        return
    query = statement.rows_from
    for nested in query.nested if query else ():
        yield from parts(nested.statement)


def bind(
    statement: Statement,
    catalog: Entries,
    known_models: Iterable[str],
    present: Iterable[str] | None = None,
    *,
    own: Entry | None = None,
) -> Bound:
    """Find what the statement defines and check that what it reads exists.

    Args:
        statement: The statement.
        catalog: What was defined before.
        known_models: Models of the registry.
        present: Tables of the warehouse; a bare query then makes the defined ones that are missing there.
        own: What the statement defines, where that is not what it says by itself.

    Raises:
        UnknownTable, UnknownModel, UnknownBaseModel: it reads what nobody makes.
        UnsupportedStatement: a base model where a classifier is meant, or the other way round.
        QueryError: it would read its own result.
    """
    new = nested_entries(statement)
    targets = [(entry.kind.value, entry.name) for entry in new]
    own = own or _own_entry(statement, catalog)
    if own is not None:
        new.append(own)
        targets.append((own.kind.value, own.name))
    known = set(known_models)
    for ref in _model_refs(statement):
        unknown = ref.name.casefold() not in {name.casefold() for name in known}
        if ref.name.casefold() == PREBUILT_NAME and unknown and catalog.model(ref.name) is None:
            new.insert(0, prebuilt_entry())
    before = Overlay(catalog)
    before.put(new)
    graph = Graph.around(new, before, names_read(statement))
    known.update(catalog.names(EntryKind.MODEL))
    tables = catalog.names(*(kind for kind in EntryKind if kind.is_relation))
    check_reads(statement, graph, known, tables)
    for part in parts(statement):
        check_models(part, before, known)
    if own is not None:
        _check_not_circular(statement, own, graph)
    if isinstance(statement, QueryStatement) and present is not None:
        there = {name.casefold() for name in present}
        missing = [key for key in graph.query_reads(statement.query) if key[1].casefold() not in there]
        targets.extend(key for key in missing if key not in targets)
    return Bound(statement, list(dict.fromkeys(new)), graph, list(dict.fromkeys(targets)))


def _own_entry(statement: Statement, catalog: Entries) -> Entry | None:
    own = entry_of(statement)
    if own is None or own.kind is EntryKind.CHECK:
        return None
    if not isinstance(statement, Copy) or statement.mode != "append":
        return own
    before = catalog.relation(own.name)
    return own if before is None else Entry(before.kind, before.name, before.text + own.text)


def _model_refs(statement: Statement) -> Iterator[ModelRef]:
    for part in parts(statement):
        if isinstance(part, ModelQuery):
            if (ref := model_ref(part)) is not None:
                yield ref
        elif isinstance(part, FitModel):
            yield part.parent


def _check_not_circular(statement: Statement, own: Entry, graph: Graph) -> None:
    error: ThanoError | None = None
    query = statement.rows_from
    if query is None or isinstance(statement, FitModel):
        return
    key = (own.kind.value, own.name)
    if key in graph.query_reads(query):
        error = QueryError(
            f"{own.name} would be made from itself.",
            hint="A table can be made again from its statement at any time: give the result another name.",
        )
    elif own in graph.broken:
        error = graph.broken[own]
        error.hint = "Give the result another name."
    if error is not None:
        raise error.at(statement.source, query.span.start)
