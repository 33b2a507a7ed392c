"""What the parser accepts, and what the statements then say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from thano_assets.sql import parse
from thano_assets.sql.grammar import STATEMENT_SPECS
from thano_assets.sql.query import Query
from thano_assets.sql.source import Span
from thano_assets.sql.statements import (
    BuildModel,
    Convert,
    Copy,
    CreateTableAs,
    DeleteModel,
    DropTable,
    Evaluate,
    Expect,
    ExplainPredict,
    FitModel,
    GetThanosql,
    ListItems,
    Plan,
    Predict,
    PromoteModel,
    QueryStatement,
    Search,
    ShowCreate,
    UploadModel,
)

FIXTURES = Path(__file__).parent / "fixtures"

# The statements of the tutorial, character for character (a blank stands at the end of two lines).
SEED = [
    "COPY movie_review_train \n"
    "OPTIONS(overwrite = True)\n"
    'FROM "tutorial_data/movie_review_data/movie_review_train.csv"\n',
    "COPY movie_review_test \n"
    "OPTIONS(overwrite = True)\n"
    'FROM "tutorial_data/movie_review_data/movie_review_test.csv"\n',
    "SELECT *\nFROM movie_review_train\nLIMIT 5\n",
    "PREDICT USING tutorial_text_classification\n"
    "OPTIONS (\n    text_col='review',\n    label_col='sentiment'\n    )\n"
    "AS\nSELECT *\nFROM movie_review_test\n",
    "BUILD MODEL my_movie_review_classifier\n"
    "USING ElectraEn\n"
    "OPTIONS (\n  text_col='review',\n  label_col='sentiment',\n  epochs=1,\n  batch_size=4,\n"
    "  overwrite=True\n  )\n"
    "AS\nSELECT *\nFROM movie_review_train\n",
    "PREDICT USING my_movie_review_classifier\n"
    "OPTIONS (\n    text_col='review'\n    )\n"
    "AS\nSELECT *\nFROM movie_review_test\n",
]


def accepted() -> list[tuple[str, str, str]]:
    """(text, kind, canonical text) of each block of the fixture file."""
    blocks = (FIXTURES / "accepted.txt").read_text(encoding="utf-8").strip("\n").split("\n\n")
    cases = []
    for block in blocks:
        text, _, verdict = block.rpartition("\n=> ")
        kind, _, canonical = verdict.partition(": ")
        cases.append((text, kind, canonical))
    return cases


ACCEPTED = accepted()


@pytest.mark.parametrize(("text", "kind", "canonical"), ACCEPTED, ids=[case[0][:40] for case in ACCEPTED])
def test_accepted(text: str, kind: str, canonical: str) -> None:
    (statement,) = parse(text)
    assert statement.option_kind == kind
    assert statement.canonical() == canonical


def test_every_kind_of_statement_is_among_the_cases() -> None:
    assert {kind for _, kind, _ in ACCEPTED} == set(STATEMENT_SPECS)


def test_seed_statements() -> None:
    train, test, look, ready, build, predict = (parse(cell)[0] for cell in SEED)
    assert isinstance(train, Copy)
    assert train.table == "movie_review_train"
    assert train.path == "tutorial_data/movie_review_data/movie_review_train.csv"
    assert train.mode == "replace"
    assert isinstance(test, Copy)
    assert test.path == "tutorial_data/movie_review_data/movie_review_test.csv"
    assert isinstance(look, QueryStatement)
    assert look.query.text == "SELECT *\nFROM movie_review_train\nLIMIT 5"
    assert isinstance(ready, Predict)
    assert (ready.model.name, ready.model.version, ready.model.alias) == (
        "tutorial_text_classification",
        None,
        None,
    )
    assert dict(ready.options) == {"text_col": "review", "label_col": "sentiment"}
    assert ready.query.text == "SELECT *\nFROM movie_review_test"
    assert isinstance(build, BuildModel)
    assert (build.name, build.base, build.base_quoted) == ("my_movie_review_classifier", "ElectraEn", False)
    assert dict(build.options) == {
        "text_col": "review",
        "label_col": "sentiment",
        "max_epochs": 1,
        "batch_size": 4,
        "overwrite": True,
    }
    assert build.options.given("max_epochs") == "epochs"
    assert isinstance(predict, Predict)
    assert predict.options.value("result_col") == "predicted"


def test_seed_statements_in_one_text() -> None:
    text = ";\n".join(SEED)
    statements = parse(text)
    assert [statement.kind for statement in statements] == [
        "COPY",
        "COPY",
        "QUERY",
        "PREDICT",
        "BUILD MODEL",
        "PREDICT",
    ]
    assert [statement.text for statement in statements] == [cell.strip() for cell in SEED]


@pytest.mark.parametrize(
    "text", ["", " \n\t", ";", " ; ;\n", "-- only a comment", "/* a /* b */ ; */ ;", "\ufeff"]
)
def test_nothing_to_do(text: str) -> None:
    assert parse(text) == []


def test_splitting_respects_strings_comments_and_parentheses() -> None:
    text = "SELECT ';', \";\", $a$;$a$, E'\\';' -- ;\n/* ; */ FROM t;\nLIST MODEL;;SELECT (\n1)"
    assert [statement.text for statement in parse(text)] == [
        "SELECT ';', \";\", $a$;$a$, E'\\';' -- ;\n/* ; */ FROM t",
        "LIST MODEL",
        "SELECT (\n1)",
    ]


def test_places() -> None:
    text = "LIST MODEL;\r\n  PREDICT USING m\r\n  OPTIONS (text_col = 'x') AS\r\n  SELECT 1"
    predict = parse(text)[1]
    assert isinstance(predict, Predict)
    assert predict.place == (2, 3)
    assert predict.model.span.slice(text) == "m"
    assert predict.options.place("text_col").slice(text) == "text_col"
    assert predict.options.value_span("text_col").slice(text) == "'x'"
    assert predict.query.span.slice(text) == "SELECT 1"


def test_names_and_their_spans() -> None:
    text = (
        'COPY main."T 1" FROM \'f\'; DROP TABLE IF EXISTS u; FIT MODEL a USING "b c"@best AS FROM t;'
        "UPLOAD MODEL up FROM 'dir'; GET THANOSQL MODEL electra; DELETE MODEL d VERSION 4;"
        "PROMOTE MODEL p VERSION 5; SHOW CREATE TABLE s"
    )
    copy, drop, fit, upload, get, delete, promote, show = parse(text)
    assert isinstance(copy, Copy)
    assert (copy.table, copy.table_span.slice(text)) == ("T 1", '"T 1"')
    assert copy.source_span.slice(text) == "'f'"
    assert isinstance(drop, DropTable)
    assert (drop.name, drop.if_exists, drop.name_span.slice(text)) == ("u", True, "u")
    assert isinstance(fit, FitModel)
    assert (fit.name, fit.parent.name, fit.parent.alias, str(fit.parent)) == ("a", "b c", "best", "b c@best")
    assert fit.parent.span.slice(text) == '"b c"@best'
    assert isinstance(upload, UploadModel)
    assert (upload.name, upload.path) == ("up", "dir")
    assert isinstance(get, GetThanosql)
    assert (get.what, get.name) == ("MODEL", "electra")
    assert isinstance(delete, DeleteModel)
    assert (delete.name, delete.version) == ("d", 4)
    assert isinstance(promote, PromoteModel)
    assert (promote.name, promote.version) == ("p", 5)
    assert isinstance(show, ShowCreate)
    assert (show.what, show.name) == ("TABLE", "s")


def test_copy_tells_rows_from_paths() -> None:
    rows, glob = parse("""COPY t FROM ' [ {"a": 1} ]'; COPY t FROM '[a-z]*.csv'""")
    assert isinstance(rows, Copy)
    assert (rows.path, rows.rows_json) == (None, ' [ {"a": 1} ]')
    assert isinstance(glob, Copy)
    assert (glob.path, glob.rows_json) == ("[a-z]*.csv", None)


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ("", "fail"),
        ("OPTIONS (overwrite=True)", "replace"),
        ("OPTIONS (overwrite=False)", "fail"),
        ("OPTIONS (if_exists='append')", "append"),
        ("OPTIONS (if_exists='replace', overwrite=True)", "replace"),
    ],
)
def test_copy_mode(options: str, mode: str) -> None:
    (statement,) = parse(f"COPY t {options} FROM 'x.csv'")
    assert isinstance(statement, Copy)
    assert statement.mode == mode


def test_bodies_of_create_table() -> None:
    text = (
        "CREATE TABLE a AS SELECT 1; CREATE TABLE b AS ((PREDICT USING m AS FROM t));"
        "CREATE TABLE c AS EVALUATE USING m AS FROM t; CREATE TABLE d AS CONVERT USING m AS FROM t;"
        "CREATE TABLE e AS SEARCH KEYWORD USING m AS FROM t; CREATE OR REPLACE TABLE f AS (PREDICT USING m AS FROM t) LIMIT 3"
    )
    bodies = []
    for statement in parse(text):
        assert isinstance(statement, CreateTableAs)
        bodies.append(type(statement.body))
    assert bodies == [Query, Predict, Evaluate, Convert, Search, Query]


def test_explain_is_plan_before_a_statement_and_duckdbs_before_a_query() -> None:
    plan, explain, tokens, nested = parse(
        "EXPLAIN BUILD MODEL m USING b AS FROM t; EXPLAIN SELECT 1; EXPLAIN PREDICT USING m AS FROM t; PLAN PREDICT USING m AS FROM t"
    )
    assert isinstance(plan, Plan)
    assert isinstance(plan.statement, BuildModel)
    assert plan.text == "EXPLAIN BUILD MODEL m USING b AS FROM t"
    assert isinstance(explain, QueryStatement)
    assert isinstance(tokens, ExplainPredict)
    assert tokens.options.value("top_k") == 10
    assert isinstance(nested, Plan)
    assert isinstance(nested.statement, Predict)


def test_expect() -> None:
    (statement,) = parse("EXPECT (a) > (SELECT max(x) FROM t JOIN u ON t.i = u.i) ON reviews")
    assert isinstance(statement, Expect)
    assert statement.condition == "(a) > (SELECT max(x) FROM t JOIN u ON t.i = u.i)"
    assert statement.table == "reviews"


NESTED = """SELECT *
FROM (PREDICT USING m AS
      SELECT * FROM (LIST TABLE) WHERE rows > 3) AS 예측,
     ( EVALUATE USING n AS FROM t ) e
