"""A step of a plan carried out: in one Dagster run, or answered with what is there already."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from thano_assets.catalog import Catalog
from thano_assets.graph import Graph, Node, NodeKind
from thano_assets.graph.build import Key
from thano_assets.orchestration import run_tags
from thano_assets.planning import PlannedAsset, Record
from thano_assets.planning.preflight import check_names, preflight
from thano_assets.resources.warehouse import quote
from thano_assets.results import Result, counted

if TYPE_CHECKING:
    import pyarrow as pa

    from thano_assets.assets.runtime import Outcome, Runtime
    from thano_assets.orchestration.runner import Runner
    from thano_assets.planning.scripts import Step
    from thano_assets.resources.workspace import Workspace


def make(step: Step, runtime: Runtime, runner: Callable[[], Runner], catalog: Catalog) -> Result:
    """Materialize what the step plans, in one Dagster run.

    Args:
        step: Of a statement that is bound.
        runtime: The workspace's resources.
        runner: Opens the runner, once nothing speaks against the step.
        catalog: Of the workspace; the statement is kept there once its assets are made.

    Raises:
        ThanoError: what speaks against the step, or what went wrong.
    """
    from thano_assets.planning.observation import with_base

    bound, statement = step.bound, step.statement
    assert bound is not None
    preflight(bound, runtime, again=step.again)
    _refuse_broken(step, runtime)
    opened = runner()
    _tell_of_promotions(step, runtime, opened)
    nodes = [
        with_base(planned.node, runtime.workspace) if planned.made else planned.node
        for planned in step.planned
    ]
    made = [node for node, planned in zip(nodes, step.planned, strict=True) if planned.made]
    tags = {run_tags.STATEMENT: run_tags.shortened(statement.text)}
    if step.place:
        tags[run_tags.SCRIPT] = step.place
    if step.incremental:
        tags[run_tags.INCREMENTAL] = "true"
    outcomes: dict[Key, Outcome] = {}
    try:
        run_id = opened.run(made, nodes, tags, outcomes, expectations=bound.graph.expectations)
    finally:
        # A statement is kept once its assets are there. After a kill in between, running it again is
        # right: for an append too, whose rows are not in the definition yet.
        for entry in bound.entries:
            wanted = {node.key for node in made if node.entry == entry}
            if wanted and wanted <= outcomes.keys():
                catalog.put(entry)
    tell_user_interface(runtime.workspace)
    broken = [check for one in outcomes.values() for check in one.checks if not check.passed]
    told = [text for one in outcomes.values() for text in one.warnings]
    result = Result(
        statement.kind,
        statement.text,
        warnings=[*told, *(one.description for one in broken if one.description not in told)],
        run_id=run_id,
        assets=["/".join(node.key) for node in made],
    )
    target = bound.targets[-1]
    outcome = outcomes.get(target)
    if outcome is None:  # only what it reads was out of date
        result.summary = f"{counted(len(made), 'asset')} made again"
        return result
    node = bound.graph.nodes[target]
    result.summary, result.mlflow_run_id = outcome.summary, outcome.mlflow_run_id
    result.rows = outcome.result
    if node.entry.kind.is_relation:
        result.kept_as, result.row_count = node.name, outcome.rows
        if outcome.result is None:
            result.load = lambda count: _rows(runtime, node.name, count)
    if result.rows is not None:
        result.row_count = result.rows.num_rows
    return result


def everything(
    runtime: Runtime, runner: Callable[[], Runner], catalog: Catalog
) -> tuple[list[PlannedAsset], Result | None]:
    """Make what is out of date of the whole catalog, as ``thano run`` of all its statements would.

    Raises:
        ThanoError: an asset could not be made; what does not depend on it was.
    """
    from thano_assets.orchestration.due import due
    from thano_assets.planning.observation import observed

    graph = observed(Graph(catalog.entries()), runtime.workspace)
    planned = [one for one in due(runtime.workspace, list(graph.nodes), runner().instance) if one.made]
    if not planned:
        return [], None
    nodes = [graph.nodes[one.node.key] for one in planned]
    outcomes: dict[Key, Outcome] = {}
    run_id = runner().run(
        nodes,
        graph.nodes.values(),
        {run_tags.INCREMENTAL: "true"},
        outcomes,
        expectations=graph.expectations,
    )
    summary = f"{counted(len(outcomes), 'asset')} made"
    warnings = [text for one in outcomes.values() for text in one.warnings]
    assets = ["/".join(key) for key in outcomes]
    return planned, Result("RUN", "", summary, warnings=warnings, run_id=run_id, assets=assets)


def unchanged(step: Step, runtime: Runtime, runner: Callable[[], Runner], catalog: Catalog) -> Result:
    """The answer to a statement of a script that has nothing to do; arguments as of :func:`make`."""
    statement = step.statement
    if step.superseded_by is not None and step.bound is not None and not step.again:
        check_names(step.bound, runtime)  # the statement that takes its place does not ask
    reasons = dict.fromkeys(one.reason for one in step.planned if one.node.key in step.own)
    result = Result(statement.kind, statement.text, "; ".join(reasons) or step.reason or "unchanged")
    if step.bound is not None and step.superseded_by is None:
        target = step.bound.targets[-1]
        record = runner().records([target]).get(target)
        if record is not None:
            result.summary += f" since {record.time.astimezone():%Y-%m-%d %H:%M}"
            _say_again(result, step.bound.graph.nodes[target], record, runtime)
    if step.superseded_by is None and step.bound is not None:
        for entry in step.bound.entries:
            # A new schedule, or another layout of the same statement: nothing to make, yet to be kept.
            known = catalog.get(entry.kind, entry.name)
            if known is not None and known.text != entry.text:
                catalog.put(entry)
                tell_user_interface(runtime.workspace)
    return result


def _say_again(result: Result, node: Node, record: Record, runtime: Runtime) -> None:
    """What was found when the asset was made: how good a model is, an EVALUATE's table and scores."""
    if node.kind not in (NodeKind.MODEL, NodeKind.PREDICTION, NodeKind.EVALUATION):
        return
    if record.summary:
        result.summary += f": {record.summary}"
    if node.kind is not NodeKind.MODEL:
        result.kept_as = node.name
        result.summary += f" (table {node.name})"
    if node.kind is NodeKind.EVALUATION:
        result.row_count = record.rows
        result.load = lambda count: _rows(runtime, node.name, count)


