"""The graph of assets that the statements of the catalog define."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TypeVar

from thano_assets.catalog.entries import (
    Entry,
    EntryKind,
    entry_of,
    nested_entries,
    nested_names,
)
from thano_assets.catalog.kinds import CODE_VERSIONS, NodeKind
from thano_assets.catalog.overlay import Entries
from thano_assets.errors import (
    QueryError,
    ThanoError,
)
from thano_assets.sql import parse
from thano_assets.sql.base_names import (
    is_embedding_base,
    may_be_own_base,
)
from thano_assets.sql.options import OPTION_SPECS
from thano_assets.sql.query import Query
from thano_assets.sql.reads import tables_read
from thano_assets.sql.statements import (
    BuildBaseModel,
    BuildModel,
    Copy,
    EncoderQuery,
    Expect,
    FitModel,
    ModelQuery,
    ModelRef,
    Statement,
    TrainModel,
)

#: Options that say how a new version is compared with the champion, not how it is trained.
JUDGING_OPTIONS = frozenset({"promote_if", "evaluate_on", "strict"})

#: Options that say which columns of the query are learnt from, and as what.
READING_OPTIONS = ("text_col", "label_col", "features_to_drop", "datetime_attribs")

S = TypeVar("S", bound=Statement)

#: Key of an asset: its group and its name, as Dagster shows it (``models/my_classifier``).
Key = tuple[str, str]


@dataclass(frozen=True)
class Node:
    """One asset: what it is called, the entry that defines it, and the keys of what it reads.

    ``content`` stands for what the asset reads from outside the graph, as it is now: the bytes of a file,
    the revision of a base model. It is part of the code version, so that Dagster marks the asset when it
    changes.
    """

    kind: NodeKind
    name: str
    entry: Entry
    reads: tuple[Key, ...]
    content: str = ""

    @property
    def key(self) -> Key:
        """``(group, name)``."""
        return (self.kind.value, self.name)

    def statement(self, cls: type[S]) -> S:
        """The statement of that class which makes the asset, perhaps after AS of a CREATE TABLE.

        Raises:
            TypeError: a statement of another class makes it.
        """
        statement = self.entry.statement
        found = statement if isinstance(statement, cls) else statement.inner
        if not isinstance(found, cls):
            raise TypeError(f"{self.name} is made by {statement.kind}, not by {cls.__name__}.")
        return found

    @property
    def is_result(self) -> bool:
        """Whether it is what the statement is there for: not a COPY's file, not a BUILD's training set."""
        return self.kind not in (NodeKind.RAW, NodeKind.TRAINING_SET, NodeKind.MODEL_VERSION)

    @property
    def code_version(self) -> str:
        """Changes when the statement's meaning or the code that computes it changes."""
        text = f"{self.kind}:{CODE_VERSIONS[self.kind]}:{self._identity}:{self.content}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def _identity(self) -> str:
        """What of the entry's statements matters to this asset."""
        statement = self.entry.statement
        if isinstance(statement, TrainModel):
            if self.kind is NodeKind.MODEL:
                return training_identity(statement)
            columns = [statement.options.value(name) for name in row_options(statement)]
            return repr((statement.query.canonical(), columns))
        if self.kind is NodeKind.RAW:
            copies = [part for part in self.entry.statements if isinstance(part, Copy)]
            return repr([part.path for part in copies if part.path is not None])
        return self.entry.digest


def row_options(statement: TrainModel) -> tuple[str, ...]:
    """Those of :data:`READING_OPTIONS` that the statement has: a base model needs no labels."""
    known = OPTION_SPECS[statement.options.kind]
    return tuple(name for name in READING_OPTIONS if name in known)


def training_identity(statement: TrainModel, *, judged: bool = True) -> str:
    """What a BUILD or FIT MODEL says besides its query, whose rows are the training set's business.

    Args:
        statement: The statement.
        judged: With the options that say how the new version is compared with the champion. Without them
            the text stands for what is trained.
    """
    options = {
        name: value
        for name, value in statement.options.filled().items()
        if OPTION_SPECS[statement.options.kind][name].identity and (judged or name not in JUDGING_OPTIONS)
    }
    return repr((statement.kind, statement.name, statement.start, sorted(options.items())))