WHERE x = '(PREDICT USING m AS SELECT 1)' -- (PREDICT USING z AS SELECT 1)
"""


def test_nested_statements() -> None:
    (statement,) = parse(NESTED)
    assert isinstance(statement, QueryStatement)
    predict, evaluate = statement.query.nested
    assert isinstance(predict.statement, Predict)
    assert isinstance(evaluate.statement, Evaluate)
    assert predict.span.slice(NESTED).startswith("(PREDICT")
    assert evaluate.span.slice(NESTED) == "( EVALUATE USING n AS FROM t )"
    (listing,) = predict.statement.query.nested
    assert isinstance(listing.statement, ListItems)
    assert listing.statement.what == "TABLE"
    assert predict.statement.query.text == "SELECT * FROM (LIST TABLE) WHERE rows > 3"


def test_rendering_replaces_nested_statements_and_keeps_the_rest() -> None:
    (statement,) = parse("  " + NESTED)
    assert isinstance(statement, QueryStatement)
    rendered = statement.query.render(["p 1", 'e"2'])
    assert rendered.text == (
        'SELECT *\nFROM (FROM "p 1") AS 예측,\n     (FROM "e""2") e\n'
        "WHERE x = '(PREDICT USING m AS SELECT 1)'"
    )
    source = statement.source
    for word in ("SELECT", "예측", "e\nWHERE", "x ="):
        there = rendered.text.index(word)
        assert source[rendered.to_source(there) :].startswith(word)
    inside = rendered.text.index("p 1")
    assert source[rendered.to_source(inside) :].startswith("(PREDICT USING m AS\n")
    with pytest.raises(ValueError, match="2 names"):
        statement.query.render(["one"])


def test_a_query_that_is_a_statement_without_parentheses() -> None:
    (statement,) = parse("EVALUATE USING m AS PREDICT USING n AS SELECT * FROM t")
    assert isinstance(statement, Evaluate)
    (inner,) = statement.query.nested
    assert isinstance(inner.statement, Predict)
    assert statement.query.render(["x"]).text == '(FROM "x")'


def test_render_without_nested_is_the_text() -> None:
    (statement,) = parse(" SELECT 1 /* end */ ")
    assert isinstance(statement, QueryStatement)
    rendered = statement.query.render()
    assert rendered.text == "SELECT 1"
    assert [rendered.to_source(0), rendered.to_source(7)] == [1, 8]


def test_deep_nesting_is_accepted_and_endless_nesting_refused() -> None:
    def nest(depth: int) -> str:
        return "SELECT * FROM " + "(PREDICT USING m AS FROM " * depth + "t" + ")" * depth

    (statement,) = parse(nest(30))
    assert statement.canonical().count("PREDICT") == 30
    with pytest.raises(Exception, match=re.escape("nested more than")):
        parse(nest(100))


def test_spans_are_of_the_whole_text() -> None:
    text = "SELECT 1; SELECT 2"
    assert [statement.span for statement in parse(text)] == [Span(0, 8), Span(10, 18)]
    assert all(statement.source is text for statement in parse(text))
