"""Only texts that the answering version has not seen go through the model; counted at the model's call."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from thano_assets.errors import InvalidOption
from thano_assets.resources.workspace import Workspace
from thano_assets.session import Session

from .conftest import Recorder

CLASSES = ["negative", "positive"]
PREDICT = "CREATE OR REPLACE TABLE answers AS PREDICT USING m {version} OPTIONS ({options}) AS {query}"


@pytest.fixture
def judge(session: Session, classifier: Path) -> Session:
    """A session with the untrained tiny classifier as version 1 of m."""
    register(session, classifier, "1" * 32)
    return session


def register(session: Session, folder: Path, data_version: str) -> None:
    """Register a classifier as the next version of m and make it the champion."""
    registry = session._runtime.registry
    with registry.build("m") as build:
        version = build.register(
            folder,
            labels={"classes": CLASSES, "type": "VARCHAR"},
            metrics={},
            tags={"thano.data_version": data_version},
        )
    registry.promote("m", version.version)


@contextmanager
def network(session: Session, version: int | None = None) -> Iterator[list[int]]:
    """Rows of each batch that reaches the network of a version, the champion unless told otherwise."""
    from thano_assets.learning.predict import Predictor

    found = session._runtime.registry.resolve("m", version=version)
    assert found is not None
    rows: list[int] = []
    model = Predictor.cached(found.path)._model
    hook = model.register_forward_pre_hook(
        lambda _, given, named: rows.append(len(named["input_ids"])), with_kwargs=True
    )
    try:
        yield rows
    finally:
        hook.remove()


def predict(session: Session, query: str, options: str = "text_col='text'", version: str = "") -> None:
    session.execute(PREDICT.format(query=query, options=options, version=version))


def answers(session: Session, columns: str = "*") -> list[tuple[object, ...]]:
    rows = session.execute(f"SELECT {columns} FROM answers").rows
    assert rows is not None
    return list(zip(*(column.to_pylist() for column in rows.columns), strict=True))


def numbered(count: int) -> str:
    """A query of ``count`` distinct short texts of letters."""
    letters = "translate(CAST(n AS VARCHAR), '0123456789', 'abcdefghij')"
    return f"SELECT n, {letters} AS text FROM range({count}) AS t(n)"


class TestOnlyWhatIsNew:
    def test_ten_new_rows_among_ten_thousand_are_ten_texts_for_the_network(self, judge: Session) -> None:
        with network(judge) as rows:
            judge.execute(f"CREATE TABLE texts AS {numbered(10_000)}")
            predict(judge, "SELECT * FROM texts")
            assert sum(rows) == 10_000
            before = answers(judge, "n, predicted, probability")
            rows.clear()
            judge.execute(f"CREATE OR REPLACE TABLE texts AS {numbered(10_010)}")
            predict(judge, "SELECT * FROM texts")
            assert sum(rows) == 10
            after = answers(judge, "n, predicted, probability")
        assert after[:10_000] == before
        assert [row[0] for row in after] == list(range(10_010))
        assert all(row[1] in CLASSES for row in after[10_000:])

    def test_the_same_text_goes_through_the_network_once(self, judge: Session) -> None:
        with network(judge) as rows:
            predict(judge, "SELECT 'same' AS text FROM range(9000) UNION ALL SELECT 'other'")
        assert sum(rows) == 2
        assert len({row[1:3] for row in answers(judge) if row[0] == "same"}) == 1

    def test_another_version_reads_every_text_and_the_first_one_still_knows_its_answers(
        self, judge: Session, make_classifier: Callable[..., Path]
    ) -> None:
        predict(judge, numbered(50))
        first = answers(judge, "probability")
        register(judge, make_classifier(positions=48), "2" * 32)  # other weights
        with network(judge) as rows:
            predict(judge, numbered(50))
        assert sum(rows) == 50
        assert answers(judge, "probability") != first
        with network(judge, 1) as rows:
            predict(judge, numbered(50), version="VERSION 1")
        assert rows == []
        assert answers(judge, "probability") == first

    def test_evaluating_what_was_predicted_runs_nothing(self, judge: Session) -> None:
        predict(judge, numbered(50))
        with network(judge) as rows:
            judge.execute(
                "EVALUATE USING m OPTIONS (text_col='text', label_col='label') AS "
                f"SELECT *, 'positive' AS label FROM ({numbered(52)})"
            )
        assert sum(rows) == 2

    def test_a_stopped_prediction_goes_on_where_it_was(
        self, judge: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from thano_assets.assets.predictions import scoring

        monkeypatch.setattr(scoring, "WINDOW", 10)
        with network(judge) as rows:
            given = iter(range(1000))

            def stop(*_: object) -> None:
                if next(given) == 3:
                    raise KeyboardInterrupt

            from thano_assets.learning.predict import Predictor

            version = judge._runtime.registry.resolve("m")
            assert version is not None
            hook = Predictor.cached(version.path)._model.register_forward_pre_hook(stop)
            with pytest.raises(KeyboardInterrupt):
                predict(judge, numbered(50))
            hook.remove()
            rows.clear()
            predict(judge, numbered(50))
        assert sum(rows) == 20
        assert len(answers(judge)) == 50

    def test_a_killed_prediction_leaves_whole_answers_behind(
        self, judge: Session, small_workspace: Workspace
    ) -> None:
        statement = PREDICT.format(query=numbered(100), options="text_col='text'", version="")
        code = f"""
