"""What the assets' tests share with the session's: a workspace with a base model that trains in a second."""

from __future__ import annotations

import dagster as dg

from tests.session.conftest import session, small_workspace, told
from thano_assets.graph import Graph
from thano_assets.orchestration.factory import build_definitions
from thano_assets.orchestration.resources import resources_for
from thano_assets.orchestration.run_tags import INCREMENTAL
from thano_assets.resources.workspace import Workspace
from thano_assets.session import Session

__all__ = ["run_as_daemon", "session", "small_workspace", "told"]


def run_as_daemon(workspace: Workspace, instance: dg.DagsterInstance, *assets: str) -> dg.DagsterRun:
    """Run assets as the daemon would have them run."""
    with Session(workspace) as session:
        graph = Graph(session.catalog.entries())
    definitions = build_definitions(graph, resources_for(workspace))
    keys = [dg.AssetKey(asset.split("/")) for asset in assets]
    job = definitions.resolve_implicit_global_asset_job_def().get_subset(asset_selection=set(keys))
    result = job.execute_in_process(
        instance=instance,
        asset_selection=keys,
        tags={INCREMENTAL: "true"},
        raise_on_error=False,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )
    found = instance.get_run_by_id(result.run_id)
    assert found is not None
    return found
