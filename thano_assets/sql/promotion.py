"""``promote_if``: the condition under which a new version becomes the champion.

::

    condition := comparison {AND comparison}
    comparison := metric operator value
    operator := '>=' | '>' | '<=' | '<' | '='
    value := number | champion [('+' | '-') number]
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from thano_assets.errors import InvalidOption, did_you_mean
from thano_assets.sql.base_names import build_kind
from thano_assets.sql.grammar import CHAMPION
from thano_assets.sql.options import Options

#: What a condition may compare, in the words of the result; ``log_loss`` is another name of ``loss``.
METRICS = ("accuracy", "f1_macro", "precision_macro", "recall_macro", "loss", "roc_auc")
#: The same for models that predict numbers.
REGRESSION_METRICS = ("mae", "rmse", "r2")
#: What counts where only ``evaluate_on`` is given.
DEFAULT_CONDITION = "f1_macro >= champion"
REGRESSION_CONDITION = "rmse <= champion"

_ALIASES = {"log_loss": "loss"}
_EXAMPLE = f"Write for example '{DEFAULT_CONDITION}' or 'accuracy >= 0.9 AND loss <= champion + 0.01'."
_REGRESSION_EXAMPLE = f"Write for example '{REGRESSION_CONDITION}' or 'r2 >= 0.8 AND mae <= champion + 0.5'."
_REGRESSION = build_kind("AutomlRegressor")
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)"
    r"|(?P<word>[^\W\d]\w*)|(?P<sign>>=|<=|>|<|=|\+|-))"
)
_OPERATORS = (">=", ">", "<=", "<", "=")
# Scores are sums of many roundings: what differs by less is the same.
_SAME = 1e-9


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison of a condition: ``metric`` ``operator`` champion's + ``number``, or ``number`` alone."""

    metric: str
    operator: str
    against_champion: bool
    number: float

    def limit(self, champion: Mapping[str, float]) -> float:
        """What the metric is compared with, given the champion's metrics."""
        return self.number + (champion[self.metric] if self.against_champion else 0.0)

    def holds(self, challenger: Mapping[str, float], champion: Mapping[str, float] | None) -> bool:
        """Whether the challenger passes; against a champion that is not there it does.

        A metric that is not defined on the rows (NaN) passes nothing.
        """
        if self.against_champion and champion is None:
            return True
        difference = challenger[self.metric] - self.limit(champion or {})
        if math.isnan(difference):
            return False
        match self.operator:
            case ">=":
                return difference >= -_SAME
            case ">":
                return difference > _SAME
            case "<=":
                return difference <= _SAME
            case "<":
                return difference < -_SAME
        return abs(difference) <= _SAME

    def __str__(self) -> str:
        if not self.against_champion:
            return f"{self.metric} {self.operator} {self.number:.10g}"
        offset = f" {'+' if self.number > 0 else '-'} {abs(self.number):.10g}" if self.number else ""
        return f"{self.metric} {self.operator} {CHAMPION}{offset}"


@dataclass(frozen=True, slots=True)
class Condition:
    """Comparisons that must all hold."""

    comparisons: tuple[Comparison, ...]

    @property
    def metrics(self) -> list[str]:
        """The metrics compared, each once."""
        return list(dict.fromkeys(one.metric for one in self.comparisons))

    def failed(
        self, challenger: Mapping[str, float], champion: Mapping[str, float] | None
    ) -> list[Comparison]:
        """The comparisons that do not hold; none where the challenger may be promoted."""
        return [one for one in self.comparisons if not one.holds(challenger, champion)]

    def __str__(self) -> str:
        return " AND ".join(map(str, self.comparisons))


def condition_of(options: Options) -> Condition | None:
    """The condition that the options of BUILD or FIT MODEL ask for; ``None`` where every new version answers.

    Raises:
        InvalidOption: as :func:`check_promotion` says it; without a place.
    """
    given = options.get("promote_if")
    if given is None and options.get("evaluate_on") is None:
        return None
    regression = options.kind == _REGRESSION
    usual = REGRESSION_CONDITION if regression else DEFAULT_CONDITION
    return read_condition(str(given or usual), regression=regression)


