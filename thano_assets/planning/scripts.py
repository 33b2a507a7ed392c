"""Scripts: statements one after the other, planned together before the first one runs.

A second run of a script does only what is out of date. The order of its statements counts all the
same: a table that is loaded, read, loaded again and read again has two contents in turn, and each
reader is compared with the one that it reads. A statement whose result is replaced by a later one
runs only if a reader in between has to, and then so does everything that writes the name after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from thano_assets.assets.runtime import Runtime
from thano_assets.assets.tables.checks import checks_to_drop
from thano_assets.catalog import Entry, entry_of
from thano_assets.catalog.overlay import Entries, Overlay
from thano_assets.graph import Node, NodeKind
from thano_assets.graph.build import Key
from thano_assets.planning import Action, Mode, PlannedAsset, Planning
from thano_assets.planning.binding import Bound, bind
from thano_assets.planning.observation import Observer
from thano_assets.planning.plan import made_together
from thano_assets.planning.workspace_state import WorkspaceState
from thano_assets.sql.statements import (
    Copy,
    CreateTableAs,
    DeleteModel,
    DropExpect,
    DropTable,
    Expect,
    FitModel,
    GetThanosql,
    ModelQuery,
    PromoteModel,
    QueryStatement,
    RebuildModel,
    Statement,
    TrainModel,
    UploadModel,
)

_MATERIALIZING = (Copy, CreateTableAs, TrainModel, UploadModel, ModelQuery)

#: What a statement writes: ``("relation" or "model", name in lower case)``.
Name = tuple[str, str]


@dataclass
class Step:
    """One statement of a script and what is done for it.

    Attributes:
        number: Of the statement, from 1.
        statement: The statement.
        bound: What it defines; ``None`` for what runs as it stands each time (a SELECT of tables, LIST, …).
        planned: The assets, each after what it reads.
        runs: Whether the statement does anything.
        reason: Why it does not, or why it drops something.
        incremental: Whether only what is out of date is done.
        again: Whether the name is there from this script: its statement may make it again without being told
            to overwrite it.
        superseded_by: Number of the last statement that writes the same name, where that is a later one.
        place: Where the statement stands, as ``daily.sql:12``, where that is known.
    """

    number: int
    statement: Statement
    bound: Bound | None = None
    planned: list[PlannedAsset] = field(default_factory=list)
    runs: bool = True
    reason: str = ""
    incremental: bool = True
    again: bool = False
    writes: Name | None = None
    own: set[Key] = field(default_factory=set)
    needs: set[int] = field(default_factory=set)
    superseded_by: int | None = None
    place: str = ""

    @property
    def makes_all(self) -> bool:
        """Whether every asset of the statement itself is made."""
        return all(one.made for one in self.planned if one.node.key in self.own)

    @property
    def drops(self) -> bool:
        """Whether the statement takes something away."""
        return isinstance(self.statement, (DropTable, DeleteModel))


class ScriptPlanner:
    """Plans scripts in one workspace.

    Args:
        runtime: The workspace's resources.
        catalog: What is defined before the script.
        workbench: An open one.
        observer: Looks at files and base models.
        present: Names of the tables that are there.
    """

    def __init__(
        self,
        runtime: Runtime,
        catalog: Entries,
        state: WorkspaceState,
        observer: Observer,
        present: Iterable[str],
    ) -> None:
        self._catalog = catalog
        self._overlay = Overlay(catalog)
        self._workbench = state
        self._observer = observer
        self._planning = Planning(state)
        self._models = set(runtime.registry.models())
        self._tables = {name.casefold() for name in present}
        self._providers: dict[Key, int] = {}
        self._appended: Counter[tuple[str, str]] = Counter()
        self._written: set[Name] = set()
        self._begun: set[Name] = set()  # written by something else than an append

    def plan(self, statements: Sequence[Statement], mode: Mode, *, explain: bool = True) -> list[Step]:
        """The steps of ``statements``, in their order.

        Raises:
            ThanoError: a statement reads what nobody makes, or would read its own result.
        """
        last = {
            name: number
            for number, statement in enumerate(statements, 1)
            if (name := _written(statement)) is not None
        }
        steps = []
        for number, statement in enumerate(statements, 1):
            step = Step(number, statement, writes=_written(statement), incremental=mode is Mode.INCREMENTAL)
            if step.writes is not None and last[step.writes] > number and mode is Mode.INCREMENTAL:
                step.superseded_by = last[step.writes]
            if step.drops:
                self._plan_drop(step, mode)
            elif _materializes(statement):
                self._plan_assets(step, mode, explain)
            elif isinstance(statement, Expect) and (entry := entry_of(statement)) is not None:
                self._overlay.put([entry])
            elif isinstance(statement, PromoteModel | RebuildModel):
                self._plan_promotion(statement)
            elif isinstance(statement, DropExpect):
                for entry in checks_to_drop(statement, self._overlay.expectations(statement.table)):
                    self._overlay.remove(entry.kind, entry.name)
            if step.writes is not None:
                self._written.add(step.writes)
                if not isinstance(statement, Copy) or statement.mode != "append":
                    self._begun.add(step.writes)
            steps.append(step)
        if mode is not Mode.BY_HAND:
            self._find_own_names(steps)
        if mode is Mode.INCREMENTAL:
            _follow_hazards(steps)
        return steps

    def _find_own_names(self, steps: list[Step]) -> None:
        """Mark the statements whose name was defined by this very script before."""
        defined: dict[Name, set[str]] = {}
        for step in steps:
            if step.writes is not None and step.bound is not None:
                defined.setdefault(step.writes, set()).add(step.bound.entries[-1].digest)
        for step in steps:
            if step.writes is None or step.bound is None:
                continue
            own = step.bound.entries[-1]
            find = self._catalog.relation if own.kind.is_relation else self._catalog.model
            known = find(own.name)
            step.again = known is not None and known.digest in defined[step.writes]

    def told(self, step: Step) -> list[PlannedAsset]:
        """The step's assets with rows and seconds: those that are made, its own, and what these read."""
        bound = step.bound
        if bound is None:
            return []
        near = step.own | set(bound.targets)
        near |= {read for key in near if key in bound.graph.nodes for read in bound.graph.nodes[key].reads}
        return [
            self._workbench.measured(one, self._planning, incremental=step.incremental)
            for one in step.planned
            if one.made or one.node.key in near
        ]

    def asset_of(self, table: str) -> str:
        """The asset that a table is when all statements have run; its name alone where nothing defines it."""
        entry = self._overlay.relation(table)
        return f"{entry.kind.value}/{entry.name}" if entry is not None else table

    # -- by kind of statement ------------------------------------------------------------------

    def _plan_assets(self, step: Step, mode: Mode, explain: bool) -> None:
        statement = step.statement
        own = self._repeated_append(statement) if mode is not Mode.BY_HAND else None
        present = self._tables | {key[1].casefold() for key in self._planning.made}
        bound = bind(statement, self._overlay, self._models, present, own=own)
        step.bound = bound
        self._observer.observe(bound.graph)
        self._workbench.prefetch(bound.graph.nodes)
        targets = [key for key in bound.targets if key in bound.graph.nodes]
        parent = self._parent_in_script(statement)
        step.planned = self._planning.plan(bound.graph, targets, mode, number=step.number, explain=explain)
        nodes: list[Node] = []
        if step.writes is not None:
            nodes = made_together(bound.graph, bound.targets[-1])
            step.own = {node.key for node in nodes}
        step.needs = {
            self._providers[read]
            for node in (*nodes, *(one.node for one in step.planned))
            for read in node.reads
            if read in self._providers and read not in step.own
        }
        if parent is not None:
            self._follow_parent(step, parent)
        if step.superseded_by is not None:
            self._planning.supersede(nodes, step.number)
            why = f"statement {step.superseded_by} makes it again"
            step.planned = [
                PlannedAsset(one.node, Action.SKIP, why) if one.node.key in step.own else one
                for one in step.planned
            ]
            self._providers.update(dict.fromkeys(step.own, step.number))
        else:
            for key in step.own:
                self._providers.pop(key, None)
        exists = isinstance(statement, CreateTableAs) and statement.if_not_exists
        if exists and mode is not Mode.FORCED and bound.targets[-1][1].casefold() in present:
            step.planned = [
                PlannedAsset(one.node, Action.SKIP, "exists already")
                for one in step.planned
                if one.node.key in step.own
            ]
        step.runs = any(one.made for one in step.planned) or isinstance(statement, QueryStatement)
        self._overlay.put(bound.entries)
        if step.writes is not None and step.writes[0] == "model":
            self._models.add(bound.entries[-1].name)

    def _parent_in_script(self, statement: Statement) -> tuple[Key, str | None] | None:
        """For FIT MODEL m USING m after another statement of the script made m: what that one leaves."""
        if not isinstance(statement, FitModel) or statement.parent.name != statement.name:
            return None
        key = (NodeKind.MODEL.value, statement.name)
        return (key, self._planning.version(key)) if key in self._providers else None

    def _follow_parent(self, step: Step, parent: tuple[Key, str | None]) -> None:
        """Train again where the version to go on from is another than the last time."""
        key, version = parent
        step.needs.add(self._providers[key])
        record = self._workbench.record(key)
        if version is not None and record is not None and self._workbench.parent(record) == version:
            return
        step.planned = [
            PlannedAsset(one.node, Action.REBUILD, f"{key[1]} is trained again")
            if one.node.key == key and not one.made
            else one
            for one in step.planned
        ]

    def _repeated_append(self, statement: Statement) -> Entry | None:
        """The table's entry as it is, where it holds this very COPY … append already.

        Running a script again does not append the same file again; a changed file is loaded again.
        """
        if not isinstance(statement, Copy) or statement.mode != "append":
            return None
        name: Name = ("relation", statement.table.casefold())
        before = self._catalog.relation(statement.table)
        if before is None or name in self._begun:
            return None
        canonical = statement.canonical()
        self._appended[statement.table.casefold(), canonical] += 1
        held = sum(part.canonical() == canonical for part in before.statements[1:])
        return before if held >= self._appended[statement.table.casefold(), canonical] else None

    def _plan_promotion(self, statement: PromoteModel | RebuildModel) -> None:
        """Let what reads the model be compared with the version that will answer."""
        if isinstance(statement, RebuildModel):
            version = None
            if statement.verify:
                return
        else:
            version = self._workbench.version_of(statement.name, statement.version)
            if version is None:  # there is no such version: running it says so
                return
        self._planning.will_answer((NodeKind.MODEL.value, statement.name), version)

    def _plan_drop(self, step: Step, mode: Mode) -> None:
        assert step.writes is not None
        space, name = step.writes
        statement = step.statement
        entry = (self._overlay.relation if space == "relation" else self._overlay.model)(name)
        if entry is not None:
            keys = [(entry.kind.value, entry.name)]
            keys.append(((NodeKind.RAW if space == "relation" else NodeKind.TRAINING_SET).value, entry.name))
            for key in keys:
                self._planning.forget(key)
                self._providers.pop(key, None)
            self._overlay.remove(entry.kind, entry.name)
        there = name in (self._tables if space == "relation" else {one.casefold() for one in self._models})
        if space == "relation":
            self._tables.discard(name)
        else:
            self._models = {one for one in self._models if one.casefold() != name}
        step.reason = "asked for"
        if mode is not Mode.INCREMENTAL:
            return
        if step.superseded_by is not None:
            step.runs, step.reason = False, f"statement {step.superseded_by} makes it again"
        elif step.writes in self._written or getattr(statement, "if_exists", False):
            # What an earlier statement of the script makes is not there after a run of the script.
            step.runs = there
            step.reason = "asked for" if there else "it is not there"


