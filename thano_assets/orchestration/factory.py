"""From nodes of the graph to Dagster assets."""

# Without postponed annotations: Dagster looks at the type of ``context`` as an object.

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext

from thano_assets import progress
from thano_assets.assets.kinds import KINDS
from thano_assets.assets.models import promotion
from thano_assets.assets.runtime import CheckOutcome, Outcome, Runtime, keep_outcome
from thano_assets.assets.tables import checks
from thano_assets.catalog import Entry
from thano_assets.errors import ThanoError
from thano_assets.graph import Graph, Node, NodeKind
from thano_assets.graph.build import Key
from thano_assets.orchestration import failures, metadata, records, run_tags
from thano_assets.orchestration.dagster_compat import assets_definition
from thano_assets.orchestration.launch_form import config_schema, configured, reason
from thano_assets.orchestration.log_progress import LogProgress
from thano_assets.orchestration.metadata import asset_key
from thano_assets.orchestration.running_ui import reload_user_interface
from thano_assets.sql.options import duration
from thano_assets.sql.promotion import condition_of
from thano_assets.sql.statements import TrainModel
from thano_assets.stopping import heeding

#: Seconds before the second try of a step that failed; later tries wait twice as long as the one before.
_RETRY_SECONDS = 1.0


def op_name(key: Key) -> str:
    """A legal Dagster name for the step that makes ``key``; names of any script are allowed in keys."""
    plain = "".join(c if c.isascii() and c.isalnum() else "_" for c in "__".join(key))
    if plain == "__".join(key):
        return plain
    return f"{plain}_{hashlib.sha256('/'.join(key).encode()).hexdigest()[:8]}"


def build_assets(
    nodes: Iterable[Node], expectations: Mapping[Key, Sequence[Entry]]
) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """One Dagster asset for each node, with its checks.

    Args:
        nodes: What is built.
        expectations: The entries of EXPECT statements by the key of their table.
    """
    return [
        _spec(node) if node.kind is NodeKind.MODEL_VERSION else _build(node, expectations) for node in nodes
    ]


def build_definitions(
    graph: Graph,
    resources: Mapping[str, Any],
    *,
    schedules: Sequence[dg.ScheduleDefinition] = (),
    sensors: Sequence[dg.SensorDefinition] = (),
    jobs: Sequence[dg.JobDefinition] = (),
) -> dg.Definitions:
    """The whole graph as a code location; statements that no longer parse are shown with their error."""
    broken = [
        dg.AssetSpec(
            ["broken", "".join(c if c.isalnum() else "_" for c in entry.name)],
            group_name="broken",
            description=f"The file of {entry.kind.value}/{entry.name} is not a legal statement:\n\n{error}",
        )
        for entry, error in graph.broken.items()
    ]
    return dg.Definitions(
        assets=[*build_assets(graph.nodes.values(), graph.expectations), *broken],
        resources=resources,
        schedules=schedules,
        sensors=sensors,
        jobs=jobs,
        executor=dg.in_process_executor,
    )


def _spec(node: Node) -> dg.AssetSpec:
    option = _options_of(node)
    tags = (tag.partition("=") for tag in option("tags") or ())
    age = option("fresh_within")
    return dg.AssetSpec(
        asset_key(node.key),
        deps=[asset_key(key) for key in node.reads],
        group_name=option("group") or node.kind.value,
        owners=option("owner") or (),
        tags={name: value for name, _, value in tags},
        freshness_policy=dg.FreshnessPolicy.time_window(duration(age)) if age else None,
        metadata={"retries": option("retries")} if option("retries") else None,
        kinds=set({"mlflow"} if node.kind is NodeKind.MODEL_VERSION else KINDS[node.kind].icons(node)),
        code_version=node.code_version,
        description=_description(node),
    )


def _options_of(node: Node) -> Callable[[str], Any]:
    """What the node's statement says of the options of :data:`.OF_ASSETS`.

    A version that another statement pins is none of that statement's assets; its age is the registry's.
    """
    if node.kind is NodeKind.MODEL_VERSION:
        return lambda name: None
    return lambda name: None if name == "fresh_within" and not node.is_result else node.entry.option(name)


