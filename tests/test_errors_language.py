"""The error that a user reads: sentence, hint, place."""

from __future__ import annotations

import pickle

import pytest

from thano_assets.errors import (
    QueryError,
    SyntaxProblem,
    ThanoError,
    UnknownTable,
    did_you_mean,
    line_and_column,
    nearest,
)


def test_sentence_and_hint() -> None:
    assert str(UnknownTable("There is no table t.")) == "There is no table t."
    error = UnknownTable("There is no table t.", hint="LIST TABLE shows them.")
    assert str(error) == "There is no table t. LIST TABLE shows them."
    assert (error.code, error.line, error.column, error.text) == ("unknown-table", None, None, None)
    assert ThanoError("x", code="own-code").code == "own-code"
    assert error.pretty() == str(error)


def test_place_is_filled_in_once() -> None:
    error = QueryError("No.").at("ab\ncd", 4, 1).at("other", 0)
    assert (error.line, error.column, error.text) == (2, 2, "ab\ncd")
    assert error.pretty() == "No.\nline 2: cd\n         ^"


@pytest.mark.parametrize(
    ("text", "offset", "place"),
    [
        ("", 0, (1, 1)),
        ("abc", 2, (1, 3)),
        ("abc", 99, (1, 4)),
        ("a\nb", 2, (2, 1)),
        ("a\r\nb", 3, (2, 1)),
        ("a\r\nb", 2, (1, 2)),
        ("a\rb", 2, (2, 1)),
        ("a\fb\u2028c", 4, (1, 5)),
        ("한글 x", 3, (1, 4)),
    ],
)
def test_line_and_column(text: str, offset: int, place: tuple[int, int]) -> None:
    assert line_and_column(text, offset) == place


def test_caret_under_tabs_and_wide_characters() -> None:
    assert SyntaxProblem("No.").at("\t한글 = x", 6).pretty() == "No.\nline 1: \t한글 = x\n        \t       ^"
    assert SyntaxProblem("No.").at("a 한글 b", 2, 2).pretty() == "No.\nline 1: a 한글 b\n          ^^^^"


def test_caret_stays_within_its_line() -> None:
    assert SyntaxProblem("No.").at("ab\ncd", 1, 40).pretty() == "No.\nline 1: ab\n         ^"
    assert SyntaxProblem("No.").at("ab", 2).pretty() == "No.\nline 1: ab\n          ^"


def test_long_lines_are_cut_around_the_place() -> None:
    text = "x" * 300 + "HERE" + "y" * 300
    _, line, caret = SyntaxProblem("No.").at(text, 300, 4).pretty().split("\n")
    assert len(line) < 120
    assert line[caret.index("^") : caret.rindex("^") + 1] == "HERE"


def test_errors_travel_between_processes() -> None:
    error = SyntaxProblem("No.", hint="Do.", code="own").at("a b", 2)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is SyntaxProblem
    assert vars(again) == vars(error)
    assert again.pretty() == error.pretty()


def test_nearest() -> None:
    names = ["text_col", "label_col", "Reviews", "movie_review_train", "movie_review_test"]
    assert nearest("text_colum", names)[0] == "text_col"
    assert nearest("REVIEWS", names)[0] == "Reviews"
    assert nearest("movie_reviev_train", names)[0] == "movie_review_train"
    assert nearest("movie_review", names, 2) == ["movie_review_test", "movie_review_train"]
    assert nearest("zzz", names) == []


def test_did_you_mean() -> None:
    assert did_you_mean("x", [], "tables") == "There are no tables yet."
    assert did_you_mean("revews", ["reviews", "labels"], "tables") == (
        "Did you mean reviews? The tables are: labels, reviews."
    )
    many = [f"table_{number}" for number in range(40)]
    assert did_you_mean("zzz", many, "tables") == "There are 40 tables, none with a name like it."
    assert did_you_mean("tabel_7", many, "tables").startswith("Did you mean table_7")
