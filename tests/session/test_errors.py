"""Every kind of bad input: the sentence that a person reads, its place, and that nothing is left behind."""

from __future__ import annotations

import pytest

from tests.session.conftest import Recorder, traces, write_rows
from thano_assets.errors import ThanoError
from thano_assets.session import Session

GOOD, BAD = "a good film", "a bad film"


@pytest.fixture
def filled(session: Session) -> Session:
    rows: list[dict[str, object]] = [
        {"review": f"{GOOD} {n}", "sentiment": "positive", "n": n} for n in range(6)
    ]
    rows += [{"review": f"{BAD} {n}", "sentiment": "negative", "n": n} for n in range(6)]
    write_rows(session.workspace, "reviews.jsonl", rows)
    session.execute("COPY reviews FROM 'reviews.jsonl'")
    return session


def build(options: str = "", rows: str = "SELECT * FROM reviews", base: str = "ElectraEn") -> str:
    more = f", {options}" if options else ""
    return f"BUILD MODEL m USING {base} OPTIONS (text_col='review', label_col='sentiment'{more}) AS {rows}"


CASES = [
    # what was wrong | statement | code | sentence | (line, column)
    ("syntax", "BULID MODEL m USING ElectraEn AS SELECT 1", "syntax", "BUILD MODEL", (1, 1)),
    ("syntax in the query", "PREDICT USING m AS\nSELECT * FORM reviews", "syntax", "FORM", (2, 10)),
    ("unknown option", build("epoch=2"), "unknown-option", "Did you mean", (1, 82)),
    (
        "unknown column",
        "BUILD MODEL m USING ElectraEn OPTIONS (text_col='revew', label_col='sentiment') AS SELECT * FROM reviews",
        "unknown-column",
        "text_col='revew' names a column that the query does not have. Did you mean review?",
        (1, 40),
    ),
    (
        "unknown column of the default name",
        "BUILD MODEL m USING ElectraEn OPTIONS (text_col='review') AS SELECT * FROM reviews",
        "unknown-column",
        "label_col, which is 'label' unless set, names a column that the query does not have.",
        (1, 1),
    ),
    (
        "unknown column in a query",
        "SELECT revew\nFROM reviews",
        "unknown-column",
        "There is no column revew here. Near it are: review",
        (1, 8),
    ),
    (
        "unknown table",
        build(rows="SELECT * FROM reviewz"),
        "unknown-table",
        "There is no table reviewz. Did you mean reviews?",
        None,
    ),
    (
        "unknown table in a query",
        "SELECT *\nFROM reviewz",
        "unknown-table",
        "There is no table reviewz.",
        (2, 6),
    ),
    (
        "unknown model",
        "PREDICT USING nobody OPTIONS (text_col='review') AS SELECT * FROM reviews",
        "unknown-model",
        "There is no model nobody.",
        (1, 15),
    ),
    ("unknown model to delete", "DELETE MODEL nobody", "unknown-model", "There is no model nobody.", (1, 14)),
    ("unknown table to drop", "DROP TABLE nobody", "unknown-table", "There is no table nobody.", (1, 12)),
    (
        "unknown base",
        build(base="ElektraEn"),
        "unknown-base-model",
        "There is no base model ElektraEn.",
        (1, 21),
    ),
    (
        "unknown data set",
        "GET THANOSQL DATASET movies",
        "unknown-dataset",
        "There is no data set movies.",
        (1, 22),
    ),
    (
        "type of an option",
        build("epochs='many'"),
        "invalid-option",
        "max_epochs of BUILD MODEL was given the text 'many'",
        None,
    ),
    (
        "range of an option",
        build("eval_fraction=1.5"),
        "invalid-option",
        "eval_fraction of BUILD MODEL was given 1.5",
        None,
    ),
    (
        "name exists",
        "COPY reviews FROM 'reviews.jsonl'",
        "name-exists",
        "The table reviews exists already. OPTIONS (overwrite=True) replaces it",
        (1, 6),
    ),
    (
        "name exists",
        "CREATE TABLE reviews AS SELECT 1 AS a",
        "name-exists",
        "The table reviews exists already. CREATE OR REPLACE TABLE",
        (1, 14),
    ),
    (
        "one class",
        build(rows="SELECT * FROM reviews WHERE sentiment = 'positive'"),
        "training-data",
        "All 6 rows have the same label in sentiment (positive).",
        None,
    ),
    (
        "NULL labels",
        build(rows="SELECT review, nullif(sentiment, 'negative') AS sentiment FROM reviews"),
        "training-data",
        "6 of 12 rows have NULL or blank text in the label column sentiment.",
        None,
    ),
    (
        "empty query",
        build(rows="SELECT * FROM reviews WHERE n > 99"),
        "training-data",
        "The query gives 0 rows.",
        None,
    ),
    (
        "no text at all",
        build(rows="SELECT '' AS review, sentiment FROM reviews"),
        "training-data",
        "None of the query's 12 rows has a text.",
        None,
    ),
    (
        "text column not text",
        build("seed=1", rows="SELECT n AS review, sentiment FROM reviews"),
        "column-type",
        "Column review is BIGINT, not text.",
        None,
    ),
    (
        "fewer rows than the classes need",
        build(rows="SELECT review, review AS sentiment FROM reviews"),
        "training-data",
        "12 rows are too few for 12 classes",
        None,
    ),
    (
        "result column is taken",
        "PREDICT USING tutorial_text_classification OPTIONS (text_col='review', result_col='n') AS SELECT * FROM reviews",
        "invalid-option",
        "The query already has a column n.",
        None,
    ),
    ("path outside", "COPY x FROM '../../secret.csv'", "path-refused", "under [files]", (1, 13)),
    ("path outside, absolute", "COPY x FROM '/etc/passwd'", "path-refused", "", (1, 13)),
    (
        "file outside in a query",
        "SELECT * FROM read_text('/etc/passwd')",
        "query",
        "queries read tables",
        None,
    ),
    ("missing file", "COPY x FROM 'revews.jsonl'", "data-file", "reviews.jsonl", (1, 13)),
    ("pickle", "COPY x FROM 'rows.pkl'", "data-file", "", (1, 13)),
    ("inline JSON", "COPY x FROM '[{\"a\": 1},]'", "data-file", "", (1, 13)),
    (
        "made from itself",
        "CREATE OR REPLACE TABLE reviews AS SELECT * FROM reviews",
        "query",
        "reviews would be made from itself.",
        None,
    ),
    ("not a query of this language", "INSERT INTO reviews VALUES (1)", "unsupported-statement", "", (1, 1)),
    ("media", "SEARCH IMAGE USING m AS SELECT 1", "unsupported-statement", "text and tables", (1, 1)),
    (
        "one trial",
        "BUILD MODEL x USING ElectraEn OPTIONS (text_col='review', label_col='sentiment', tune=1) AS SELECT * FROM reviews",
        "invalid-option",
        "Allowed is a whole number from 2 to 200",
        (1, 87),
    ),
    (
        "nothing to tune",
        "BUILD MODEL x USING ElectraEn OPTIONS (tune=3, learning_rate=0.1, epochs=1, max_length=9, text_col='review', label_col='sentiment') AS SELECT * FROM reviews",
        "invalid-option",
        "tune=3 has nothing to search: learning_rate is given, max_epochs is given, max_length is given.",
        (1, 45),
    ),
    (
        "tuning where epochs are found anyway",
        "BUILD MODEL x USING ElectraEn OPTIONS (tune=3, learning_rate=0.1, early_stopping=1, max_length=9, text_col='review', label_col='sentiment') AS SELECT * FROM reviews",
        "invalid-option",
        "max_epochs is left to early_stopping",
        (1, 45),
    ),
    (
        "too few rows to tune with",
        "BUILD MODEL x USING ElectraEn OPTIONS (tune=3, text_col='review', label_col='sentiment') AS SELECT * FROM reviews LIMIT 8",
        "training-data",
        "too few to tune with",
        None,
    ),
    (
        "a model name that is a path",
        "BUILD MODEL \"a/b\" USING ElectraEn OPTIONS (text_col='review', label_col='sentiment') AS SELECT * FROM reviews",
        "syntax",
        "a/b",
        None,
    ),
    (
        "DuckDB's own complaint",
        "SELECT CAST(review AS INTEGER) FROM reviews",
        "query",
        "Could not convert string",
        None,
    ),
]


