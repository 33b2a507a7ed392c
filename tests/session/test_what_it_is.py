"""A model answers only for what it is: its labels, its name, its columns, its rows, its policy."""

from __future__ import annotations

import pytest

from tests.session.conftest import Recorder, traces
from thano_assets.assets.models.labels import class_of, classes_of
from thano_assets.errors import NameExists, QueryError, ThanoError, TrainingDataError, UnknownModel
from thano_assets.session import Session

OPTIONS = "text_col='txt', label_col='y', epochs=1, batch_size=8, baseline=False, max_length=8"


def build(name: str = "m", more: str = "", rows: str = "SELECT * FROM base") -> str:
    return f"BUILD MODEL {name} USING ElectraEn OPTIONS ({OPTIONS}{more}) AS {rows}"


@pytest.fixture
def based(session: Session) -> Session:
    session.execute(
        "CREATE TABLE base AS SELECT CASE WHEN i % 2 = 0 THEN 'a b ' ELSE 'x y ' END || "
        "substr('abcdefghijklmnopqrstuvwxyz', 1 + (i % 26)::INT, 1) || ' ' || substr('abcdefghijklmnopqrstuvwxyz', 1 + (i // 26)::INT, 1) AS txt, i % 2 AS y FROM range(60) r(i)"
    )
    return session


class TestLabels:
    @pytest.mark.parametrize(
        ("value", "type_", "classes", "class_type", "found"),
        [
            ("1.0", "DOUBLE", ["0", "1"], "BIGINT", "1"),
            ("1", "BIGINT", ["0.0", "1.0"], "DOUBLE", "1.0"),
            ("1.00", "DECIMAL(3, 2)", ["0", "1"], "BIGINT", "1"),
            ("0.5", "DOUBLE", ["0", "1"], "BIGINT", "0.5"),
            ("true", "BOOLEAN", ["0", "1"], "BIGINT", "1"),
            ("1", "INTEGER", ["false", "true"], "BOOLEAN", "true"),
            ("True", "VARCHAR", ["false", "true"], "BOOLEAN", "true"),
            ("false", "BOOLEAN", ["False", "True"], "VARCHAR", "False"),
            ("1", "VARCHAR", ["0", "1"], "BIGINT", "1"),
            ("01", "VARCHAR", ["1", "01"], "VARCHAR", "01"),
            ("2", "BIGINT", ["2", "02"], "VARCHAR", "2"),
            ("maybe", "VARCHAR", ["false", "true"], "BOOLEAN", "maybe"),
            ("2024-01-02", "DATE", ["2024-01-02 00:00:00"], "TIMESTAMP", "2024-01-02 00:00:00"),
            ("nan", "DOUBLE", ["0", "1"], "BIGINT", None),
        ],
    )
    def test_a_value_is_the_class_that_sql_finds_equal(
        self, value: str, type_: str, classes: list[str], class_type: str, found: str | None
    ) -> None:
        import duckdb

        with duckdb.connect() as connection:
            sql = class_of(f"CAST('{value}' AS {type_})", type_, classes, class_type)
            assert connection.execute(f"SELECT {sql}").fetchall()[0][0] == found

    def test_classes_of_two_models(self) -> None:
        assert classes_of(["0.0", "1.0", "2.0"], "DOUBLE", ["0", "1"], "BIGINT") == {
            "0.0": "0",
            "1.0": "1",
            "2.0": "2.0",
        }

    def test_every_statement_compares_so(self, based: Session) -> None:
        based.execute(build(rows="SELECT txt, y FROM base"))
        based.execute("CREATE TABLE other AS SELECT txt, CAST(y AS DOUBLE) AS y FROM base LIMIT 20")
        result = based.execute(
            "CREATE TABLE p AS PREDICT USING m OPTIONS (text_col='txt', label_col='y') AS SELECT * FROM other"
        )
        right = (
            based.execute("SELECT count(*) FILTER (WHERE predicted = y) AS n FROM p")
            .arrow()
            .to_pylist()[0]["n"]
        )
        assert f"{right} of them right" in result.summary
        scores = based.execute(
            "EVALUATE USING m OPTIONS (text_col='txt', label_col='y') AS SELECT * FROM other"
        )
        assert scores.arrow().to_pylist()[0] == {"metric": "Accuracy", "score": right / 20}
        based.execute(
            f"FIT MODEL n USING m OPTIONS ({OPTIONS}) AS SELECT txt, CAST(y AS DOUBLE) AS y FROM base"
        )
        version = based._runtime.registry.champion("n")
        assert version is not None
        assert (version.classes, version.label_type) == (["0", "1"], "BIGINT")
        gated = build("n", ", overwrite=True, evaluate_on='other', promote_if='accuracy >= 0.0'")
        assert based.execute(gated).arrow().to_pylist()[0]["status"] == "promoted"

    def test_categories_of_tables_compare_so(self, session: Session) -> None:
        session.execute(
            "CREATE TABLE t AS SELECT CASE WHEN i % 2 = 0 THEN '0' ELSE '1' END AS kind, i % 2 AS y FROM range(80) r(i)"
        )
        session.execute(
            "BUILD MODEL a USING AutomlClassifier OPTIONS (target='y', max_trials=1, time_budget=20) AS SELECT * FROM t"
        )
        text = "PREDICT USING a AS SELECT CAST(kind AS {}) AS kind, y FROM t"
        for type_ in ("VARCHAR", "DOUBLE", "INTEGER"):
            found = session.execute(text.format(type_)).arrow().to_pylist()
            assert all(row["predicted"] == row["y"] for row in found), type_


