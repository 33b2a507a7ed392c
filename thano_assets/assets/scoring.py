"""What PREDICT and EVALUATE share: the version that answers, and its probabilities row by row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from thano_assets.assets.relations import Stage
from thano_assets.assets.runtime import Outcome, Runtime
from thano_assets.errors import UnknownModel
from thano_assets.resources.warehouse import quote
from thano_assets.sql.statements import Evaluate, Predict

if TYPE_CHECKING:
    import numpy as np

    from thano_assets.resources.registry import ModelVersion

#: Rows that are read, sorted by length and predicted at a time.
WINDOW = 4096


def answering_version(statement: Predict | Evaluate, runtime: Runtime) -> ModelVersion:
    """The registered version that the statement's model reference means (``@champion`` unless it says).

    Raises:
        UnknownModel: there is none; says which versions there are.
    """
    ref = statement.model
    version = runtime.registry.resolve(ref.name, version=ref.version, alias=ref.alias)
    if version is None:
        versions = [str(known.version) for known in runtime.registry.versions(ref.name)]
        hint = (
            f"It has the versions {', '.join(versions)}." if versions else "LIST MODEL shows what is there."
        )
        raise UnknownModel(f"There is no {ref} in the registry.", hint=hint).at(
            statement.source, ref.span.start, ref.span.end - ref.span.start
        )
    return version


def probabilities(
    stage: Stage,
    text: str,
    version: ModelVersion,
    batch_size: int | None,
    runtime: Runtime,
    outcome: Outcome,
) -> Iterator[np.ndarray]:
    """Class probabilities of the staged rows, window by window, in the rows' order.

    Yields:
        float32 arrays of shape (rows of the window, classes); rows of NaN where the text is NULL or blank.
    """
    from thano_assets.learning.predict import Predictor

    predictor = Predictor.cached(version.path)
    reader = (
        stage.connection.cursor()
        .sql(f"SELECT CAST({quote(text)} AS VARCHAR) AS text FROM rows")
        .to_arrow_reader(WINDOW)
    )
    cut_before = predictor.truncated
    texts = (batch.column(0).to_pylist() for batch in reader)
    yield from predictor.predict_batches(texts, runtime.progress, stage.count, batch_size)
    cut = predictor.truncated - cut_before
    outcome.facts |= {"device": f"{predictor.device} {predictor.precision}", "texts cut": cut}
    if cut:
        outcome.warn(
            runtime.progress,
            f"{cut:,} of {stage.count:,} texts were longer than {predictor.max_length} tokens and were cut.",
        )
