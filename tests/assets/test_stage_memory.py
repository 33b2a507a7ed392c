"""A stage whose memory is short: texts that do not fit get more, and each comes once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from thano_assets.assets.predictions.prediction_cache import PredictionCache
from thano_assets.assets.predictions.scoring import Answerer, answered, windows
from thano_assets.assets.runtime import Outcome
from thano_assets.assets.tables.queries import Stage
from thano_assets.resources.warehouse import Column
from thano_assets.resources.workspace import Workspace
from thano_assets.session import Session

SHORT, LONG = 200_000, 80
QUERY = "SELECT rows.text FROM rows POSITIONAL JOIN rows AS same WHERE same.text IS NOT NULL"


def staged(path: Path, short: int) -> None:
    dice = random.Random(1)
    texts = [f"short {number}" for number in range(short)]
    texts += [dice.randbytes(150_000).hex() for _ in range(LONG)]  # which DuckDB cannot make smaller
    with duckdb.connect(str(path)) as connection:
        connection.register("given", pa.table({"text": texts}))
        connection.execute("CREATE TABLE rows AS SELECT text FROM given")


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A stage of short texts, then of long ones."""
    staged(tmp_path / "stage.duckdb", SHORT)
    with duckdb.connect(str(tmp_path / "stage.duckdb")) as connection:
        connection.execute("SET threads = 1; SET memory_limit = '8MiB'")
        yield connection


def test_a_reading_that_needs_more_goes_on_where_it_was(connection: duckdb.DuckDBPyConnection) -> None:
    given: list[int] = []
    with pytest.raises(OSError, match="Out of Memory"):
        given.extend(window.num_rows for window in connection.cursor().sql(QUERY).to_arrow_reader(4096))
    assert 0 < sum(given) < SHORT, "it failed amid the stream"
    found = [text for window in windows(connection, QUERY) for text in window.column(0).to_pylist()]
    assert connection.execute("SELECT current_setting('memory_limit')").fetchall() != [("8.0 MiB",)]
    connection.execute("RESET memory_limit")
    assert found == [row[0] for row in connection.execute("SELECT text FROM rows").fetchall()]


def test_what_can_never_fit_is_an_error(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("SET memory_limit = '64KiB'")
    with pytest.raises((duckdb.OutOfMemoryException, OSError), match="Out of Memory"):
        list(windows(connection, QUERY))


def test_long_texts_are_answered_once_each(
    small_workspace: Workspace, classifier: Path, tmp_path: Path
) -> None:
    from thano_assets.learning.predict import Predictor

    staged(tmp_path / "stage.duckdb", 0)
    with duckdb.connect(str(tmp_path / "stage.duckdb")) as connection, Session(small_workspace) as session:
        stage = Stage(connection, [Column("text", "VARCHAR")], str(tmp_path / "stage.duckdb"), LONG)

        def load() -> Predictor:
            connection.execute("SET memory_limit = '1MiB'")  # others take what there was
            return Predictor.load(classifier)

        answers, outcome = (
            PredictionCache.named("model", small_workspace),
            Outcome(data_version="", summary=""),
        )
        relation = answered(stage, "text", Answerer(answers, load), None, session._runtime, outcome)
        connection.execute("RESET memory_limit")
        found = connection.execute(f"SELECT number, p FROM ({relation}) ORDER BY number").fetchall()
    assert [number for number, p in found if p is not None] == list(range(1, LONG + 1))
    assert outcome.facts["rows through the model"] == LONG
    assert sum(duckdb.read_parquet(str(part)).shape[0] for part in answers.parts()) == LONG