class TestRows:
    def test_nan_is_a_missing_label(self, session: Session) -> None:
        session.execute(
            "CREATE TABLE t AS SELECT 'a ' || substr('abcdefghijklmnopqrstuvwxyz', 1 + i::INT, 1) AS txt, CASE WHEN i % 5 = 0 THEN 'nan'::DOUBLE ELSE i % 2 END AS y "
            "FROM range(20) r(i)"
        )
        with pytest.raises(
            TrainingDataError, match=r"4 of 20 rows have NULL or NaN in the label column y"
        ) as caught:
            session.execute(build(rows="SELECT * FROM t"))
        assert "isfinite(y)" in str(caught.value.hint)
        session.execute(build(rows="SELECT * FROM t WHERE isfinite(y)"))
        with pytest.raises(TrainingDataError, match="4 of 20 rows have NULL or NaN"):
            session.execute("EVALUATE USING m OPTIONS (text_col='txt', label_col='y') AS SELECT * FROM t")
        told = session.execute("PREDICT USING m OPTIONS (text_col='txt', label_col='y') AS SELECT * FROM t")
        assert "of 16 right" in told.summary
        assert "4 rows without a label in y count neither right nor wrong." in told.warnings

    def test_blank_text_is_a_missing_label(self, session: Session) -> None:
        session.execute(
            "CREATE TABLE t AS SELECT 'a ' || i AS txt, CASE i % 5 WHEN 0 THEN '' WHEN 1 THEN chr(160) WHEN 2 THEN NULL "
            "WHEN 3 THEN 'yes' ELSE 'no' END AS y FROM range(20) r(i)"
        )
        with pytest.raises(
            TrainingDataError, match=r"12 of 20 rows have NULL or blank text in the label column y"
        ):
            session.execute(build(rows="SELECT * FROM t"))
        session.execute(build(rows="SELECT * FROM t WHERE y IN ('yes', 'no')"))
        told = session.execute("PREDICT USING m OPTIONS (text_col='txt', label_col='y') AS SELECT * FROM t")
        assert "of 8 right" in told.summary
        assert "12 rows without a label in y count neither right nor wrong." in told.warnings

    def test_copies_of_a_text_are_on_one_side(self, session: Session) -> None:
        session.execute(
            "CREATE TABLE t AS SELECT 'a ' || substr('abcdefghijklmnopqrstuvwxyz', 1 + (i % 20)::INT, 1) AS txt, (i % 20) % 2 AS y FROM range(100) r(i)"
        )
        session.execute(build(rows="SELECT * FROM t"))
        version = session._runtime.registry.champion("m")
        assert version is not None
        assert version.count("thano.rows_eval") == 10  # two of the twenty texts, five rows each
        told = session.execute("EVALUATE USING m OPTIONS (text_col='txt', label_col='y') AS SELECT * FROM t")
        assert any("90 of the 100 rows were among those" in text for text in told.warnings)

    def test_blank_texts_are_left_out_as_predict_leaves_them(self, based: Session) -> None:
        blank = "SELECT * FROM base UNION ALL SELECT chr(10) || chr(160), 1 FROM range(3)"
        result = based.execute(build(rows=blank))
        assert "3 rows without text were left out of the training set." in result.warnings

    def test_contradictory_labels_are_counted(self, based: Session) -> None:
        result = based.execute(
            build(rows="SELECT * FROM base UNION ALL SELECT 'q q', 0 UNION ALL SELECT 'q q', 1")
        )
        assert "1 text stands in 2 rows with different labels, such as 'q q' with 0 and 1." in result.warnings


