"""The one module that uses names of Dagster which are not public.

They are stable over the releases that ``pyproject.toml`` allows; ``tests/assets/test_definitions.py``
holds them to what is needed: a run that was executed in the caller's process belongs to the code
location, so that it can be executed again from the UI.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
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
_ASSET_JOB = "__ASSET_JOB"


def open_instance(home: Path) -> dg.DagsterInstance:
    """The instance of ``home`` for runs in this process: its steps do not capture standard output and error.

    Dagster captures them with two child processes a stream and step. They take time, stand between progress
    bars and the terminal, and answer Ctrl-C with tracebacks of their own. Runs that the UI launches capture.
    """
    no_capture = {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    }
    return dg.DagsterInstance.from_ref(
        InstanceRef.from_dir(str(home), overrides={"compute_logs": no_capture})
    )


def _job_origin() -> RemoteJobOrigin:
    origin = ManagedGrpcPythonEnvCodeLocationOrigin(
        LoadableTargetOrigin(executable_path=sys.executable, module_name=MODULE_NAME),
        location_name=LOCATION_NAME,
    )
    return RemoteRepositoryOrigin(origin, "__repository__").get_job_origin(_ASSET_JOB)


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
