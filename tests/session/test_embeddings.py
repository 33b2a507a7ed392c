"""CONVERT and SEARCH: vectors as a table, kept by text, found again by searches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import pytest

from thano_assets.errors import (
    BaseModelUnavailable,
    ColumnTypeError,
    InvalidOption,
    UnknownColumn,
    UnknownModel,
)
from thano_assets.resources.packaged.e5 import MultilingualE5
from thano_assets.resources.workspace import Workspace
from thano_assets.session import Session

from .conftest import Recorder
from .test_predictions_incremental import register

ROWS = (
    "CREATE OR REPLACE TABLE t AS SELECT * FROM (VALUES (1, 'abc'), (2, NULL), (3, 'xyz'), (4, ' '), (5, 'abc'), "
    "(6, 'abd')) v(id, review)"
)
CONVERT = "CONVERT USING SBERTEn OPTIONS (text_col='review') AS SELECT * FROM t"
SEARCH = "SEARCH TEXT USING SBERTEn OPTIONS (search_input='abc', {}) AS SELECT * FROM t"


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def tiny(session: Session, classifier: Path) -> Session:
    """A session where SBERTEn is the tiny encoder, with a table of reviews."""
    target = session.workspace.models_cache / "sentence-transformers" / "all-MiniLM-L6-v2"
    target.mkdir(parents=True)
    for file in classifier.iterdir():
        (target / file.name).hardlink_to(file)
    session.execute(ROWS)
    return session


@contextmanager
def network(session: Session, folder: Path | None = None) -> Iterator[list[int]]:
    """Rows of each batch that reaches the network of SBERTEn, or of the model in ``folder``."""
    from thano_assets.learning.embed import Embedder

    place = folder or session.workspace.models_cache / "sentence-transformers" / "all-MiniLM-L6-v2"
    rows: list[int] = []
    hook = Embedder.cached(place)._model.register_forward_pre_hook(
        lambda _, given, named: rows.append(len(named["input_ids"])), with_kwargs=True
    )
    try:
        yield rows
    finally:
        hook.remove()


def rows(session: Session, query: str) -> list[tuple[object, ...]]:
    found = session.execute(query).rows
    assert found is not None
    return list(zip(*(column.to_pylist() for column in found.columns), strict=True))


def plan(session: Session, text: str) -> dict[str, tuple[str, str]]:
    """Action and reason of each asset."""
    table = session.plan(text).rows
    assert table is not None
    return {row["asset"]: (row["action"], row["reason"]) for row in table.to_pylist()}


class TestConvert:
    def test_rows_keep_their_order_and_columns_and_those_without_text_have_null(self, tiny: Session) -> None:
        result = tiny.execute(CONVERT)
        assert result.kept_as is not None
        assert result.kept_as.startswith("convert_sberten_t_")
        assert "2 rows have no text: their convert_result is NULL." in result.warnings
        found = rows(tiny, f"SELECT *, typeof(convert_result) FROM ({CONVERT})")
        assert [row[0] for row in found] == [1, 2, 3, 4, 5, 6]
        assert [row[2] is None for row in found] == [False, True, False, True, False, False]
        assert {row[3] for row in found} == {"FLOAT[8]"}
        assert found[0][2] == found[4][2]
        np.testing.assert_allclose(np.linalg.norm(found[0][2]), 1, atol=1e-5)  # type: ignore[arg-type]

    def test_only_new_texts_go_through_the_model(self, tiny: Session) -> None:
        with network(tiny) as seen:
            tiny.execute(CONVERT)
            assert sum(seen) == 3
            seen.clear()
            tiny.execute("CREATE OR REPLACE TABLE more AS SELECT * FROM t UNION ALL SELECT 7, 'new'")
            result = tiny.execute(CONVERT.replace("FROM t", "FROM more"))
        assert sum(seen) == 1
        assert result.summary == "5 rows embedded by SBERTEn, 8 numbers each; 1 texts were new to it"

    def test_it_is_an_asset_with_a_plan_and_lineage(self, tiny: Session) -> None:
        name = tiny.execute(CONVERT).kept_as
        assert plan(tiny, CONVERT)[f"embeddings/{name}"] == ("skip", "unchanged")
        tiny.execute(ROWS.replace("'xyz'", "'xya'"))
        assert plan(tiny, CONVERT)[f"embeddings/{name}"] == ("rebuild", "t changed")
        lineage = rows(tiny, f"SHOW LINEAGE {name}")
        assert [row[0] for row in lineage] == ["tables/t", f"embeddings/{name}"]
        planned = tiny.plan(CONVERT).rows
        assert planned is not None
        assert planned.to_pylist()[-1]["rows"] == 1  # one text that the model has not seen

    def test_another_base_model_is_a_reason_to_make_it_again(self, tiny: Session) -> None:
        name = tiny.execute(CONVERT).kept_as
        config = tiny.workspace.models_cache / "sentence-transformers" / "all-MiniLM-L6-v2" / "config.json"
        text = config.read_text()
        config.unlink()  # a link to a file of other tests
        config.write_text(text + "\n")
        action, reason = plan(tiny, CONVERT)[f"embeddings/{name}"]
        assert action == "rebuild"
        assert reason.startswith("the base model changed from folder")

    def test_a_registered_model_embeds_with_its_encoder(self, tiny: Session, classifier: Path) -> None:
        register(tiny, classifier, "1" * 32)
        of_model = "CONVERT USING m OPTIONS (text_col='review') AS SELECT * FROM t"
        found = rows(tiny, f"SELECT convert_result FROM ({of_model})")
        assert found == rows(tiny, f"SELECT convert_result FROM ({CONVERT})")  # the same weights here
        pinned = of_model.replace("USING m", "USING m VERSION 1")
        assert tiny.execute(pinned).summary.startswith("4 rows embedded by m VERSION 1")
        with pytest.raises(UnknownModel, match="m VERSION 9"):
            tiny.execute(of_model.replace("USING m", "USING m VERSION 9"))

    def test_a_new_champion_makes_its_vectors_stale(
        self, tiny: Session, classifier: Path, make_classifier: object
    ) -> None:
        register(tiny, classifier, "1" * 32)
        text = "CREATE OR REPLACE TABLE v AS CONVERT USING m OPTIONS (text_col='review') AS SELECT * FROM t"
        tiny.execute(text)
        register(tiny, classifier, "2" * 32)
        assert plan(tiny, text)["embeddings/v"] == (
            "rebuild",
            "version 2 of m answers now, not version 1",
        )

    def test_a_folder_is_named_in_quotes_with_a_slash(self, tiny: Session, classifier: Path) -> None:
        target = tiny.workspace.data / "encoder"
        target.mkdir()
        for file in classifier.iterdir():
            (target / file.name).hardlink_to(file)
        found = rows(tiny, f"SELECT convert_result FROM ({CONVERT.replace('SBERTEn', repr('./encoder'))})")
        assert found == rows(tiny, f"SELECT convert_result FROM ({CONVERT})")

    def test_an_empty_query_gives_an_empty_table_of_the_right_type(self, tiny: Session) -> None:
        result = tiny.execute(f"CREATE TABLE none AS {CONVERT} WHERE id > 10")
        assert result.row_count == 0
        found = rows(tiny, "SELECT column_type FROM (DESCRIBE none) WHERE column_name = 'convert_result'")
        assert found == [("FLOAT[8]",)]

    def test_what_cannot_be_is_said_before_the_work(
        self, tiny: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(MultilingualE5, "version", lambda self: None)

        def refused(text: str, kind: type[Exception], words: str) -> None:
            with pytest.raises(kind, match=words):
                tiny.execute(text)

        refused(CONVERT.replace("SBERTEn", "SBERTKo"), BaseModelUnavailable, "hub: switched off")
        refused(CONVERT.replace("SBERTEn", "ElectraEn"), UnknownModel, "There is no model ElectraEn")
        refused(CONVERT.replace("SBERTEn", "'org/none'"), BaseModelUnavailable, "org/none cannot be had")
        refused(CONVERT.replace("'review'", "'id'"), ColumnTypeError, "id is INTEGER, not text")
        refused(CONVERT.replace("'review'", "'nope'"), UnknownColumn, "text_col='nope'")
        refused(CONVERT.replace("(text", "(result_col='id', text"), InvalidOption, "already has a column id")
        assert [table.name for table in tiny._runtime.warehouse.tables()] == ["t"]

    def test_a_deleted_model_leaves_no_vectors(self, tiny: Session, classifier: Path) -> None:
        from thano_assets.assets.predictions import prediction_cache

        register(tiny, classifier, "1" * 32)
        tiny.execute(CONVERT.replace("SBERTEn", "m"))
        assert prediction_cache.size(tiny.workspace)[0] == 1
        tiny.execute("DELETE MODEL m")
        assert prediction_cache.size(tiny.workspace)[0] == 0


class TestSearchText:
    def test_the_nearest_first_and_no_more_than_asked_for(self, tiny: Session) -> None:
        search = SEARCH.format("text_col='review'")
        found = rows(tiny, f"SELECT id, search_result FROM ({search})")
        assert {row[0] for row in found[:2]} == {1, 5}
        assert found[0][1] == pytest.approx(1, abs=1e-5)
        scores = [row[1] for row in found]
        assert len(found) == 4
        assert scores == sorted(scores, reverse=True)
        search = SEARCH.format("text_col='review', top_k=2, result_col='near'")
        assert {row[0] for row in rows(tiny, f"SELECT id, near FROM ({search})")} == {1, 5}

    def test_vectors_that_convert_made_are_found_by_the_name_that_they_got(self, tiny: Session) -> None:
        tiny.execute(CONVERT)
        search = SEARCH.format("emb_col='convert_result'")
        with network(tiny) as seen:
            by_name = rows(tiny, f"SELECT id, search_result FROM ({search})")
        assert seen == []  # not even for what is searched: the text abc is known
        nested = search.replace("FROM t", f"FROM ({CONVERT})")
        assert rows(tiny, f"SELECT id, search_result FROM ({nested})") == by_name
        plain = SEARCH.format("text_col='review'")
        assert rows(tiny, f"SELECT id, search_result FROM ({plain})") == by_name

    def test_a_search_is_kept_and_made_again_when_its_rows_change(self, tiny: Session) -> None:
        tiny.execute(CONVERT)
        text = "CREATE OR REPLACE TABLE found AS " + SEARCH.format("emb_col='convert_result'")
        tiny.execute(text)
        assert plan(tiny, text)["searches/found"] == ("skip", "unchanged")
        tiny.execute(ROWS.replace("'xyz'", "'xya'"))
        assert plan(tiny, text)["searches/found"] == ("rebuild", "t changed")
        changed = text.replace("search_input='abc'", "search_input='abd'")
        assert "search_input changed from 'abc' to 'abd'" in plan(tiny, changed)["searches/found"][1]

    def test_vectors_of_any_length_are_compared_by_their_direction(self, tiny: Session) -> None:
        vectors = (
            f"CREATE OR REPLACE TABLE far AS SELECT id, CAST(list_transform(CAST(convert_result AS FLOAT[]), "
            f"lambda x: 7 * x) AS FLOAT[8]) AS v FROM ({CONVERT})"
        )
        tiny.execute(vectors)
        search = SEARCH.format("emb_col='v'").replace("FROM t", "FROM far")
        found = rows(tiny, f"SELECT id, search_result FROM ({search})")
        assert {row[0] for row in found[:2]} == {1, 5}
        assert found[0][1] == pytest.approx(1, abs=1e-5)

    def test_vectors_are_read_once_and_read_again_when_the_table_changes(self, tiny: Session) -> None:
        tiny.execute(f"CREATE OR REPLACE TABLE e AS {CONVERT}")
        search = SEARCH.format("emb_col='convert_result'").replace("FROM t", "FROM e")

        def files() -> list[Path]:
            return sorted(tiny.workspace.snapshots.glob("answers/*/vectors-*.arrow"))

        first = rows(tiny, f"SELECT id, search_result FROM ({search})")
        assert len(files()) == 1
        before = files()[0].stat().st_ino
        near = rows(tiny, f"SELECT id FROM ({search.replace('abc', 'xyz')})")
        assert near[0] == (3,)
        assert files()[0].stat().st_ino == before
        for file in files():  # a saving and nothing else
            file.unlink()
        assert rows(tiny, f"SELECT id, search_result FROM ({search})") == first
        tiny.execute(ROWS.replace("'abd'", "'abc'"))
        tiny.execute(f"CREATE OR REPLACE TABLE e AS {CONVERT}")
        again = rows(tiny, f"SELECT id, search_result FROM ({search})")
        assert [row[0] for row in again[:3]] == [1, 5, 6]  # equally near: in the rows' order
        assert len(files()) == 2

    def test_texts_are_compared_once_and_what_was_said_of_them_is_said_again(self, tiny: Session) -> None:
        search = SEARCH.format("text_col='review', top_k=2")
        first = tiny.execute(search)
        with network(tiny) as seen:
            second = tiny.execute(search.replace("'abc'", "'xyz'"))
            assert sum(seen) == 0
        assert first.warnings == second.warnings
        assert rows(tiny, f"SELECT id FROM ({search.replace('abc', 'xyz')})")[0] == (3,)
        tiny.execute(ROWS.replace("'xyz'", "'xyw'"))
        assert rows(tiny, f"SELECT review FROM ({search.replace('abc', 'xyw')})")[0] == ("xyw",)

    @pytest.mark.parametrize("column", ["emb_col='convert_result'", "text_col='review'"])
    def test_a_condition_picks_among_the_rows_and_columns_keep_their_names(
        self, tiny: Session, column: str
    ) -> None:
        tiny.execute(f"CREATE OR REPLACE TABLE e AS {CONVERT}")
        search = SEARCH.format(column)
        for query in ("FROM e", "SELECT *, 1 AS one FROM e"):  # rows of a table, and those of a query
            text = search.replace("SELECT * FROM t", f"{query} WHERE id IN (2, 3, 6)")
            told = tiny.execute(text)
            assert "1 rows have no text or vector and were left out." in told.warnings
            assert [row[0] for row in rows(tiny, f"SELECT id FROM ({text})")] == [6, 3]
        narrow = search.replace("SELECT *", "SELECT id AS number, review, convert_result")
        narrow = narrow.replace("FROM t", "FROM e x WHERE x.id < 4")
        found = tiny.execute(f"SELECT * FROM ({narrow})").rows
        assert found is not None
        assert found.column_names == ["number", "review", "convert_result", "search_result"]
        assert found.column("number").to_pylist() == [1, 3]

    @pytest.mark.parametrize("column", ["emb_col='convert_result'", "text_col='review'"])
    def test_a_table_that_another_program_has_changed_is_searched_as_it_is(
        self, tiny: Session, column: str
    ) -> None:
        tiny.execute(f"CREATE OR REPLACE TABLE e AS {CONVERT}")
        search = SEARCH.format(column).replace("FROM t", "FROM e")
        tiny.execute(search)
        with tiny._runtime.warehouse.write() as connection:  # past the statements, and so past the log
            connection.execute(
                "UPDATE e SET review = 'xyz', "
                "convert_result = (SELECT convert_result FROM e WHERE id = 3) WHERE id = 1"
            )
        found = rows(tiny, f"SELECT id, review FROM ({search})")
        assert found[0] == (5, "abc")
        with tiny._runtime.warehouse.write() as connection:
            connection.execute("INSERT INTO e SELECT 9, review, convert_result FROM e WHERE id = 5")
        assert [row[0] for row in rows(tiny, f"SELECT id FROM ({search})")][:2] == [5, 9]

    @pytest.mark.parametrize("column", ["emb_col='convert_result'", "text_col='review'"])
    def test_rows_that_another_program_has_changed_are_found(self, tiny: Session, column: str) -> None:
        tiny.execute(f"CREATE OR REPLACE TABLE e AS {CONVERT}")
        search = SEARCH.format(f"{column}, top_k=3").replace("FROM t", "FROM e")
        first = rows(tiny, f"SELECT id FROM ({search})")
        assert (3,) not in first
        files = sorted(tiny.workspace.snapshots.glob("answers/*/vectors-*.arrow"))
        assert rows(tiny, f"SELECT id FROM ({search})") == first
        assert sorted(tiny.workspace.snapshots.glob("answers/*/vectors-*.arrow")) == files, (
            "ours change nothing"
        )
        with duckdb.connect(str(tiny.workspace.warehouse_path)) as other:
            changed = column.split("'")[1]  # by itself: DuckDB then leaves the row in its place where it can
            other.execute(
                f"UPDATE e SET {changed} = f.{changed} FROM (SELECT * FROM e WHERE id = {first[0][0]}) f "
                "WHERE e.id = 3"
            )
        found = rows(tiny, f"SELECT id FROM ({search})")
        assert (3,) in found
        assert rows(tiny, f"SELECT id FROM ({search})") == found

    def test_a_vector_of_zeros_is_like_nothing(self, tiny: Session) -> None:
        search = SEARCH.format("emb_col='v'").replace(
            "SELECT * FROM t", "SELECT id, CAST(list_resize([0], 8, 0) AS FLOAT[8]) AS v FROM t"
        )
        assert rows(tiny, f"SELECT * FROM ({search})") == []

    def test_what_cannot_be_is_said_before_the_work(
        self, tiny: Session, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(MultilingualE5, "version", lambda self: None)

        def refused(text: str, kind: type[Exception], words: str) -> None:
            with pytest.raises(kind, match=words):
                tiny.execute(text)

        refused("SEARCH TEXT USING SBERTEn AS SELECT * FROM t", InvalidOption, "no search_input")
        refused(SEARCH.format("emb_col='nope'"), UnknownColumn, "CONVERT of the same query")
        refused(SEARCH.format("emb_col='review'"), ColumnTypeError, "is VARCHAR, not vectors")
        short = SEARCH.format("emb_col='v'").replace("*", "CAST([1, 2] AS FLOAT[2]) AS v")
        refused(short, ColumnTypeError, "vectors of 2 numbers, those of SBERTEn have 8")
        assert [table.name for table in tiny._runtime.warehouse.tables()] == ["t"]


class TestSearchKeyword:
    def test_each_row_gets_json_and_those_without_text_null(self, tiny: Session) -> None:
        tiny.execute(
            "CREATE TABLE long AS SELECT * FROM (VALUES (1, 'abc of xyz abc'), (2, NULL)) v(id, review)"
        )
        text = "SEARCH KEYWORD USING SBERTEn OPTIONS (text_col='review', top_n=2) AS SELECT * FROM long"
        result = tiny.execute(text)
        assert "1 rows have no text: their keyword is NULL." in result.warnings
        found = rows(tiny, f"SELECT id, keyword, typeof(keyword) FROM ({text})")
        told = json.loads(str(found[0][1]))
        assert told.keys() == {"keyword", "score"}
        assert len(told["keyword"]) == len(told["score"]) == 2
        assert not any("of" in keyword.split() for keyword in told["keyword"])
        words, scores = rows(tiny, f"SELECT keyword -> 'keyword', keyword -> 'score' FROM ({text})")[0]
        assert json.loads(str(words)) == told["keyword"]
        assert json.loads(str(scores)) == told["score"]
        assert found[1][1] is None
        assert found[0][2] == "JSON"

    def test_keywords_are_found_once_for_each_text_and_choice(self, tiny: Session) -> None:
        tiny.execute(
            "CREATE TABLE long AS SELECT * FROM (VALUES (1, 'abc xyz'), (2, NULL), (3, 'abc xyz')) v(id, review)"
        )
        text = "SEARCH KEYWORD USING SBERTEn OPTIONS (text_col='review', top_n=2) AS SELECT * FROM long"
        with network(tiny) as seen:
            first = rows(tiny, f"SELECT id, keyword FROM ({text})")
            assert sum(seen) == 1 + 3  # the text; abc, xyz, abc xyz
            assert first[0][1] == first[2][1]
            seen.clear()
            tiny.execute("CREATE TABLE longer AS SELECT * FROM long UNION ALL SELECT 4, 'qwe'")
            again = rows(tiny, f"SELECT id, keyword FROM ({text.replace('FROM long', 'FROM longer')})")
            assert sum(seen) == 2  # the new text and its one word
            assert again[:3] == first
            seen.clear()
            tiny.execute(text.replace("top_n=2", "top_n=1"))
            assert sum(seen) == 3  # other keywords are wanted: phrases again, texts not

    def test_it_may_stand_on_a_search(self, tiny: Session) -> None:
        search = SEARCH.format("text_col='review', top_k=1")
        text = (
            "SEARCH KEYWORD USING SBERTEn OPTIONS (text_col='review', ngram_range=[1, 1]) "
            f"AS (SELECT review FROM ({search}))"
        )
        assert [row[0] for row in rows(tiny, f"SELECT keyword->>'$.keyword[0]' FROM ({text})")] == ["abc"]

    def test_a_language_without_a_list_of_stop_words_is_said(self, tiny: Session) -> None:
        text = "SEARCH KEYWORD USING SBERTEn OPTIONS (text_col='review', lang='ko') AS SELECT * FROM t"
        assert "There is no list of stop words for 'ko': none are left out." in tiny.execute(text).warnings
        silent = text.replace("lang='ko'", "lang='ko', use_stopwords=False")
        assert not any("stop words" in told for told in tiny.execute(silent).warnings)


class TestPackagedWeights:
    """What SBERTEn says with the weights that a closed network has: all-MiniLM-L6-v2 itself."""

    REVIEWS = (
        ("neg", "I nearly fell asleep, such a boring and slow movie."),
        ("pos", "Brilliant acting and a gripping story from start to end."),
        ("neg", "Tedious and dull: nothing happens in this film for two hours."),
        ("pos", "A heart-warming comedy, my children loved every minute."),
        ("neg", "The most boring picture I have seen, I looked at my watch all the time."),
        ("pos", "Stunning photography, wonderful music, a masterpiece."),
    )

    @pytest.fixture
    def real(self, tracked_workspace: Workspace, told: Recorder) -> Iterator[Session]:
        with Session(tracked_workspace, progress=told) as session:
            values = ", ".join(f"('{kind}', '{text}')" for kind, text in self.REVIEWS)
            session.execute(f"CREATE TABLE reviews AS SELECT * FROM (VALUES {values}) v(kind, review)")
            yield session

    def test_a_boring_film_finds_those_who_were_bored(self, real: Session) -> None:
        search = (
            "SEARCH TEXT USING SBERTEn OPTIONS (search_input='a boring film', text_col='review', top_k=3) "
            "AS SELECT * FROM reviews"
        )
        assert [row[0] for row in rows(real, f"SELECT kind FROM ({search})")] == ["neg"] * 3
        keywords = (
            "SEARCH KEYWORD USING SBERTEn OPTIONS (text_col='review', top_n=3) AS SELECT * FROM reviews "
            "WHERE review LIKE 'Stunning%'"
        )
        [(told,)] = rows(real, f"SELECT keyword FROM ({keywords})")
        assert "photography" in str(told) or "masterpiece" in str(told)

    def test_the_list_says_that_it_can_be_had(self, real: Session) -> None:
        found = rows(
            real, "SELECT name, source, available, note FROM (LIST THANOSQL MODEL) WHERE name = 'SBERTEn'"
        )
        assert found == [("SBERTEn", "package", True, None)]