def tell_user_interface(workspace: Workspace) -> None:
    """Let Dagster's web page, where one is open, show the catalog as it is now."""
    from thano_assets.orchestration.running_ui import reload_user_interface

    reload_user_interface(workspace)


def _refuse_broken(step: Step, runtime: Runtime) -> None:
    """Refuse to make something from a table whose rows break what is expected of them."""
    from thano_assets.assets.tables.checks import broken, failure

    assert step.bound is not None
    made = {one.node.key for one in step.planned if one.made}
    reads = {read for one in step.planned if one.made for read in one.node.reads} - made
    tables = sorted(key[1] for key in reads & step.bound.graph.expectations.keys())
    for entry, outcome in broken(tables, runtime):
        raise failure(entry, outcome)


def _tell_of_promotions(step: Step, runtime: Runtime, runner: Runner) -> None:
    """Let Dagster know of models whose champion was moved elsewhere, in the MLflow UI for example."""
    from thano_assets.orchestration.records import report_again
    from thano_assets.planning.workspace_state import data_version

    kept = [one.node for one in step.planned if one.node.kind is NodeKind.MODEL and not one.made]
    for key, record in runner.records([node.key for node in kept]).items():
        champion = runtime.registry.resolve(key[1])
        now = data_version(champion)
        if champion is not None and now is not None and now != record.data_version:
            why = f"version {champion.version} answers: its alias was moved in the registry"
            report_again(runner.instance, record, data_version=now, why=why)


def _rows(runtime: Runtime, name: str, count: int | None) -> pa.Table:
    with runtime.warehouse.read() as connection:
        limit = "" if count is None else f" LIMIT {count}"
        return connection.sql(f"SELECT * FROM {quote(name)}{limit}").to_arrow_table()
