"""What frozen encoders gave for texts, kept by text: a head is trained again without embedding them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thano_assets.assets.predictions.prediction_cache import PredictionCache, text_key

if TYPE_CHECKING:
    import duckdb
    import numpy as np

    from thano_assets.progress import Progress
    from thano_assets.resources.model_version import ModelVersion
    from thano_assets.resources.workspace import Workspace

_CODE = "1"  # raised when the same encoder would give other features


@dataclass(frozen=True)
class EncoderFeatures:
    """The features by the encoder of a registered version, or of the base model with that identity.

    Implements :class:`thano_assets.learning.frozen_encoder.FeatureCache`.
    """

    model: ModelVersion | str
    workspace: Workspace
    progress: Progress

    def recall(self, reading: str, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the known texts, shape (K,), and their features, float32 of shape (K, H)."""
        import numpy as np

        with _asked(texts) as connection:
            self._answers(reading).recall(connection, "SELECT DISTINCT key FROM asked", "known")
            found = connection.sql(
                "SELECT place, p FROM asked JOIN known USING (key) ORDER BY place"
            ).to_arrow_table()
        features = found.column("p").combine_chunks().flatten().to_numpy(zero_copy_only=False)
        places = found.column("place").to_numpy().astype(np.intp)
        return places, features.reshape(len(places), -1) if len(places) else np.empty((0, 0), np.float32)

    def keep(self, reading: str, texts: Sequence[str], features: np.ndarray) -> None:
        """Add the features, float32 of shape (len(texts), H); a full disk is a warning."""
        import duckdb
        import pyarrow as pa

        given = pa.table({"p": pa.FixedSizeListArray.from_arrays(features.ravel(), features.shape[1])})
        answers = self._answers(reading)
        with _asked(texts) as connection:
            connection.register("given", given)
            connection.execute(
                "CREATE TABLE new AS SELECT DISTINCT ON (key) key, CAST(p AS FLOAT[]) AS p, 0 AS cut "
                "FROM asked POSITIONAL JOIN given"
            )
            try:
                answers.keep(connection, "new")
            except (OSError, duckdb.IOException) as error:  # a saving less, not a model less
                self.progress.warning(f"Embeddings could not be kept for later: {str(error).splitlines()[0]}")
        answers.tidy(self.workspace)

    def _answers(self, reading: str) -> PredictionCache:
        return PredictionCache.of_features(self.model, f"{_CODE} {reading}", self.workspace)


def _asked(texts: Sequence[str]) -> duckdb.DuckDBPyConnection:
    """A database in memory with the table ``asked``: the place and the key of each text."""
    import duckdb
    import pyarrow as pa

    connection = duckdb.connect()
    connection.register("texts", pa.table({"text": pa.array(texts, pa.string())}))
    connection.execute(
        "CREATE TABLE asked AS "
        f"SELECT row_number() OVER () - 1 AS place, {text_key('text')} AS key FROM texts"
    )
    return connection
