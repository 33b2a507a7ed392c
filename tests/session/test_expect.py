"""EXPECT: what must hold for a table's rows, asked at once, kept, and given up by DROP EXPECT."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest

from tests.session.conftest import traces, write_rows
from thano_assets.commands.expectations import forget
from thano_assets.errors import ColumnTypeError, ThanoError, UnknownColumn, UnknownExpectation, UnknownTable
from thano_assets.resources.environments import open_workspace
from thano_assets.resources.workspace import Workspace
from thano_assets.session import Session


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    workspace = open_workspace(tmp_path_factory.mktemp("expect") / "workspace")
    ratings = [1, 2, 3, 4, 5, 9, None]
    write_rows(workspace, "reviews.jsonl", [{"text": f"film {n}", "rating": n} for n in ratings])
    with Session(workspace) as session:
        session.execute("COPY reviews FROM 'reviews.jsonl'")
        yield session


@pytest.fixture
def reviews(shared: Session) -> Session:
    """A session with the table reviews, of which nothing is expected yet."""
    forget("reviews", shared.catalog)
    return shared


def answer(session: Session, text: str) -> dict[str, object]:
    (row,) = session.execute(text).arrow().to_pylist()
    return row


def test_the_rows_that_break_the_condition_are_counted_and_null_is_one_of_them(reviews: Session) -> None:
    result = reviews.execute("EXPECT rating BETWEEN 1\n AND 5 ON reviews")
    assert result.arrow().to_pylist() == [
        {
            "table": "reviews",
            "condition": "rating BETWEEN 1 AND 5",
            "holds": False,
            "rows": 7,
            "failing_rows": 2,
        }
    ]
    assert result.warnings == [
        "2 of 7 rows of reviews break EXPECT rating BETWEEN 1 AND 5. Nothing is made from reviews while this is so."
    ]


def test_a_condition_that_holds_warns_of_nothing(reviews: Session) -> None:
    result = reviews.execute("EXPECT length(text) > 0 -- not empty\n ON reviews")
    assert result.arrow().column("holds").to_pylist() == [True]
    assert result.arrow().column("failing_rows").to_pylist() == [0]
    assert result.warnings == []


@pytest.mark.parametrize(("condition", "holds"), [("count(*) > 100", False), ("count(*) = 7", True)])
def test_an_aggregate_is_about_the_table_as_a_whole(reviews: Session, condition: str, holds: bool) -> None:
    row = answer(reviews, f"EXPECT {condition} ON reviews")
    assert (row["holds"], row["rows"]) == (holds, 7)


def test_a_window_is_asked_of_each_row(reviews: Session) -> None:
    row = answer(reviews, "EXPECT count(*) OVER (PARTITION BY rating IS NULL) > 1 ON reviews")
    assert (row["rows"], row["failing_rows"]) == (7, 1)


@pytest.mark.parametrize(
    ("text", "error", "place"),
    [
        ("EXPECT ratng > 0 ON reviews", UnknownColumn, (1, 8)),
        ("EXPECT rating > 0\n  AND 별점 > 0 ON reviews", UnknownColumn, (2, 7)),
        ("EXPECT rating + 1 ON reviews", ColumnTypeError, (1, 8)),
        ("EXPECT rating > 0 ON reviws", UnknownTable, (1, 22)),
        ("EXPECT rating IN (FROM nowhere) ON reviews", UnknownTable, (1, 24)),
        ("DROP EXPECT rating > 0 ON reviws", UnknownTable, (1, 27)),
        ("DROP EXPECT ON reviews", UnknownExpectation, (1, 16)),
    ],
)
def test_what_cannot_be_asked_is_said_with_its_place_and_not_kept(
    reviews: Session, text: str, error: type[ThanoError], place: tuple[int, int]
) -> None:
    before = traces(reviews)
    with pytest.raises(error) as caught:
        reviews.execute(text)
    assert (caught.value.line, caught.value.column) == place
    assert caught.value.hint
    assert traces(reviews) == before


def test_the_same_condition_is_kept_once_however_it_is_written(reviews: Session) -> None:
    for text in (
        "EXPECT rating>0 ON reviews",
        "expect rating  > 0 on REVIEWS",
        "EXPECT rating < 9 ON reviews",
    ):
        reviews.execute(text)
    assert len(reviews.catalog.expectations("reviews")) == 2


def test_an_expectation_is_given_up_by_its_condition_or_all_at_once(reviews: Session) -> None:
    for condition in ("rating > 0", "rating < 9", "rating <> 4"):
        reviews.execute(f"EXPECT {condition} ON reviews")
    reviews.execute("DROP EXPECT rating>0 ON Reviews")
    assert len(reviews.catalog.expectations("reviews")) == 2
    with pytest.raises(UnknownExpectation, match="What is expected: ") as caught:
        reviews.execute("DROP EXPECT rating > 0 ON reviews")
    assert caught.value.column == 13
    reviews.execute("DROP EXPECT ON reviews")
    assert reviews.catalog.expectations("reviews") == []


def test_a_table_that_is_made_later_is_asked_then(workspace: Workspace) -> None:
    write_rows(workspace, "a.jsonl", [{"n": 1}])
    with Session(workspace) as session:
        session.execute("COPY a FROM 'a.jsonl'")
        session._runtime.warehouse.drop("a")
        assert answer(session, "EXPECT n > 5 ON a")["holds"] is None
        assert session.execute("EXPECT n > 5 ON a").summary == "the table a is asked when it is made"


def test_the_answer_is_the_latest_evaluation_of_the_tables_check(reviews: Session) -> None:
    reviews.execute("EXPECT rating < 8 ON reviews")
    instance = dg.DagsterInstance.from_config(str(reviews.workspace.dagster_home))
    (entry,) = reviews.catalog.expectations("reviews")
    from thano_assets.assets.tables.checks import check_name

    assert check_name(entry).startswith("rating_lt_8_")
    key = dg.AssetCheckKey(dg.AssetKey(["tables", "reviews"]), check_name(entry))
    (record,) = instance.event_log_storage.get_asset_check_execution_history(key, limit=5)
    assert record.event is not None
    evaluation = record.event.asset_check_evaluation
    assert evaluation is not None
    assert not evaluation.passed
    assert evaluation.metadata["failing rows"].value == 2
    assert "| film 9 | 9 |" in str(evaluation.metadata["offending rows"].value)
