"""Text to tokens, by the rules of DuckDB's SQL.

Strings ``'…'`` (``''`` is a quote), ``E'…'`` with backslashes, ``x'…'``, ``$tag$…$tag$``; identifiers
``"…"`` or any letters, Korean ones included; ``-- …`` and nested ``/* … */`` comments.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from thano_assets.errors import SyntaxProblem


class TokenKind(Enum):
    """What a token is."""

    WORD = "word"
    QUOTED = "quoted identifier"
    STRING = "string"
    NUMBER = "number"
    PARAMETER = "parameter"
    OPERATOR = "operator"


WORD = TokenKind.WORD
QUOTED = TokenKind.QUOTED
STRING = TokenKind.STRING
NUMBER = TokenKind.NUMBER
PARAMETER = TokenKind.PARAMETER
OPERATOR = TokenKind.OPERATOR


@dataclass(slots=True)
class Token:
    """One token; ``start`` and ``end`` are 0-based, half-open character offsets into the whole text.

    ``upper`` is the keyword form of a word, the character of an operator, and ``""`` for everything
    else, so that comparing it never mistakes a string for a keyword.
    """

    kind: TokenKind
    text: str
    upper: str
    start: int
    end: int

    @property
    def value(self) -> str:
        """What the token says: a string or quoted identifier without its quotes and escapes."""
        if self.kind is QUOTED:
            return self.text[1:-1].replace('""', '"')
        if self.kind is STRING:
            return _string_value(self.text)
        return self.text


_OPERATOR_LIST = """
    ->> -> :: := => == <= >= <> != ** // || && << >> @> <@ ^@ ~~ ~~* ~~~ !~~ !~~* !~~~ ~* !~ !~*
    <-> <=> <#> @@ &&& |> ... ..
"""
# Longest first, so that alternation finds the longest operator.
_OPERATORS = sorted(
    _OPERATOR_LIST.split(),
    key=len,
    reverse=True,
)

_TOKEN = re.compile(
    r"""
      (?P<control>[\x01-\x08\x0e-\x1f\x7f])
    | (?P<space>[\s\ufeff\u200b]+)
    | (?P<line_comment>--[^\r\n]*)
    | (?P<block_comment>/\*)
    | (?P<curly>[“”„‟‘’‚‛])
    | (?P<escape_string>[eE]'(?:[^'\\]|\\.|'')*')
    | (?P<string>[xXbB]?'(?:[^']|'')*')
    | (?P<open_string>[eExXbB]?')
    | (?P<quoted>"(?:[^"]|"")*")
    | (?P<open_quoted>")
    | (?P<dollar>\$(?:(?:[A-Za-z_]|[^\x00-\x7f\s])(?:[A-Za-z0-9_]|[^\x00-\x7f\s])*)?\$)
    | (?P<parameter>\$\w+|\?\d*)
    | (?P<number>0[xX][0-9a-fA-F_]+|0[bB][01_]+|(?:\d[\d_]*(?:\.(?!\.)\d*)?|\.\d[\d_]*)(?:[eE][+-]?\d+)?)
    | (?P<word>(?:[A-Za-z_]|[^\x00-\x7f\s])(?:[A-Za-z0-9_$]|[^\x00-\x7f\s\u200b\ufeff“”‘’])*)
    | (?P<operator>"""
    + "|".join(re.escape(operator) for operator in _OPERATORS)
    + r"""|[^\s])
    """,
    re.VERBOSE | re.DOTALL,
)

_KINDS = {
    "escape_string": STRING,
    "string": STRING,
    "quoted": QUOTED,
    "parameter": PARAMETER,
    "number": NUMBER,
    "word": WORD,
    "operator": OPERATOR,
}


def tokenize(text: str) -> list[Token]:
    """The tokens of ``text``, white space and comments left out.

    Raises:
        SyntaxProblem: a string, quoted identifier or comment is never closed, or curly quotes stand
            where quotation marks must.
    """
    _check_characters(text)
    tokens: list[Token] = []
    position = 0
    end = len(text)
    match_at = _TOKEN.match
    while position < end:
        match = match_at(text, position)
        # The last alternative takes any character that is not white space, which the first takes.
        assert match is not None
        group = match.lastgroup or ""
        stop = match.end()
        kind = _KINDS.get(group)
        if kind is not None:
            piece = match.group()
            upper = piece.upper() if kind is WORD else piece if kind is OPERATOR else ""
            tokens.append(Token(kind, piece, upper, position, stop))
        elif group == "block_comment":
            stop = _comment_end(text, position)
        elif group == "dollar":
            tag = match.group()
            close = text.find(tag, stop)
            if close < 0:
                raise SyntaxProblem(
                    f"The text that begins with {tag} is never closed.", hint=f"End it with {tag}."
                ).at(text, position, len(tag))
            stop = close + len(tag)
            tokens.append(Token(STRING, text[position:stop], "", position, stop))
        elif group == "control":
            raise SyntaxProblem(
                f"The control character U+{ord(match.group()):04X} stands here.", hint="Leave it out."
            ).at(text, position)
        elif group == "open_string":
            raise SyntaxProblem(
                "The text that begins with ' here is never closed.",
                hint="End it with '; a ' inside a text is written twice: 'it''s'.",
            ).at(text, position)
        elif group == "open_quoted":
            raise SyntaxProblem(
                'The name that begins with " here is never closed.', hint='End it with ".'
            ).at(text, position)
        elif group == "curly":
            raise SyntaxProblem(
                f"{match.group()} is not a quotation mark of SQL.",
                hint="Write texts in straight quotes ('…') and names in straight double quotes (\"…\").",
            ).at(text, position)
        position = stop
    return tokens


_NO_CHARACTER = re.compile("[\0\ud800-\udfff]")


def _check_characters(text: str) -> None:
    """Refuse what no text has: a NUL, and half a character, as which bytes that are not UTF-8 arrive.

    Raises:
        SyntaxProblem: with the place.
    """
    found = _NO_CHARACTER.search(text)
    if found is None:
        return
    if found[0] == "\0":
        raise SyntaxProblem("A NUL character stands here.", hint="Leave it out.").at(text, found.start())
    shown = text.encode("utf-8", "replace").decode()
    raise SyntaxProblem(
        "The statement is not UTF-8 from here on.", hint="Save it as UTF-8, or send it so."
    ).at(shown, found.start())


_COMMENT_MARK = re.compile(r"/\*|\*/")


def _comment_end(text: str, start: int) -> int:
    depth = 0
    for mark in _COMMENT_MARK.finditer(text, start):
        depth += 1 if mark.group() == "/*" else -1
        if depth == 0:
            return mark.end()
    raise SyntaxProblem(
        "The comment that begins with /* here is never closed.",
        hint="End it with */; a comment inside a comment needs its own */.",
    ).at(text, start, 2)


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))|''", re.DOTALL)


def _string_value(text: str) -> str:
    if text[0] == "'":
        return text[1:-1].replace("''", "'")
    if text[0] == "$":
        tag = text[: text.index("$", 1) + 1]
        return text[len(tag) : -len(tag)]
    if text[0] in "eE":
        return _ESCAPE.sub(_unescape, text[2:-1])
    return text[2:-1]


def _unescape(match: re.Match[str]) -> str:
    if match.group() == "''":
        return "'"
    digits = match[1] or match[2] or match[3]
    if digits:
        code = int(digits, 16)
        return chr(code) if code <= 0x10FFFF else match.group()
    return _ESCAPES.get(match[4], match[4])
