"""What running statements will do, asset by asset, and why.

An asset is out of date when it is missing, when its code version is not that of its last
materialization, or when something that it reads has another data version than then. That is
Dagster's own rule, so the marks of its UI and a plan agree; but a plan looks further: it follows
the changes through everything that hangs on them, before anything runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol

from thano_assets.graph.build import Graph, Key, Node, NodeKind
from thano_assets.sql.options import duration


class Action(StrEnum):
    """What happens to an asset."""

    CREATE = "create"
    REBUILD = "rebuild"
    SKIP = "skip"
    DROP = "drop"
    CHECK = "check"


class Mode(StrEnum):
    """How far a plan goes.

    By hand, what was asked for is made whatever its state, and what it reads only where it is missing.
    Incremental, everything is made that is out of date, and nothing else. Forced, what was asked for is
    made in any case, and what it reads where that is out of date.
    """

    BY_HAND = "by hand"
    INCREMENTAL = "incremental"
    FORCED = "forced"


@dataclass(frozen=True)
class Record:
    """The latest materialization of an asset.

    Attributes:
        key: The asset.
        data_version: Fingerprint of what was made.
        code_version: Of the node that made it.
        inputs: Data versions of what it read, by key.
        statement: The text of the entry that made it.
        details: What the asset left for later plans.
        rows: Number of rows, where it has rows.
        summary: What was said of it, in a sentence.
        seconds: How long it took, where that is known.
        run_id: The Dagster run, empty where the version was reported without a run.
        time: When, UTC.
        borrowed: Whether it is production's, seen from an environment.
    """

    key: Key
    data_version: str
    code_version: str | None = None
    inputs: Mapping[Key, str] = field(default_factory=dict)
    statement: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    rows: int | None = None
    seconds: float | None = None
    summary: str = ""
    run_id: str = ""
    time: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    borrowed: bool = False


@dataclass(frozen=True)
class PlannedAsset:
    """One row of a plan.

    Attributes:
        node: The asset.
        action: What happens to it.
        reason: Why, in words.
        rows: Rows that the action handles: of a table, to train on, that go through the model.
        seconds: Estimate from the last time, ``None`` where nothing is known.
    """

    node: Node
    action: Action
    reason: str
    rows: int | None = None
    seconds: float | None = None

    @property
    def made(self) -> bool:
        """Whether the asset is materialized."""
        return self.action in (Action.CREATE, Action.REBUILD)


class Knowledge(Protocol):
    """What a plan asks about the world."""

    def present(self, node: Node) -> bool:
        """Whether the asset's result is there."""

    def record(self, key: Key) -> Record | None:
        """The latest materialization of ``key``."""

    def current(self, key: Key, record: Record | None) -> str | None:
        """The data version of ``key`` as it is now, without anything being made."""

    def foretold(self, node: Node, version: Callable[[Key], str | None]) -> str | None:
        """The data version that making ``node`` would give, ``None`` where only making it can tell.

        ``version`` gives the data versions that other assets have by then.
        """

    def restored(self, key: Key) -> None:
        """What ``key`` would have become counts no longer: it stays as it is."""

    def code_reasons(self, node: Node, record: Record) -> list[str]:
        """What changed in the statement, or in what it reads from outside, since ``record``."""

    def data_reason(self, node: Node, read: Key, then: str | None, now: str) -> str:
        """What changed in ``read``, one of the inputs of ``node``."""


