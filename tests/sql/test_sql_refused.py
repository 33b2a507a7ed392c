"""What the parser refuses: the sentence that a person reads, and the place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from thano_assets.errors import (
    InvalidOption,
    SyntaxProblem,
    ThanoError,
    UnknownOption,
    UnsupportedStatement,
)
from thano_assets.sql import parse

VERDICT = re.compile(r"(?P<code>\S+) (?P<line>\d+):(?P<column>\d+)\+(?P<length>\d+) (?P<sentence>.+)")


def refused() -> list[tuple[str, str]]:
    """(text, verdict) of each block of the fixture file."""
    path = Path(__file__).parent / "fixtures" / "refused.txt"
    cases = []
    for block in path.read_text(encoding="utf-8").strip("\n").split("\n\n"):
        text, _, verdict = block.rpartition("\n!! ")
        cases.append((text, verdict))
    return cases


REFUSED = refused()
CLASSES = {
    kind.default_code: kind for kind in (SyntaxProblem, UnsupportedStatement, UnknownOption, InvalidOption)
}


@pytest.mark.parametrize(("text", "verdict"), REFUSED, ids=[case[0][:40] for case in REFUSED])
def test_refused(text: str, verdict: str) -> None:
    expected = VERDICT.fullmatch(verdict)
    assert expected is not None
    with pytest.raises(ThanoError) as caught:
        parse(text)
    error = caught.value
    assert str(error) == expected["sentence"]
    assert type(error) is CLASSES[expected["code"]]
    place = (error.code, error.line, error.column, error.length)
    assert place == (
        expected["code"],
        int(expected["line"]),
        int(expected["column"]),
        int(expected["length"]),
    )


def test_caret_stands_under_the_place() -> None:
    with pytest.raises(SyntaxProblem) as caught:
        parse("SELECT 1;\nBUILD MODL x USING y AS SELECT 1")
    assert caught.value.pretty() == (
        'Expected MODEL here, not "MODL". The statement is: BUILD MODEL name USING base [OPTIONS (…)] AS query\n'
        "line 2: BUILD MODL x USING y AS SELECT 1\n"
        "              ^^^^"
    )


def test_caret_counts_wide_characters_twice() -> None:
    with pytest.raises(SyntaxProblem) as caught:
        parse("SELECT '한글', x FRO t y z")
    lines = caught.value.pretty().split("\n")
    assert lines[1] == "line 1: SELECT '한글', x FRO t y z"
    # 8 of the label and 16 characters before FRO, two of them wide.
    assert lines[2] == " " * (8 + 15 + 2) + "^^^"
    assert caught.value.column == 16


def test_caret_in_a_nested_query_after_another_statement() -> None:
    text = "LIST MODEL;\nSELECT * FROM (PREDICT USING m AS\n  SELECT * FORM t WHERE x y)"
    with pytest.raises(SyntaxProblem) as caught:
        parse(text)
    error = caught.value
    assert (error.line, error.column) == (3, 12)
    assert str(error).endswith('Did you mean FROM instead of "FORM"?')


def test_the_first_wrong_statement_is_told_and_none_is_returned() -> None:
    with pytest.raises(SyntaxProblem) as caught:
        parse("SELECT 1; SELCT 2; SELCT 3")
    assert caught.value.column == 11


def test_a_name_defined_by_with_is_seen_where_it_is_not_around() -> None:
    parse("WITH p AS (PREDICT USING m AS SELECT * FROM p) SELECT * FROM p")
    parse("SELECT * FROM (WITH x AS (SELECT 1) FROM x), (PREDICT USING m AS FROM x)")
    parse("WITH x AS (SELECT 1) SELECT * FROM (PREDICT USING m AS WITH x AS (FROM y) FROM x), x")
    text = "WITH a AS (SELECT 1), X (n) AS NOT MATERIALIZED (FROM a) FROM (PREDICT USING m AS FROM (LIST MODEL), x)"
    with pytest.raises(SyntaxProblem, match="x is defined by WITH outside") as caught:
        parse(text)
    assert caught.value.column == text.rindex("x)") + 1
