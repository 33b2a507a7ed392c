"""Tokens."""

from __future__ import annotations

import pytest

from thano_assets.errors import SyntaxProblem
from thano_assets.sql.lexer import NUMBER, OPERATOR, PARAMETER, QUOTED, STRING, WORD, TokenKind, tokenize


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("abc", WORD, "abc"),
        ("_a1$", WORD, "_a1$"),
        ("영화_리뷰", WORD, "영화_리뷰"),
        ("café", WORD, "café"),
        ('"a ""b"" c"', QUOTED, 'a "b" c'),
        ("''", STRING, ""),
        ("'it''s'", STRING, "it's"),
        ("'a\nb'", STRING, "a\nb"),
        ("'back\\slash'", STRING, "back\\slash"),
        (r"E'\'\n\x41\u00e9\\'", STRING, "'\nAé\\"),
        (r"e'it''s'", STRING, "it's"),
        ("x'0fF'", STRING, "0fF"),
        ("$$a'b$$", STRING, "a'b"),
        ("$q$a$$b$q$", STRING, "a$$b"),
        ("12", NUMBER, "12"),
        ("1_000.5e-3", NUMBER, "1_000.5e-3"),
        (".5", NUMBER, ".5"),
        ("5.", NUMBER, "5."),
        ("0xFF", NUMBER, "0xFF"),
        ("$1", PARAMETER, "$1"),
        ("$name", PARAMETER, "$name"),
        ("?", PARAMETER, "?"),
        ("->>", OPERATOR, "->>"),
        ("::", OPERATOR, "::"),
    ],
)
def test_one_token(text: str, kind: TokenKind, value: str) -> None:
    (token,) = tokenize(text)
    assert (token.kind, token.value, token.start, token.end) == (kind, value, 0, len(text))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("a--b\nc", ["a", "c"]),
        ("a/*b/*c*/d*/e", ["a", "e"]),
        ("a\u3000b\xa0c\ufeff", ["a", "b", "c"]),
        ("a=-1", ["a", "=", "-", "1"]),
        ("a!=-1", ["a", "!=", "-", "1"]),
        ("x[1:-1]", ["x", "[", "1", ":", "-", "1", "]"]),
        ("t.*,a.b", ["t", ".", "*", ",", "a", ".", "b"]),
        ("m@champion", ["m", "@", "champion"]),
        ("a->>'$.x'::INT", ["a", "->>", "'$.x'", "::", "INT"]),
        ("'a''b''' 'c'", ["'a''b'''", "'c'"]),
        ("name'x'", ["name", "'x'"]),
        ("text_col='review'", ["text_col", "=", "'review'"]),
        ("E-1", ["E", "-", "1"]),
        ("a- -b", ["a", "-", "-", "b"]),
        ("OPTIONS(overwrite=True)", ["OPTIONS", "(", "overwrite", "=", "True", ")"]),
    ],
)
def test_sequences(text: str, tokens: list[str]) -> None:
    found = tokenize(text)
    assert [token.text for token in found] == tokens
    assert [text[token.start : token.end] for token in found] == tokens


def test_a_string_is_never_a_keyword() -> None:
    assert [token.upper for token in tokenize("select 'FROM' \"FROM\" ( 5")] == ["SELECT", "", "", "(", ""]


@pytest.mark.parametrize(
    ("text", "offset"),
    [("a 'b", 2), ('a "b', 2), ("a $x$ b $$", 2), ("a /* /* */", 2), ("a E'b\\'", 2), ("a “b”", 2)],
)
def test_what_is_never_closed(text: str, offset: int) -> None:
    with pytest.raises(SyntaxProblem) as caught:
        tokenize(text)
    assert (caught.value.line, caught.value.column) == (1, offset + 1)