class Planning:
    """A plan in the making: statements one after the other, each seeing what those before it would make.

    Args:
        knowledge: Answers about tables, models and files.
    """

    def __init__(self, knowledge: Knowledge) -> None:
        self.knowledge = knowledge
        #: What an earlier statement of the same plan makes: number of the statement, by key.
        self.made: dict[Key, int] = {}
        self._superseded: dict[Key, int] = {}
        self._moved: set[Key] = set()
        self._remade: dict[Key, Callable[[], str | None]] = {}
        self._foretold: dict[Key, str | None] = {}

    def plan(
        self, graph: Graph, targets: Iterable[Key], mode: Mode, *, number: int = 1, explain: bool = True
    ) -> list[PlannedAsset]:
        """The assets that materializing ``targets`` touches, each after what it reads.

        Args:
            graph: The assets.
            targets: What was asked for.
            mode: How far to go.
            number: Of the statement, for the reasons of later ones.
            explain: By hand, also say of what is kept whether it is out of date.
        """
        targets = list(targets)
        ordered = upstream(graph, targets)
        asked = {node.key for target in targets for node in made_together(graph, target)}
        if mode is Mode.BY_HAND:
            needed = self._needed(graph, targets, asked)
            ordered = [node for node in ordered if node.key in needed]
        planned = []
        for node in ordered:
            if node.kind is NodeKind.MODEL_VERSION:
                continue
            if node.key in self._superseded and node.key not in asked:
                why = f"as statement {self._superseded[node.key]} leaves it"
                planned.append(PlannedAsset(node, Action.SKIP, why))
                continue
            self._superseded.pop(node.key, None)
            one = self._decide(node, mode, asked, explain)
            planned.append(one)
            if one.made:
                self.made[node.key] = number
                self.will_make(node)
            elif node.key not in self.made and node.key in self._remade and node.key not in self._moved:
                self._stays(node.key)
        return planned

    def supersede(self, nodes: Iterable[Node], number: int) -> None:
        """Let ``nodes`` be what their statement says for those that read them next.

        A later statement makes them again, so they themselves are made only if some reader has to run.
        """
        for node in nodes:
            self.made.pop(node.key, None)
            self._superseded[node.key] = number
            self.will_make(node)
            self.version(node.key)  # now: a later statement takes its place

    def _stays(self, key: Key) -> None:
        del self._remade[key]
        self._foretold.pop(key, None)
        self.knowledge.restored(key)

    def will_make(self, node: Node) -> None:
        """Take note that ``node`` is made, so that what reads it is compared with its new content."""
        self._foretold.pop(node.key, None)
        self._remade[node.key] = lambda: self._foretell(node)

    def will_answer(self, key: Key, version: str | None) -> None:
        """Take note that another version of the model ``key`` answers from now on (``None``: a new one)."""
        self._moved.add(key)
        self._remade[key] = lambda: version
        self._foretold.pop(key, None)

    def forget(self, key: Key) -> None:
        """Take note that ``key`` is dropped."""
        self._remade[key] = lambda: None
        self._foretold.pop(key, None)
        self._superseded.pop(key, None)
        self.made.pop(key, None)

    def version(self, key: Key) -> str | None:
        """The data version that ``key`` has once the plan so far is done; ``None``: only running tells."""
        if key not in self._remade:
            return self.knowledge.current(key, self.knowledge.record(key))
        if key not in self._foretold:
            self._foretold[key] = self._remade[key]()
        return self._foretold[key]

    def _foretell(self, node: Node) -> str | None:
        if any(read in self._remade and self.version(read) is None for read in node.reads):
            return None
        return self.knowledge.foretold(node, self.version)

    def _needed(self, graph: Graph, targets: list[Key], asked: set[Key]) -> set[Key]:
        """By hand: what was asked for, what is missing behind it, and the first present ones behind those."""
        needed: set[Key] = set()
        waiting = list(targets)
        while waiting:
            node = graph.nodes.get(waiting.pop())
            if node is None or node.key in needed:
                continue
            needed.add(node.key)
            if node.key in asked or not self._present(node):
                waiting.extend(node.reads)
        return needed

    def _present(self, node: Node) -> bool:
        return node.key in self.made or self.knowledge.present(node)

    def _decide(self, node: Node, mode: Mode, asked: set[Key], explain: bool) -> PlannedAsset:
        forced = node.key in asked and mode is not Mode.INCREMENTAL
        if node.key in self.made and not forced:
            return PlannedAsset(node, Action.SKIP, f"made by statement {self.made[node.key]}")
        present = self._present(node)
        if forced:
            action = Action.REBUILD if present else Action.CREATE
            why = "asked for by this statement" if mode is Mode.BY_HAND else "asked for (--force)"
            return PlannedAsset(node, action, why)
        if mode is Mode.BY_HAND:
            if not present:
                return PlannedAsset(node, Action.CREATE, "missing")
            stale = self.changes(node) if explain else []
            kept = f"kept as it is, though {'; '.join(stale)}" if stale else "present"
            return PlannedAsset(node, Action.SKIP, kept)
        reasons = self.changes(node)
        if not reasons:
            record = self.knowledge.record(node.key)
            borrowed = record is not None and record.borrowed
            return PlannedAsset(
                node, Action.SKIP, "unchanged, borrowed from production" if borrowed else "unchanged"
            )
        return PlannedAsset(node, Action.REBUILD if present else Action.CREATE, "; ".join(reasons))

    def changes(self, node: Node) -> list[str]:
        """Why ``node`` is out of date, in words; empty where it is not."""
        record = self.knowledge.record(node.key)
        if not self._present(node):
            return ["new" if record is None else "missing"]
        if record is None:
            return ["there is no record of how it was made"]
        reasons = []
        if record.code_version != node.code_version:
            reasons = self.knowledge.code_reasons(node, record)
        for read in node.reads:
            reason = self._input_change(node, read, record, known=bool(reasons))
            if reason is not None and reason not in reasons:
                reasons.append(reason)
        if not reasons and (age := too_old(node, record)) is not None:
            reasons.append(age)
        return reasons

    def _input_change(self, node: Node, read: Key, record: Record, *, known: bool) -> str | None:
        then = record.inputs.get(read)
        model = read[0] in (NodeKind.MODEL, NodeKind.MODEL_VERSION)
        if model and node.kind is not NodeKind.MODEL and read in record.inputs:
            # The version that answered, whatever Dagster was told of the alias since.
            then = record.details.get("model_data_version", then)
        if read in self._remade:
            now = self.version(read)
            if now is None:
                verb = "is trained again" if read[0] == NodeKind.MODEL else "is made again"
                return f"{read[1]} {verb}"
        else:
            now = self.version(read)
            if now is None:
                return None  # nobody knows more of it: a model that only the registry has
        if now == then:
            return None
        if then is None:
            return None if known else f"it reads {read[1]} now"
        return self.knowledge.data_reason(node, read, then, now)


