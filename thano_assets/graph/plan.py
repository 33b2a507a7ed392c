"""What running a statement will do, asset by asset, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from thano_assets.graph.build import Graph, Key, Node


class Action(StrEnum):
    """What happens to an asset."""

    CREATE = "create"
    REBUILD = "rebuild"
    SKIP = "skip"


@dataclass(frozen=True)
class PlannedAsset:
    """One row of a plan."""

    node: Node
    action: Action
    reason: str


def make_plan(graph: Graph, target: Key, exists: Callable[[Node], bool]) -> list[PlannedAsset]:
    """The assets that materializing ``target`` touches, each after what it reads.

    The target is always made. What it reads is made only where it is missing; what stands
    behind an asset that is there is not looked at, so a prediction does not need the table
    that its model was trained on.

    Args:
        graph: All assets.
        target: The asset that was asked for.
        exists: Tells whether an asset's result is there (a table, a registered version, a snapshot).
    """
    asked_for = _made_together(graph, target)
    decided: dict[Key, PlannedAsset] = {}
    waiting = [target]
    while waiting:
        node = graph.nodes.get(waiting.pop())
        if node is None or node.key in decided:
            continue
        present = exists(node)
        if node.key in asked_for:
            action = Action.REBUILD if present else Action.CREATE
            decided[node.key] = PlannedAsset(node, action, "asked for by this statement")
        elif present:
            decided[node.key] = PlannedAsset(node, Action.SKIP, "present")
            continue
        else:
            decided[node.key] = PlannedAsset(node, Action.CREATE, "missing")
        waiting.extend(node.reads)
    return [decided[node.key] for node in graph.ancestors(target) if node.key in decided]


def _made_together(graph: Graph, target: Key) -> set[Key]:
    """The target and the assets of the same statement: a COPY's file, a BUILD's training set."""
    entry = graph.nodes[target].entry
    return {node.key for node in graph.ancestors(target) if node.entry == entry}
