"""The catalog's files: whole, readable, and found again."""

from __future__ import annotations

from pathlib import Path

import pytest

from thano_assets.catalog import Catalog, Entry, EntryKind, entry_of
from thano_assets.sql import parse


def table(name: str, text: str | None = None) -> Entry:
    return Entry(EntryKind.TABLE, name, text or f"CREATE OR REPLACE TABLE {name} AS SELECT 1 AS a\n;\n")


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "statements")


def test_an_entry_is_a_readable_sql_file(catalog: Catalog) -> None:
    text = "COPY reviews FROM 'reviews.csv'"
    entry = entry_of(parse(text)[0])
    assert entry is not None
    catalog.put(entry)
    assert (catalog.root / "tables" / "reviews.sql").read_text(encoding="utf-8") == text + "\n;\n"
    found = Catalog(catalog.root).relation("reviews")
    assert found == entry
    assert found.statement.text == text


@pytest.mark.parametrize(
    "name", ["영화_리뷰", "a b", "a/b", "..", ".hidden", "x.y", "50%", 'q"q', "CON:", "a*?"]
)
def test_any_name_makes_a_file_of_its_own_and_comes_back(catalog: Catalog, name: str) -> None:
    catalog.put(Entry(EntryKind.MODEL, name, "GET THANOSQL MODEL electra\n;\n"))
    catalog.put(Entry(EntryKind.MODEL, name + "2", "GET THANOSQL MODEL electra\n;\n"))
    assert sorted(catalog.names(EntryKind.MODEL)) == sorted([name, name + "2"])
    assert [path.parent for path in catalog.root.rglob("*.sql")] == [catalog.root / "models"] * 2


def test_names_are_found_whatever_their_case_and_keep_the_last_spelling(catalog: Catalog) -> None:
    catalog.put(table("Reviews"))
    assert catalog.relation("REVIEWS") is not None
    catalog.put(table("reviews"))
    assert catalog.names() == ["reviews"]


def test_a_table_and_a_prediction_of_one_name_replace_each_other(catalog: Catalog) -> None:
    catalog.put(table("t"))
    text = "CREATE OR REPLACE TABLE t AS PREDICT USING m AS SELECT 'a' AS text\n;\n"
    catalog.put(Entry(EntryKind.PREDICTION, "t", text))
    assert [entry.kind for entry in catalog.entries()] == [EntryKind.PREDICTION]
    catalog.put(table("t"))
    assert catalog.entries() == [table("t")]


def test_a_killed_writers_temporary_file_is_not_an_entry(catalog: Catalog) -> None:
    catalog.put(table("t"))
    (catalog.root / "tables" / ".abc.tmp").write_text("CREATE TABLE")
    (catalog.root / "tables" / ".abc.sql").write_text("CREATE TABLE")
    assert catalog.names() == ["t"]
    assert catalog.entries() == [table("t")]


def test_a_bare_predict_names_its_table_by_what_it_does() -> None:
    first = entry_of(
        parse("PREDICT USING m OPTIONS (text_col='review') AS SELECT * FROM movie_review_test")[0]
    )
    spaced = entry_of(
        parse(
            "predict using m\n options (text_col = 'review' ) as select * -- all\n from movie_review_test;"
        )[0]
    )
    other = entry_of(parse("PREDICT USING m OPTIONS (text_col='body') AS SELECT * FROM movie_review_test")[0])
    assert first is not None
    assert spaced is not None
    assert other is not None
    assert first.name == spaced.name
    assert first.name.startswith("predict_m_movie_review_test_")
    assert first.name != other.name
    # The file can be run as it is, and makes the same thing.
    again = entry_of(parse(first.text)[0])
    assert again is not None
    assert (again.kind, again.name) == (EntryKind.PREDICTION, first.name)


def test_the_digest_tells_meaning_from_spelling() -> None:
    def digest(text: str) -> str:
        entry = entry_of(parse(text)[0])
        assert entry is not None
        return entry.digest

    one = "BUILD MODEL m USING ElectraEn OPTIONS (text_col='a', epochs=2) AS SELECT * FROM t"
    same = "build model m using ElectraEn options (max_epochs = 2, text_col = 'a') as (select * from t)"
    assert digest(one) == digest(one + " ;  -- end")
    assert digest(one) == digest(same.replace("(select * from t)", "select * from t"))
    assert digest(one) != digest(one.replace("epochs=2", "epochs=3"))
    assert digest(one) != digest(one.replace("FROM t", "FROM u"))
