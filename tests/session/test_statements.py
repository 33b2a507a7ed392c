"""What statements make and answer, through the one door, with a tiny model."""

from __future__ import annotations

import datetime
import decimal
import os
import time
from pathlib import Path

import dagster as dg
import pytest

from tests.session.conftest import Recorder, write_rows
from thano_assets.commands import removal
from thano_assets.errors import ThanoError
from thano_assets.session import Session

OPTIONS = (
    "text_col='review', label_col='sentiment', epochs=2, batch_size=8, baseline=False, learning_rate=0.003"
)


@pytest.fixture
def reviews(session: Session) -> Session:
    rows: list[dict[str, object]] = []
    for n in range(40):
        rows.append({"review": f"a very good and lovely film {n}", "sentiment": "positive", "n": n})
        rows.append({"review": f"a dull and awful bad movie {n}", "sentiment": "negative", "n": n})
    write_rows(session.workspace, "reviews.jsonl", rows)
    session.execute("COPY reviews FROM 'reviews.jsonl'")
    return session


def column(result: object, name: str) -> list[object]:
    table = result.table  # type: ignore[attr-defined]  # a Result
    values: list[object] = table.column(name).to_pylist()
    return values


class TestTables:
    def test_copy_answers_with_what_it_loaded(self, session: Session) -> None:
        (session.workspace.data / "a.csv").write_text('id,text\n1,"two\nlines"\n2,영화\n')
        result = session.execute("COPY t FROM 'a.csv'")
        assert result.table is not None
        row = result.table.to_pylist()[0]
        assert (row["table"], row["rows"], row["columns"], row["bytes"]) == (
            "t",
            2,
            2,
            27 + len("영화".encode()) - 2,
        )
        assert result.assets == ["raw/t", "tables/t"]
        assert column(session.execute("SELECT text FROM t ORDER BY id"), "text") == ["two\nlines", "영화"]

    def test_append_replays_as_one_definition(self, session: Session) -> None:
        session.execute("COPY t FROM '[{\"a\": 1}]'")
        session.execute("COPY t OPTIONS (if_exists='append') FROM '[{\"a\": 2}]'")
        session.execute("COPY t OPTIONS (if_exists='append') FROM '[{\"a\": 2}]'")
        assert column(session.execute("SELECT a FROM t"), "a") == [1, 2, 2]
        session.execute("COPY t OPTIONS (if_exists='replace') FROM '[{\"a\": 3}]'")
        assert column(session.execute("SELECT a FROM t"), "a") == [3]

    def test_append_never_replaces_rows_whose_statement_is_gone(self, session: Session) -> None:
        session.execute("COPY t FROM '[{\"a\": 1}]'")
        (session.catalog.root / "tables" / "t.sql").unlink()
        with pytest.raises(ThanoError, match="Its statement is gone from the catalog"):
            session.execute("COPY t OPTIONS (if_exists='append') FROM '[{\"a\": 2}]'")
        assert column(session.execute("SELECT a FROM t"), "a") == [1]

    def test_a_later_row_of_another_type_widens_the_column(self, session: Session) -> None:
        lines = ["a"] + ["1"] * 30_000 + ["x"]
        (session.workspace.data / "late.csv").write_text("\n".join(lines) + "\n")
        assert session.execute("COPY t FROM 'late.csv'").table is not None
        assert column(session.execute("SELECT count(*) AS n FROM t WHERE a = 'x'"), "n") == [1]

    def test_create_drop_and_create_again(self, session: Session) -> None:
        session.execute("CREATE TABLE a AS SELECT 1 AS x; CREATE TABLE b AS SELECT x + 1 AS x FROM a")
        assert column(session.execute("FROM b"), "x") == [2]
        result = session.execute("DROP TABLE a")
        assert result.warnings == ["tables/b read it and cannot be made again without it."]
        assert session.catalog.names() == ["b"]
        session.execute("DROP TABLE IF EXISTS a")
        session.execute(
            "CREATE TABLE IF NOT EXISTS a AS SELECT 5 AS x; CREATE TABLE IF NOT EXISTS a AS SELECT 6 AS x"
        )
        assert column(session.execute("FROM a"), "x") == [5]

    def test_a_missing_upstream_table_is_made_again(self, session: Session) -> None:
        session.execute("CREATE TABLE a AS SELECT 1 AS x; CREATE TABLE b AS SELECT x + 1 AS x FROM a")
        with session._runtime.warehouse.write() as connection:
            connection.execute("DROP TABLE a; DROP TABLE b")
        result = session.execute("CREATE TABLE c AS SELECT x + 1 AS x FROM b")
        assert result.assets == ["tables/a", "tables/b", "tables/c"]
        assert column(session.execute("FROM c"), "x") == [3]

    def test_names_in_any_script(self, session: Session) -> None:
        session.execute('COPY 영화 FROM \'[{"제목": "기생충"}]\'; CREATE TABLE "내 표" AS SELECT * FROM 영화')
        assert column(session.execute('SELECT 제목 FROM "내 표"'), "제목") == ["기생충"]

    @pytest.mark.parametrize(
        "query",
        [
            "SELECT 1 AS a",
            "FROM (VALUES (1)) t(a)",
            "WITH x AS (SELECT 1 AS a) FROM x",
            "SUMMARIZE reviews",
            "DESCRIBE reviews",
            "PIVOT reviews ON sentiment USING count(*)",
        ],
    )
    def test_any_duckdb_query(self, reviews: Session, query: str) -> None:
        result = reviews.execute(query)
        assert result.table is not None
        assert result.table.num_rows >= 1
        assert result.run_id is None


