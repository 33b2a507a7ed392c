"""The Dagster code location: the catalog of the workspace as a graph of assets.

``workspace.yaml`` names this module. The workspace is the one of ``THANO_WORKSPACE``, of the
folder or one above it, or ``./workspace``; ``THANO_ENV`` names an environment of it. Loading imports neither
torch, Transformers nor MLflow.
"""

from __future__ import annotations

import os
import warnings

import dagster as dg

from thano_assets.catalog import catalog_of
from thano_assets.graph import Graph
from thano_assets.interfaces.dagster_jobs import jobs
from thano_assets.orchestration import alerts
from thano_assets.orchestration.factory import build_definitions
from thano_assets.orchestration.resources import resources_for
from thano_assets.orchestration.schedules import file_marks, schedules, watchers
from thano_assets.planning.observation import observed
from thano_assets.resources.environments import open_workspace

_NO_HOME = (
    "DAGSTER_HOME is not set: runs, schedules and sensors are kept by another Dagster instance than the "
    "workspace's, maybe a temporary one. Set it to {home}, or start `thano ui`."
)


@dg.definitions
def defs() -> dg.Definitions:
    """The graph of the catalog as it is now; reload the code location to see later statements."""
    workspace = open_workspace()
    # What is tried out in an environment is not run by the clock.
    production = workspace.production is None
    if production and not os.environ.get("DAGSTER_HOME"):
        warnings.warn(_NO_HOME.format(home=workspace.dagster_home), stacklevel=2)
    graph = observed(Graph(catalog_of(workspace).entries()), workspace)
    return build_definitions(
        graph,
        resources_for(workspace),
        schedules=schedules(graph, workspace) if production else (),
        jobs=jobs(workspace) if production else (),
        sensors=[
            *watchers(graph, workspace),
            *file_marks(graph, workspace),
            *alerts.sensors(graph, workspace),
        ]
        if production
        else (),
    )
