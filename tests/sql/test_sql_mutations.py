"""Statements changed at random: whatever comes, the answer is a statement or a sentence about the text.

Three thousand by default; ``THANO_MUTATIONS=200000 pytest tests/sql/test_sql_mutations.py`` takes that many.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from thano_assets.errors import ThanoError
from thano_assets.sql import parse
from thano_assets.sql.lexer import tokenize

COUNT = int(os.environ.get("THANO_MUTATIONS", "3000"))
FIXTURES = Path(__file__).with_name("fixtures")
PIECES = [
    *(
        "(",
        ")",
        "'",
        '"',
        ";",
        ",",
        "$$",
        "--",
        "/*",
        "*/",
        "[",
        "]",
        "{",
        "}",
        "=",
        ":",
        "@",
        ".",
        "\\",
        "%",
    ),
    *(
        "SELECT",
        "FROM",
        "USING",
        "OPTIONS (",
        "AS",
        "WITH x AS (",
        "PREDICT USING m AS",
        "LIST MODEL",
        "VERSION",
    ),
    *("9" * 5000, "0x" + "f" * 5000, "1e999999", "-1", "NULL", "None", "'" * 7, "(" * 100, "[" * 200),
    *("\x00", "\x07", "\ud800", "\u200b", "\ufeff", "가", "“", "é", "\r", "\u2028", "x" * 300),
]


def statements() -> list[str]:
    lines = [
        line
        for name in ("accepted.txt", "refused.txt")
        for line in (FIXTURES / name).read_text("utf-8").split("\n")
    ]
    return [line for line in lines if line.strip() and not line.startswith("#")]


def mutated(chance: random.Random, texts: list[str]) -> str:
    text = chance.choice(texts)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(text) + 1)
        end = min(len(text), place + chance.randint(0, 12))
        match chance.randrange(6):
            case 0:
                text = text[:place] + text[end:]
            case 1:
                text = text[:place] + chance.choice(PIECES) + text[place:]
            case 2:
                text = text[:place] + chance.choice(PIECES) + text[end:]
            case 3:
                text = text[:place] + text[place:end] * chance.randint(2, 50) + text[end:]
            case 4:
                other = chance.choice(texts)
                text = text[:place] + other[chance.randrange(len(other) + 1) :]
            case _:
                text = text[:place] + chr(chance.randrange(0x110000)) + text[end:]
    return text


@pytest.mark.parametrize("part", range(4))
def test_only_sentences_come_back(part: int) -> None:
    chance, texts = random.Random(part), statements()
    for _ in range(COUNT // 4):
        text = mutated(chance, texts)
        try:
            for statement in parse(text):
                canonical = statement.canonical()
                assert parse(canonical)[0].canonical() == canonical, text
        except ThanoError as error:
            told = error.pretty()
            if not error.message or error.message not in told:
                pytest.fail(f"{text!r}: {told!r}")


@pytest.mark.parametrize(
    "text",
    [
        "DELETE MODEL m VERSION " + "9" * 5000,
        "PREDICT USING m VERSION 99999999999999999999 AS SELECT 'a' AS text",
        "BUILD MODEL m USING ElectraEn OPTIONS (epochs=0x" + "f" * 5000 + ") AS SELECT 1",
        "BUILD MODEL m USING ElectraEn OPTIONS (epochs=" + "[" * 5000 + ") AS SELECT 1",
        "SELECT '\udcff'",
        "COPY t FROM '\udcff.csv'",
        "SELECT \x00 1",
        "CREATE TABLE \x01t AS SELECT 1",
    ],
)
def test_what_python_itself_would_stumble_over_gets_a_sentence(text: str) -> None:
    with pytest.raises(ThanoError) as caught:
        parse(text)
    assert caught.value.line == 1


def test_deep_sums_and_wide_joins_are_read() -> None:
    from thano_assets.sql.reads import tables_read

    assert tables_read("SELECT " + " + ".join(["1"] * 900) + " FROM t").names() == ["t"]
    wide = ", ".join(f"t{number}" for number in range(1200))
    assert len(tables_read(f"SELECT * FROM {wide}").names()) == 1200


def test_long_texts_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that grows with the square of a text shows in the number of looks, whatever the machine's speed."""
    from thano_assets.sql.cursor import Cursor

    looks = 0
    before = Cursor.sees_at

    def counting(self: Cursor, index: int, *words: str) -> bool:
        nonlocal looks
        looks += 1
        return before(self, index, *words)

    monkeypatch.setattr(Cursor, "sees_at", counting)
    counts = []
    for size in (2_000, 4_000):
        looks = 0
        with pytest.raises(ThanoError):
            parse("SELECT " + "1, " * size + " FROM FROM")
        counts.append(looks)
    assert counts[1] < 2.2 * counts[0] + 100
    assert len(tokenize("SELECT 1;" * 1000)) == 3000


def test_no_setting_is_advised() -> None:
    with pytest.raises(ThanoError) as caught:
        parse("SELECT " + "(" * 1200 + "1" + ")" * 1200)
    assert "SET " not in caught.value.message
    assert caught.value.message.endswith("exceeded.")