class TestModels:
    def test_build_predict_evaluate(self, reviews: Session) -> None:
        built = reviews.execute(f"BUILD MODEL m USING ElectraEn OPTIONS ({OPTIONS}) AS SELECT * FROM reviews")
        assert built.table is not None
        assert built.table.column_names == [
            "model", "version", "status", "rows_train", "rows_eval", "accuracy", "f1_macro", "loss",
            "baseline_accuracy", "majority_accuracy", "seconds", "device", "run_id",
        ]  # fmt: skip
        row = built.table.to_pylist()[0]
        assert (row["version"], row["rows_train"], row["rows_eval"], row["majority_accuracy"]) == (
            1,
            72,
            8,
            0.5,
        )
        assert row["baseline_accuracy"] is None

        query = "SELECT review, sentiment FROM reviews ORDER BY n DESC, sentiment"
        predicted = reviews.execute(
            f"PREDICT USING m OPTIONS (text_col='review', label_col='sentiment') AS {query}"
        )
        assert predicted.table is not None
        assert predicted.table.column_names == [
            "review",
            "sentiment",
            "predicted",
            "probability",
            "probabilities",
        ]
        plain = reviews.execute(query)
        assert column(predicted, "review") == column(plain, "review")
        for answer, probability, listed in zip(
            column(predicted, "predicted"),
            column(predicted, "probability"),
            column(predicted, "probabilities"),
            strict=True,
        ):
            by_label = dict(listed)  # type: ignore[call-overload]  # Arrow gives a map as pairs
            assert by_label[answer] == probability == max(by_label.values())
            assert sum(by_label.values()) == pytest.approx(1.0, abs=1e-5)
        right = sum(
            a == b
            for a, b in zip(column(predicted, "predicted"), column(predicted, "sentiment"), strict=True)
        )
        assert f"{right} of them right" in predicted.summary

        report = reviews.execute(
            f"EVALUATE USING m OPTIONS (text_col='review', label_col='sentiment') AS {query}"
        )
        scores = dict(zip(column(report, "metric"), column(report, "score"), strict=True))
        assert list(scores) == [
            "Accuracy",
            "ROCAUC",
            "Recall",
            "Precision",
            "F1-Score",
            "Kappa",
            "MCC",
            "log loss",
            "expected calibration error",
        ]
        assert scores["Accuracy"] == pytest.approx(right / 80)

    def test_overwrite_adds_a_version_and_the_newest_answers(self, reviews: Session) -> None:
        text = f"BUILD MODEL m USING ElectraEn OPTIONS ({OPTIONS}, overwrite=True) AS SELECT * FROM reviews"
        reviews.execute(text)
        second = reviews.execute(text)
        assert column(second, "version") == [2]
        listed = reviews.execute("SELECT name, class_name, version, aliases FROM (LIST MODEL)")
        assert listed.table is not None
        assert listed.table.to_pylist() == [
            {"name": "m", "class_name": "ElectraEn", "version": 2, "aliases": ["champion"]}
        ]
        old = reviews.execute(
            "PREDICT USING m VERSION 1 OPTIONS (text_col='review') AS SELECT * FROM reviews LIMIT 1"
        )
        assert "version 1" in old.summary

    def test_fit_goes_on_from_its_parent(self, reviews: Session) -> None:
        reviews.execute(f"BUILD MODEL m USING ElectraEn OPTIONS ({OPTIONS}) AS SELECT * FROM reviews")
        fitted = reviews.execute(
            f"FIT MODEL m2 USING m OPTIONS ({OPTIONS}) AS SELECT * FROM reviews WHERE n < 20"
        )
        assert column(fitted, "version") == [1]
        made = dict(
            zip(
                *(column(reviews.execute("SHOW CREATE MODEL m2"), name) for name in ("item", "value")),
                strict=True,
            )
        )
        assert "FIT MODEL m2 USING m" in str(made["statement"])
        parent = reviews._runtime.registry.resolve("m2")
        assert parent is not None
        assert parent.tags["thano.parent"] == "m VERSION 1"

    def test_null_and_blank_texts_are_kept_and_counted(self, reviews: Session) -> None:
        reviews.execute(f"BUILD MODEL m USING ElectraEn OPTIONS ({OPTIONS}) AS SELECT * FROM reviews")
        rows = "SELECT * FROM (VALUES ('good film'), (NULL), ('  '), ('bad film')) t(review)"
        kept = reviews.execute(f"PREDICT USING m OPTIONS (text_col='review') AS {rows}")
        assert [answer is None for answer in column(kept, "predicted")] == [False, True, True, False]
        assert [answer is None for answer in column(kept, "probabilities")] == [False, True, True, False]
        assert kept.warnings == ["2 rows have no text: their predicted is NULL."]
        skipped = reviews.execute(
            f"PREDICT USING m OPTIONS (text_col='review', on_error='skip', proba=False) AS {rows}"
        )
        assert skipped.table is not None
        assert skipped.table.column_names == ["review", "predicted"]
        assert skipped.table.num_rows == 2

    def test_no_rows_are_predicted_as_no_rows(self, reviews: Session) -> None:
        reviews.execute(f"BUILD MODEL m USING ElectraEn OPTIONS ({OPTIONS}) AS SELECT * FROM reviews")
        none = reviews.execute(
            "PREDICT USING m OPTIONS (text_col='review') AS SELECT * FROM reviews WHERE n < 0"
        )
        assert none.table is not None
        assert none.table.num_rows == 0
        assert "predicted" in none.table.column_names

    def test_statements_inside_queries(self, reviews: Session) -> None:
        reviews.execute(f"BUILD MODEL m USING ElectraEn OPTIONS ({OPTIONS}) AS SELECT * FROM reviews")
        result = reviews.execute(
            """
            SELECT r.sentiment, count(*) AS n
            FROM (PREDICT USING m OPTIONS (text_col='review') AS SELECT * FROM reviews WHERE n < 5) AS r
            WHERE r.predicted IS NOT NULL AND 'm' IN (SELECT name FROM (LIST MODEL))
            GROUP BY ALL ORDER BY ALL
            """
        )
        assert result.table is not None
        assert result.table.to_pylist() == [
            {"sentiment": "negative", "n": 5},
            {"sentiment": "positive", "n": 5},
        ]
        accuracy = reviews.execute(
            "SELECT score FROM (EVALUATE USING m OPTIONS (text_col='review', label_col='sentiment') AS "
            "SELECT * FROM reviews) WHERE metric = 'Accuracy'"
        )
        assert 0 <= float(str(column(accuracy, "score")[0])) <= 1

    def test_named_predictions_feed_the_next_statement(self, reviews: Session) -> None:
        reviews.execute(f"BUILD MODEL m USING ElectraEn OPTIONS ({OPTIONS}) AS SELECT * FROM reviews")
        reviews.execute(
            "CREATE TABLE answers AS PREDICT USING m OPTIONS (text_col='review') AS SELECT * FROM reviews"
        )
        reviews.execute(
            "CREATE TABLE counts AS SELECT predicted, count(*) AS n FROM answers GROUP BY predicted"
        )
        assert sum(int(str(n)) for n in column(reviews.execute("FROM counts"), "n")) == 80
        tables = reviews.execute("LIST TABLE")
        assert column(tables, "table_name") == ["answers", "counts", "reviews"]

    def test_delete_model_leaves_nothing(self, reviews: Session) -> None:
        reviews.execute(f"BUILD MODEL m USING ElectraEn OPTIONS ({OPTIONS}) AS SELECT * FROM reviews")
        version = reviews._runtime.registry.resolve("m")
        assert version is not None
        assert Path(version.path).is_dir()
        assert reviews.execute("DELETE MODEL m").summary == "model m deleted, 1 version"
        assert not Path(version.path).exists()
        assert reviews.execute("LIST MODEL").row_count == 0
        reviews.execute(f"BUILD MODEL m USING ElectraEn OPTIONS ({OPTIONS}) AS SELECT * FROM reviews")

    def test_a_text_cut_or_read_in_another_row_order_is_the_same_training_set(self, reviews: Session) -> None:
        for order in ("n", "n DESC"):
            reviews.execute(
                f"BUILD MODEL m USING ElectraEn OPTIONS ({OPTIONS}, overwrite=True) AS SELECT * FROM reviews ORDER BY {order}"
            )
        first, second = reviews._runtime.registry.versions("m")
        assert first.tags["thano.training_set"] == second.tags["thano.training_set"]
        # The same rows, options and base give the same weights.
        assert first.tags["thano.data_version"] == second.tags["thano.data_version"]


