"""From statements to assets: keys, edges, code versions, and the plan of what will be done."""

from __future__ import annotations

from thano_assets.graph.build import Graph, Node, NodeKind
from thano_assets.graph.plan import Action, Mode, PlannedAsset, Planning, Record

__all__ = ["Action", "Graph", "Mode", "Node", "NodeKind", "PlannedAsset", "Planning", "Record"]
