"""The Dagster code location: the catalog of the workspace as a graph of assets.

``workspace.yaml`` names this module. The workspace is the one of ``THANO_WORKSPACE``, of the
folder or one above it, or ``./workspace``. Loading imports neither torch, Transformers nor MLflow.
"""

from __future__ import annotations

import dagster as dg

from thano_assets.assets.factory import build_definitions
from thano_assets.catalog import Catalog
from thano_assets.graph import Graph
from thano_assets.resources.dagster import resources_for
from thano_assets.resources.workspace import Workspace


@dg.definitions
def defs() -> dg.Definitions:
    """The graph of the catalog as it is now; reload the code location to see later statements."""
    workspace = Workspace.open()
    return build_definitions(Graph(Catalog(workspace.statements).entries()), resources_for(workspace))
