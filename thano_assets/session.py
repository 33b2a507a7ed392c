"""The one door: text in, results out. Command line, notebook, REST and tests all go through it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from thano_assets import progress as progress_module
from thano_assets.assets.listings import listing
from thano_assets.assets.runtime import Runtime
from thano_assets.assets.tables.queries import located, prepare
from thano_assets.catalog import Catalog, catalog_of, entry_of
from thano_assets.catalog.entries import nested_entries, nested_names
from thano_assets.errors import (
    QueryError,
    RunFailed,
    SyntaxProblem,
    ThanoError,
    UnknownDataset,
    UnknownModel,
    UnknownTable,
    WorkspaceError,
    did_you_mean,
)
from thano_assets.graph.build import Key
from thano_assets.orchestration.materialization import everything, make, tell_user_interface, unchanged
from thano_assets.planning import Action, Mode, PlannedAsset, Record
from thano_assets.planning.binding import check_files, check_served, parts
from thano_assets.planning.kept_options import with_policy
from thano_assets.progress import Progress
from thano_assets.resources import datasets
from thano_assets.resources.environments import find, registry_of
from thano_assets.resources.relocation import relocate
from thano_assets.resources.warehouse import TableInfo, Warehouse, table_names
from thano_assets.resources.workspace import Workspace
from thano_assets.results import Result, counted
from thano_assets.sql import parse
from thano_assets.sql.query import Query
from thano_assets.sql.reads import tables_read
from thano_assets.sql.statements import (
    CreateTableAs,
    DeleteModel,
    DropExpect,
    DropTable,
    Expect,
    GetThanosql,
    ListItems,
    Plan,
    PromoteModel,
    QueryStatement,
    RebuildModel,
    ShowCreate,
    ShowLineage,
    ShowRuns,
    ShowTraining,
    ShowVersions,
    Statement,
)
from thano_assets.sql.variables import with_values
from thano_assets.system import no_space

if TYPE_CHECKING:
    from thano_assets.orchestration.runner import Runner
    from thano_assets.planning.scripts import ScriptPlanner, Step


#: Statements that keep nothing, as far as they stand for themselves.
READING = (QueryStatement, Plan, ListItems, ShowCreate, ShowLineage, ShowRuns, ShowTraining, ShowVersions)


class Session:
    """Runs statements in a workspace.

    Args:
        workspace: A workspace or its folder; found as :meth:`Workspace.find` does where it is left out.
        progress: Who is told how work goes on.
        verbose: Let Dagster's own log lines through.
        max_rows: Most rows that a query may give; one that keeps its rows as a table may give any number.

    Statements of one session run one after the other; several sessions, in this process or in
    others, may work in the same workspace at the same time.
    """

    def __init__(
        self,
        workspace: Workspace | str | Path | None = None,
        *,
        progress: Progress | None = None,
        verbose: bool = False,
        parent_run: str | None = None,
        max_rows: int | None = None,
    ) -> None:

        self.workspace = workspace if isinstance(workspace, Workspace) else find(workspace)
        _ = self.workspace.settings  # says what is wrong with them before anything else
        with progress_module.reporting_to(progress or progress_module.SILENT):
            relocate(self.workspace)
        self.progress = progress or progress_module.SILENT
        self.catalog = catalog_of(self.workspace)
        self._runtime: Runtime = Runtime(
            workspace=self.workspace,
            warehouse=Warehouse.of(self.workspace),
            registry=registry_of(self.workspace),
            progress=self.progress,
        )
        self._verbose, self._parent_run, self._max_rows = verbose, parent_run, max_rows
        self._runner: Runner | None = None
        if self.workspace.unfinished_drops():
            from thano_assets.commands import removal

            removal.finish_drops(self._runtime, self.catalog)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of what the session holds; the workspace stays as it is."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    # -- what a person calls -------------------------------------------------------------------

    def execute(self, text: str, values: Mapping[str, Any] | None = None) -> Result:
        """Run every statement of ``text`` in order; returns the last one's result.

        Args:
            text: Statements; ``$name`` in them stands for a value.
            values: The values, by name.

        Raises:
            ThanoError: a sentence about the text. Syntax and options of the whole text are checked
                before its first statement runs; nothing is half done after an error.
        """
        result = Result("EMPTY", text)
        for result in self.run(text, values):  # noqa: B007 - the last one is the answer
            pass
        return result

    def run(self, text: str, values: Mapping[str, Any] | None = None) -> Iterator[Result]:
        """Run the statements of ``text`` one by one, giving each one's result as it comes."""
        for statement in self.parse(text, values):
            yield self.execute_statement(statement)

    def parse(self, text: str, values: Mapping[str, Any] | None = None) -> list[Statement]:
        """The statements of ``text``, checked as far as they can be without the workspace.

        Raises:
            ThanoError: a statement, option or nested statement that is not legal or not served yet.
        """
        longest = self.workspace.settings.statements.max_length
        if len(text) > longest:
            raise SyntaxProblem(
                f"The text has {len(text):,} characters, and at most {longest:,} are read at once.",
                hint="Give it in parts, or raise max_length under [statements] in thano.toml.",
            )
        statements = parse(with_values(text, values or {}))
        for statement in statements:
            check_served(statement)
            check_files(statement, self.workspace)
        return statements

    def execute_statement(self, statement: Statement) -> Result:
        """Run one statement that :meth:`parse` gave."""
        return self._timed(statement, lambda: self._dispatch(statement))

    def _timed(self, statement: Statement, work: Callable[[], Result]) -> Result:
        started = time.perf_counter()
        with progress_module.reporting_to(self.progress):
            try:
                self._see_to_workspace(statement)
                result = work()
            except ThanoError as error:
                placed = _in_callers_text(error, statement)
                understood = self._understood(error) if isinstance(error, RunFailed) else placed
                raise understood  # noqa: B904 - the same error, placed again
            except Exception as error:
                raise self._understood(error) from error
        result.seconds = time.perf_counter() - started
        return result

    def _understood(self, error: Exception) -> Exception:
        """What went wrong, as a sentence: a full disk, or a file of the workspace that is damaged.

        Any other exception stays what it is.
        """
        from thano_assets.commands.damage import damages

        if isinstance(error, WorkspaceError):
            return error
        if no_space(error, self.workspace.root):
            return WorkspaceError(
                f"There is no space left on the disk of {self.workspace.root}.",
                hint="DROP TABLE, DELETE MODEL and `thano clean` free some, even now.",
            )
        for damage in damages(self.workspace):
            return WorkspaceError(damage.message, hint=damage.cure)
        return error

    def _see_to_workspace(self, statement: Statement) -> None:
        """Make the workspace for a statement that keeps something; one that reads finds it or not.

        Raises:
            WorkspaceError: a workspace that was named is not there, and the statement only reads.
        """
        if self.workspace.is_there:
            return
        if not isinstance(statement, READING):
            self._make_workspace()
        elif self.workspace.named:
            raise self.workspace.missing()

    def _make_workspace(self) -> None:
        if not self.workspace.is_there:
            self.close()  # what was opened to look at nothing
            production = self.workspace.production
            if production is not None:
                name = self.workspace.root.name
                self.progress.message(f"The environment {name} is new; it borrows from {production.root}.")
            self.workspace.create()

    def script(self, statements: Sequence[Statement], *, force: bool = False) -> list[Step]:
        """What ``thano run`` does for statements that :meth:`parse` gave, decided before the first one runs.

        Args:
            statements: One after the other; those of several files count as one script.
            force: Do every statement, also where nothing has changed.

        Raises:
            ThanoError: a statement reads what nobody makes.
        """
        with progress_module.reporting_to(self.progress):
            return self._steps(statements, Mode.FORCED if force else Mode.INCREMENTAL)

    def execute_step(self, step: Step) -> Result:
        """Do what :meth:`script` decided for one statement."""
        return self._timed(step.statement, lambda: self._step(step))

    def bring_up_to_date(self) -> tuple[list[PlannedAsset], Result | None]:
        """Make what is out of date of everything in the catalog, in one run.

        Returns:
            What the plan found to make, and what came of it; ``None`` where there was nothing.

        Raises:
            ThanoError: an asset could not be made; what does not depend on it was.
        """
        with progress_module.reporting_to(self.progress):
            return everything(*self._there)

    def plan(self, text: str, values: Mapping[str, Any] | None = None) -> Result:
        """What ``thano run`` of ``text`` would materialize, a row per asset; nothing is run."""
        return self.plan_statements(self.parse(text, values), text)

    def plan_statements(self, statements: Sequence[Statement], text: str) -> Result:
        """The same for statements that :meth:`parse` gave, of several files perhaps."""
        started = time.perf_counter()
        with progress_module.reporting_to(self.progress):
            result = self._plan(statements, text, Mode.INCREMENTAL)
        result.seconds = time.perf_counter() - started
        return result

    # -- by kind of statement ------------------------------------------------------------------

    def _dispatch(self, statement: Statement) -> Result:
        match statement:
            case QueryStatement():
                missing = self._something_to_make(statement.query)
                return self._query(statement, self._materialize(statement) if missing else None)
            case Plan():
                return self._plan([statement.statement], statement.text, Mode.BY_HAND)
            case ListItems():
                rows = listing(statement.what, self._runtime)
                return Result(
                    statement.kind,
                    statement.text,
                    counted(rows.num_rows, "row"),
                    row_count=rows.num_rows,
                    rows=rows,
                )
            case DropTable() | DeleteModel(version=None):
                result = self._with_reserve(statement, lambda: self._remove(statement))
                tell_user_interface(self.workspace)
                return result
            case ShowCreate():
                return self._show_create(statement)
            case ShowVersions():
                from thano_assets.commands.versions import versions

                return Result.of(statement.kind, statement.text, versions(statement, self._runtime))
            case ShowTraining():
                from thano_assets.commands.versions import training

                return Result.of(statement.kind, statement.text, training(statement, self._runtime))
            case PromoteModel():
                from thano_assets.commands.versions import promote

                return promote(statement, self._runtime, self._open_runner(), self.catalog)
            case RebuildModel():
                from thano_assets.commands.versions import rebuild

                return rebuild(statement, self._runtime, self._open_runner(), self.catalog)
            case DeleteModel(version=int()):
                from thano_assets.commands.versions import delete

                return delete(statement, self._runtime, self._open_runner(), self.catalog)
            case ShowLineage():
                from thano_assets.commands import history

                rows = history.lineage(statement, self._runtime, self._open_runner(), self.catalog)
                return Result.of(statement.kind, statement.text, rows)
            case ShowRuns():
                from thano_assets.commands import history

                return Result.of(statement.kind, statement.text, history.runs(self._open_runner()))
            case Expect() | DropExpect():
                from thano_assets.commands import expectations

                if isinstance(statement, Expect):
                    result = expectations.expect(statement, self._runtime, self._open_runner(), self.catalog)
                else:
                    result = expectations.drop(statement, self._runtime, self._open_runner(), self.catalog)
                tell_user_interface(self.workspace)
                return result
            case GetThanosql(what="DATASET"):
                return self._get_dataset(statement)
            case CreateTableAs(if_not_exists=True, name=name) if self._runtime.warehouse.exists(name):
                return Result(statement.kind, statement.text, f"table {name} exists already", kept_as=name)
        return self._materialize(statement)

    def _remove(self, statement: DropTable | DeleteModel) -> Result:
        from thano_assets.commands import removal

        if isinstance(statement, DropTable):
            return removal.drop_table(statement, *self._there)
        return removal.delete_model(statement, *self._there)

    def _with_reserve(self, statement: DropTable | DeleteModel, work: Callable[[], Result]) -> Result:
        """Do what frees space; on a full disk with what the workspace held back for it."""
        try:
            return work()
        except Exception as error:
            if not no_space(error, self.workspace.root) or not self.workspace.use_reserve():
                raise
        self.close()  # connections that met the full disk
        try:
            result = work()
        except (UnknownTable, UnknownModel):  # the first try took it away, and could not finish
            result = Result(statement.kind, statement.text, f"{statement.name} is gone")
        self.workspace.keep_reserve()
        return result

    def _step(self, step: Step) -> Result:
        statement = step.statement
        if step.runs and step.planned:
            self._make_workspace()
        if not step.runs:
            return unchanged(step, *self._there)
        if step.bound is None:
            return self._dispatch(statement)
        if isinstance(statement, QueryStatement):
            made = any(planned.made for planned in step.planned)
            return self._query(statement, make(step, *self._there) if made else None)
        return self._in_turn(statement, lambda: make(step, *self._there))

    def _query(self, statement: QueryStatement, made: Result | None = None) -> Result:
        result = made or Result(statement.kind, statement.text)
        runtime = self._runtime
        with runtime.warehouse.read() as connection, located(statement.query):
            relation = connection.sql(prepare(statement.query, connection, runtime))
            if relation is not None and self._max_rows is not None:
                relation = relation.limit(self._max_rows + 1)
            rows = relation.to_arrow_table() if relation is not None else None
        if rows is not None and self._max_rows is not None and rows.num_rows > self._max_rows:
            raise QueryError(
                f"The query gives more than {self._max_rows:,} rows, which is the most of one answer.",
                hint="LIMIT takes some of them, CREATE TABLE … AS keeps all.",
            )
        result.rows, result.load, result.kept_as = rows, None, None
        result.row_count = rows.num_rows if rows is not None else 0
        result.summary = counted(result.row_count, "row")
        return result

    def _something_to_make(self, query: Query) -> bool:
        """Whether the query needs more than the tables that are there; without parsing the whole catalog."""
        if any(not isinstance(nested.statement, ListItems) for nested in query.nested):
            return True
        names = nested_names(query)
        reads = {read.name.casefold() for read in tables_read(query.render(names).text).tables}
        return bool(reads - set(names) - {name.casefold() for name in self.table_names()})

    def _materialize(self, statement: Statement) -> Result:
        """Make what the statement defines, whatever its state, and what is missing behind it."""
        self._make_workspace()
        statement, kept = with_policy(statement, self.catalog)
        if kept:
            self.progress.message(f"Kept from before: {', '.join(kept)}; an option set to None is given up.")
        result = self._in_turn(
            statement, lambda: make(self._steps([statement], Mode.BY_HAND, explain=False)[0], *self._there)
        )
        if any(entry.is_unnamed for entry in (entry_of(statement), *nested_entries(statement)) if entry):
            self._drop_unnamed()
        return result

    def _in_turn(self, statement: Statement, work: Callable[[], Result]) -> Result:
        """Statements that define the same table take turns.

        COPY … append reads the table's definition and writes a longer one: two at once would lose rows.
        """
        own = entry_of(statement)
        if own is None or not own.kind.is_relation:
            return work()
        with self.workspace.table_lock(own.name):
            return work()

    def _drop_unnamed(self) -> None:
        """A bare PREDICT is a question, whose table is kept for a while; not each one for ever."""
        from thano_assets.commands.removal import drop_unnamed

        if dropped := drop_unnamed(*self._there):
            tell_user_interface(self.workspace)
            kept = self.workspace.settings.statements.unnamed_results
            self.progress.message(
                f"Dropped {counted(dropped, 'older result')} without a name; the newest {kept} are kept "
                "(CREATE TABLE … AS gives a name, [statements] unnamed_results another number)."
            )

    def _show_create(self, statement: ShowCreate) -> Result:
        from thano_assets.commands.statements import creation

        rows = creation(statement, self.catalog, self._runtime)
        return Result.of(statement.kind, statement.text, rows)

    def _get_dataset(self, statement: GetThanosql) -> Result:
        import pyarrow as pa

        known = datasets.catalogue().column("name").to_pylist()
        if statement.name not in known:
            raise UnknownDataset(
                f"There is no data set {statement.name}.",
                hint=did_you_mean(statement.name, known, "data sets"),
            ).at(statement.source, statement.name_span.start, len(statement.name))
        files = datasets.ensure(
            self.workspace,
            size=str(statement.options.value("size")),
            overwrite=bool(statement.options.value("overwrite")),
        )
        rows = pa.table(
            {
                "file": [path.relative_to(self.workspace.data).as_posix() for path in files],
                "bytes": [path.stat().st_size for path in files],
            }
        )
        return Result(
            statement.kind,
            statement.text,
            f"{len(files)} files in the data folder",
            row_count=len(files),
            rows=rows,
        )

    # -- plans ---------------------------------------------------------------------------------

    def _steps(self, statements: Sequence[Statement], mode: Mode, *, explain: bool = True) -> list[Step]:
        with self._script_planner() as planner:
            return planner.plan(statements, mode, explain=explain)

    @contextmanager
    def _script_planner(self) -> Iterator[ScriptPlanner]:
        from thano_assets.planning.observation import Observer
        from thano_assets.planning.scripts import ScriptPlanner
        from thano_assets.planning.workspace_state import WorkspaceState

        def records(keys: Iterable[Key]) -> dict[Key, Record]:
            return self._open_runner().records(keys)  # imports Dagster: not before the statement is bound

        with WorkspaceState(self._runtime, records).opened() as state:
            observer = Observer(self.workspace)
            names = self.table_names()  # on the connection that the workbench holds
            yield ScriptPlanner(self._runtime, self.catalog, state, observer, names)

    def _plan(self, statements: Sequence[Statement], text: str, mode: Mode) -> Result:
        from thano_assets.commands.statements import planned_rows

        with self._script_planner() as planner:
            rows = planned_rows(planner.plan(statements, mode), planner)
        actions = rows.column("action").to_pylist()
        checks = actions.count(Action.CHECK)
        work = sum(action not in (Action.SKIP, Action.CHECK) for action in actions)
        summary = f"{work} of {counted(len(actions) - checks, 'asset')} to make" if work else "nothing to do"
        if checks:
            summary += f", {counted(checks, 'expectation')} to check"
        return Result("PLAN", text, summary, row_count=rows.num_rows, rows=rows)

    @property
    def warehouse(self) -> Warehouse:
        """The workspace's tables."""
        return self._runtime.warehouse

    def tables(self) -> list[TableInfo]:
        """The tables that there are, with their columns and numbers of rows."""
        return self._runtime.warehouse.tables()

    def table_names(self) -> list[str]:
        """Names of the tables that there are."""
        with self._runtime.warehouse.read() as connection:
            return table_names(connection)

    # -- what is opened late -------------------------------------------------------------------

    @property
    def _there(self) -> tuple[Runtime, Callable[[], Runner], Catalog]:
        """What those who carry out statements are given; the runner is not open before they need it."""
        return self._runtime, self._open_runner, self.catalog

    def _open_runner(self) -> Runner:
        if self._runner is None:
            from thano_assets.orchestration.resources import resources_for
            from thano_assets.orchestration.runner import Runner

            self._runner = Runner(
                self.workspace,
                resources_for(self.workspace),
                verbose=self._verbose,
                parent_run=self._parent_run,
            )
        return self._runner


def _in_callers_text(error: ThanoError, statement: Statement) -> ThanoError:
    """``error`` with its place counted in the text that the caller gave.

    An asset knows its statement from the catalog's file; its errors count there.
    """
    if error.text is None or error.line is None or error.text == statement.source:
        return error
    offset = sum(len(line) + 1 for line in error.text.split("\n")[: error.line - 1]) + (error.column or 1) - 1
    for part in parts(statement):
        start = error.text.find(part.text.strip())
        if start >= 0 and start <= offset <= start + len(part.text):
            error.line = error.column = None
            return error.at(statement.source, part.span.start + offset - start, error.length)
    return error
