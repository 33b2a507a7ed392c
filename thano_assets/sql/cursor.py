"""Walking over tokens: the tools that the parser is written with."""

from __future__ import annotations

from typing import TypedDict

from thano_assets.errors import InvalidOption, SyntaxProblem, ThanoError
from thano_assets.sql.grammar import CLAUSE_WORDS, FIRST_WORDS, RESERVED_WORDS, syntax_of
from thano_assets.sql.lexer import NUMBER, OPERATOR, QUOTED, STRING, WORD, Token, tokenize
from thano_assets.sql.objectives import by_objective
from thano_assets.sql.options import GivenOption, Options, find_spec
from thano_assets.sql.promotion import check_promotion
from thano_assets.sql.source import Span
from thano_assets.sql.statements import ModelRef

_CONSTANTS = {"TRUE": True, "FALSE": False, "NONE": None, "NULL": None}
_SCHEMAS = ("main", "public")
_VERSION_DIGITS = 9
_NUMBER_CHARACTERS = 40  # of a number among options: more would lose digits
_DEPTH = 60  # of lists in lists
# Where a name is missing, one of these stands in its place.
_CLAUSE_STARTS = frozenset({"USING", "OPTIONS", "AS", "FROM", "ON"})


#: Bytes that a name may take in the name of a file: systems allow 255, with what is added to it.
LONGEST_NAME = 220
_ESCAPED = frozenset('/\\:*?"<>|%')


def file_name_size(name: str) -> int:
    """Bytes of a name in the name of a file, where some characters are written as three."""
    return len(name.encode("utf-8", "replace")) + 2 * sum(character in _ESCAPED for character in name)


class Common(TypedDict):
    """The fields that every statement has."""

    source: str
    span: Span
    options: Options


