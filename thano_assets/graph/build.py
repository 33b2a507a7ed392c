"""The graph of assets that the statements of the catalog define."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter

from thano_assets.catalog.entries import (
    PREBUILT_NAME,
    Entry,
    EntryKind,
    entry_of,
    nested_entries,
    nested_names,
    query_of,
)
from thano_assets.errors import QueryError, ThanoError, UnknownModel, UnknownTable, did_you_mean
from thano_assets.sql import parse
from thano_assets.sql.reads import tables_read
from thano_assets.sql.statements import (
    BuildModel,
    Copy,
    CreateTableAs,
    Evaluate,
    FitModel,
    ModelRef,
    Predict,
    Query,
    Statement,
)

#: Key of an asset: its group and its name, as Dagster shows it (``models/my_classifier``).
Key = tuple[str, str]


class NodeKind(StrEnum):
    """The kinds of asset; the value is the first part of the key and the group in the Dagster UI."""

    RAW = "raw"
    TABLE = "tables"
    TRAINING_SET = "training_sets"
    MODEL = "models"
    PREDICTION = "predictions"
    EVALUATION = "evaluations"


# Raised when the code that computes a kind changes what it computes: stored results are then out of date.
CODE_VERSIONS: dict[NodeKind, str] = {
    NodeKind.RAW: "1",
    NodeKind.TABLE: "1",
    NodeKind.TRAINING_SET: "1",
    NodeKind.MODEL: "1",
    NodeKind.PREDICTION: "1",
    NodeKind.EVALUATION: "1",
}


@dataclass(frozen=True)
class Node:
    """One asset: what it is called, the entry that defines it, and the keys of what it reads."""

    kind: NodeKind
    name: str
    entry: Entry
    reads: tuple[Key, ...]

    @property
    def key(self) -> Key:
        """``(group, name)``."""
        return (self.kind.value, self.name)

    @property
    def code_version(self) -> str:
        """Changes when the statement's meaning or the code that computes it changes."""
        text = f"{self.kind}:{CODE_VERSIONS[self.kind]}:{self.entry.digest}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class Graph:
    """All assets, by key, with their edges.

    Entries whose file cannot be parsed any more are left out and listed in :attr:`broken`.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.nodes: dict[Key, Node] = {}
        self.broken: dict[Entry, ThanoError] = {}
        self._relations: dict[str, Key] = {}
        self._models: dict[str, Key] = {}
        usable = []
        for entry in _with_derived(entries, self.broken):
            key = (entry.kind.value, entry.name)
            names = self._relations if entry.kind.is_relation else self._models
            names[entry.name.casefold()] = key
            usable.append(entry)
        for entry in usable:
            for node in self._nodes_of(entry):
                self.nodes[node.key] = node
        self._leave_out_circles()

    def _leave_out_circles(self) -> None:
        """Statements that read each other in a circle (files edited by hand) are broken."""
        while True:
            try:
                TopologicalSorter({key: node.reads for key, node in self.nodes.items()}).prepare()
                return
            except CycleError as error:
                circle: list[Key] = error.args[1]
            path = " ← ".join("/".join(key) for key in circle)
            for key in set(circle):
                node = self.nodes.pop(key)
                self.broken[node.entry] = QueryError(
                    f"{node.name} would be made from what is made from it ({path})."
                )

    def relation_key(self, name: str) -> Key | None:
        """The key of the asset that makes the table ``name``."""
        return self._relations.get(name.casefold())

    def model_key(self, name: str) -> Key | None:
        """The key of the asset that makes the model ``name``."""
        return self._models.get(name.casefold())

    def relation_names(self) -> list[str]:
        """Names of all tables that some statement makes."""
        return sorted(key[1] for key in self._relations.values())

    def model_names(self) -> list[str]:
        """Names of all models that some statement makes."""
        return sorted(key[1] for key in self._models.values())

    def ancestors(self, key: Key) -> list[Node]:
        """Everything that ``key`` stands on, itself last, each after what it reads."""
        ordered: dict[Key, Node] = {}
        self._visit(key, ordered, set())
        return list(ordered.values())

    def _visit(self, key: Key, ordered: dict[Key, Node], open_keys: set[Key]) -> None:
        node = self.nodes.get(key)
        if node is None or key in ordered or key in open_keys:
            return
        open_keys.add(key)
        for read in node.reads:
            self._visit(read, ordered, open_keys)
        ordered[key] = node

    def readers(self, key: Key) -> list[Node]:
        """The assets that read ``key`` directly."""
        return [node for node in self.nodes.values() if key in node.reads]

    def _nodes_of(self, entry: Entry) -> list[Node]:
        if entry.kind is EntryKind.MODEL:
            return self._model_nodes(entry)
        nodes = []
        reads: list[Key] = []
        for statement in entry.statements:
            if isinstance(statement, Copy):
                if statement.path is not None:
                    reads.append((NodeKind.RAW.value, entry.name))
            else:
                reads.extend(self._statement_reads(statement))
        raw = (NodeKind.RAW.value, entry.name)
        if raw in reads:
            nodes.append(Node(NodeKind.RAW, entry.name, entry, ()))
        own = (entry.kind.value, entry.name)
        kept = tuple(dict.fromkeys(key for key in reads if key != own))
        nodes.append(Node(NodeKind(entry.kind.value), entry.name, entry, kept))
        return nodes

    def _model_nodes(self, entry: Entry) -> list[Node]:
        statement = entry.statement
        if not isinstance(statement, (BuildModel, FitModel)):  # the pre-built model reads nothing of ours
            return [Node(NodeKind.MODEL, entry.name, entry, ())]
        rows = Node(
            NodeKind.TRAINING_SET, entry.name, entry, tuple(dict.fromkeys(self.query_reads(statement.query)))
        )
        reads = [rows.key]
        if isinstance(statement, FitModel):
            parent = self._model_ref_key(statement.parent)
            if parent != (
                NodeKind.MODEL.value,
                entry.name,
            ):  # FIT MODEL m USING m goes on from its last version
                reads.append(parent)
        return [rows, Node(NodeKind.MODEL, entry.name, entry, tuple(reads))]

    def _statement_reads(self, statement: Statement) -> list[Key]:
        keys: list[Key] = []
        inner = statement.body if isinstance(statement, CreateTableAs) else statement
        if isinstance(inner, (Predict, Evaluate)):
            keys.append(self._model_ref_key(inner.model))
        query = query_of(statement)
        if query is not None:
            keys.extend(self.query_reads(query))
        return keys

    def query_reads(self, query: Query) -> list[Key]:
        """Keys of the tables and nested statements that ``query`` reads, in the order of the text."""
        names = nested_names(query)
        kept = {entry.name for nested in query.nested if (entry := entry_of(nested.statement))}
        keys = []
        for read in tables_read(query.render(names).text).tables:
            if read.name in names and read.name not in kept:
                continue  # LIST: a relation of the moment, not an asset
            keys.append(self.relation_key(read.name) or (NodeKind.TABLE.value, read.name))
        return keys

    def _model_ref_key(self, ref: ModelRef) -> Key:
        return self.model_key(ref.name) or (NodeKind.MODEL.value, ref.name)


def _with_derived(entries: Iterable[Entry], broken: dict[Entry, ThanoError]) -> list[Entry]:
    """The entries and those of the statements nested in them; unreadable ones go to ``broken``."""
    found: dict[Key, Entry] = {}
    for entry in entries:
        try:
            for statement in entry.statements:
                for nested in nested_entries(statement):
                    found.setdefault((nested.kind.value, nested.name), nested)
            if not entry.statements:
                continue
        except ThanoError as error:
            broken[entry] = error
            continue
        found[(entry.kind.value, entry.name)] = entry
    return list(found.values())


def check_reads(
    statement: Statement, graph: Graph, known_models: Iterable[str], known_tables: Iterable[str]
) -> None:
    """Check that every table and model that ``statement`` names exists.

    Args:
        statement: What reads.
        graph: All assets, those of the statements nested in ``statement`` among them.
        known_models: Models of the registry.
        known_tables: Tables to suggest where a name is not found.

    Raises:
        UnknownTable: a table of the query that no statement makes.
        UnknownModel: a model that is neither defined here nor in the registry (``known_models``).
    """
    inner = statement.body if isinstance(statement, CreateTableAs) else statement
    ref = inner.parent if isinstance(inner, FitModel) else getattr(inner, "model", None)
    if isinstance(ref, ModelRef):
        models = sorted({*graph.model_names(), *known_models})
        if ref.name not in models and ref.name != PREBUILT_NAME:
            raise UnknownModel(
                f"There is no model {ref.name}.", hint=did_you_mean(ref.name, models, "models")
            ).at(statement.source, ref.span.start, len(ref.name))
    query = query_of(statement)
    if query is None:
        return
    for nested in query.nested:
        check_reads(nested.statement, graph, known_models, known_tables)
    names = nested_names(query)
    rendered = query.render(names)
    for read in tables_read(rendered.text).tables:
        if read.name not in names and graph.relation_key(read.name) is None:
            raise UnknownTable(
                f"There is no table {read.name}.", hint=did_you_mean(read.name, known_tables, "tables")
            ).at(statement.source, rendered.to_source(read.offset), len(read.name))


def prebuilt_entry() -> Entry:
    """The entry of the pre-built classifier, which answers without having been asked for."""
    statement = parse("GET THANOSQL MODEL electra")[0]
    entry = entry_of(statement)
    assert entry is not None
    return entry
