"""What failed before on the very same inputs: what Dagster starts by itself is not started again for it.

A file that cannot be read cannot be read at the next tick either. The run that fails on it is tagged with a
hash of the asset's inputs, and a schedule or sensor leaves the asset alone until that hash is another one.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING

import dagster as dg

from thano_assets.catalog import catalog_of
from thano_assets.errors import (
    BaseModelUnavailable,
    ExpectationFailed,
    ThanoError,
    WarehouseBusy,
    WorkspaceError,
)
from thano_assets.graph import Graph, Node, NodeKind
from thano_assets.graph.build import Key
from thano_assets.orchestration import run_tags
from thano_assets.resources.environments import registry_of
from thano_assets.resources.files import states
from thano_assets.sql.statements import Copy

if TYPE_CHECKING:
    from thano_assets.resources.workspace import Workspace

# These may pass without a change of the inputs.
_PASSING = (WorkspaceError, WarehouseBusy, BaseModelUnavailable)
_MODELS = (NodeKind.MODEL, NodeKind.MODEL_VERSION)


def note(
    instance: dg.DagsterInstance,
    run: dg.DagsterRun,
    node: Node,
    error: ThanoError,
    workspace: Workspace,
    started: float,
) -> None:
    """Tag a run whose asset failed.

    A person's own run may have failed on a statement that is not in the catalog, which says nothing of the
    one that is: only runs that Dagster launched get the hash of the inputs.

    Args:
        instance: Dagster's, which has the run.
        run: The run.
        node: The asset.
        error: Why it failed.
        workspace: Where the inputs are.
        started: When the asset's step began, seconds since 1970; a file that was written later says nothing.
    """
    tags = {run_tags.ERROR: run_tags.shortened(f"{error.code}: {error.message}")}
    asked_again = may_pass(error) or isinstance(error, ExpectationFailed)  # at each look
    if run_tags.PROCESS not in run.tags and not asked_again:
        with suppress(ThanoError):  # the catalog cannot be read: the error that is told is the first one
            graph = Graph(catalog_of(workspace).entries())
            known = graph.nodes.get(node.key)
            state, written = _state(graph, node.key, workspace)
            if known is not None and known.entry.text == node.entry.text and written < started:
                tags[run_tags.FAILED_INPUTS] = state
    instance.add_run_tags(run.run_id, tags)


def failed_before(
    instance: dg.DagsterInstance, graph: Graph, key: Key, workspace: Workspace
) -> dg.DagsterRun | None:
    """The newest run in which the asset failed on the inputs that it has now."""
    state, _ = _state(graph, key, workspace)
    runs = instance.get_runs(dg.RunsFilter(tags={run_tags.FAILED_INPUTS: state}), limit=1)
    return runs[0] if runs else None


def may_pass(error: ThanoError) -> bool:
    """Whether the same inputs may do another time: a full disk, a busy warehouse, a hub out of reach."""
    return isinstance(error, _PASSING)


def _state(graph: Graph, key: Key, workspace: Workspace) -> tuple[str, float]:
    """A hash of what an asset is made from, and when the newest of its files was written."""
    told: list[object] = [key]
    newest = 0.0
    registry = registry_of(workspace)
    for node in graph.ancestors(key):
        told.append((node.key, node.entry.text))
        told += [entry.text for entry in graph.expectations.get(node.key, ())]
        for name, size, time_ns in _files(node, workspace):
            told.append((name, size, time_ns))
            newest = max(newest, time_ns / 1e9)
        if node.kind in _MODELS and node.key != key:
            told.append(registry.answering(node.name))
    settings = workspace.settings_path
    told.append(settings.read_bytes() if settings.is_file() else b"")
    return hashlib.sha256(repr(told).encode()).hexdigest()[:32], newest


def _files(node: Node, workspace: Workspace) -> list[tuple[str, int, int]]:
    """The states of the files that an asset reads; those that are not there have no part."""
    if node.kind is not NodeKind.RAW:
        return []
    found = []
    for statement in node.entry.statements:
        if isinstance(statement, Copy) and statement.path is not None:
            with suppress(ThanoError):
                found += states(workspace, statement.path)
    return sorted(found)