@pytest.mark.parametrize(
    ("text", "code", "sentence", "place"),
    [case[1:] for case in CASES],
    ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)],
)
def test_bad_input(
    filled: Session, text: str, code: str, sentence: str, place: tuple[int, int] | None
) -> None:
    (filled.workspace.data / "rows.pkl").write_bytes(b"\x80\x04N.")
    before = traces(filled)
    with pytest.raises(ThanoError) as caught:
        filled.execute(text)
    error = caught.value
    assert error.code == code
    assert sentence in str(error)
    assert "Traceback" not in error.pretty()
    assert "\n" not in str(error)
    if place is not None:
        assert (error.line, error.column) == place
        assert "^" in error.pretty()
    assert traces(filled) == before


def test_an_existing_model_needs_overwrite(filled: Session) -> None:
    filled.execute(build("epochs=1, baseline=False"))
    before = traces(filled)
    with pytest.raises(ThanoError) as caught:
        filled.execute(build("epochs=1, baseline=False"))
    assert caught.value.code == "name-exists"
    assert str(caught.value).startswith(
        "The model m exists already (version 1). OPTIONS (overwrite=True) adds"
    )
    assert traces(filled) == before


def test_an_unknown_version_names_those_that_there_are(filled: Session) -> None:
    filled.execute(build("epochs=1, baseline=False"))
    for ref in ("m VERSION 9", "m@challenger"):
        with pytest.raises(ThanoError) as caught:
            filled.execute(f"PREDICT USING {ref} OPTIONS (text_col='review') AS SELECT * FROM reviews")
        assert caught.value.code == "unknown-model"
        assert str(caught.value) == f"There is no {ref} in the registry. It has the versions 1."
        assert (caught.value.line, caught.value.column) == (1, 15)