LABELS: dict[str, list[object]] = {
    "BOOLEAN": [False, True],
    "INTEGER": [-3, 1, 2, 10],
    "DECIMAL(5,2)": [decimal.Decimal("-1.50"), decimal.Decimal("2.25")],
    "DATE": [datetime.date(2024, 2, 29), datetime.date(2025, 1, 1)],
    "ENUM('low', 'high')": ["low", "high"],
    "VARCHAR": ["it's", "a, b"],
}


@pytest.mark.parametrize("type_", LABELS)
def test_labels_of_any_type_come_back_as_they_were(session: Session, type_: str) -> None:
    values = LABELS[type_]
    rows: list[dict[str, object]] = [
        {"text": f"{word} film", "label": value}
        for word, value in zip(("good", "bad", "dull", "fine"), values, strict=False)
        for _ in range(10)
    ]
    write_rows(session.workspace, "rows.jsonl", rows)
    session.execute("COPY raw_rows FROM 'rows.jsonl'")
    session.execute(f"CREATE TABLE rows AS SELECT text, CAST(label AS {type_}) AS label FROM raw_rows")
    session.execute("BUILD MODEL m USING ElectraEn OPTIONS (epochs=1, baseline=False) AS SELECT * FROM rows")
    session.execute("CREATE TABLE answers AS PREDICT USING m AS SELECT * FROM rows")
    described = session.execute("SELECT column_name, column_type FROM (DESCRIBE answers)")
    types = dict(zip(column(described, "column_name"), column(described, "column_type"), strict=True))
    assert types["predicted"] == types["label"]
    assert str(types["probabilities"]).replace('"', "").startswith(f"MAP({types['label']}")
    asked = session.execute("SELECT DISTINCT predicted FROM answers")
    assert set(column(asked, "predicted")) <= set(values)
    report = session.execute("EVALUATE USING m AS SELECT * FROM rows")
    expected = "Accuracy" if len(values) == 2 else "macro-Recall"
    assert expected in column(report, "metric")


