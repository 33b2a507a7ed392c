"""``$name`` in statements: a value, whatever characters it has."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal
from typing import Any

import duckdb
import numpy as np
import pytest

from thano_assets.errors import InvalidOption, SyntaxProblem, UnknownVariable
from thano_assets.sql import parse
from thano_assets.sql.variables import literal_text, names_in, read_value, with_values

VALUES: list[Any] = [
    None,
    True,
    0,
    -17,
    10**30,
    0.1,
    -1e300,
    math.inf,
    Decimal("12.50"),
    "",
    "it's; DROP TABLE t; --",
    "$other $$ \\ \n %",
    "한국어 🎬",
    datetime.date(2024, 2, 29),
    datetime.datetime(2024, 2, 29, 23, 59, 58, 999999),
    [1, 2, 3],
    ["a'b", "c"],
    np.int64(5),
    np.float32(0.5),
    np.str_("text"),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_duckdb_reads_the_value_that_was_given(value: Any) -> None:
    text = with_values("SELECT $v AS v", {"v": value})
    (statement,) = parse(text)
    assert statement.kind == "QUERY"
    found = duckdb.sql(text).fetchall()[0][0]
    assert found == (value.item() if hasattr(value, "item") else value)
    assert isinstance(found, bool) == isinstance(value, bool)


def test_a_date_is_one_and_a_time_zone_is_kept() -> None:
    moment = datetime.datetime(2024, 1, 1, 9, tzinfo=datetime.timezone(datetime.timedelta(hours=9)))
    text = with_values("SELECT typeof($d), typeof($t), $t = TIMESTAMPTZ '2024-01-01 00:00:00+00'", {
        "d": datetime.date(2024, 1, 1), "t": moment,
    })  # fmt: skip
    assert duckdb.sql(text).fetchall() == [("DATE", "TIMESTAMP WITH TIME ZONE", True)]


def test_only_variables_are_replaced() -> None:
    text = "SELECT '$a', \"$a\", $$ $a $$, $a -- $a\n, $b /* $b */"
    assert names_in(text) == ["a", "b"]
    assert with_values(text, {"a": 1, "b": "x"}) == "SELECT '$a', \"$a\", $$ $a $$, 1 -- $a\n, 'x' /* $b */"


@pytest.mark.parametrize(
    ("text", "value", "found"),
    [
        ("SELECT 5-$v", -3, 8),
        ("SELECT -$v", -3, 3),
        ("SELECT 2*$v+1", -3, -5),
        ("SELECT $v::VARCHAR", -3, "-3"),
        ("SELECT $v.upper()", "a", "A"),
        ("SELECT $v[2]", [1, 2], 2),
        ("SELECT 'a'||$v||'b'", "'", "a'b"),
        ("SELECT CASE WHEN 1=$v THEN 1 END", 1, 1),
        ("SELECT 7--$v\n", -3, 7),
    ],
)
def test_a_value_forms_a_token_with_nothing_beside_it(text: str, value: Any, found: Any) -> None:
    assert duckdb.sql(with_values(text, {"v": value})).fetchall() == [(found,)]


@pytest.mark.parametrize("text", ["SELECT 'a'$v", "SELECT $v'a'", "SELECT 5$v"])
def test_what_is_no_expression_does_not_become_one(text: str) -> None:
    for value in ("b", 3):
        with pytest.raises((duckdb.Error, SyntaxProblem)):
            duckdb.sql(with_values(text, {"v": value}) + " + 1")


def test_values_stand_in_options_and_paths_too() -> None:
    text = (
        "COPY t FROM $path; BUILD MODEL m USING ElectraEn OPTIONS (epochs=$n, text_col=$c) AS SELECT * FROM t"
    )
    copy, build = parse(with_values(text, {"path": "a b.csv", "n": 2, "c": "review"}))
    assert copy.path == "a b.csv"  # type: ignore[attr-defined]
    assert (build.options["max_epochs"], build.options["text_col"]) == (2, "review")


def test_another_value_is_another_statement() -> None:
    one, same, other = (parse(with_values("SELECT $n", {"n": n}))[0].canonical() for n in (1, 1, 2))
    assert one == same != other


def test_a_variable_without_a_value_is_named_with_its_place() -> None:
    with pytest.raises(UnknownVariable) as caught:
        with_values("SELECT 1;\n SELECT $cutof", {"cutoff": 1})
    error = caught.value
    assert error.message == "The variable $cutof has no value."
    assert error.hint == "Did you mean cutoff? The variables are: cutoff."
    assert (error.line, error.column, error.length) == (2, 9, 6)


def test_what_no_literal_stands_for_is_refused() -> None:
    with pytest.raises(InvalidOption, match=r"The variable \$v is a set; a text, number, date or list"):
        with_values("SELECT $v", {"v": {1}})
    with pytest.raises(TypeError):
        literal_text([object()])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3.50", Decimal("-3.50")),
        ("1e3", Decimal("1e3")),
        ("true", True),
        ("NULL", None),
        ("2024-01-01", "2024-01-01"),
        ("'3'", "3"),
        ('"true"', "true"),
        ("", ""),
        ("a=b", "a=b"),
    ],
)
def test_values_of_a_command_line(text: str, value: Any) -> None:
    found = read_value(text)
    assert (found, type(found)) == (value, type(value))
