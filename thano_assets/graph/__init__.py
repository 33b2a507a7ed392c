"""From statements to assets: keys, edges and code versions."""

from __future__ import annotations

from thano_assets.catalog.kinds import NodeKind
from thano_assets.graph.build import Graph, Node

__all__ = ["Graph", "Node", "NodeKind"]
