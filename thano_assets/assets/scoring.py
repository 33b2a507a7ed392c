"""What PREDICT, EVALUATE and the promotion of models share: the version that answers, and its answers."""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thano_assets.assets.answers import Answers, has_text, text_key
from thano_assets.assets.relations import Stage
from thano_assets.assets.runtime import Outcome, Runtime
from thano_assets.errors import UnknownModel
from thano_assets.resources.warehouse import quote
from thano_assets.sql.statements import Convert, Evaluate, ExplainPredict, Predict, Search

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb
    import numpy as np
    import pyarrow as pa

    from thano_assets.resources.model_version import ModelVersion
    from thano_assets.resources.workspace import Workspace

#: Texts that are read, sorted by length and answered at a time.
WINDOW = 4096
# Answers are written when there are so many of them (in probabilities) or so many seconds of work in them.
_KEEP_EVERY_VALUES = 4_000_000
_KEEP_EVERY_SECONDS = 30.0


def answering_version(
    statement: Predict | ExplainPredict | Evaluate | Convert | Search, runtime: Runtime
) -> ModelVersion:
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


@dataclass(frozen=True)
class Answerer:
    """What answers texts: where its answers are kept, and how it is loaded when one is missing.

    ``load`` gives a predictor or an embedder: ``answer_batches``, ``device``, ``precision``, ``max_length``.
    """

    answers: Answers
    load: Callable[[], Any]

    @classmethod
    def of(cls, version: ModelVersion, workspace: Workspace) -> Answerer:
        """The classifier of ``version``; its answers are probabilities."""

        def load() -> Any:
            from thano_assets.learning.predict import Predictor

            return Predictor.cached(version.path)

        return cls(Answers.of(version, workspace), load)


def answered(
    stage: Stage,
    text: str,
    version: ModelVersion | Answerer,
    batch_size: int | None,
    runtime: Runtime,
    outcome: Outcome,
) -> str:
    """Answer the staged rows; only texts that ``version`` has not answered before go through the model.

    Returns:
        A query over the stage with the columns ``number`` (of the row, from 1) and ``p`` (FLOAT[],
        probabilities in the order of the version's classes, or an embedding; NULL where the text is NULL or
        blank), a row for each of ``rows``, in any order.
    """
    answerer = version if isinstance(version, Answerer) else Answerer.of(version, runtime.workspace)
    answers = answerer.answers
    mark = uuid.uuid4().hex[:8]  # several versions may answer the same rows
    keyed, known, unknown = f"keyed_{mark}", f"known_{mark}", f"unknown_{mark}"
    column = f"CAST({quote(text)} AS VARCHAR)"
    with stage.connection.cursor() as cursor:
        cursor.execute(
            f"CREATE TABLE {keyed} AS SELECT row_number() OVER () AS number, "
            f"CASE WHEN {has_text(column)} THEN {text_key(column)} END AS key FROM rows"
        )
        answers.recall(cursor, f"SELECT DISTINCT key FROM {keyed} WHERE key IS NOT NULL", known)
        cursor.execute(
            f"CREATE TABLE {unknown} AS SELECT min(number) AS number, key FROM {keyed} k "
            f"ANTI JOIN {known} USING (key) WHERE key IS NOT NULL GROUP BY key"
        )
        texts, recalled = cursor.execute(
            f"SELECT (SELECT count(*) FROM {unknown}), (SELECT count(*) FROM {known})"
        ).fetchall()[0]
        if texts:
            reader = cursor.sql(
                f"SELECT CAST(u.key AS VARCHAR) AS key, t.text FROM {unknown} u JOIN "
                f"(SELECT k.number, CAST(r.{quote(text)} AS VARCHAR) AS text "
                f"FROM rows r POSITIONAL JOIN {keyed} k) t ON t.number = u.number ORDER BY u.number"
            ).to_arrow_reader(WINDOW)
            with stage.connection.cursor() as writer:
                _answer(reader, texts, answerer, writer, known, batch_size, runtime, outcome)
            answers.tidy(runtime.workspace)
        cut, limit = cursor.execute(
            f"SELECT count(*) FILTER (WHERE cut > 0), max(cut) FROM {keyed} JOIN {known} USING (key)"
        ).fetchall()[0]
    outcome.facts |= {"rows through the model": texts, "texts known before": recalled, "texts cut": cut}
    if cut:
        outcome.warn(
            runtime.progress,
            f"{cut:,} of {stage.count:,} texts were longer than {limit} tokens and were cut.",
        )
    return f"SELECT k.number, a.p FROM {keyed} k LEFT JOIN {known} a ON a.key = k.key"