import contextlib, time
from thano_assets.assets.predictions import scoring
from thano_assets.progress import Progress, Task
from thano_assets.session import Session

scoring.WINDOW, scoring._KEEP_EVERY_SECONDS = 20, 0.0

class StopsInTheFourthWindow(Progress, Task):
    windows = 0
    def task(self, label, total=None, unit="rows"):
        return contextlib.nullcontext(self)
    def advance(self, amount=1, **fields):
        self.windows += amount == 20
        if self.windows == 4:
            print("now", flush=True)
            time.sleep(600)

Session({str(small_workspace.root)!r}, progress=StopsInTheFourthWindow()).execute({statement!r})
"""
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        process.kill()
        process.wait()
        process.stdout.close()
        with network(judge) as rows:
            judge.execute(statement)
        assert sum(rows) == 40
        assert len(answers(judge)) == 100

    def test_a_new_process_that_has_nothing_to_run_loads_no_torch(
        self, judge: Session, small_workspace: Workspace
    ) -> None:
        predict(judge, numbered(20))
        statement = PREDICT.format(query=numbered(20), options="text_col='text'", version="")
        code = (
            "import sys\nfrom thano_assets.session import Session\n"
            f"with Session({str(small_workspace.root)!r}) as session:\n"
            f"    print(session.execute({statement!r}).summary)\n"
            "print(sorted({'torch', 'transformers', 'mlflow'} & set(sys.modules)))"
        )
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert told.stdout.splitlines() == ["20 rows predicted by m version 1; it knew all texts", "[]"]

    def test_a_deleted_model_takes_its_answers_along(
        self, judge: Session, small_workspace: Workspace
    ) -> None:
        from thano_assets.assets.predictions.prediction_cache import size

        predict(judge, numbered(5))
        assert size(small_workspace)[0] == 1
        judge.execute("DELETE MODEL m")
        assert size(small_workspace) == (0, 0)


class TestRows:
    def test_order_copies_and_rows_without_text_are_as_in_the_query(self, judge: Session) -> None:
        query = (
            "SELECT * FROM (VALUES (5, 'b'), (1, NULL), (4, 'a'), (2, ' '), (3, 'b'), (6, 'c')) "
            "AS t(number, key)"
        )
        predict(judge, "SELECT 'a' AS text")
        predict(judge, query, "text_col='key', version_col='answered_by'")
        rows = answers(judge, "number, key, predicted, probability, answered_by")
        assert [row[:2] for row in rows] == [(5, "b"), (1, None), (4, "a"), (2, " "), (3, "b"), (6, "c")]
        assert [row[4] for row in rows] == [1, None, 1, None, 1, 1]
        assert rows[0][2:] == rows[4][2:]
        assert [row[2] is None for row in rows] == [False, True, False, True, False, False]

    def test_kept_answers_are_those_that_the_model_gives(self, judge: Session) -> None:
        from thano_assets.learning.predict import Predictor

        version = judge._runtime.registry.resolve("m")
        assert version is not None
        for _ in range(2):
            predict(judge, numbered(300))
            rows = answers(judge, "text, predicted, probability, map_values(probabilities)")
            expected = Predictor.cached(version.path).predict([str(row[0]) for row in rows])
            for (_, label, top, every), values in zip(rows, expected, strict=True):
                assert label == CLASSES[values.argmax()]
                assert top == pytest.approx(values.max(), abs=2e-2)
                assert every == pytest.approx(values.tolist(), abs=2e-2)

    def test_cut_texts_are_told_each_time(self, judge: Session, told: Recorder) -> None:
        long = "SELECT repeat('a b c ', 50) AS text UNION ALL SELECT 'short'"
        for _ in range(2):
            told.warnings.clear()
            predict(judge, long)
            assert told.warnings == ["1 of 2 texts were longer than 64 tokens and were cut."]

    def test_the_result_says_how_many_texts_were_new(self, judge: Session) -> None:
        sql = PREDICT.format(query="{}", options="text_col='text'", version="")
        first, more, same = (judge.execute(sql.format(numbered(count))).summary for count in (20, 23, 23))
        assert first == "20 rows predicted by m version 1"
        assert more == "23 rows predicted by m version 1; 3 texts were new to it"
        assert same == "23 rows predicted by m version 1; it knew all texts"


class TestWhoAnswered:
    def test_the_table_and_its_columns_say_which_version_answered(self, judge: Session) -> None:
        predict(judge, "SELECT 'a' AS text", "text_col='text', result_col='it''s'")
        with judge._runtime.warehouse.read() as connection:
            table = connection.execute("SELECT comment FROM duckdb_tables()").fetchall()
            columns = dict(
                connection.execute(
                    "SELECT column_name, comment FROM duckdb_columns() WHERE NOT internal"
                ).fetchall()
            )
        assert table[0][0].startswith("Predicted by m VERSION 1: PREDICT USING m OPTIONS (text_col='text'")
        assert columns == {
            "text": None,
            "it's": "m VERSION 1",
            "probability": "m VERSION 1",
            "probabilities": "m VERSION 1",
        }

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ("version_col='text'", "The query already has a column text."),
            ("version_col='Predicted'", "The result would have two columns predicted."),
            ("result_col='probability'", "The result would have two columns probability."),
        ],
    )
    def test_a_column_name_is_taken_once(self, judge: Session, options: str, sentence: str) -> None:
        with pytest.raises(InvalidOption, match=sentence):
            predict(judge, "SELECT 'a' AS text", options)

    def test_the_outcome_keeps_what_plans_compare_with(self, judge: Session) -> None:
        from thano_assets.assets.predictions import predictions
        from thano_assets.planning.binding import bind

        statement = judge.parse(PREDICT.format(query=numbered(12), options="text_col='text'", version=""))[0]
        bound = bind(statement, judge.catalog, ["m"])
        outcome = predictions.materialize(bound.graph.nodes[bound.targets[-1]], judge._runtime)
        assert outcome.details == {
            "model": "m",
            "version": 1,
            "model_data_version": "1" * 32,
            "rows": 12,
            "rows_run": 12,
        }
        assert outcome.facts["rows through the model"] == 12
