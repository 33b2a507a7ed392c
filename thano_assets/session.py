"""The one door: text in, results out. Command line, notebook, REST and tests all go through it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from thano_assets import progress as progress_module
from thano_assets.binding import Bound, bind, check_served, nodes_with_upstream, parts, preflight
from thano_assets.catalog import Catalog, EntryKind, entry_of
from thano_assets.catalog.entries import nested_names
from thano_assets.catalog.overlay import Overlay
from thano_assets.errors import ThanoError, UnknownDataset, UnknownModel, UnknownTable, did_you_mean
from thano_assets.graph import Node, NodeKind, PlannedAsset, make_plan
from thano_assets.graph.build import Key
from thano_assets.graph.plan import Action
from thano_assets.progress import Progress
from thano_assets.results import Result, counted
from thano_assets.sql import parse
from thano_assets.sql.reads import tables_read
from thano_assets.sql.statements import (
    CreateTableAs,
    DeleteModel,
    DropTable,
    GetThanosql,
    ListItems,
    Plan,
    Query,
    QueryStatement,
    ShowCreate,
    Statement,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from thano_assets.assets.runner import Runner
    from thano_assets.assets.runtime import Outcome, Runtime
    from thano_assets.resources.workspace import Workspace


class Session:
    """Runs statements in a workspace.

    Args:
        workspace: A workspace or its folder; found as :meth:`Workspace.find` does where it is left out.
        progress: Who is told how work goes on.
        verbose: Let Dagster's own log lines through.

    Statements of one session run one after the other; several sessions, in this process or in
    others, may work in the same workspace at the same time.
    """

    def __init__(
        self,
        workspace: Workspace | str | Path | None = None,
        *,
        progress: Progress | None = None,
        verbose: bool = False,
    ) -> None:
        from thano_assets.assets.runtime import Runtime
        from thano_assets.resources.registry import Registry
        from thano_assets.resources.warehouse import Warehouse
        from thano_assets.resources.workspace import Workspace

        self.workspace = workspace if isinstance(workspace, Workspace) else Workspace.open(workspace)
        self.progress = progress or progress_module.SILENT
        self.catalog = Catalog(self.workspace.statements)
        self._runtime: Runtime = Runtime(
            workspace=self.workspace,
            warehouse=Warehouse.of(self.workspace),
            registry=Registry(self.workspace),
            progress=self.progress,
        )
        self._verbose = verbose
        self._runner: Runner | None = None

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

    def execute(self, text: str) -> Result:
        """Run every statement of ``text`` in order; returns the last one's result.

        Raises:
            ThanoError: a sentence about the text. Syntax and options of the whole text are checked
                before its first statement runs; nothing is half done after an error.
        """
        result = Result("EMPTY", text)
        for result in self.run(text):  # noqa: B007 - the last one is the answer
            pass
        return result

    def run(self, text: str) -> Iterator[Result]:
        """Run the statements of ``text`` one by one, giving each one's result as it comes."""
        for statement in self.parse(text):
            yield self.execute_statement(statement)

    def parse(self, text: str) -> list[Statement]:
        """The statements of ``text``, checked as far as they can be without the workspace.

        Raises:
            ThanoError: a statement, option or nested statement that is not legal or not served yet.
        """
        statements = parse(text)
        for statement in statements:
            check_served(statement)
        return statements

    def execute_statement(self, statement: Statement) -> Result:
        """Run one statement that :meth:`parse` gave."""
        started = time.perf_counter()
        with progress_module.reporting_to(self.progress):
            try:
                result = self._dispatch(statement)
            except ThanoError as error:
                raise _in_callers_text(error, statement)  # noqa: B904 - the same error, placed anew
        result.seconds = time.perf_counter() - started
        return result

    def plan(self, text: str) -> Result:
        """What running ``text`` would materialize, a row per asset; nothing is run."""
        started = time.perf_counter()
        result = self._plan(self.parse(text), text)
        result.seconds = time.perf_counter() - started
        return result

    # -- by kind of statement ------------------------------------------------------------------

    def _dispatch(self, statement: Statement) -> Result:
        match statement:
            case QueryStatement():
                return self._query(statement)
            case Plan():
                return self._plan([statement.statement], statement.text)
            case ListItems():
                from thano_assets.listings import listing

                rows = listing(statement.what, self._runtime)
                return Result(
                    statement.kind,
                    statement.text,
                    counted(rows.num_rows, "row"),
                    row_count=rows.num_rows,
                    rows=rows,
                )
            case DropTable():
                return self._drop_table(statement)
            case DeleteModel():
                return self._delete_model(statement)
            case ShowCreate():
                return self._show_create(statement)
            case GetThanosql(what="DATASET"):
                return self._get_dataset(statement)
            case CreateTableAs(if_not_exists=True, name=name) if self._runtime.warehouse.exists(name):
                return Result(statement.kind, statement.text, f"table {name} exists already", kept_as=name)
        return self._materialize(statement)

    def _query(self, statement: QueryStatement) -> Result:
        from thano_assets.assets.relations import located, prepare

        result = Result(statement.kind, statement.text)
        if self._something_to_make(statement.query):
            result = self._materialize(statement)
        runtime = self._runtime
        with runtime.warehouse.read() as connection, located(statement.query):
            relation = connection.sql(prepare(statement.query, connection, runtime))
            rows = relation.to_arrow_table() if relation is not None else None
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
        return bool(reads - set(names) - {name.casefold() for name in self._table_names()})

    def _materialize(self, statement: Statement) -> Result:
        """Make what the statement defines; statements that define the same table take turns.

        COPY … append reads the table's definition and writes a longer one: two at once would lose rows.
        """
        own = entry_of(statement)
        if own is None or not own.kind.is_relation:
            return self._make(statement)
        with self.workspace.lock("table-" + re.sub(r"\W", "_", own.name.casefold())):
            return self._make(statement)

    def _make(self, statement: Statement) -> Result:
        bound = bind(statement, self.catalog, self._runtime.registry.models(), self._table_names())
        preflight(bound, self._runtime)
        plan = self._planned(bound, set())
        made = [planned.node for planned in plan if planned.action is not Action.SKIP]
        tags = {"thano/statement": statement.kind.replace(" ", "_")}
        outcomes: dict[Key, Outcome] = {}
        try:
            nodes = [planned.node for planned in plan]
            run_id = self._open_runner().run(made, nodes, tags, outcomes)
        finally:
            # A statement is kept once its asset is there. After a kill in between, running it again is right:
            # for an append too, whose rows are not in the definition yet.
            for entry in bound.entries:
                if (entry.kind.value, entry.name) in outcomes:
                    self.catalog.put(entry)
        self._tell_user_interface()
        outcome = outcomes[bound.targets[-1]]
        node = bound.graph.nodes[bound.targets[-1]]
        result = Result(
            statement.kind,
            statement.text,
            outcome.summary,
            [text for one in outcomes.values() for text in one.warnings],
            run_id=run_id,
            mlflow_run_id=outcome.mlflow_run_id,
            assets=["/".join(node.key) for node in made],
            rows=outcome.result,
        )
        if node.entry.kind.is_relation:
            result.kept_as, result.row_count = node.name, outcome.rows
            if outcome.result is None:
                result.load = lambda count: self._rows(node.name, count)
        if result.rows is not None:
            result.row_count = result.rows.num_rows
        return result

    def _rows(self, name: str, count: int | None) -> pa.Table:
        from thano_assets.resources.warehouse import quote

        with self._runtime.warehouse.read() as connection:
            limit = "" if count is None else f" LIMIT {count}"
            return connection.sql(f"SELECT * FROM {quote(name)}{limit}").to_arrow_table()

    def _drop_table(self, statement: DropTable) -> Result:
        entry = self.catalog.relation(statement.name)
        runtime = self._runtime
        there = runtime.warehouse.exists(statement.name)
        if entry is None and not there:
            if statement.if_exists:
                return Result(statement.kind, statement.text, f"there is no table {statement.name}")
            known = [table.name for table in runtime.warehouse.tables()]
            raise UnknownTable(
                f"There is no table {statement.name}.", hint=did_you_mean(statement.name, known, "tables")
            ).at(statement.source, statement.name_span.start, len(statement.name))
        if there:
            runtime.warehouse.drop(statement.name)
        result = Result(statement.kind, statement.text, f"table {statement.name} dropped")
        if entry is not None:
            readers = self._readers((entry.kind.value, entry.name))
            self.catalog.remove(entry.kind, entry.name)
            self._open_runner().forget([(entry.kind.value, entry.name), (NodeKind.RAW.value, entry.name)])
            if readers:
                result.warnings.append(f"{', '.join(readers)} read it and cannot be made again without it.")
            self._tell_user_interface()
        return result

    def _delete_model(self, statement: DeleteModel) -> Result:
        from thano_assets.assets.training_sets import TrainingSet

        name, runtime = statement.name, self._runtime
        entry = self.catalog.model(name)
        versions = runtime.registry.versions(name)
        if entry is None and not versions:
            known = sorted({*runtime.registry.models(), *self.catalog.names(EntryKind.MODEL)})
            raise UnknownModel(f"There is no model {name}.", hint=did_you_mean(name, known, "models")).at(
                statement.source, statement.name_span.start, len(name)
            )
        if versions:
            runtime.registry.delete(name)
        result = Result(
            statement.kind,
            statement.text,
            f"model {name} deleted, {counted(len(versions), 'version')}",
        )
        if entry is not None:
            readers = self._readers((entry.kind.value, entry.name))
            self.catalog.remove(entry.kind, entry.name)
            TrainingSet.forget(self.workspace, entry.name)
            self._open_runner().forget(
                [(kind.value, entry.name) for kind in (NodeKind.MODEL, NodeKind.TRAINING_SET)]
            )
            if readers:
                result.warnings.append(f"{', '.join(readers)} read it and cannot be made again without it.")
            self._tell_user_interface()
        return result

    def _readers(self, key: Key) -> list[str]:
        from thano_assets.graph import Graph

        return [
            "/".join(node.key) for node in Graph(self.catalog.entries()).readers(key) if node.name != key[1]
        ]

    def _show_create(self, statement: ShowCreate) -> Result:
        from thano_assets.listings import creation

        rows = creation(statement, self.catalog, self._runtime)
        return Result.of(statement.kind, statement.text, rows)

    def _get_dataset(self, statement: GetThanosql) -> Result:
        import pyarrow as pa

        from thano_assets.resources import datasets

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

    def _plan(self, statements: list[Statement], text: str) -> Result:
        """The plan of statements one after the other, each seeing what those before it would make."""
        import pyarrow as pa

        catalog = Overlay(self.catalog.entries())
        made: set[Key] = set()
        counts = {table.name.casefold(): table.rows for table in self._runtime.warehouse.tables()}
        rows: list[dict[str, object]] = []
        for number, statement in enumerate(statements, start=1):
            if isinstance(statement, DropTable):
                if dropped := catalog.relation(statement.name):
                    catalog.remove(dropped.kind, dropped.name)
                continue
            if isinstance(statement, (DeleteModel, ListItems, ShowCreate, Plan)) or (
                isinstance(statement, GetThanosql) and statement.what == "DATASET"
            ):
                continue
            bound = bind(statement, catalog, self._runtime.registry.models())
            for planned in self._planned(bound, made) if bound.targets else ():
                node = planned.node
                seconds = self._open_runner().latest_seconds(node.key)
                known = counts.get(node.name.casefold()) if node.entry.kind.is_relation else None
                rows.append(
                    {
                        "statement": number,
                        "asset": "/".join(node.key),
                        "kind": node.kind.value,
                        "action": planned.action.value,
                        "reason": planned.reason,
                        "rows": known if planned.action is Action.SKIP else None,
                        "estimated_seconds": seconds if planned.action is not Action.SKIP else 0.0,
                    }
                )
                made.add(node.key)
            catalog.put(bound.entries)
        schema = pa.schema(
            [
                ("statement", pa.int64()),
                ("asset", pa.string()),
                ("kind", pa.string()),
                ("action", pa.string()),
                ("reason", pa.string()),
                ("rows", pa.int64()),
                ("estimated_seconds", pa.float64()),
            ]
        )
        table = pa.Table.from_pylist(rows, schema)
        work = sum(row["action"] != Action.SKIP for row in rows)
        return Result("PLAN", text, f"{work} of {len(rows)} assets to make", row_count=len(rows), rows=table)

    def _planned(self, bound: Bound, made: set[Key]) -> list[PlannedAsset]:
        """The plan of all targets of a bound statement; ``made`` are assets that will be there by then."""
        tables = {table.casefold() for table in self._table_names()}

        def exists(node: Node) -> bool:
            if node.key in made:
                return True
            if node.entry.kind.is_relation:
                return node.kind is not NodeKind.RAW and node.name.casefold() in tables
            if node.kind is NodeKind.MODEL:
                return self._runtime.registry.resolve(node.name) is not None
            from thano_assets.assets.training_sets import TrainingSet

            return TrainingSet.present(self.workspace, node.name)

        decided: dict[Key, PlannedAsset] = {}
        for target in bound.targets:
            for planned in make_plan(bound.graph, target, exists):
                before = decided.get(planned.node.key)
                if before is None or before.action is Action.SKIP:
                    decided[planned.node.key] = planned
        ordered = nodes_with_upstream(bound.graph, bound.targets)
        return [decided[node.key] for node in ordered if node.key in decided]

    def _table_names(self) -> list[str]:
        with self._runtime.warehouse.read() as connection:
            return [row[0] for row in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()]

    # -- what is opened late -------------------------------------------------------------------

    def _open_runner(self) -> Runner:
        if self._runner is None:
            from thano_assets.assets.runner import Runner
            from thano_assets.resources.dagster import resources_for

            self._runner = Runner(self.workspace, resources_for(self.workspace), verbose=self._verbose)
        return self._runner

    def _tell_user_interface(self) -> None:
        from thano_assets.assets.runner import reload_user_interface

        reload_user_interface(self.workspace)


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
