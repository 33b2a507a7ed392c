"""DROP TABLE and DELETE MODEL: what goes, and all that is kept of it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from thano_assets.assets.models.training_sets import TrainingSet
from thano_assets.assets.predictions import prediction_cache
from thano_assets.assets.runtime import Runtime
from thano_assets.catalog import Catalog, Entry, EntryKind
from thano_assets.catalog.entries import AUTOMATIC
from thano_assets.commands.expectations import forget
from thano_assets.errors import UnknownModel, UnknownTable, did_you_mean
from thano_assets.graph import Graph, NodeKind
from thano_assets.resources.workspace import DROPPED
from thano_assets.results import Result, counted
from thano_assets.sql.statements import MODEL_QUERIES, DeleteModel, DropTable
from thano_assets.system import is_abandoned, scratch_file

if TYPE_CHECKING:
    from thano_assets.orchestration.runner import Runner


#: Seconds in which whoever asked has read the rows of a result without a name.
_READ_SECONDS = 600.0
_FIRST_WORDS = "|".join(sorted({kind.split()[0] for kind in MODEL_QUERIES}))
# Where a statement may stand in a query: after a parenthesis, and perhaps comments.
_NESTED = re.compile(rf"(?is)\((?:\s|--[^\n]*\n|/\*.*?\*/)*(?:{_FIRST_WORDS})\b")


def drop_table(
    statement: DropTable, runtime: Runtime, runner: Callable[[], Runner], catalog: Catalog
) -> Result:
    """Drop a table, its statement and what is expected of it.

    Args:
        statement: The statement.
        runtime: The workspace's resources.
        runner: Opens the runner, where Dagster has to forget something.
        catalog: Of the workspace.

    Raises:
        UnknownTable: there is none of that name.
    """
    entry = catalog.relation(statement.name)
    there = runtime.warehouse.exists(statement.name)
    if entry is None and not there:
        if statement.if_exists:
            return Result(statement.kind, statement.text, f"there is no table {statement.name}")
        known = [table.name for table in runtime.warehouse.tables()]
        raise UnknownTable(
            f"There is no table {statement.name}.", hint=did_you_mean(statement.name, known, "tables")
        ).at(statement.source, statement.name_span.start, len(statement.name))
    result = Result(statement.kind, statement.text, f"table {statement.name} dropped")
    if there and not runtime.warehouse.has_own(statement.name):
        runtime.warehouse.drop(statement.name)  # says whose it is
    _drop(statement.name, entry, result, runtime, runner, catalog)
    return result


def drop_unnamed(runtime: Runtime, runner: Callable[[], Runner], catalog: Catalog) -> int:
    """Drop the oldest results that nobody named, beyond ``[statements] unnamed_results`` of ``thano.toml``.

    Those stay that another statement reads, that are expected to be something, or that a schedule or a watch
    makes again; and those of the last minutes, whose rows somebody may still be reading.

    Args:
        runtime: The workspace's resources.
        runner: Opens the runner, where Dagster has to forget something.
        catalog: Of the workspace.

    Returns:
        How many were dropped.
    """
    keep = runtime.workspace.settings.statements.unnamed_results
    own = Catalog(runtime.workspace.statements)
    relations = [kind for kind in EntryKind if kind.is_relation]
    if sum(bool(AUTOMATIC.search(name)) for name in own.names(*relations)) <= keep:
        return 0
    entries = catalog.entries()
    unnamed = [entry for entry in own.entries() if entry.is_unnamed]
    names = [entry.name.casefold() for entry in unnamed]
    # Most of a large catalog has nothing to do with them, and need not be parsed to see that.
    graph = Graph(
        one
        for one in entries
        if _NESTED.search(one.text) or any(name in one.text.casefold() for name in names)
    )
    unnamed = [entry for entry in unnamed if not _is_needed(entry, graph, catalog)]
    dropped = 0
    for entry in sorted(unnamed, key=own.written)[: max(0, len(unnamed) - keep)]:
        seen = own.written(entry)
        if time.time() - seen < _READ_SECONDS:
            continue
        with runtime.workspace.table_lock(entry.name):
            if own.written(entry) == seen:  # not asked again meanwhile
                _drop(entry.name, entry, Result("", ""), runtime, runner, catalog)
                dropped += 1
    return dropped


def _is_needed(entry: Entry, graph: Graph, catalog: Catalog) -> bool:
    readers = graph.readers((entry.kind.value, entry.name))
    return bool(
        any(node.name != entry.name for node in readers)
        or catalog.expectations(entry.name)
        or entry.option("schedule")
        or entry.option("watch")
    )


def _drop(
    name: str,
    entry: Entry | None,
    result: Result,
    runtime: Runtime,
    runner: Callable[[], Runner],
    catalog: Catalog,
) -> None:
    # The statement goes first; the other way round, after a kill, the next query would make the table again.
    with scratch_file(runtime.workspace.locks, DROPPED) as note:
        note.write_text(name, encoding="utf-8")
        if entry is not None:
            forget(entry.name, catalog)
            _forget(entry, result, catalog)
        if runtime.warehouse.has_own(name):
            runtime.warehouse.drop(name)
    if entry is not None:
        _forget_history(entry, NodeKind.RAW, runner)


def finish_drops(runtime: Runtime, catalog: Catalog) -> None:
    """Drop the tables whose DROP TABLE was killed when their statements were gone already."""
    for note in filter(is_abandoned, runtime.workspace.unfinished_drops()):
        name = note.read_text(encoding="utf-8")
        if name and catalog.relation(name) is None and runtime.warehouse.has_own(name):
            runtime.warehouse.drop(name)
        note.unlink(missing_ok=True)


def delete_model(
    statement: DeleteModel, runtime: Runtime, runner: Callable[[], Runner], catalog: Catalog
) -> Result:
    """Delete a model with all its versions, its statement and what its versions answered.

    Args:
        statement: The statement.
        runtime: The workspace's resources.
        runner: Opens the runner, where Dagster has to forget something.
        catalog: Of the workspace.

    Raises:
        UnknownModel: there is none of that name.
    """
    name = runtime.registry.spelt(statement.name)
    entry = catalog.model(name)
    versions = runtime.registry.versions(name)
    if entry is None and not versions:
        known = sorted({*runtime.registry.models(), *catalog.names(EntryKind.MODEL)})
        raise UnknownModel(f"There is no model {name}.", hint=did_you_mean(name, known, "models")).at(
            statement.source, statement.name_span.start, len(name)
        )
    result = Result(
        statement.kind, statement.text, f"model {name} deleted, {counted(len(versions), 'version')}"
    )
    others = {one for one in runtime.registry.models() if one.casefold() == name.casefold() and one != name}
    if others and versions:
        entry = None  # a registry of before has two models of that name, and the statement is the other's too
    if entry is not None:
        _forget(entry, result, catalog)
    if versions:
        runtime.registry.delete(name)
        for version in versions:
            prediction_cache.forget(runtime.workspace, version.data_version)
    if entry is not None:
        TrainingSet.forget(runtime.workspace, entry.name)
        _forget_history(entry, NodeKind.TRAINING_SET, runner)
    return result


def _forget(entry: Entry, result: Result, catalog: Catalog) -> None:
    """Take the entry out of the catalog, and say who read it."""
    key = (entry.kind.value, entry.name)
    graph = Graph(catalog.entries())
    readers = ["/".join(node.key) for node in graph.readers(key) if node.name != entry.name]
    catalog.remove(entry.kind, entry.name)
    if readers:
        result.warnings.append(f"{', '.join(readers)} read it and cannot be made again without it.")


def _forget_history(entry: Entry, beside: NodeKind, runner: Callable[[], Runner]) -> None:
    """Take the entry's assets out of Dagster's memory."""
    runner().forget([(entry.kind.value, entry.name), (beside.value, entry.name)])
