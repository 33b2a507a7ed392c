"""The kinds of assets, each from its own module: a new one is added here, and asked by everybody."""

from __future__ import annotations

from collections.abc import Mapping

from thano_assets.assets.kind import AssetKind
from thano_assets.assets.models import models, training_rows
from thano_assets.assets.predictions import embeddings, evaluations, predictions, searches
from thano_assets.assets.tables import files, tables
from thano_assets.graph import NodeKind

#: By kind of node; a pinned version of a model is registered elsewhere and never made.
KINDS: Mapping[NodeKind, AssetKind] = {
    one.kind: one
    for one in (
        files.KIND,
        tables.KIND,
        training_rows.KIND,
        models.KIND,
        predictions.KIND,
        predictions.EXPLANATION,
        evaluations.KIND,
        embeddings.KIND,
        searches.KIND,
    )
}