def test_fit_needs_the_parents_labels(filled: Session) -> None:
    filled.execute(build("epochs=1, baseline=False"))
    before = traces(filled)
    with pytest.raises(ThanoError) as caught:
        filled.execute(
            "FIT MODEL m2 USING m OPTIONS (text_col='review', label_col='sentiment') AS\n"
            "SELECT review, CASE WHEN n = 1 THEN 'neutral' ELSE sentiment END AS sentiment FROM reviews"
        )
    assert caught.value.code == "training-data"
    assert "The labels are not those of m: new in the rows: neutral." in str(caught.value)
    assert traces(filled) == before


def test_evaluate_names_labels_that_the_model_does_not_know(filled: Session) -> None:
    filled.execute(build("epochs=1, baseline=False"))
    with pytest.raises(ThanoError) as caught:
        filled.execute(
            "EVALUATE USING m OPTIONS (text_col='review', label_col='sentiment') AS\n"
            "SELECT review, 'mixed' AS sentiment FROM reviews"
        )
    assert "labels that m was not trained on (mixed: 12)" in str(caught.value)
    assert caught.value.line == 2


def test_texts_over_the_limit_are_a_warning_that_the_result_keeps(filled: Session, told: Recorder) -> None:
    filled.execute(build("epochs=1, baseline=False"))
    result = filled.execute(
        "PREDICT USING m OPTIONS (text_col='review') AS SELECT repeat('good film ', 200) AS review"
    )
    assert any("longer than" in text and "cut" in text for text in result.warnings)
    assert any("longer than" in text for text in told.warnings)


def test_a_base_model_out_of_reach_names_each_source(
    filled: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    before = traces(filled)
    with pytest.raises(ThanoError) as caught:
        filled.execute(build(base="'nobody/no-such-model'"))
    assert caught.value.code == "base-model-unavailable"
    for source in ("folder", "cache", "hub", "package"):
        assert source in str(caught.value)
    assert traces(filled) == before


def test_syntax_of_the_whole_text_is_checked_before_its_first_statement_runs(filled: Session) -> None:
    before = traces(filled)
    with pytest.raises(ThanoError) as caught:
        filled.execute("COPY more FROM 'reviews.jsonl';\n\nSELEC 1")
    assert caught.value.line == 3
    assert traces(filled) == before


def test_an_error_in_a_statement_keeps_its_line_in_the_whole_text(filled: Session) -> None:
    text = "SELECT 1;\n\nBUILD MODEL m USING ElectraEn\nOPTIONS (text_col='review', label_col='sentiment') AS\nSELECT * FROM reviews WHERE n < 0"
    with pytest.raises(ThanoError) as caught:
        filled.execute(text)
    assert caught.value.line == 5
    assert caught.value.pretty().splitlines()[1].startswith("line 5: SELECT * FROM reviews")
