"""Explanations: for each predicted row the words of its text that moved the prediction most."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from thano_assets.assets.predictions.prediction_cache import text_key
from thano_assets.assets.runtime import Outcome, Runtime
from thano_assets.assets.tables.queries import Stage
from thano_assets.resources.warehouse import quote
from thano_assets.sql.statements import ExplainPredict

if TYPE_CHECKING:
    from thano_assets.learning.explain import Explanation
    from thano_assets.resources.model_version import ModelVersion

#: The column that EXPLAIN PREDICT adds to those of PREDICT.
COLUMN = "explanation"
#: Its type: words and their weights, those that moved most first.
TYPE = "STRUCT(token VARCHAR, weight DOUBLE)[]"
#: More texts than this are worth a warning: each costs some forty predictions.
MANY = 300

_WINDOW = 64
_SAMPLE = 5
_SAMPLE_WORDS = 8


def explain(
    stage: Stage,
    text: str,
    version: ModelVersion,
    statement: ExplainPredict,
    runtime: Runtime,
    outcome: Outcome,
) -> None:
    """Make the stage's table ``explanations``, a row for each of ``rows`` in their order.

    Args:
        stage: with the tables ``rows`` and ``predictions``, whose labels are what is explained.
        text: name of the text column.
        version: what answered.
        statement: has the options.
        runtime: the workspace's resources.
        outcome: is given facts, warnings and a sample in Markdown.
    """
    from thano_assets.learning.explain import Explainer

    with stage.connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE asked AS SELECT row_number() OVER () AS number, p.label, "
            f"CASE WHEN p.label IS NOT NULL THEN {text_key(f'CAST(r.{quote(text)} AS VARCHAR)')} END AS key "
            "FROM rows r POSITIONAL JOIN predictions p"
        )
        texts = int(cursor.execute("SELECT count(DISTINCT key) FROM asked").fetchall()[0][0])
        cursor.execute(f"CREATE TABLE explained (key UUID, {COLUMN} {TYPE})")
        if texts > MANY:
            outcome.warn(
                runtime.progress,
                f"{texts:,} texts are explained, each at some forty times the cost of a prediction; "
                "a WHERE or LIMIT in the query picks the rows that matter.",
            )
        facts: dict[str, Any] = {"texts explained": texts}
        if texts:
            started = time.perf_counter()
            explainer = Explainer.cached(version.path)
            places = {name: place for place, name in enumerate(version.classes)}
            reader = cursor.sql(
                f"SELECT CAST(a.key AS VARCHAR) AS key, t.text, a.label FROM "
                "(SELECT min(number) AS number, key, any_value(label) AS label FROM asked "
                "WHERE key IS NOT NULL GROUP BY key) a JOIN "
                "(SELECT row_number() OVER () AS number, "
                f"CAST({quote(text)} AS VARCHAR) AS text FROM rows) t "
                "ON t.number = a.number ORDER BY a.number"
            ).to_arrow_reader(_WINDOW)
            keys: list[Sequence[str]] = []

            def batches() -> Iterator[tuple[Sequence[str], Sequence[int]]]:
                for batch in reader:
                    keys.append(batch.column(0).to_pylist())
                    labels = [places[label] for label in batch.column(2).to_pylist()]
                    yield batch.column(1).to_pylist(), labels

            complete = 0
            top_k = statement.options.value("top_k")
            with stage.connection.cursor() as writer:
                for found in explainer.explain_batches(batches(), top_k, runtime.progress, texts):
                    complete += sum(one.complete for one in found)
                    _add(writer, keys.pop(0), found)
            seconds = time.perf_counter() - started
            facts |= {
                "texts explained per second": round(texts / seconds, 2),
                "explanations that add up": f"{complete:,} of {texts:,}",
            }
            if complete < texts:
                outcome.warn(
                    runtime.progress,
                    f"Of {texts - complete:,} texts the weights add up to the prediction only roughly.",
                )
        cursor.execute(
            f"CREATE TABLE explanations AS SELECT e.{COLUMN} FROM asked a "
            "LEFT JOIN explained e ON e.key = a.key ORDER BY a.number"
        )
        outcome.texts["sample"] = _sample(cursor, text)
    outcome.facts |= facts


def _add(cursor: Any, keys: Sequence[str], found: Sequence[Explanation]) -> None:
    import pyarrow as pa

    rows = [[{"token": word, "weight": weight} for word, weight in one.words] for one in found]
    type_ = pa.list_(pa.struct([("token", pa.string()), ("weight", pa.float64())]))
    cursor.register("found_words", pa.table({"key": list(keys), COLUMN: pa.array(rows, type_)}))
    cursor.execute(
        f"INSERT INTO explained SELECT CAST(key AS UUID), CAST({COLUMN} AS {TYPE}) FROM found_words"
    )
    cursor.unregister("found_words")


def _sample(cursor: Any, text: str) -> str:
    """The first rows in Markdown: words for the label bold, those against it struck out."""
    found = cursor.execute(
        f"SELECT p.label, p.probability, e.{COLUMN}, left(CAST(r.{quote(text)} AS VARCHAR), 120) "
        "FROM rows r POSITIONAL JOIN predictions p POSITIONAL JOIN explanations e "
        f"WHERE p.label IS NOT NULL LIMIT {_SAMPLE}"
    ).fetchall()
    lines = ["| text | predicted | probability | words |", "| --- | --- | --- | --- |"]
    for shown, label, probability, words in ((row[3], row[0], row[1], row[2]) for row in found):
        told = ", ".join(
            f"{mark}{_plain(word['token'])}{mark} {word['weight']:+.2f}"
            for word in (words or ())[:_SAMPLE_WORDS]
            for mark in ("**" if word["weight"] > 0 else "~~",)
        )
        lines.append(f"| {_plain(shown)} | {_plain(label)} | {probability:.3f} | {told} |")
    return "\n".join(lines)


def _plain(text: str) -> str:
    """``text`` as Markdown shows it letter by letter, in one line of a table."""
    return "".join(f"\\{mark}" if mark in "\\`*_{}[]<>()#+-.!|~" else mark for mark in " ".join(text.split()))


def select_from(columns: Sequence[str], where: str) -> str:
    """The query over the stage for the columns of PREDICT and the explanation."""
    return (
        f"SELECT {', '.join(columns)}, e.{COLUMN} AS {quote(COLUMN)} FROM stage.rows r "
        f"POSITIONAL JOIN stage.predictions p POSITIONAL JOIN stage.explanations e{where}"
    )


def described(version: ModelVersion, count: int, facts: dict[str, Any]) -> str:
    """One sentence on what was made."""
    speed = facts.get("texts explained per second")
    told = f", {speed:,} texts a second" if speed is not None else ""
    return f"{count:,} rows explained by {version.name} version {version.version}{told}"