class TestPlan:
    def test_a_plan_runs_nothing_and_names_every_asset(self, reviews: Session) -> None:
        text = (
            f"BUILD MODEL m USING ElectraEn OPTIONS ({OPTIONS}) AS SELECT * FROM reviews;"
            "CREATE TABLE answers AS PREDICT USING m OPTIONS (text_col='review') AS SELECT * FROM reviews"
        )
        plan = reviews.plan(text)
        assert plan.table is not None
        assert [(row["statement"], row["asset"], row["action"]) for row in plan.table.to_pylist()] == [
            (1, "tables/reviews", "skip"),
            (1, "training_sets/m", "create"),
            (1, "models/m", "create"),
            (2, "tables/reviews", "skip"),
            (2, "models/m", "skip"),
            (2, "predictions/answers", "create"),
        ]
        assert reviews.execute("LIST MODEL").row_count == 0
        made = [reviews.execute(statement).assets for statement in text.split(";")]
        assert made == [["training_sets/m", "models/m"], ["predictions/answers"]]
        again = reviews.execute("PLAN " + text.split(";")[0])
        assert again.table is not None
        rows = {row["asset"]: row for row in again.table.to_pylist()}
        assert rows["models/m"]["action"] == "rebuild"
        assert float(rows["models/m"]["estimated_seconds"]) > 0
        assert rows["tables/reviews"]["rows"] == 80


