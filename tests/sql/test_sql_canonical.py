"""The canonical text: the same whatever the way a statement was written, another when it says something else."""

from __future__ import annotations

import random

import pytest
from test_sql_statements import ACCEPTED, SEED

from thano_assets.sql import parse
from thano_assets.sql.lexer import WORD, tokenize
from thano_assets.sql.options import OPTION_SPECS

TEXTS = [text for text, _, _ in ACCEPTED] + SEED
FILLERS = [" ", "\n", "\t ", " -- a 'comment' (\n", " /* b /* ; */ */ ", "\r\n", "\u3000"]
# Words whose case means nothing; names of models and base models are not among them.
KEYWORDS = frozenset(
    [
        "SELECT",
        "FROM",
        "WHERE",
        "AS",
        "USING",
        "BUILD",
        "MODEL",
        "FIT",
        "PREDICT",
        "EVALUATE",
        "CONVERT",
        "SEARCH",
        "TEXT",
        "KEYWORD",
        "LIST",
        "TABLE",
        "THANOSQL",
        "DATASET",
        "GET",
        "DELETE",
        "DROP",
        "CREATE",
        "OR",
        "REPLACE",
        "IF",
        "EXISTS",
        "NOT",
        "COPY",
        "OPTIONS",
        "UPLOAD",
        "PROMOTE",
        "REBUILD",
        "SHOW",
        "LINEAGE",
        "VERSIONS",
        "TRAINING",
        "OF",
        "RUNS",
        "PLAN",
        "EXPLAIN",
        "EXPECT",
        "ON",
        "VERSION",
        "VERIFY",
        "TRUE",
        "FALSE",
        "NONE",
        "JOIN",
        "UNION",
        "ALL",
        "WITH",
        "RECURSIVE",
    ]
)


def canonical(text: str) -> str:
    (statement,) = parse(text)
    return statement.canonical()


@pytest.mark.parametrize("text", TEXTS, ids=[text[:40] for text in TEXTS])
def test_canonical_text_parses_and_is_its_own(text: str) -> None:
    once = canonical(text)
    assert canonical(once) == once


@pytest.mark.parametrize("text", TEXTS, ids=[text[:40] for text in TEXTS])
def test_white_space_comments_and_keyword_case_do_not_matter(text: str) -> None:
    expected = canonical(text)
    dice = random.Random(text)
    for _ in range(5):
        parts = [dice.choice(FILLERS)]
        for token in tokenize(text):
            word = token.kind is WORD and token.upper in KEYWORDS
            parts.append(dice.choice([token.text.lower(), token.upper, token.text]) if word else token.text)
            parts.append(dice.choice(FILLERS))
        assert canonical("".join(parts)) == expected


def test_order_aliases_and_defaults_of_options_do_not_matter() -> None:
    plain = "BUILD MODEL m USING ElectraEn OPTIONS (max_epochs=1, label_col='y') AS SELECT * FROM t"
    variants = [
        "BUILD MODEL m USING ElectraEn OPTIONS (target_col=y, EPOCHS=1) AS SELECT * FROM t",
        "BUILD MODEL m USING ElectraEn OPTIONS (target=\"y\", epochs=1, text_col='text', seed=42,) AS FROM t",
        "BUILD MODEL m USING ElectraEn OPTIONS (label_col='y', max_epochs=1, overwrite=True) AS (SELECT * FROM t)",
    ]
    assert canonical(variants[0]) == canonical(plain)
    assert canonical(variants[1]) == canonical(plain).replace("select * from", "from")
    assert canonical(variants[2]) == canonical(plain)


def test_option_orders_at_random() -> None:
    dice = random.Random(7)
    given = [
        "text_col='a'",
        "label_col='b'",
        "epochs=2",
        "batch_size=3",
        "seed=5",
        "train='head'",
        "baseline=False",
    ]
    texts = set()
    for _ in range(20):
        dice.shuffle(given)
        texts.add(canonical(f"BUILD MODEL m USING b OPTIONS ({', '.join(given)}) AS FROM t"))
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT 'a'", "SELECT 'A'"),
        ("SELECT 'a b'", "SELECT 'a  b'"),
        ("SELECT '-- a'", "SELECT ''"),
        ('SELECT "a"', 'SELECT "A"'),
        ("SELECT a", "SELECT b"),
        ("SELECT 1", "SELECT 1.0"),
        ("SELECT a - -b FROM t", "SELECT a + b FROM t"),
        ("SELECT $$a$$", "SELECT $$b$$"),
        ("BUILD MODEL m USING b AS FROM t", "BUILD MODEL M USING b AS FROM t"),
        ("BUILD MODEL m USING b AS FROM t", "BUILD MODEL m USING B AS FROM t"),
        ("BUILD MODEL m USING b AS FROM t", "BUILD MODEL m USING 'b' AS FROM t"),
        ("BUILD MODEL m USING b AS FROM t", "BUILD MODEL m USING b OPTIONS (seed=1) AS FROM t"),
        ("PREDICT USING m AS FROM t", "PREDICT USING m VERSION 1 AS FROM t"),
        ("PREDICT USING m AS FROM t", "PREDICT USING m@other AS FROM t"),
        ("PREDICT USING m AS FROM t", "PREDICT USING m OPTIONS (text_col='Text') AS FROM t"),
        ("COPY t FROM 'a.csv'", "COPY t FROM 'A.csv'"),
        ("COPY t FROM 'a.csv'", "COPY u FROM 'a.csv'"),
        ("SELECT * FROM (PREDICT USING m AS FROM t)", "SELECT * FROM (PREDICT USING n AS FROM t)"),
        ("(SELECT 1) UNION (SELECT 2)", "SELECT 1 UNION SELECT 2"),
    ],
)
def test_what_does_matter(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT * FROM T", "select*from t"),
        ("SELECT a=-1 FROM t", "SELECT a = - 1 FROM t"),
        ("SELECT 'a'\n'b'", "SELECT 'ab'"),
        ("SELECT 1E5, e'\\n', X'0f'", "SELECT 1e5, E'\\n', x'0f'"),
        ("COPY T FROM 'x'", 'COPY main."t" FROM "x"'),
        ("COPY t OPTIONS (if_exists='replace') FROM 'x'", "COPY t FROM 'x'"),
        ("PREDICT USING m AS FROM t", 'PREDICT USING "m"@CHAMPION AS ((FROM t))'),
        ("CREATE TABLE t AS FROM s", "CREATE OR REPLACE TABLE T AS (FROM s)"),
        (
            "EVALUATE USING m AS PREDICT USING n AS FROM t",
            "EVALUATE USING m AS ((PREDICT USING n AS FROM t))",
        ),
    ],
)
def test_what_does_not_matter(one: str, other: str) -> None:
    assert canonical(one) == canonical(other)


def test_only_what_exists_already_is_left_out() -> None:
    left_out = {name for specs in OPTION_SPECS.values() for name, spec in specs.items() if not spec.identity}
    of_dagster = {"owner", "tags", "group", "fresh_within", "retries"}
    assert left_out == {"overwrite", "if_exists", "schedule", "watch"} | of_dagster


@pytest.mark.parametrize(
    "name", ["plain", "한글", "two words", "a-b", 'q"q', "select", "options", "it's", "1a", "clip"]
)
def test_any_name_survives(name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    (statement,) = parse(f"COPY {quoted} FROM 'x'")
    (again,) = parse(statement.canonical())
    assert (again.table, statement.table) == (name, name)  # type: ignore[attr-defined]
