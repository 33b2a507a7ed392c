"""The module that uses names of Dagster which are not public; with :mod:`.dagster_storage` the only ones.

They are stable over the releases that ``pyproject.toml`` allows; ``tests/orchestration/test_definitions.py``
holds them to what is needed: a run that was executed in the caller's process belongs to the code
location, so that it can be executed again from the UI.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.errors import DagsterAssetCheckFailedError
from dagster._core.execution.api import execute_run
from dagster._core.instance.ref import InstanceRef
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

LOCATION_NAME = "thano_assets"
MODULE_NAME = "thano_assets.definitions"
#: What a run is ended with in which a blocking check failed; everything that was made by then is there.
AssetCheckFailed = DagsterAssetCheckFailedError
#: Dagster's own job over all assets; runs of it belong to every asset's page.
ASSET_JOB = "__ASSET_JOB"


def open_instance(home: Path) -> dg.DagsterInstance:
    """The instance of ``home`` for runs in this process: its steps do not capture standard output and error.

    Dagster captures them with two child processes a stream and step. They take time, stand between progress
    bars and the terminal, and answer Ctrl-C with tracebacks of their own. Runs that the UI launches capture.
    Its databases stay open until it is disposed of, see :mod:`.dagster_storage`.
    """
    from thano_assets.orchestration.dagster_storage import (
        with_open_connections,  # the code location does without
    )

    no_capture = {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    }
    ref = InstanceRef.from_dir(str(home), overrides={"compute_logs": no_capture})
    return dg.DagsterInstance.from_ref(with_open_connections(ref))


@contextmanager
def web_application(target: str, lines_of_a_log: int, pools: Mapping[str, int]) -> Iterator[Any]:
    """Dagster's web application (ASGI) for the instance of ``DAGSTER_HOME``, as its own command serves it.

    Args:
        target: a ``workspace.yaml``.
        lines_of_a_log: lines of a run's log that the page is sent at a time.
        pools: how many runs may be in each pool at a time.
    """
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import WorkspaceFileTarget
    from dagster_webserver.app import create_app_from_workspace_process_context
    from dagster_webserver.version import __version__

    with dg.DagsterInstance.get() as instance:
        for pool, limit in pools.items():
            instance.event_log_storage.set_concurrency_slots(pool, limit)
        instance.optimize_for_webserver(statement_timeout=15_000, pool_recycle=3_600, max_overflow=20)
        with WorkspaceProcessContext(
            instance,
            version=__version__,
            read_only=False,
            workspace_load_target=WorkspaceFileTarget(paths=[target]),
        ) as context:
            yield create_app_from_workspace_process_context(context, "", lines_of_a_log)


def _job_origin() -> RemoteJobOrigin:
    origin = ManagedGrpcPythonEnvCodeLocationOrigin(
        LoadableTargetOrigin(executable_path=sys.executable, module_name=MODULE_NAME),
        location_name=LOCATION_NAME,
    )
    return RemoteRepositoryOrigin(origin, "__repository__").get_job_origin(ASSET_JOB)


def assets_definition(
    make: Callable[[AssetExecutionContext], Iterator[dg.MaterializeResult | dg.AssetCheckResult]],
    *,
    name: str,
    spec: dg.AssetSpec,
    input_names: Mapping[str, dg.AssetKey],
    checks: Sequence[dg.AssetCheckSpec],
    required_resource_keys: set[str],
    pool: str | None = None,
    config_schema: Mapping[str, dg.Field] | None = None,
) -> dg.AssetsDefinition:
    """One asset with its checks, made in one step called ``name``.

    ``@multi_asset`` derives the names of check outputs from asset keys, which may be of any script here while
    names of outputs may not.
    """
    outputs = {f"{name}__check_{number}": check for number, check in enumerate(checks)}
    step = dg.op(
        name=name,
        ins={each: dg.In(dg.Nothing) for each in input_names},
        out={
            # Not required: the asset can be had without its checks, and a check alone.
            name: dg.Out(dg.Nothing, code_version=spec.code_version, is_required=not checks),
            **{each: dg.Out(dg.Nothing, is_required=False) for each in outputs},
        },
        required_resource_keys=required_resource_keys,
        pool=pool,
        config_schema=config_schema,
        code_version=spec.code_version,
    )(make)
    return dg.AssetsDefinition(
        keys_by_input_name=dict(input_names),
        keys_by_output_name={name: spec.key},
        node_def=step,
        specs=[spec],
        check_specs_by_output_name=outputs,
        can_subset=bool(checks),
    )


def run_assets(
    definitions: dg.Definitions,
    selection: set[dg.AssetKey],
    instance: dg.DagsterInstance,
    *,
    tags: Mapping[str, str],
    log_level: str,
    on_created: object = None,
) -> str:
    """Materialize ``selection`` in this process, as a run of the code location; returns the run's id.

    Raises:
        Exception: whatever the first failing asset raised.
    """
    job = definitions.resolve_implicit_global_asset_job_def().get_subset(asset_selection=selection)
    run = instance.create_run_for_job(
        job_def=job,
        asset_selection=selection,
        run_config={"loggers": {"console": {"config": {"log_level": log_level}}}},
        tags=dict(tags),
        remote_job_origin=_job_origin(),
    )
    if callable(on_created):
        on_created(run.run_id)
    with warnings.catch_warnings():
        # In a notebook a loop runs already, and Dagster leaves a coroutine of its own loop behind.
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        warnings.filterwarnings("ignore", "IProgress not found")  # tqdm's, of a bar that is not shown
        execute_run(InMemoryJob(job), run, instance, raise_on_error=True)
    return run.run_id