def probabilities(
    stage: Stage,
    text: str,
    version: ModelVersion,
    batch_size: int | None,
    runtime: Runtime,
    outcome: Outcome,
) -> Iterator[np.ndarray]:
    """Class probabilities of the staged rows, window by window, in the rows' order; see :func:`answered`.

    Yields:
        float32 arrays of shape (rows of the window, classes); rows of NaN where the text is NULL or blank.
    """
    relation = answered(stage, text, version, batch_size, runtime, outcome)
    classes = len(version.classes)
    nothing = ", ".join(classes * ["'nan'"])
    with stage.connection.cursor() as cursor:
        reader = cursor.sql(
            f"SELECT coalesce(p, CAST([{nothing}] AS FLOAT[])) AS p FROM ({relation}) ORDER BY number"
        ).to_arrow_reader(WINDOW)
        for batch in reader:
            values = batch.column(0).flatten().to_numpy(zero_copy_only=False)
            yield values.reshape(-1, classes).copy()


def _answer(
    reader: pa.RecordBatchReader,
    total: int,
    answerer: Answerer,
    cursor: duckdb.DuckDBPyConnection,
    known: str,
    batch_size: int | None,
    runtime: Runtime,
    outcome: Outcome,
) -> None:
    """Send the reader's texts through the model; their answers go to ``known``, and are kept as they come."""
    predictor = answerer.load()
    outcome.facts["device"] = f"{predictor.device} {predictor.precision}"
    keys: deque[pa.Array] = deque()
    fresh = f"fresh_{known}"
    cursor.execute(f"CREATE TABLE {fresh} AS SELECT * FROM {known} LIMIT 0")

    def texts() -> Iterator[Sequence[str | None]]:
        for batch in reader:
            keys.append(batch.column(0))
            yield batch.column(1).to_pylist()

    waiting, since = 0, time.monotonic()
    answers = answerer.answers
    try:
        for found, cut in predictor.answer_batches(texts(), runtime.progress, total, batch_size):
            _add(cursor, fresh, keys.popleft(), found, cut, predictor.max_length)
            waiting += found.size
            if waiting >= _KEEP_EVERY_VALUES or time.monotonic() - since >= _KEEP_EVERY_SECONDS:
                _move(cursor, fresh, known, answers, runtime, outcome)
                waiting, since = 0, time.monotonic()
    finally:  # what was answered before an error or Ctrl-C is kept too
        if waiting:
            _move(cursor, fresh, known, answers, runtime, outcome)


def _add(
    cursor: duckdb.DuckDBPyConnection,
    table: str,
    keys: pa.Array,
    found: np.ndarray,
    cut: np.ndarray,
    limit: int,
) -> None:
    """Insert the answers of one window; ``found`` has the shape (texts, classes)."""
    import numpy as np
    import pyarrow as pa

    places = pa.array(np.arange(0, found.size + 1, found.shape[1], dtype=np.int32))
    window = pa.table(
        {
            "key": keys,
            "p": pa.ListArray.from_arrays(places, pa.array(found.ravel())),
            "cut": pa.array(np.where(cut, limit, 0).astype(np.int32)),
        }
    )
    cursor.register("window_answers", window)
    cursor.execute(
        f"INSERT INTO {table} SELECT CAST(key AS UUID), p, cut FROM window_answers WHERE NOT isnan(p[1])"
    )
    cursor.unregister("window_answers")


def _move(
    cursor: duckdb.DuckDBPyConnection,
    fresh: str,
    known: str,
    answers: Answers,
    runtime: Runtime,
    outcome: Outcome,
) -> None:
    """Keep the fresh answers for later statements, and count them among the known ones of this one."""
    import duckdb

    try:
        answers.keep(cursor, fresh)
    except (OSError, duckdb.IOException) as error:  # a saving less, not an answer less
        reason = str(error).split("\n")[0]
        outcome.warn(runtime.progress, f"The model's answers could not be kept for later: {reason}")
    cursor.execute(f"INSERT INTO {known} SELECT * FROM {fresh}")
    cursor.execute(f"CREATE OR REPLACE TABLE {fresh} AS SELECT * FROM {known} LIMIT 0")