def _check_specs(node: Node, expectations: Mapping[Key, Sequence[Entry]]) -> list[dg.AssetCheckSpec]:
    """A blocking check for each EXPECT of a table; one that warns for a model that has to prove itself."""
    specs = [
        dg.AssetCheckSpec(
            checks.check_name(entry),
            asset=asset_key(node.key),
            blocking=True,
            description=checks.described(entry),
        )
        for entry in expectations.get(node.key, ())
    ]
    if node.kind is NodeKind.MODEL:
        statement = node.entry.statement
        if isinstance(statement, TrainModel) and condition_of(statement.options) is not None:
            specs.append(
                dg.AssetCheckSpec(
                    promotion.CHECK,
                    asset=asset_key(node.key),
                    # What hangs on the model asks the version that answered before: nothing is in its way.
                    blocking=False,
                    description="A new version answers from now on only if it passes.",
                )
            )
    return specs


def _build(node: Node, expectations: Mapping[Key, Sequence[Entry]]) -> dg.AssetsDefinition:
    def make(context: AssetExecutionContext) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        wanted = {key.name for key in context.selected_asset_check_keys}
        if asset_key(node.key) not in context.selected_asset_keys:
            with _telling(node, context):
                found = _checked_alone(node, expectations, wanted, context)
            yield from (_check_result(node, check) for check in found)
            return
        with _telling(node, context):
            as_launched, if_changed, told = configured(node, context.op_execution_context.op_config)
        outcome = _materialize(as_launched, expectations, context, if_changed, told)
        keep_outcome(node, outcome)
        yield dg.MaterializeResult(
            asset_key=asset_key(node.key),
            metadata=metadata.of_outcome(as_launched.entry, outcome),
            data_version=dg.DataVersion(outcome.data_version),
            check_results=[_check_result(node, check) for check in outcome.checks if check.name in wanted],
        )

    return assets_definition(
        make,
        name=op_name(node.key),
        spec=_spec(node),
        input_names={op_name(key): asset_key(key) for key in node.reads},
        checks=_check_specs(node, expectations),
        required_resource_keys={"workspace", "warehouse", "registry"},
        pool=KINDS[node.kind].pool,
        config_schema=config_schema(node),
    )


def _check_result(node: Node, check: CheckOutcome) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=check.passed,
        asset_key=asset_key(node.key),
        check_name=check.name,
        severity=dg.AssetCheckSeverity.ERROR if check.blocking else dg.AssetCheckSeverity.WARN,
        description=check.description,
        metadata=metadata.of_check(check),
    )


def _materialize(
    node: Node,
    expectations: Mapping[Key, Sequence[Entry]],
    context: AssetExecutionContext,
    if_changed: bool | None,
    told: Sequence[str],
) -> Outcome:
    """Make one asset.

    Args:
        node: The asset.
        expectations: The entries of EXPECT statements by the key of their table.
        context: Dagster's.
        if_changed: Whether a model is trained only if something changed; ``None``: as the run's tag says.
        told: The launch form's settings in words.
    """
    run, asked = context.run, progress.current()
    runtime = _runtime(context)
    if if_changed is not None:
        runtime = replace(runtime, incremental=if_changed)

    def checked_in_this_run(key: Key) -> bool:
        made = run.asset_selection is None or asset_key(key) in run.asset_selection
        checks_run = run.asset_check_selection
        return made and (checks_run is None or any(one.asset_key == asset_key(key) for one in checks_run))

    with (
        _recorded_stop(context),
        heeding(lambda: _is_cancelled(context), runtime.progress),
        _telling(node, context),
    ):
        runtime = replace(runtime, progress=progress.current())
        if run_tags.PROCESS not in run.tags:  # a person at a terminal has the plan
            context.log.info(
                " ".join(
                    [
                        reason(node, runtime.workspace, run, context.instance),
                        *(f"With {one}." for one in told),
                    ]
                )
            )
        checks.guard(node, expectations, checked_in_this_run, runtime)
        started = time.perf_counter()
        outcome = KINDS[node.kind].materialize(node, runtime)
        outcome.facts.setdefault("seconds", round(time.perf_counter() - started, 3))  # for later plans
        if node.kind.is_relation:
            _hold_against(expectations.get(node.key, ()), outcome, runtime)
        columns = [column.name for column in outcome.columns or ()]
        outcome.column_lineage = outcome.column_lineage or KINDS[node.kind].lineage(node, columns, runtime)
        if node.kind is NodeKind.RAW and asked is progress.SILENT:
            _show_new_content(runtime)
        return outcome