def check_promotion(options: Options, source: str) -> None:
    """Check ``promote_if`` and what must stand beside it.

    Args:
        options: of BUILD or FIT MODEL.
        source: the text that their places count in.

    Raises:
        InvalidOption: the condition is not of the grammar or names no metric, or there are no rows to judge
            by; placed inside the option's text.
    """
    given = options.get("promote_if")
    if given is None:
        return
    place = options.value_span("promote_if")
    # Inside quotes the value stands as it is written, unless quotes are doubled in it.
    inner = place.start + 1 if source[place.start + 1 : place.end - 1] == given else None
    try:
        _Reader(given, regression=options.kind == _REGRESSION).condition()
    except _Misread as error:
        if inner is None:
            raise error.problem.at(source, place.start, len(place)) from None
        raise error.problem.at(source, inner + error.offset, error.length) from None
    if options.get("evaluate_on") is None and options.value("eval_fraction") == 0:
        raise InvalidOption(
            "promote_if has no rows to judge by: eval_fraction=0 holds none out.",
            hint="Name a table by evaluate_on='…', or hold rows out.",
        ).at(source, place.start, len(place))


class _Misread(Exception):  # noqa: N818 - a place inside the condition, before the text around it is known
    def __init__(self, message: str, hint: str, offset: int, length: int) -> None:
        super().__init__(message)
        self.problem = InvalidOption(message, hint=hint)
        self.offset = offset
        self.length = max(1, length)


def read_condition(text: str, *, regression: bool = False) -> Condition:
    """The condition that ``text`` states, of a model that predicts classes or, with ``regression``, numbers.

    Raises:
        InvalidOption: it is not of the grammar, or names a metric that is not computed.
    """
    try:
        return _Reader(text, regression=regression).condition()
    except _Misread as error:
        raise error.problem from None


class _Reader:
    def __init__(self, text: str, *, regression: bool) -> None:
        self.text = text
        self.metrics = REGRESSION_METRICS if regression else METRICS
        self.aliases = {} if regression else _ALIASES
        self.example = _REGRESSION_EXAMPLE if regression else _EXAMPLE
        self.tokens: list[tuple[str, str, int]] = []  # kind, text, offset
        self.position = 0
        offset, end = 0, len(text.rstrip())
        while offset < end:
            match = _TOKEN.match(text, offset)
            if match is None or match.lastgroup is None:
                start = offset + len(text[offset:]) - len(text[offset:].lstrip())
                raise _Misread(f"promote_if cannot hold {text[start]}.", self.example, start, 1)
            self.tokens.append((match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)))
            offset = match.end()

    def condition(self) -> Condition:
        comparisons = [self.comparison()]
        while self.position < len(self.tokens):
            if self.peek().upper() == "OR":
                raise self.problem("promote_if joins comparisons by AND only.")
            if self.peek().upper() != "AND":
                raise self.expected("AND or the end")
            self.position += 1
            comparisons.append(self.comparison())
        return Condition(tuple(comparisons))

    def comparison(self) -> Comparison:
        kind, word, offset = self.token()
        if kind != "word" or word.upper() in ("AND", "OR"):
            raise self.expected("a metric")
        metric = self.aliases.get(word.casefold(), word.casefold())
        if metric not in self.metrics:
            raise _Misread(
                f"promote_if names {word}, which is not a metric.",
                did_you_mean(word, (*self.metrics, *self.aliases), "metrics"),
                offset,
                len(word),
            )
        self.position += 1
        operator = self.peek()
        if operator not in _OPERATORS:
            raise self.expected("one of " + " ".join(_OPERATORS))
        self.position += 1
        if self.peek().casefold() == CHAMPION:
            self.position += 1
            number = 0.0
            if self.peek() in ("+", "-"):
                sign = -1.0 if self.peek() == "-" else 1.0
                self.position += 1
                number = sign * self.number("a number")
            return Comparison(metric, operator, True, number)
        if self.peek() == "-":
            self.position += 1
            return Comparison(metric, operator, False, -self.number("a number"))
        return Comparison(metric, operator, False, self.number(f"{CHAMPION} or a number"))

    def number(self, what: str) -> float:
        kind, text, _ = self.token()
        if kind != "number":
            raise self.expected(what)
        self.position += 1
        return float(text)

    def token(self) -> tuple[str, str, int]:
        if self.position < len(self.tokens):
            return self.tokens[self.position]
        return ("end", "", len(self.text.rstrip()))

    def peek(self) -> str:
        return self.token()[1]

    def expected(self, what: str) -> _Misread:
        kind, text, _ = self.token()
        if kind == "end":
            return self.problem(f"promote_if ends where {what} was expected.")
        return self.problem(f"promote_if expects {what} here, not {text}.")

    def problem(self, message: str) -> _Misread:
        _, text, offset = self.token()
        # At the end the caret stands under the last character.
        at = offset if text else max(0, offset - 1)
        return _Misread(message, self.example, at, len(text))
