"""The keywords of each row's text, found once for each text, model and choice of options.

What is kept is the list of keywords, some hundred bytes a text. The vectors of the phrases would be some
hundred kilobytes a text, and few phrases come again in another one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from thano_assets.assets.predictions.prediction_cache import PredictionCache, has_text, text_key
from thano_assets.assets.runtime import Outcome, Runtime
from thano_assets.resources.warehouse import quote

if TYPE_CHECKING:
    import duckdb

    from thano_assets.assets.predictions.embedders import EmbeddingModel
    from thano_assets.assets.tables.queries import Stage
    from thano_assets.learning.keywords import KeywordSettings

_WINDOW = 256  # texts whose phrases are embedded together
_KEEP_EVERY_SECONDS = 30.0


def find_keywords(
    stage: Stage,
    text: str,
    model: EmbeddingModel,
    settings: KeywordSettings,
    runtime: Runtime,
    outcome: Outcome,
) -> int:
    """Make the stage's table ``keywords``, a row for each of ``rows`` in their order.

    Args:
        stage: with the table ``rows``.
        text: the column with the texts.
        model: embeds texts and phrases.
        settings: which keywords.
        runtime: the workspace's resources.
        outcome: is given facts and warnings.

    Returns:
        Rows without text; their keyword is NULL.
    """
    kept = PredictionCache.of_keywords(model.version or model.identity, repr(settings), runtime.workspace)
    column = f"CAST({quote(text)} AS VARCHAR)"
    with stage.connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE worded AS SELECT row_number() OVER () AS number, "
            f"CASE WHEN {has_text(column)} THEN {text_key(column)} END AS key FROM rows"
        )
        kept.recall(cursor, "SELECT DISTINCT key FROM worded WHERE key IS NOT NULL", "known_words")
        cursor.execute(
            "CREATE TABLE wordless AS SELECT min(number) AS number, key FROM worded "
            "ANTI JOIN known_words USING (key) WHERE key IS NOT NULL GROUP BY key"
        )
        texts, known = cursor.execute(
            "SELECT (SELECT count(*) FROM wordless), (SELECT count(*) FROM known_words)"
        ).fetchall()[0]
        if texts:
            _find(stage, text, model, settings, kept, int(texts), runtime, outcome)
            kept.tidy(runtime.workspace)
        cursor.execute(
            "CREATE TABLE keywords AS SELECT CASE WHEN k.p IS NOT NULL THEN json_object("
            "'keyword', json_extract(k.p, '$[*].keyword'), 'score', json_extract(k.p, '$[*].score')) END "
            "AS keyword FROM worded w "
            "LEFT JOIN known_words k ON k.key = w.key ORDER BY w.number"
        )
        missing = cursor.execute("SELECT count(*) - count(keyword) FROM keywords").fetchall()[0][0]
    outcome.facts |= {"texts searched for keywords": texts, "texts with known keywords": known}
    return int(missing)


def _find(
    stage: Stage,
    text: str,
    model: EmbeddingModel,
    settings: KeywordSettings,
    kept: PredictionCache,
    total: int,
    runtime: Runtime,
    outcome: Outcome,
) -> None:
    """Add the keywords of the texts of ``wordless`` to ``known_words``; they are kept as they come."""
    import duckdb

    from thano_assets.learning.keywords import KeywordFinder

    relation = model.vectors(stage, text, None, runtime, outcome)
    finder = KeywordFinder(model.load(), settings)
    with stage.connection.cursor() as reading, stage.connection.cursor() as writing:
        writing.execute("CREATE TABLE fresh_words AS FROM known_words LIMIT 0")

        def move() -> None:
            try:
                kept.keep(writing, "fresh_words")
            except (OSError, duckdb.IOException) as error:  # a saving less, not an answer less
                reason = str(error).split("\n")[0]
                outcome.warn(runtime.progress, f"The keywords could not be kept for later: {reason}")
            writing.execute("INSERT INTO known_words FROM fresh_words")
            writing.execute("DELETE FROM fresh_words")

        reader = reading.sql(
            f"SELECT CAST(u.key AS VARCHAR) AS key, t.text, e.p FROM wordless u "
            f"JOIN (SELECT w.number, CAST(r.{quote(text)} AS VARCHAR) AS text "
            "FROM rows r POSITIONAL JOIN worded w) t ON t.number = u.number "
            f"JOIN ({relation}) e ON e.number = u.number ORDER BY u.number"
        ).to_arrow_reader(_WINDOW)
        since = time.monotonic()
        try:
            with runtime.progress.task("Finding keywords", total=total, unit="texts") as task:
                for keys, found in _windows(reader, finder):
                    _add(writing, keys, found)
                    task.advance(len(keys))
                    if time.monotonic() - since >= _KEEP_EVERY_SECONDS:
                        move()
                        since = time.monotonic()
        finally:  # what was found before an error or Ctrl-C is kept too
            move()


def _windows(reader: Any, finder: Any) -> Iterator[tuple[list[str], list[str]]]:
    """Keys and keywords as JSON, window by window."""
    from thano_assets.learning.keywords import as_json

    for batch in reader:
        vectors = batch.column(2).flatten().to_numpy().reshape(batch.num_rows, -1)
        found = finder.keywords(batch.column(1).to_pylist(), vectors)
        yield batch.column(0).to_pylist(), list(map(as_json, found))


def _add(cursor: duckdb.DuckDBPyConnection, keys: list[str], found: list[str]) -> None:
    import pyarrow as pa

    cursor.register("found_words", pa.table({"key": keys, "p": pa.array(found, pa.string())}))
    cursor.execute("INSERT INTO fresh_words SELECT CAST(key AS UUID), p, CAST(0 AS INTEGER) FROM found_words")
    cursor.unregister("found_words")