def _follow_hazards(steps: list[Step]) -> None:
    """Let superseded statements run where a reader needs them, and everything that must then follow."""
    by_number = {step.number: step for step in steps}
    changed = True
    while changed:
        changed = False
        for step in steps:
            if not step.runs:
                continue
            for number in step.needs:
                if not by_number[number].runs:
                    _let_run(by_number[number], f"statement {step.number} reads it")
                    changed = True
            if step.writes is None:
                continue
            for other in steps:
                if other.writes != step.writes or (other.runs and other.makes_all):
                    continue
                if other.number > step.number:
                    _let_run(other, f"statement {step.number} changes it before")
                    changed = True
                elif other.drops and other.superseded_by is not None and not other.runs:
                    _let_run(other, f"statement {step.number} makes it again")
                    changed = True


def _let_run(step: Step, why: str) -> None:
    step.runs, step.reason = True, why
    step.planned = [
        PlannedAsset(one.node, Action.REBUILD, why) if one.node.key in step.own and not one.made else one
        for one in step.planned
    ]


def _written(statement: Statement) -> Name | None:
    """The name that the statement makes or takes away."""
    if isinstance(statement, DropTable):
        return "relation", statement.name.casefold()
    if isinstance(statement, DeleteModel):
        return ("model", statement.name.casefold()) if statement.version is None else None
    if not _materializes(statement):
        return None
    entry = entry_of(statement)
    if entry is None:
        return None
    return ("relation" if entry.kind.is_relation else "model"), entry.name.casefold()


def _materializes(statement: Statement) -> bool:
    return isinstance(statement, (*_MATERIALIZING, QueryStatement)) or (
        isinstance(statement, GetThanosql) and statement.what == "MODEL"
    )