def test_a_model_s_own_columns_are_read_where_none_is_named(reviews: Session) -> None:
    reviews.execute(f"BUILD MODEL m USING ElectraEn OPTIONS ({OPTIONS}) AS SELECT * FROM reviews")
    named = "OPTIONS (text_col='review', label_col='sentiment')"
    query = "SELECT * FROM reviews WHERE n < 5"
    assert column(reviews.execute(f"PREDICT USING m AS {query}"), "predicted") == column(
        reviews.execute(f"PREDICT USING m {named} AS {query}"), "predicted"
    )
    assert column(reviews.execute(f"EVALUATE USING m AS {query}"), "score") == column(
        reviews.execute(f"EVALUATE USING m {named} AS {query}"), "score"
    )
    # The column of the default's name is the one that is read, as before, where the query has it.
    both = "SELECT 'dull awful bad movie' AS text, 'a lovely good film' AS review"
    assert column(reviews.execute(f"PREDICT USING m AS {both}"), "predicted") == column(
        reviews.execute("PREDICT USING m AS SELECT 'dull awful bad movie' AS text"), "predicted"
    )
    with pytest.raises(ThanoError) as caught:
        reviews.execute("PREDICT USING m AS SELECT n FROM reviews")
    assert caught.value.message == (
        "text_col is not set, and the query has neither a column 'text' nor 'review', "
        "on which the model was trained."
    )
    lineage = reviews.execute(f"CREATE TABLE answers AS PREDICT USING m AS {query}")
    assert lineage.kept_as == "answers"


def test_the_served_model_answers_as_predict_does(reviews: Session) -> None:
    import mlflow.pyfunc

    reviews.execute(f"BUILD MODEL m USING ElectraEn OPTIONS ({OPTIONS}) AS SELECT * FROM reviews")
    table = reviews.execute(
        "PREDICT USING m AS (SELECT review, n FROM reviews LIMIT 20) UNION ALL SELECT NULL, -1 UNION ALL SELECT ' ', -2"
    ).table
    assert table is not None
    version = reviews._runtime.registry.resolve("m")
    assert version is not None
    served = mlflow.pyfunc.load_model(str(version.path.parent))
    assert served.metadata.flavors["transformers"]["source_model_name"] == "model"
    example = served.input_example
    assert list(example.columns) == ["review"]
    assert served.predict(example)["predicted"].isin(["positive", "negative"]).all()
    rows = table.to_pandas()
    answer = served.predict(rows[["n", "review"]])
    assert [value or None for value in answer["predicted"]] == table["predicted"].to_pylist()
    for ours, theirs in zip(table.to_pylist(), answer.to_dict("records"), strict=True):
        if ours["predicted"] is None:
            assert theirs["probabilities"] is None
        else:  # PREDICT computes in bfloat16 where that does not change the label
            assert theirs["probability"] == pytest.approx(ours["probability"], abs=0.01)
            assert dict(ours["probabilities"]) == pytest.approx(theirs["probabilities"], abs=0.01)


