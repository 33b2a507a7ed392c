"""What is out of date now: what schedules, watched files and the page's job run."""

from __future__ import annotations

from collections.abc import Iterable

import dagster as dg

from thano_assets.assets.runtime import Runtime
from thano_assets.catalog import catalog_of
from thano_assets.graph import Graph
from thano_assets.graph.build import Key
from thano_assets.orchestration.borrowed_records import with_borrowed
from thano_assets.orchestration.records import read_records
from thano_assets.planning import Mode, PlannedAsset, Planning, Record
from thano_assets.planning.observation import observed
from thano_assets.planning.plan import downstream
from thano_assets.planning.workspace_state import WorkspaceState
from thano_assets.resources.workspace import Workspace


def due(
    workspace: Workspace, targets: list[Key], instance: dg.DagsterInstance, *, descendants: bool = False
) -> list[PlannedAsset]:
    """The plan of ``targets`` and of what they stand on.

    Args:
        workspace: Where.
        targets: Keys of assets.
        instance: The workspace's, which remembers what was made from what.
        descendants: Also everything that hangs on them.
    """
    graph = observed(Graph(catalog_of(workspace).entries()), workspace)
    wanted = downstream(graph, targets) if descendants else [key for key in targets if key in graph.nodes]

    def records(keys: Iterable[Key]) -> dict[Key, Record]:
        asked = list(keys)
        return with_borrowed(workspace, read_records(instance, asked), asked)

    with WorkspaceState(Runtime.of(workspace), records).opened() as state:
        state.prefetch(graph.nodes)
        return Planning(state).plan(graph, wanted, Mode.INCREMENTAL)