def model_ref(statement: Statement) -> ModelRef | None:
    """The registered model that a statement asks or goes on from; ``None`` where it names a base model."""
    ref = statement.model_named
    if ref is None:
        return None
    if isinstance(statement, EncoderQuery) and is_embedding_base(ref.name, ref.quoted):
        return None
    return ref


class Graph:
    """All assets, by key, with their edges.

    Entries whose file cannot be parsed any more are left out and listed in :attr:`broken`.
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.nodes: dict[Key, Node] = {}
        #: What is expected of a table: the entries of its EXPECT statements.
        self.expectations: dict[Key, list[Entry]] = {}
        self.broken: dict[Entry, ThanoError] = {}
        self._relations: dict[str, Key] = {}
        self._models: dict[str, Key] = {}
        self._bases: set[str] = set()
        usable = []
        for entry in _with_derived(entries, self.broken):
            usable.append(entry)
            if entry.kind is EntryKind.CHECK:
                continue
            key = (entry.kind.value, entry.name)
            names = self._relations if entry.kind.is_relation else self._models
            names[entry.name.casefold()] = key
            if makes_base(entry):
                self._bases.add(entry.name)
        for entry in usable:
            if isinstance(entry.statement, Expect):
                name = entry.statement.table
                table = self.relation_key(name) or (NodeKind.TABLE.value, name)
                self.expectations.setdefault(table, []).append(entry)
                continue
            for node in self._nodes_of(entry):
                self.nodes[node.key] = node
        self._leave_out_circles()

    @classmethod
    def around(
        cls, entries: Iterable[Entry], catalog: Entries, names: Iterable[tuple[bool, str]] = ()
    ) -> Graph:
        """The graph of ``entries`` and of what they stand on, looked up in ``catalog`` by name.

        What a statement needs of a large catalog, without parsing all of it.

        Args:
            entries: Where to begin.
            catalog: Everything.
            names: More to begin with: tables (with True) and models (with False).
        """
        found: dict[tuple[EntryKind, str], Entry] = {}
        waiting = list(entries)
        for relation, name in names:
            other = catalog.relation(name) if relation else catalog.model(name)
            if other is not None:
                waiting.append(other)
        seen: set[tuple[bool, str]] = set()
        while waiting:
            entry = waiting.pop()
            if (entry.kind, entry.name) in found:
                continue
            found[entry.kind, entry.name] = entry
            if entry.kind is not EntryKind.CHECK:
                seen.add((entry.kind.is_relation, entry.name.casefold()))
            try:
                wanted = {name for statement in entry.statements for name in names_read(statement)}
            except ThanoError:
                continue  # listed in :attr:`broken` below
            if entry.kind.is_relation:
                waiting.extend(catalog.expectations(entry.name))
            for relation, name in wanted:
                if (relation, name.casefold()) in seen:
                    continue
                other = catalog.relation(name) if relation else catalog.model(name)
                if other is not None:
                    waiting.append(other)
        return cls(found.values())

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

    def base_key(self, statement: BuildModel) -> Key | None:
        """The key of the base model built here that ``statement`` starts from; ``None`` for any other base.

        In quotes a name means a folder or a repository, unless a statement makes a base model of that name.
        """
        name = statement.base
        if not may_be_own_base(name, statement.base_quoted) or name == statement.name:
            return None
        if statement.base_quoted and name not in self._bases:
            return None
        return self.model_key(name) or (NodeKind.MODEL.value, name)

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
        for statement in entry.statements:
            inner = statement.inner
            if isinstance(inner, ModelQuery) and (ref := model_ref(inner)) is not None:
                nodes.extend(self._version_nodes(entry, ref))
        raw = (NodeKind.RAW.value, entry.name)
        if raw in reads:
            nodes.append(Node(NodeKind.RAW, entry.name, entry, ()))
        own = (entry.kind.value, entry.name)
        kept = tuple(dict.fromkeys(key for key in reads if key != own))
        nodes.append(Node(NodeKind(entry.kind.value), entry.name, entry, kept))
        return nodes

    def _model_nodes(self, entry: Entry) -> list[Node]:
        statement = entry.statement
        if not isinstance(statement, TrainModel):  # pre-built and uploaded ones read nothing of ours
            return [Node(NodeKind.MODEL, entry.name, entry, ())]
        rows = Node(
            NodeKind.TRAINING_SET, entry.name, entry, tuple(dict.fromkeys(self.query_reads(statement.query)))
        )
        nodes, reads = [rows], [rows.key]
        if isinstance(statement, FitModel):
            parent = self._model_ref_key(statement.parent)
            if parent != (NodeKind.MODEL.value, entry.name):  # it goes on from its own last version
                reads.append(parent)
                nodes.extend(self._version_nodes(entry, statement.parent))
        if isinstance(statement, BuildModel) and (base := self.base_key(statement)) is not None:
            reads.append(base)
        if table := statement.options.get("evaluate_on"):
            reads.append(self.relation_key(str(table)) or (NodeKind.TABLE.value, str(table)))
        return [*nodes, Node(NodeKind.MODEL, entry.name, entry, tuple(dict.fromkeys(reads)))]

    def _version_nodes(self, entry: Entry, ref: ModelRef) -> list[Node]:
        """A node for the version or alias that ``ref`` pins; none where it means the champion."""
        key = self._model_ref_key(ref)
        return [Node(NodeKind.MODEL_VERSION, key[1], entry, ())] if key[0] == NodeKind.MODEL_VERSION else []

    def _statement_reads(self, statement: Statement) -> list[Key]:
        keys: list[Key] = []
        inner = statement.inner
        if isinstance(inner, ModelQuery) and (ref := model_ref(inner)) is not None:
            keys.append(self._model_ref_key(ref))
        query = statement.rows_from
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
        if not ref.is_champion:
            name = (self.model_key(ref.name) or ("", ref.name))[1]
            pinned = f"VERSION {ref.version}" if ref.version is not None else f"@{ref.alias}"
            return (NodeKind.MODEL_VERSION.value, f"{name} {pinned}")
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


def names_read(statement: Statement) -> set[tuple[bool, str]]:
    """Names of the tables (with True) and models (with False) that the statement and its parts read."""
    wanted: set[tuple[bool, str]] = set()
    query = statement.rows_from
    inner = statement.inner
    ref = model_ref(inner)
    if ref is not None:
        wanted.add((False, ref.name))
    if isinstance(inner, BuildModel) and may_be_own_base(inner.base, inner.base_quoted):
        wanted.add((False, inner.base))
    if isinstance(inner, TrainModel) and inner.options.get("evaluate_on"):
        wanted.add((True, str(inner.options["evaluate_on"])))
    if query is not None:
        rendered = query.render(nested_names(query))
        wanted.update((True, read.name) for read in tables_read(rendered.text).tables)
        for nested in query.nested:
            wanted |= names_read(nested.statement)
    return wanted


_PINNED = re.compile(r"(?s)(.*) (?:VERSION (\d+)|@(.+))")


def pinned(name: str) -> tuple[str, int | None, str | None]:
    """Model, version and alias that the name of a node for a pinned version stands for."""
    parts = _PINNED.fullmatch(name)
    if parts is None:
        return name, None, None
    return parts[1], int(parts[2]) if parts[2] else None, parts[3]


def makes_base(entry: Entry | None) -> bool:
    """Whether the entry's statement makes a base model; ``False`` where it cannot be read."""
    if entry is None or entry.kind is not EntryKind.MODEL:
        return False
    try:
        statement = entry.statement
    except ThanoError:
        return False
    return isinstance(statement, BuildBaseModel)


def prebuilt_entry() -> Entry:
    """The entry of the pre-built classifier, which answers without having been asked for."""
    statement = parse("GET THANOSQL MODEL electra")[0]
    entry = entry_of(statement)
    assert entry is not None
    return entry