def _runtime(context: AssetExecutionContext) -> Runtime:
    resources, asked = context.resources, progress.current()
    return Runtime(
        workspace=resources.workspace.workspace,
        warehouse=resources.warehouse.warehouse,
        registry=resources.registry.registry,
        # A run of the Dagster UI, a schedule or a sensor has nobody who listens: its log does then.
        progress=LogProgress(context.log) if asked is progress.SILENT else asked,
        run_id=context.run.run_id,
        incremental=context.run.tags.get(run_tags.INCREMENTAL) == "true",
        data_version=lambda key: records.data_version(context.instance, key),
    )


def _checked_alone(
    node: Node,
    expectations: Mapping[Key, Sequence[Entry]],
    wanted: set[str],
    context: AssetExecutionContext,
) -> list[CheckOutcome]:
    """What the checks say of the asset as it is; nothing is made."""
    runtime = _runtime(context)
    entries = [entry for entry in expectations.get(node.key, ()) if checks.check_name(entry) in wanted]
    found = [checks.evaluate(entry, runtime) for entry in entries]
    if promotion.CHECK in wanted and (verdict := promotion.last_verdict(node.name, runtime)) is not None:
        found.append(verdict)
    return found


@contextmanager
def _telling(node: Node, context: AssetExecutionContext) -> Iterator[None]:
    """Say in the log and the run's tags what went wrong, or have the step tried again."""
    began = time.time()
    try:
        yield
    except ThanoError as error:
        context.log.error(error.pretty())
        _try_again(node, error, context)
        failures.note(
            context.instance, context.run, node, error, context.resources.workspace.workspace, began
        )
        raise
    except Exception as error:
        _try_again(node, error, context)
        raise


def _try_again(node: Node, error: Exception, context: AssetExecutionContext) -> None:
    """Have Dagster try the step again where the statement's ``retries`` allow it and the failure may pass.

    Raises:
        RetryRequested: it is tried again, after 1, 2, 4, … seconds, a minute at most.
    """
    retries, tried = int(node.entry.option("retries") or 0), context.retry_number
    if tried >= retries or (isinstance(error, ThanoError) and not failures.may_pass(error)):
        return
    seconds = min(_RETRY_SECONDS * 2**tried, 60)
    left = f"It is tried again in {seconds:g} s ({tried + 1} of {retries + 1} tries failed)."
    context.log.warning(f"{error} {left}")
    raise dg.RetryRequested(max_retries=retries, seconds_to_wait=seconds) from error


def _is_cancelled(context: AssetExecutionContext) -> bool:
    """Whether the run, or the run of the job that it is part of, was told to stop."""
    stopped = (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED)
    parent = context.run.tags.get(run_tags.PARENT)
    runs = [context.instance.get_run_by_id(one) for one in (context.run.run_id, parent) if one]
    return any(run is None or run.status in stopped for run in runs)


@contextmanager
def _recorded_stop(context: AssetExecutionContext) -> Iterator[None]:
    """Write a stop by a signal down, as Terminate does: Dagster takes it for a failure otherwise."""
    try:
        yield
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        run = context.instance.get_run_by_id(context.run.run_id)
        if run is not None and run.status is dg.DagsterRunStatus.STARTED:
            context.instance.report_run_canceling(run, "The run was told to stop by a signal.")
        raise


def _show_new_content(runtime: Runtime) -> None:
    """Have the Dagster UI load the location again: it compares files with those that it saw when it did."""
    reload_user_interface(runtime.workspace)


def _hold_against(expectations: Sequence[Entry], outcome: Outcome, runtime: Runtime) -> None:
    """Add what the EXPECTs of the table that was just made find."""
    for entry in expectations:
        check = checks.evaluate(entry, runtime)
        outcome.checks.append(check)
        if not check.passed:
            outcome.warn(runtime.progress, check.description)


def _description(node: Node) -> str:
    if node.kind is NodeKind.MODEL_VERSION:
        what = f"The registered model {node.name}, as MLflow keeps it; a statement names this one."
    else:
        what = KINDS[node.kind].description(node)
    text = node.entry.text.strip().rstrip(";").rstrip()
    return f"{what}\n\n```sql\n{text}\n```"