class TestColumns:
    @pytest.mark.parametrize(
        "text",
        [
            "PREDICT USING m OPTIONS (text_col='txt') AS SELECT *, lower(txt) AS txt FROM base",
            "EVALUATE USING m OPTIONS (text_col='txt', label_col='y') AS SELECT *, 1 AS y FROM base",
            build("n", rows="SELECT *, CASE WHEN y = 1 THEN 'b' ELSE 'g' END AS y FROM base"),
            "CREATE TABLE c AS SELECT *, upper(txt) AS TXT FROM base",
            "EXPLAIN PREDICT USING m OPTIONS (text_col='txt') AS SELECT *, lower(txt) AS txt FROM base LIMIT 1",
        ],
    )
    def test_two_columns_of_one_name_are_refused(self, based: Session, text: str) -> None:
        based.execute(build())
        before = traces(based)
        with pytest.raises(QueryError, match=r"The query has two columns (txt|TXT|y)") as caught:
            based.execute(text)
        assert "REPLACE" in str(caught.value.hint)
        assert traces(based) == before

    def test_a_join_may_have_them(self, session: Session) -> None:
        session.execute(
            "CREATE TABLE a AS SELECT 1 AS id, 'x' AS txt; CREATE TABLE b AS SELECT 1 AS id, 2 AS n"
        )
        session.execute("CREATE TABLE j AS SELECT * FROM a JOIN b ON a.id = b.id")
        assert session.execute("SELECT * FROM j").arrow().column_names == ["id", "txt", "id_1", "n"]


