"""What PREDICT, EVALUATE and the promotion of models share: the version that answers, and its answers."""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from thano_assets.assets.models.bases import asked_of_base
from thano_assets.assets.models.features import Reading, TextReading
from thano_assets.assets.predictions import table_predictions
from thano_assets.assets.predictions.prediction_cache import PredictionCache, has_text, text_key
from thano_assets.assets.runtime import Outcome, Runtime
from thano_assets.assets.tables.queries import Stage
from thano_assets.errors import UnknownModel, UnsupportedStatement
from thano_assets.resources.warehouse import quote
from thano_assets.sql.statements import (
    ClassifierQuery,
    Evaluate,
    ExplainPredict,
    FitModel,
    ModelQuery,
    Predict,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb
    import numpy as np
    import pyarrow as pa

    from thano_assets.resources.model_version import ModelVersion
    from thano_assets.resources.workspace import Workspace

T = TypeVar("T")

#: Texts that are read, sorted by length and answered at a time.
WINDOW = 4096
# Answers are written when there are so many of them (in probabilities, or texts) or so many seconds of work
# in them.
_KEEP_EVERY_VALUES = 4_000_000
_KEEP_EVERY_TEXTS = 100_000
_KEEP_EVERY_SECONDS = 30.0
# What DuckDB holds of the staged rows and their answers while a classifier works: so much, and for each of
# its threads so much and twice the texts that it handles at a time. What needs more gets it, see roomy().
_STAGE_BYTES, _STAGE_PER_THREAD = 16 * 1024**2, 32 * 1024**2
_STAGE_MOST = 512 * 1024**2  # beyond it memory is what DuckDB usually takes
_DOUBLINGS = 6
_VECTOR = 2048  # DuckDB's rows at a time


def answering_version(statement: ModelQuery, runtime: Runtime) -> ModelVersion:
    """The registered version that the statement's model reference means (``@champion`` unless it says).

    Raises:
        UnknownModel: there is none; says which versions there are.
        UnsupportedStatement: it is a base model, and the statement asks for labels; or it is a model of
            tables, and the statement is about texts.
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
    if version.is_base and isinstance(statement, ClassifierQuery):
        raise asked_of_base(statement)
    if version.task:
        refuse_tables(statement, str(ref))
    return version


def refuse_tables(statement: ModelQuery | FitModel, model: str) -> None:
    """Say that what the statement does cannot be done with ``model``, which is one of tables.

    Raises:
        UnsupportedStatement: unless it is PREDICT or EVALUATE.
    """
    if isinstance(statement, (Predict, Evaluate)):
        return
    ref = statement.model_named
    if isinstance(statement, FitModel):
        message = f"{model} is a model of tables; FIT MODEL goes on training classifiers of texts."
        hint = "BUILD MODEL … OPTIONS (overwrite=True) finds a new one from all the rows there are."
    elif isinstance(statement, ExplainPredict):
        message = f"{model} is a model of tables; EXPLAIN PREDICT tells the words of a text."
        hint = "Which columns matter is in the model's figure of importance, in MLflow and Dagster."
    else:
        message = f"{model} is a model of tables and makes no embeddings."
        hint = "USING SBERTEn makes them."
    raise UnsupportedStatement(message, hint=hint).at(statement.source, ref.span.start, len(ref.span))


@dataclass(frozen=True)
class Answerer:
    """What answers texts: where its answers are kept, and how it is loaded when one is missing.

    ``load`` gives a predictor or an embedder: ``answer_batches``, ``device``, ``precision``, ``max_length``.
    """

    answers: PredictionCache
    load: Callable[[], Any]

    @classmethod
    def of(cls, version: ModelVersion, workspace: Workspace) -> Answerer:
        """The classifier of ``version``; its answers are probabilities."""

        def load() -> Any:
            from thano_assets.learning.predict import Predictor

            return Predictor.cached(version.path)

        return cls(PredictionCache.of(version, workspace), load)


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
        if not isinstance(version, Answerer):
            _bound(cursor, column, len(version.classes))
        run = lambda sql: with_more_memory(cursor, lambda: cursor.execute(sql))  # noqa: E731
        run(
            f"CREATE TABLE {keyed} AS SELECT row_number() OVER () AS number, "
            f"CASE WHEN {has_text(column)} THEN {text_key(column)} END AS key FROM rows"
        )
        wanted = f"SELECT DISTINCT key FROM {keyed} WHERE key IS NOT NULL"
        with_more_memory(cursor, lambda: answers.recall(cursor, wanted, known))
        run(
            # As many rows as the stage has: its texts are then read in one pass, and never all held.
            f"CREATE TABLE {unknown} AS SELECT u.key FROM {keyed} k LEFT JOIN "
            f"(SELECT min(number) AS number, key FROM {keyed} ANTI JOIN {known} USING (key) "
            "WHERE key IS NOT NULL GROUP BY key) u ON u.number = k.number ORDER BY k.number"
        )
        texts, recalled = cursor.execute(
            f"SELECT (SELECT count(key) FROM {unknown}), (SELECT count(*) FROM {known})"
        ).fetchall()[0]
        if texts:
            reader = windows(
                stage.connection,
                f"SELECT CAST(u.key AS VARCHAR) AS key, CAST(r.{quote(text)} AS VARCHAR) AS text "
                f"FROM rows r POSITIONAL JOIN {unknown} u WHERE u.key IS NOT NULL",
            )
            with stage.connection.cursor() as writer, closing(reader):
                _answer(reader, texts, answerer, writer, known, batch_size, runtime, outcome)
            answers.tidy(runtime.workspace)
        cut, limit = run(
            f"SELECT count(*) FILTER (WHERE cut > 0), max(cut) FROM {keyed} JOIN {known} USING (key)"
        ).fetchall()[0]
    outcome.facts |= {"rows through the model": texts, "texts known before": recalled, "texts cut": cut}
    if cut:
        outcome.warn(
            runtime.progress,
            f"{cut:,} of {stage.count:,} texts were longer than {limit} tokens and were cut.",
        )
    return f"SELECT k.number, a.p FROM {keyed} k LEFT JOIN {known} a ON a.key = k.key"


def outputs(
    stage: Stage,
    reading: Reading,
    version: ModelVersion,
    batch_size: int | None,
    runtime: Runtime,
    outcome: Outcome,
) -> str:
    """What ``version`` says of the staged rows, each read as ``reading`` has it.

    Returns:
        A query over the stage with the columns ``number`` and ``p``, see :func:`answered`; where a number is
        predicted it is the only element of ``p``.
    """
    if isinstance(reading, TextReading):
        return answered(stage, reading.column, version, batch_size, runtime, outcome)
    return table_predictions.answered(stage, reading, version, runtime, outcome)


def _bound(cursor: duckdb.DuckDBPyConnection, text: str, classes: int) -> None:
    """Have DuckDB go to disk early: many short texts take no more memory than some."""
    longest, threads = cursor.execute(
        f"SELECT coalesce(max(strlen({text})), 0), current_setting('threads') FROM rows"
    ).fetchall()[0]
    bytes_ = _STAGE_BYTES + int(threads) * (_STAGE_PER_THREAD + 2 * _VECTOR * (int(longest) + 8 * classes))
    if bytes_ <= _STAGE_MOST:
        cursor.execute(f"SET memory_limit = '{bytes_ // 1024}KiB'")


def with_more_memory(cursor: duckdb.DuckDBPyConnection, work: Callable[[], T]) -> T:
    """Do ``work`` on a stage; where it fails for want of memory, again with twice as much."""
    import duckdb

    for _ in range(_DOUBLINGS):
        try:
            return work()
        except duckdb.OutOfMemoryException:
            _double_memory(cursor)
    return work()


def _double_memory(cursor: duckdb.DuckDBPyConnection) -> None:
    limit = cursor.execute("SELECT current_setting('memory_limit')").fetchall()[0][0]
    number, unit = str(limit).split()
    cursor.execute(f"SET memory_limit = '{2 * float(number)}{unit}'")


def windows(connection: duckdb.DuckDBPyConnection, query: str) -> Generator[pa.RecordBatch]:
    """The rows of ``query``, some at a time, while others work on the same stage.

    Where the reading fails for want of memory it goes on after the last window with twice as much: DuckDB
    gives rows in the same order each time (its setting ``preserve_insertion_order``).
    """
    import duckdb

    given = 0
    for left in reversed(range(_DOUBLINGS + 1)):
        rest = f"{query} OFFSET {given}" if given else query
        with connection.cursor() as cursor:
            try:
                for window in cursor.sql(rest).to_arrow_reader(WINDOW):
                    given += window.num_rows
                    yield window
                return
            except (duckdb.OutOfMemoryException, OSError) as error:
                # What fails amid the stream comes through Arrow, which has no other type for it.
                if not left or not str(error).startswith("Out of Memory"):
                    raise
        with connection.cursor() as cursor:
            _double_memory(cursor)


def probabilities(
    stage: Stage,
    reading: Reading,
    version: ModelVersion,
    batch_size: int | None,
    runtime: Runtime,
    outcome: Outcome,
) -> Iterator[np.ndarray]:
    """What ``version`` says of the staged rows, window by window, in the rows' order; see :func:`outputs`.

    Yields:
        float32 arrays of shape (rows of the window, classes); rows of NaN where the text is NULL or blank.
        Predicted numbers are float64, of shape (rows of the window, 1).
    """
    relation = outputs(stage, reading, version, batch_size, runtime, outcome)
    numbers = version.task == "regression"
    classes = 1 if numbers else len(version.classes)
    nothing = ", ".join(classes * ["'nan'"])
    type_ = "DOUBLE[]" if numbers else "FLOAT[]"
    with stage.connection.cursor() as cursor:
        cursor.execute("RESET memory_limit")
        reader = cursor.sql(
            f"SELECT coalesce(CAST(p AS {type_}), CAST([{nothing}] AS {type_})) AS p "
            f"FROM ({relation}) ORDER BY number"
        ).to_arrow_reader(WINDOW)
        for batch in reader:
            values = batch.column(0).flatten().to_numpy(zero_copy_only=False)
            yield values.reshape(-1, classes).copy()


def _answer(
    reader: Iterable[pa.RecordBatch],
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

    waiting, values, since = 0, 0, time.monotonic()
    answers = answerer.answers
    try:
        for found, cut in predictor.answer_batches(texts(), runtime.progress, total, batch_size):
            _add(cursor, fresh, keys.popleft(), found, cut, predictor.max_length)
            waiting, values = waiting + len(found), values + found.size
            many = waiting >= _KEEP_EVERY_TEXTS or values >= _KEEP_EVERY_VALUES
            if many or time.monotonic() - since >= _KEEP_EVERY_SECONDS:
                _move(cursor, fresh, known, answers, runtime, outcome)
                waiting, values, since = 0, 0, time.monotonic()
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

    def column(values: np.ndarray, type_: pa.DataType) -> pa.Array:
        # pyarrow.array() would import pandas to look whether this is something of its own.
        return pa.Array.from_buffers(type_, values.size, [None, pa.py_buffer(np.ascontiguousarray(values))])

    places = np.arange(0, found.size + 1, found.shape[1], dtype=np.int32)
    window = pa.table(
        {
            "key": keys,
            "p": pa.ListArray.from_arrays(column(places, pa.int32()), column(found, pa.float32())),
            "cut": column(np.where(cut, limit, 0).astype(np.int32), pa.int32()),
        }
    )
    cursor.register("window_answers", window)
    insert = f"INSERT INTO {table} SELECT CAST(key AS UUID), p, cut FROM window_answers WHERE NOT isnan(p[1])"
    with_more_memory(cursor, lambda: cursor.execute(insert))
    cursor.unregister("window_answers")


def _move(
    cursor: duckdb.DuckDBPyConnection,
    fresh: str,
    known: str,
    answers: PredictionCache,
    runtime: Runtime,
    outcome: Outcome,
) -> None:
    """Keep the fresh answers for later statements, and count them among the known ones of this one."""
    import duckdb

    try:
        with_more_memory(cursor, lambda: answers.keep(cursor, fresh))
    except (OSError, duckdb.IOException) as error:  # a saving less, not an answer less
        reason = str(error).split("\n")[0]
        outcome.warn(runtime.progress, f"The model's answers could not be kept for later: {reason}")
    with_more_memory(cursor, lambda: cursor.execute(f"INSERT INTO {known} SELECT * FROM {fresh}"))
    cursor.execute(f"CREATE OR REPLACE TABLE {fresh} AS SELECT * FROM {known} LIMIT 0")
