"""What assets read from outside the graph, as it is now: the bytes of files, the weights of base models.

It is part of the code versions of the assets, so that Dagster's marks see it change.
"""

from __future__ import annotations

from dataclasses import replace

from thano_assets.assets.models.bases import base_of, read_base
from thano_assets.assets.predictions.embedders import content_of
from thano_assets.assets.tables import files
from thano_assets.errors import ThanoError
from thano_assets.graph import Graph, Node, NodeKind
from thano_assets.resources import uploads
from thano_assets.resources.digests import FileDigests
from thano_assets.resources.environments import registry_of
from thano_assets.resources.workspace import Workspace
from thano_assets.sql.statements import BuildModel, CreateTableAs, EncoderQuery, UploadModel


class Observer:
    """Finds the content that assets read from outside the graph: files, base models.

    Nothing is asked of a network: a base model counts as what lies on this machine.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._digests = FileDigests(workspace.snapshots / ".file-digests.json")
        self._registry = registry_of(workspace)
        self._bases: dict[tuple[str, bool, str | None], str] = {}

    def observe(self, graph: Graph) -> Graph:
        """Give the nodes of ``graph`` their content, as it is now; returns ``graph``."""
        for key, node in graph.nodes.items():
            statement = node.entry.statement
            if node.kind is NodeKind.RAW:
                content = files.content_of(node.entry, self._workspace, self._digests.of)
            elif node.kind is NodeKind.MODEL and isinstance(statement, BuildModel):
                content = "" if read_base(node) is not None else self._base(statement)
            elif node.kind is NodeKind.MODEL and isinstance(statement, UploadModel):
                content = self._upload(statement)
            elif (embedding := _embedding(node)) is not None:
                content = content_of(embedding, self._workspace)
            else:
                continue
            graph.nodes[key] = replace(node, content=content)
        self._digests.save()
        return graph

    def _upload(self, statement: UploadModel) -> str:
        try:
            return uploads.find(self._workspace, statement.path).fingerprint(self._digests.of)
        except ThanoError as error:
            return files.unreadable(error)

    def _base(self, statement: BuildModel) -> str:
        asked = (statement.base, statement.base_quoted, statement.options.get("base_revision"))
        if asked not in self._bases:
            try:
                base = base_of(statement, self._registry, self._workspace, network=False)
                self._bases[asked] = base.identity
            except ThanoError:
                self._bases[asked] = "not on this machine"
        return self._bases[asked]


def observed(graph: Graph, workspace: Workspace) -> Graph:
    """Give the nodes of ``graph`` the content that they read from outside it; returns ``graph``."""
    return Observer(workspace).observe(graph)


def _embedding(node: Node) -> EncoderQuery | None:
    """The CONVERT or SEARCH that makes ``node``."""
    statement = node.entry.statement
    body = statement.body if isinstance(statement, CreateTableAs) else None
    return body if isinstance(body, EncoderQuery) else None


def with_base(node: Node, workspace: Workspace) -> Node:
    """``node``, which is about to be trained or embedded, with the base model that this will take.

    Unlike a plan, it asks the hub where nothing nearer has the base.
    """
    statement = node.entry.statement
    embedding = _embedding(node)
    if embedding is not None:
        return replace(node, content=content_of(embedding, workspace, network=True))
    if node.kind is not NodeKind.MODEL or not isinstance(statement, BuildModel) or read_base(node):
        return node  # one that was built here is an edge of the graph
    try:
        base = base_of(statement, registry_of(workspace), workspace)
    except ThanoError:  # the training says it
        return node
    return replace(node, content=base.identity)
