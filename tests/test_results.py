"""Rows as pandas and Python see them: no value differs from the table's."""

from __future__ import annotations

import duckdb
import pandas as pd
import pytest

from thano_assets.results import data_frame, python_values

BIG = 9_007_199_254_740_993  # 2**53 + 1, which no float holds


def test_a_bigint_beside_null_keeps_its_digits() -> None:
    frame = data_frame(
        duckdb.sql(
            f"SELECT * FROM (VALUES (CAST({BIG} AS BIGINT), 1.5), (NULL, NULL)) t(n, x)"
        ).to_arrow_table()
    )
    assert str(frame["n"].dtype) == "Int64"
    assert frame["n"][0] == BIG
    assert frame["n"][1] is pd.NA
    assert data_frame(duckdb.sql(f"SELECT CAST({BIG} AS BIGINT) AS n").to_arrow_table())["n"].dtype == "int64"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("DATE '20240-01-02'", "20240-01-02"),
        ("DATE 'infinity'", "infinity"),
        ("DATE '-infinity'", "-infinity"),
        ("DATE '0044-03-15 (BC)'", "0044-03-15 (BC)"),
        ("TIMESTAMP '20240-01-02 03:04:05'", "20240-01-02 03:04:05"),
        ("TIMESTAMP 'infinity'", "infinity"),
        ("TIME '24:00:00'", "24:00:00"),
        ("INTERVAL 26 HOUR", "26:00:00"),
    ],
)
def test_dates_that_python_has_no_word_for_are_text(value: str, text: str) -> None:
    table = duckdb.sql(f"SELECT {value} AS d UNION ALL SELECT NULL").to_arrow_table()
    assert python_values(table["d"]) == [text, None]
    assert data_frame(table)["d"].tolist()[0] == text
    assert python_values(duckdb.sql(f"SELECT [{value}] AS d").to_arrow_table()["d"]) != [None]