class TestNames:
    def test_names_of_models_go_without_case(self, based: Session) -> None:
        based.execute(build("MyModel"))
        with pytest.raises(NameExists, match="mymodel exists already"):
            based.execute(build("mymodel"))
        based.execute(build("MYMODEL", ", overwrite=True, seed=7"))
        assert based._runtime.registry.models() == ["MyModel"]
        assert len(based._runtime.registry.versions("mymodel")) == 2
        assert (
            based.execute("PREDICT USING mymodel OPTIONS (text_col='txt') AS SELECT * FROM base").row_count
            == 60
        )
        assert based.execute("SHOW VERSIONS OF MODEL MYmodel").row_count == 2
        based.execute("PROMOTE MODEL mymodel VERSION 1")
        assert based._runtime.registry.champion("MyModel").version == 1  # type: ignore[union-attr]
        assert "2 versions" in based.execute("DELETE MODEL myMODEL").summary
        assert based._runtime.registry.models() == []
        assert not list((based.workspace.statements / "models").glob("*.sql"))

    def test_a_name_with_version_in_it(self, based: Session) -> None:
        based.execute(build('"a VERSION b"'))
        based._runtime.registry.promote("a VERSION b", 1, "prod")
        based.execute(
            "CREATE TABLE p AS PREDICT USING \"a VERSION b\"@prod OPTIONS (text_col='txt') AS SELECT * FROM base"
        )
        assert based.execute("SHOW LINEAGE p").row_count > 2

    def test_names_that_are_too_long_for_a_file_get_a_sentence(self, session: Session) -> None:
        for text in (
            f"CREATE TABLE {'t' * 300} AS SELECT 1 AS a",
            f"DROP TABLE {'가' * 100}",
            build("m" * 230),
        ):
            with pytest.raises(ThanoError, match="bytes, and names become those of files"):
                session.execute(text)

    def test_an_unknown_prebuilt_model_is_no_model(self, session: Session) -> None:
        with pytest.raises(UnknownModel, match="There is no pre-built model sentiment") as caught:
            session.execute("GET THANOSQL MODEL sentiment")
        assert "electra" in str(caught.value.hint)
        with pytest.raises(ThanoError, match="clip is not a model for text"):
            session.execute("GET THANOSQL MODEL clip OPTIONS (model_name='c')")
        assert session._runtime.registry.models() == []


class TestPolicy:
    def test_it_is_kept_until_it_is_given_up(self, based: Session, told: Recorder) -> None:
        policy = ", promote_if='accuracy >= 2', schedule='0 3 * * 1'"
        based.execute(build(more=policy))
        based.execute(build(more=", overwrite=True, seed=3"))
        assert any(
            message.startswith("Kept from before: promote_if='accuracy >= 2', schedule='0 3 * * 1'")
            for message in told.messages
        )
        assert [v.aliases for v in based._runtime.registry.versions("m")] == [(), ()]
        kept = based.catalog.model("m")
        assert kept is not None
        assert dict(kept.statement.options)["schedule"] == "0 3 * * 1"
        based.execute(build(more=", overwrite=True, seed=4, promote_if=None"))
        assert based._runtime.registry.champion("m").version == 3  # type: ignore[union-attr]

    def test_the_summary_compares_with_the_version_before(self, based: Session) -> None:
        based.execute(build())
        summary = based.execute(build(more=", overwrite=True, learning_rate=0.001")).summary
        assert "; version 1 had accuracy 0." in summary
        assert "on the same held-out rows (" in summary


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("BUILD MODEL m USING TFT AS SELECT 1", "TFT is not a base model for text"),
        ("BUILD MODEL m USING 'EfficientNetV2M' AS SELECT 1", "not a base model for text"),
        ("BUILD MODEL m USING EfficientV2M AS SELECT 1", "EfficientV2M is not a base model for text"),
        ("PREDICT USING ViLT AS SELECT 'a' AS text", "ViLT is not a model for text"),
        ("CONVERT USING XCLIP OPTIONS (image_col='x') AS SELECT 1", "XCLIP is not a model for text"),
        ("PREDICT USING m OPTIONS (image_col='x') AS SELECT 1", "image_col is an option of models for images"),
        ("FIT MODEL a USING b OPTIONS (time_idx_col='x') AS SELECT 1", "time_idx_col is an option of models"),
        ("SEARCH TEXT USING m OPTIONS (search_by='image', search_input='x') AS SELECT 1", "search_by='image'"),
        ("FIT MODEL a USING AutomlRegressor AS SELECT 1", "AutomlRegressor is a base model"),
        ("FIT MODEL a USING b OPTIONS (impute_type='simple') AS SELECT 1", "impute_type is an option of models of tables"),
    ],
)  # fmt: skip
def test_what_serves_other_media_is_refused_as_such(session: Session, text: str, says: str) -> None:
    with pytest.raises(ThanoError) as caught:
        session.execute(text)
    assert says in str(caught.value)
    assert caught.value.code in ("unsupported-statement", "unsupported")