def test_mlflow_shows_what_a_version_scored(reviews: Session) -> None:
    reviews.execute(f"BUILD MODEL m USING ElectraEn OPTIONS ({OPTIONS}) AS SELECT * FROM reviews")
    query = "EVALUATE USING m AS SELECT * FROM reviews WHERE n < 10"
    registry = reviews._runtime.registry
    before = registry.resolve("m")
    assert before is not None
    reviews.execute(query)  # a question leaves nothing there
    assert registry.resolve("m").tags == before.tags  # type: ignore[union-attr]
    table = reviews.execute(f'CREATE TABLE "my/../스코어: 1" AS {query}').table
    assert table is not None
    scores = {row["metric"]: row["score"] for row in table.to_pylist()}
    version = registry.resolve("m")
    assert version is not None
    tag = f"accuracy {scores['Accuracy']:.3f} on 20 rows"
    assert version.tags["evaluated on my____스코어_ 1"] == tag
    run = registry.client.get_run(version.run_id)
    assert run.data.metrics["my____스코어_ 1/Accuracy"] == pytest.approx(scores["Accuracy"], abs=1e-4)
    assert {one.dataset.name for one in run.inputs.dataset_inputs} == {"training set of m", "evaluation of m"}


def _written(path: Path) -> float:
    return path.stat().st_mtime


