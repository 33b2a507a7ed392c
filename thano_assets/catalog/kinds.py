"""The kinds of things that statements define, and of the assets that these become."""

from __future__ import annotations

from enum import StrEnum


class EntryKind(StrEnum):
    """The kinds of thing a statement can define; the value is its folder in the catalog."""

    TABLE = "tables"
    MODEL = "models"
    PREDICTION = "predictions"
    EXPLANATION = "explanations"
    EVALUATION = "evaluations"
    EMBEDDING = "embeddings"
    SEARCH = "searches"
    CHECK = "checks"

    @property
    def is_relation(self) -> bool:
        """Whether the thing is a table of the warehouse."""
        return self not in (EntryKind.MODEL, EntryKind.CHECK)


_RELATIONS = frozenset(kind.value for kind in EntryKind if kind.is_relation)


class NodeKind(StrEnum):
    """The kinds of asset; the value is the first part of the key and the group in the Dagster UI."""

    RAW = "raw"
    TABLE = "tables"
    TRAINING_SET = "training_sets"
    MODEL = "models"
    PREDICTION = "predictions"
    EXPLANATION = "explanations"
    EVALUATION = "evaluations"
    EMBEDDING = "embeddings"
    SEARCH = "searches"
    # A version or alias that a statement pins: registered elsewhere, never made by itself.
    MODEL_VERSION = "model_versions"

    @property
    def is_relation(self) -> bool:
        """Whether its assets are tables of the warehouse."""
        return self.value in _RELATIONS


# Raised when the code that computes a kind changes what it computes: stored results are then out of date.
CODE_VERSIONS: dict[NodeKind, str] = {
    NodeKind.RAW: "1",
    NodeKind.TABLE: "1",
    NodeKind.TRAINING_SET: "1",
    NodeKind.MODEL: "1",
    NodeKind.PREDICTION: "1",
    NodeKind.EXPLANATION: "2",  # over shares of attention
    NodeKind.EVALUATION: "2",  # log loss, calibration error and more metrics of regression
    NodeKind.EMBEDDING: "1",
    NodeKind.SEARCH: "1",
    NodeKind.MODEL_VERSION: "1",
}