def too_old(node: Node, record: Record) -> str | None:
    """That an asset is older than its statement's ``fresh_within`` allows, in words."""
    allowed = node.entry.option("fresh_within") if node.is_result else None
    if allowed is None or datetime.now(UTC) - record.time < duration(allowed):
        return None
    return f"it was made {record.time:%Y-%m-%d %H:%M} UTC, and fresh_within is '{allowed}'"


def upstream(graph: Graph, keys: Iterable[Key]) -> list[Node]:
    """The nodes of ``keys`` and everything they stand on, each after what it reads."""
    found: dict[Key, Node] = {}
    for key in keys:
        for node in graph.ancestors(key):
            found.setdefault(node.key, node)
    return list(found.values())


def downstream(graph: Graph, keys: Iterable[Key]) -> list[Key]:
    """The keys of ``keys`` and of everything that stands on them, nearest first."""
    readers: dict[Key, list[Key]] = {}
    for node in graph.nodes.values():
        for read in node.reads:
            readers.setdefault(read, []).append(node.key)
    found = dict.fromkeys(key for key in keys if key in graph.nodes)
    waiting = list(found)
    while waiting:
        for reader in readers.get(waiting.pop(0), ()):
            if reader not in found:
                found[reader] = None
                waiting.append(reader)
    return list(found)


def made_together(graph: Graph, target: Key) -> list[Node]:
    """The target and the assets of the same statement: a COPY's file, a BUILD's training set."""
    entry = graph.nodes[target].entry
    return [node for node in graph.ancestors(target) if node.entry == entry]