def test_results_without_a_name_do_not_pile_up(
    reviews: Session, told: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    reviews.workspace.settings_path.write_text("[statements]\nunnamed_results = 2\n")
    session = Session(reviews.workspace.root, progress=told)
    session.execute(f"BUILD MODEL m USING ElectraEn OPTIONS ({OPTIONS}) AS SELECT * FROM reviews")
    ask = "PREDICT USING m AS SELECT review FROM reviews WHERE n = {}"
    read, expected = [session.execute(ask.format(n)).kept_as for n in range(2)]
    session.execute(f"CREATE TABLE named AS {ask.format(2)}")
    session.execute(f"CREATE TABLE reader AS SELECT * FROM {read}")
    session.execute(f"EXPECT count(*) = 2 ON {expected}")
    nesting = f"CREATE TABLE nesting AS SELECT count(*) AS n FROM ( -- asked within\n {ask.format(9)})"
    session.execute(nesting)
    told.messages.clear()
    session.execute(ask.format(3))
    assert not [text for text in told.messages if "Dropped" in text]  # somebody may be reading them
    files = sorted((session.workspace.statements / "predictions").glob("predict_*.sql"), key=_written)
    for age, file in enumerate(reversed(files)):
        os.utime(file, (time.time() - 3600 - age,) * 2)
    monkeypatch.setattr(removal, "_READ_SECONDS", 0.0)
    told.messages.clear()
    shown = [session.execute(ask.format(n)) for n in range(3, 6)]
    session.execute(f"SELECT count(*) AS n FROM ({ask.format(6)})")
    assert [text for text in told.messages if "Dropped" in text] == [
        "Dropped 1 older result without a name; the newest 2 are kept (CREATE TABLE … AS gives a name, "
        "[statements] unnamed_results another number)."
    ] * 2
    there = set(column(session.execute("LIST TABLE"), "table_name"))
    assert {read, expected, "named", "reader"} <= there
    assert [one.kept_as in there for one in shown] == [False, False, True]
    nested = 1
    assert len(there) == len({"reviews", read, expected, "named", "reader", "nesting"}) + nested + 2
    assert session.plan(nesting).summary == "nothing to do"
    keys = {key.to_user_string() for key in session._open_runner().instance.get_asset_keys()}
    assert [f"predictions/{one.kept_as}" in keys for one in shown] == [False, False, True]
    # asked once more, its answer is one that the model has given already
    again = session.execute(ask.format(3))
    assert again.row_count == 2
    assert again.kept_as == shown[0].kept_as


def test_a_head_is_trained_again_without_embedding_its_texts_again(reviews: Session, told: Recorder) -> None:
    def build(where: str, **options: object) -> list[str]:
        told.messages.clear()
        given = "".join(f", {name}={value!r}" for name, value in options.items())
        reviews.execute(
            f"BUILD MODEL m USING ElectraEn OPTIONS ({OPTIONS}, train='head', overwrite=True{given}) "
            f"AS SELECT * FROM reviews WHERE {where}"
        )
        return [text for text in told.messages if "embedded before" in text]

    def weights() -> bytes:
        version = reviews._runtime.registry.champion("m")
        assert version is not None
        return (version.path / "model.safetensors").read_bytes()

    assert build("n < 30") == []
    first = weights()
    assert build("n < 40") == ["60 of 80 texts were embedded before"]
    assert build("n < 30", seed=7) == ["60 of 60 texts were embedded before"]
    assert build("n < 30", max_length=8) == []  # other tokens are read
    assert build("n < 30") == ["60 of 60 texts were embedded before"]
    assert weights() == first
    told.messages.clear()
    reviews.execute(
        "FIT MODEL child USING m OPTIONS (text_col='review', label_col='sentiment', train='head', epochs=1) "
        "AS SELECT * FROM reviews"
    )
    assert not [text for text in told.messages if "embedded before" in text]  # by m's encoder, not the base's


def test_what_is_unchanged_says_again_what_was_found(reviews: Session) -> None:
    text = f"""BUILD MODEL m USING ElectraEn OPTIONS ({OPTIONS}, overwrite=True) AS SELECT * FROM reviews;
        CREATE TABLE answers AS PREDICT USING m OPTIONS (text_col='review', label_col='sentiment')
            AS SELECT * FROM reviews WHERE n < 5;
        CREATE TABLE scores AS EVALUATE USING m AS SELECT * FROM reviews WHERE n < 5"""
    first, (model, answers, scores) = (
        [reviews.execute_step(step) for step in reviews.script(reviews.parse(text))] for _ in range(2)
    )
    assert not any((model.assets, answers.assets, scores.assets))
    assert first[0].summary in model.summary
    assert "10 rows predicted by m version 1" in answers.summary
    assert answers.summary.endswith("(table answers)")
    assert scores.kept_as == "scores"
    assert scores.table == first[2].table


def test_interrupting_a_training_leaves_no_model(
    reviews: Session, told: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.session.conftest import traces

    before = traces(reviews)

    def stop(text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(told, "message", stop)  # the base model is announced when the training begins
    with pytest.raises(KeyboardInterrupt):
        reviews.execute(f"BUILD MODEL m USING ElectraEn OPTIONS ({OPTIONS}) AS SELECT * FROM reviews")
    assert traces(reviews) == before
    run = reviews._open_runner().instance.get_runs(limit=1)[0]
    assert run.status is dg.DagsterRunStatus.CANCELED
    monkeypatch.undo()
    reviews.execute(f"BUILD MODEL m USING ElectraEn OPTIONS ({OPTIONS}) AS SELECT * FROM reviews")


def test_what_a_failed_statement_had_finished_stays_with_its_statement(reviews: Session) -> None:
    reviews.execute(f"BUILD MODEL m USING ElectraEn OPTIONS ({OPTIONS}) AS SELECT * FROM reviews")
    with pytest.raises(ThanoError):
        reviews.execute(
            "CREATE TABLE n AS SELECT CAST(review AS INTEGER) AS x FROM "
            "(PREDICT USING m OPTIONS (text_col='review') AS SELECT * FROM reviews)"
        )
    names = reviews.catalog.names()
    assert "n" not in names
    assert [name for name in names if name.startswith("predict_m_reviews")]
    assert set(column(reviews.execute("LIST TABLE"), "table_name")) == set(names) - {"m"}


def test_every_node_kind_has_a_body() -> None:
    from thano_assets.assets.kinds import KINDS
    from thano_assets.graph import NodeKind

    assert set(KINDS) == set(NodeKind) - {NodeKind.MODEL_VERSION}