class Cursor:
    """A position in the tokens of a text, and the end of the statement that is being read.

    Attributes:
        source: the whole text.
        tokens: all its tokens.
        closing: index of each ``(`` -> index of its ``)``.
        opening: the other way round.
        position: index of the next token.
        end: index after the statement's last token.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.tokens = tokenize(source)
        self.closing = self._match_parentheses()
        self.opening = {close: start for start, close in self.closing.items()}
        self.position = 0
        self.end = len(self.tokens)

    def _match_parentheses(self) -> dict[int, int]:
        closing: dict[int, int] = {}
        opened: list[int] = []
        for index, token in enumerate(self.tokens):
            if token.upper == "(":
                opened.append(index)
            elif token.upper == ")":
                if not opened:
                    raise self.problem(
                        "This ) closes nothing.", token, hint="Leave it out, or open it with (."
                    )
                closing[opened.pop()] = index
            elif token.upper == ";" and opened:
                break
        if opened:
            raise self.problem(
                "This ( is never closed.",
                self.tokens[opened[-1]],
                hint="Close it with ) before the statement ends.",
            )
        return closing

    # Looking

    def peek(self, ahead: int = 0) -> Token | None:
        """The next token but ``ahead``, or ``None`` past the statement's end."""
        index = self.position + ahead
        return self.tokens[index] if index < self.end else None

    def sees(self, *words: str) -> bool:
        """Whether the next tokens are these keywords or operators."""
        return self.sees_at(self.position, *words)

    def sees_at(self, index: int, *words: str) -> bool:
        """Whether the tokens from ``index`` are these keywords or operators."""
        if index + len(words) > self.end:
            return False
        return all(self.tokens[index + offset].upper == word for offset, word in enumerate(words))

    def span(self, first: int, last: int) -> Span:
        """From the start of token ``first`` to the end of the token before ``last``."""
        return Span(self.tokens[first].start, self.tokens[last - 1].end)

    # Taking

    def accept(self, *words: str) -> bool:
        """Step over these keywords if they are next."""
        if self.sees(*words):
            self.position += len(words)
            return True
        return False

    def expect(self, word: str, kind: str) -> Token:
        """Step over the keyword ``word``.

        Raises:
            SyntaxProblem: something else is next.
        """
        if not self.sees(word):
            raise self.expected(word, kind)
        self.position += 1
        return self.tokens[self.position - 1]

    def expect_end(self, kind: str, *, before: str = "") -> None:
        """Check that the statement ends here."""
        token = self.peek()
        if token is not None:
            problem = self.expected(f"{before}the end of the statement (;)", kind)
            if token.upper in FIRST_WORDS:
                problem.hint = f"Is a ; missing before {token.text}? {problem.hint}"
            raise problem

    def finish(self, first: int, options: Options) -> Common:
        """Check that the statement ends here; what it shares with every other.

        Args:
            first: index of its first token.
            options: what it was given.
        """
        self.expect_end(options.kind)
        return {"source": self.source, "span": self.span(first, self.position), "options": options}

    def choice(self, kind: str, *words: str) -> str:
        """Step over one of these keywords.

        Raises:
            SyntaxProblem: something else is next.
        """
        token = self.peek()
        if token is None or token.upper not in words:
            # People say LIST MODELS; the singular is the language's.
            if token is not None and token.kind is WORD and token.upper.removesuffix("S") in words:
                self.position += 1
                return token.upper.removesuffix("S")
            raise self.expected(" or ".join(words), kind)
        self.position += 1
        return token.upper

    def name(self, what: str, kind: str) -> tuple[str, Span]:
        """Step over a name: an unquoted identifier or one in double quotes.

        Raises:
            SyntaxProblem: something else is next; ``what`` says in the sentence what should be.
        """
        token = self.peek()
        if token is None or token.kind not in (WORD, QUOTED):
            problem = self.expected(what, kind)
            if token is not None and token.kind is STRING:
                problem.hint = 'Write names without quotes or in double quotes ("…").'
            raise problem
        if token.upper in RESERVED_WORDS or token.upper in CLAUSE_WORDS:
            problem = self.expected(what, kind)
            if token.upper not in _CLAUSE_STARTS:
                problem.hint = f'A name like this must be in double quotes: "{token.text}". {problem.hint}'
            raise problem
        if not token.value.strip():
            raise self.problem("A name cannot be empty.", token, hint=f"Expected is {what}.")
        if (size := file_name_size(token.value)) > LONGEST_NAME:
            raise self.problem(
                f"The name {token.value[:30]}… takes {size:,} bytes, and names become those of files.",
                token,
                hint=f"Choose one of at most {LONGEST_NAME} bytes; a Korean letter takes three.",
            )
        self.position += 1
        return token.value, Span(token.start, token.end)

    def table(self, kind: str) -> tuple[str, Span]:
        """Step over a table's name, a ``main.`` or ``public.`` before it dropped."""
        first = self.position
        name, span = self.name("the name of a table", kind)
        if self.accept("."):
            schema = name
            name, span = self.name("the name of a table", kind)
            if schema.casefold() not in _SCHEMAS or self.sees("."):
                raise self.problem(
                    f"Table {self.span(first, self.position).slice(self.source)} names a schema.",
                    self.tokens[first],
                    hint=f"All tables are in one schema; write the name alone: {name}.",
                )
        return name, span

    def model(self, kind: str) -> tuple[str, Span]:
        """Step over the name that a model has or gets."""
        name, span = self.name("the name of a model", kind)
        bad = next((char for char in name if char in '/\\:@"' or ord(char) < 32), None)
        if bad is not None or name in (".", ".."):
            raise SyntaxProblem(
                f"A model cannot be named {name!r}.",
                hint='The characters / \\ : @ and " are not for names of models.',
            ).at(self.source, span.start, len(span))
        return name, span

    def model_reference(self, kind: str) -> ModelRef:
        """Step over ``name``, ``name VERSION n`` or ``name@alias``."""
        first = self.position
        token = self.peek()
        quoted = token is not None and token.kind in (STRING, QUOTED)
        if token is not None and token.kind is STRING and token.value.strip():
            name = token.value
            self.position += 1
        else:
            name, _ = self.name("the name of a model", kind)
        version: int | None = None
        alias: str | None = None
        if self.accept("@"):
            if (number := self.peek()) is not None and number.kind is NUMBER:
                problem = self.expected("the name of an alias", kind)
                problem.hint = f"A version is written {name} VERSION {number.text}."
                raise problem
            alias, _ = self.name("the name of an alias", kind)
        elif self.sees("VERSION"):
            version = self.version(kind)
        return ModelRef(name, version, alias, self.span(first, self.position), quoted)

    def version(self, kind: str) -> int:
        """Step over ``VERSION n``."""
        self.expect("VERSION", kind)
        token = self.peek()
        number = token.text if token is not None and token.kind is NUMBER else ""
        if not number.isdecimal() or not 0 < len(number.lstrip("0")) <= _VERSION_DIGITS:
            raise self.expected("the number of a version (1, 2, …)", kind)
        self.position += 1
        return int(number)

    def path(self, kind: str) -> tuple[str, Span]:
        """Step over a text in single or double quotes."""
        token = self.peek()
        if token is None or token.kind not in (STRING, QUOTED):
            problem = self.expected("a path in quotes", kind)
            if token is not None and token.kind is WORD:
                problem.hint = f"Write the path in quotes: 'folder/file.csv'. {problem.hint}"
            raise problem
        if not token.value.strip():
            raise self.problem("The path is empty.", token, hint=_form(kind))
        self.position += 1
        return token.value, Span(token.start, token.end)

    # Options

    def options(self, option_kind: str, already: Options | None = None) -> Options:
        """Step over ``OPTIONS (…)`` if it is next.

        Args:
            option_kind: the statement's key in ``OPTION_SPECS``.
            already: the options of the same statement that stood at another place.

        Raises:
            UnknownOption, InvalidOption, SyntaxProblem: with the place of the option.
        """
        if not self.sees("OPTIONS"):
            return already or Options(option_kind)
        if already:
            raise self.problem(
                "OPTIONS stands twice in this statement.", self.tokens[self.position], hint="Join the two."
            )
        self.position += 1
        if not self.sees("("):
            raise self.expected("( after OPTIONS", option_kind)
        close = self.closing[self.position]
        self.position += 1
        given: dict[str, GivenOption] = {}
        while self.position < close:
            self._option(option_kind, given)
            if self.position < close and not self.accept(","):
                raise self.expected(
                    "a comma or ) after the option", option_kind, hint="Options are written name = value, …"
                )
        self.position = close + 1
        options = by_objective(Options(option_kind, given), self.source)
        self._check_together(options)
        return options

    def _option(self, option_kind: str, given: dict[str, GivenOption]) -> None:
        key = self.tokens[self.position]
        if key.kind not in (WORD, QUOTED):
            raise self.expected(
                "the name of an option", option_kind, hint="Options are written name = value, …"
            )
        try:
            spec = find_spec(option_kind, key.value)
        except ThanoError as error:
            raise error.at(self.source, key.start, len(key.text)) from None
        self.position += 1
        if not self.sees("="):
            raise self.expected(
                f"= after {key.text}", option_kind, hint="Options are written name = value, …"
            )
        self.position += 1
        first = self.position
        value = self._value(option_kind, key.text)
        where = self.span(first, self.position)
        if spec.name in given:
            spellings = sorted({given[spec.name].spelling, key.value})
            also = f" (as {' and as '.join(spellings)})" if len(spellings) > 1 else ""
            raise InvalidOption(
                f"Option {spec.name} of {option_kind} is given twice{also}.", hint="Leave one of them out."
            ).at(self.source, key.start, len(key.text))
        try:
            checked = spec.check(value, option_kind)
        except ThanoError as error:
            raise error.at(self.source, where.start, len(where)) from None
        given[spec.name] = GivenOption(checked, key.value, Span(key.start, key.end), where)

    def _value(self, kind: str, key: str, depth: int = 0) -> object:
        token = self.peek()
        what = f"the value of {key}"
        hint = (
            "Values are 'text', numbers, True, False, None, names, lists like [1, 2] and {'name': 'value'}."
        )
        if token is None or depth > _DEPTH:
            raise self.expected(what, kind, hint=hint)
        if token.upper == "[":
            self.position += 1
            items: list[object] = []
            while not self.accept("]"):
                items.append(self._value(kind, key, depth + 1))
                if not self.sees("]") and not self.accept(","):
                    raise self.expected(f"a comma or ] in {what}", kind, hint=hint)
            return items
        if token.upper == "{":
            self.position += 1
            pairs: dict[str, object] = {}
            while not self.accept("}"):
                name = self.peek()
                if name is None or name.kind not in (STRING, QUOTED, WORD):
                    raise self.expected(f"a name in {what}", kind, hint=hint)
                if name.value in pairs:
                    raise self.problem(f"{name.value} stands twice in {what}.", name, hint="Leave one out.")
                self.position += 1
                if not self.accept(":"):
                    raise self.expected(f": in {what}", kind, hint=hint)
                pairs[name.value] = self._value(kind, key, depth + 1)
                if not self.sees("}") and not self.accept(","):
                    raise self.expected(f"a comma or }} in {what}", kind, hint=hint)
            return pairs
        if token.kind in (STRING, QUOTED):
            self.position += 1
            return token.value
        if token.kind is WORD:
            self.position += 1
            return _CONSTANTS.get(token.upper, token.text)
        sign = 1
        if token.upper in ("-", "+"):
            sign = -1 if token.upper == "-" else 1
            self.position += 1
            token = self.peek()
        if token is None or token.kind is not NUMBER:
            raise self.expected(what, kind, hint=hint)
        number = _number(token.text)
        if number is None:
            raise self.expected(what, kind, hint=hint)
        self.position += 1
        return sign * number

    def _check_together(self, options: Options) -> None:
        """What one option alone cannot tell."""

        def refuse(name: str, message: str, hint: str) -> None:
            place = options.value_span(name)
            raise InvalidOption(message, hint=hint).at(self.source, place.start, len(place))

        kind = options.kind
        if kind == "COPY" and "overwrite" in options and "if_exists" in options:
            overwrite, if_exists = options["overwrite"], options["if_exists"]
            if overwrite != (if_exists == "replace"):
                refuse(
                    "overwrite",
                    f"overwrite={overwrite} and if_exists='{if_exists}' contradict each other.",
                    "overwrite=True means if_exists='replace'; leave one of them out.",
                )
        text_col, label_col = options.get("text_col"), options.get("label_col")
        if text_col is not None and label_col is not None and text_col.casefold() == label_col.casefold():
            refuse(
                "label_col",
                f"text_col and label_col are both '{label_col}'.",
                "One is the column with the text, the other the column with its label.",
            )
        dropped = {name.casefold() for name in options.get("features_to_drop") or ()}
        if dropped and str(options.value("label_col")).casefold() in dropped:
            refuse(
                "features_to_drop",
                f"features_to_drop names {options.value('label_col')}, the label_col.",
                "The column that is predicted is not learnt from anyway; leave it out of the list.",
            )
        for name in options.get("datetime_attribs") or ():
            if name.casefold() in dropped:
                refuse(
                    "datetime_attribs",
                    f"{name} stands in datetime_attribs and in features_to_drop.",
                    "Name it in one of them.",
                )
        if "promote_if" in options:
            check_promotion(options, self.source)
        low_high = options.get("ngram_range")
        if low_high is not None and low_high[0] > low_high[1]:
            refuse(
                "ngram_range",
                f"ngram_range begins with {low_high[0]}, more than it ends with.",
                "Write [1, 2].",
            )

    # Saying what is wrong

    def problem(self, message: str, token: Token, *, hint: str | None = None) -> SyntaxProblem:
        """A syntax error at ``token``."""
        return SyntaxProblem(message, hint=hint).at(self.source, token.start, token.end - token.start)

    def expected(self, what: str, kind: str, *, hint: str | None = None) -> SyntaxProblem:
        """A syntax error at the next token: what was expected there, and the form of the statement."""
        token = self.peek()
        hint = hint or _form(kind)
        if token is None:
            last = self.tokens[self.end - 1]
            return SyntaxProblem(
                f"Expected {what} after {_quote(last)}, but the statement ends.", hint=hint
            ).at(self.source, last.end)
        before = self.tokens[self.position - 1] if self.position else None
        if (
            before
            and before.kind is WORD
            and before.end == token.start
            and token.text in ("-", "/", ".", ":")
        ):
            hint = f"A name with {token.text} in it must be in quotes. {hint}"
        return self.problem(f"Expected {what} here, not {_quote(token)}.", token, hint=hint)


def _form(kind: str) -> str:
    return f"The statement is: {syntax_of(kind)}"


def _quote(token: Token) -> str:
    text = token.text if len(token.text) <= 40 else token.text[:37] + "…"
    return text if token.kind in (STRING, QUOTED, OPERATOR) else f'"{text}"'


def _number(text: str) -> int | float | None:
    if len(text) > _NUMBER_CHARACTERS:
        return None
    try:
        return int(text, 0) if text[:2].lower() in ("0x", "0b") else int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return None
