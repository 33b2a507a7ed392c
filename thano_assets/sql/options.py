"""What every statement accepts in ``OPTIONS (…)``: the single source.

:data:`OPTION_SPECS` feeds the parser's checks, the command line's help, ``docs/language.md`` (see
:mod:`thano_assets.sql.reference`) and the tests. :class:`Options` holds what one statement was given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Any, Literal

from thano_assets.errors import InvalidOption, UnknownOption, did_you_mean
from thano_assets.sql.base_names import TABLE_BASES, build_kind
from thano_assets.sql.cron import cron_problem
from thano_assets.sql.source import Span

OptionType = Literal[
    "text", "column", "columns", "integer", "number", "boolean", "choice", "integers", "cron"
]

_TYPE_WORDS: dict[OptionType, str] = {
    "text": "text in quotes",
    "column": "the name of a column",
    "columns": "a list of names of columns",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "True or False",
    "choice": "one of a list",
    "integers": "a list of whole numbers",
    "cron": "a cron expression of five fields, such as '0 3 * * 1', or @hourly, @daily, @weekly, "
    "@monthly or @yearly",
}


@dataclass(frozen=True, slots=True)
class OptionSpec:
    """One option of one kind of statement.

    Attributes:
        name: the canonical name.
        type: what kind of value it takes.
        doc: one sentence for the reference and ``--help``.
        default: what counts when it is not given. ``None`` is always also a legal value then, and
            means that the engine decides (see ``doc``).
        aliases: other spellings.
        choices: the legal values of a ``choice``.
        minimum: smallest legal number (of each element, for a list).
        maximum: largest legal number.
        above: the number must be larger than this.
        below: the number must be smaller than this.
        length: the number of elements that a list must have.
        available: whether the engine acts on it already; the session refuses the others, which are known
            and checked all the same.
        identity: whether it says what the statement makes. Those that only say what to do with what exists
            already (``overwrite``, ``if_exists``) are left out of the canonical text.
    """

    name: str
    type: OptionType
    doc: str
    default: Any = None
    aliases: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    below: float | None = None
    length: int | None = None
    available: bool = True
    identity: bool = True

    @property
    def allowed(self) -> str:
        """What the option accepts, in words: ``a whole number of at least 1``."""
        if self.type == "choice":
            text = " or ".join(f"'{choice}'" for choice in self.choices)
        else:
            text = _TYPE_WORDS[self.type]
            if self.length is not None:
                text = text.replace("a list of", f"a list of {self.length}", 1)
            text += self._range()
        return text + (" (or None)" if self.default is None else "")

    def _range(self) -> str:
        bounds = []
        if self.minimum is not None and self.maximum is not None:
            return f" from {self.minimum:.10g} to {self.maximum:.10g}"
        if self.minimum is not None:
            bounds.append(f"of at least {self.minimum:.10g}")
        if self.above is not None:
            bounds.append(f"above {self.above:.10g}")
        if self.maximum is not None:
            bounds.append(f"at most {self.maximum:.10g}")
        if self.below is not None:
            bounds.append(f"below {self.below:.10g}")
        return " " + " and ".join(bounds) if bounds else ""

    def check(self, value: Any, statement: str) -> Any:
        """The value in the option's own type (lists become tuples).

        Raises:
            InvalidOption: the value has another type or is out of range; the error has no place yet.
        """
        if value is None and self.default is None:
            return None
        problem = InvalidOption(
            f"Option {self.name} of {statement} was given {_shown(value)}.",
            hint=f"Allowed is {self.allowed}.",
        )
        match self.type:
            case "boolean":
                if isinstance(value, bool):
                    return value
            case "text" | "column":
                if _is_name(value):
                    return value
            case "cron":
                if isinstance(value, str):
                    reason = cron_problem(value)
                    if reason is None:
                        return " ".join(value.split())
                    problem.message = f"Option {self.name} of {statement}: {reason}."
            case "choice":
                if isinstance(value, str):
                    for choice in self.choices:
                        if choice.casefold() == value.strip().casefold():
                            return choice
                    close = _closest(value, self.choices)
                    if close:
                        problem.hint = f"Did you mean '{close}'? {problem.hint}"
            case "integer":
                if type(value) is int and self._in_range(value):
                    return value
            case "number":
                if type(value) in (int, float) and self._in_range(value):
                    return float(value)
            case "columns":
                if isinstance(value, (list, tuple)) and value and all(map(_is_name, value)):
                    return tuple(value)
            case "integers":
                if isinstance(value, (list, tuple)) and self._holds_integers(value):
                    return tuple(value)
        raise problem

    def _holds_integers(self, values: Sequence[Any]) -> bool:
        whole = all(type(item) is int and self._in_range(item) for item in values)
        return whole and (self.length is None or len(values) == self.length)

    def _in_range(self, number: float) -> bool:
        return (
            number == number  # not NaN
            and abs(number) != float("inf")
            and (self.minimum is None or number >= self.minimum)
            and (self.maximum is None or number <= self.maximum)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value


_TEXT_COL = OptionSpec("text_col", "column", "The column that holds the text.", default="text")
_LABEL_COL = OptionSpec(
    "label_col",
    "column",
    "The column that holds the true label.",
    default="label",
    aliases=("target", "target_col"),
)
_BATCH_SIZE_ENGINE = OptionSpec(
    "batch_size",
    "integer",
    "Texts that the model reads at a time; by default batches are filled by their number of tokens.",
    minimum=1,
)
_OVERWRITE_MODEL = OptionSpec(
    "overwrite",
    "boolean",
    "Add a version when a model of that name exists; with False an existing name is an error. "
    "No version is ever erased.",
    default=False,
    identity=False,
)
_SCHEDULE = OptionSpec(
    "schedule",
    "cron",
    "When Dagster shall look by itself, as long as `thano ui` runs: what is out of date by then is made "
    "again, the table or model and what it stands on, and nothing else. The time zone is `timezone` under "
    "`[dagster]` in thano.toml.",
    identity=False,
)
_OBJECTIVE = OptionSpec(
    "objective",
    "choice",
    "What is learned: labels, or ELECTRA's own pre-training on unlabelled text, which makes a base model.",
    default="classification",
    choices=("classification", "replaced_token_detection"),
)
_STRICT = OptionSpec(
    "strict",
    "boolean",
    "Make it an error when evaluated rows were among the model's training rows.",
    default=False,
)

_TRAINING = (
    _TEXT_COL,
    _LABEL_COL,
    OptionSpec(
        "max_epochs",
        "integer",
        "How often training goes through all the rows.",
        default=3,
        aliases=("epochs",),
        minimum=1,
        maximum=10_000,
    ),
    OptionSpec("batch_size", "integer", "Texts in one step of training.", default=16, minimum=1),
    OptionSpec(
        "learning_rate",
        "number",
        "Peak learning rate; by default the one that suits the base model's size.",
        above=0,
        maximum=1,
    ),
    OptionSpec(
        "max_length",
        "integer",
        "Tokens of a text that the model reads; by default as the base model and the texts need.",
        minimum=4,
        maximum=8192,
    ),
    OptionSpec(
        "eval_fraction",
        "number",
        "Share of the rows that is held out, stratified by label, to measure the model.",
        default=0.1,
        minimum=0,
        below=1,
    ),
    OptionSpec(
        "seed",
        "integer",
        "Seed of the hold-out, the shuffling and the new weights.",
        default=42,
        minimum=0,
        maximum=2**32 - 1,
    ),
    _OVERWRITE_MODEL,
    OptionSpec(
        "early_stopping",
        "integer",
        "Stop after so many epochs in a row without a better score on the hold-out.",
        minimum=1,
    ),
    OptionSpec(
        "class_weight",
        "choice",
        "'balanced' gives every class the same weight in the loss, however few its rows.",
        choices=("balanced",),
    ),
    OptionSpec("base_revision", "text", "Revision (commit or tag) of the base model on the hub."),
    OptionSpec(
        "baseline",
        "boolean",
        "Also fit TF-IDF with logistic regression on the same rows, to compare.",
        default=True,
    ),
    OptionSpec(
        "train",
        "choice",
        "'full' fine-tunes all weights; 'head' trains a classifier on frozen embeddings.",
        default="full",
        choices=("full", "head"),
    ),
    _OBJECTIVE,
    OptionSpec(
        "tune",
        "integer",
        "Try so many settings of learning rate, epochs and length, judged on rows of their own split off the "
        "training rows, then train with the best on all of them; what OPTIONS gives is not searched.",
        minimum=2,
        maximum=200,
    ),
    _SCHEDULE,
    OptionSpec(
        "promote_if",
        "text",
        "Condition under which the new version becomes the champion: comparisons of accuracy, f1_macro, "
        "precision_macro, recall_macro, loss or roc_auc with a number or with champion (+ or - a number), "
        "joined by AND; 'f1_macro >= champion' where only evaluate_on is given.",
    ),
    OptionSpec(
        "evaluate_on",
        "text",
        "Table on whose rows the new version and the champion are both measured, with the columns text_col "
        "and label_col; without it, on the rows that this training holds out.",
    ),
    _STRICT,
)

# BUILD MODEL with the other objective: what it takes, with defaults of its own.
_PRETRAINING = (
    _OBJECTIVE,
    _TEXT_COL,
    OptionSpec(
        "max_epochs",
        "integer",
        "How often pre-training goes through all the texts.",
        default=1,
        aliases=("epochs",),
        minimum=1,
        maximum=10_000,
    ),
    OptionSpec("batch_size", "integer", "Windows of text in one step.", default=32, minimum=1),
    OptionSpec("learning_rate", "number", "Peak learning rate; by default 0.0002.", above=0, maximum=1),
    OptionSpec(
        "max_length",
        "integer",
        "Tokens of a window, special tokens included; longer texts are read in several. By default 128.",
        minimum=4,
        maximum=8192,
    ),
    OptionSpec(
        "eval_fraction",
        "number",
        "Share of the texts that is held out, to measure the pre-training.",
        default=0.01,
        minimum=0,
        below=1,
    ),
    OptionSpec(
        "seed",
        "integer",
        "Seed of the hold-out, the masks, what takes their place, and the shuffling.",
        default=42,
        minimum=0,
        maximum=2**32 - 1,
    ),
    _OVERWRITE_MODEL,
    OptionSpec("base_revision", "text", "Revision (commit or tag) of the base model on the hub."),
    _SCHEDULE,
)
_CLASS_WEIGHT = next(spec for spec in _TRAINING if spec.name == "class_weight")


def _table_training(task: str) -> tuple[OptionSpec, ...]:
    """The options of BUILD MODEL for a base that learns from the columns of a table."""
    kept = {spec.name: spec for spec in _TRAINING}
    regression = task == "regression"
    measures = (
        "mae, rmse or r2"
        if regression
        else "accuracy, f1_macro, precision_macro, recall_macro, loss or roc_auc"
    )
    usual = "rmse <= champion" if regression else "f1_macro >= champion"
    return (
        OptionSpec(
            "label_col",
            "column",
            "The column that is predicted; all others of the query are learnt from.",
            default="target",
            aliases=("target", "target_col"),
        ),
        OptionSpec(
            "features_to_drop",
            "columns",
            "Columns of the query that are not learnt from, such as numbers that only name a row.",
        ),
        OptionSpec(
            "datetime_attribs",
            "columns",
            "Columns of text that hold dates or times; columns of type DATE or TIMESTAMP are known as such.",
        ),
        OptionSpec(
            "impute_type",
            "choice",
            "What a missing number is taken for: 'simple' takes the column's mean, 'iterative' predicts it "
            "from the other numbers of the row. That it was missing is learnt from either way.",
            default="simple",
            choices=("simple", "iterative"),
        ),
        OptionSpec(
            "outlier_method",
            "choice",
            "Leave rows out of the training that are far from all others: 'knn' by the distance to their "
            "neighbours (local outlier factor), 'iso' by isolation forest, 'pca' by what a projection on the "
            "main axes loses.",
            choices=("knn", "iso", "pca"),
        ),
        OptionSpec(
            "time_left_for_this_task",
            "integer",
            "Seconds after which no new setting is tried; the one that is being tried is brought to its end.",
            default=300,
            aliases=("time_budget",),
            minimum=1,
            maximum=7 * 24 * 3600,
        ),
        OptionSpec(
            "max_trials",
            "integer",
            "Settings to try. Where the time suffices for all of them, the same rows give the same model.",
            default=40,
            aliases=("num_trials",),
            minimum=1,
            maximum=10_000,
        ),
        replace(
            kept["eval_fraction"],
            doc=kept["eval_fraction"].doc.replace(", stratified by label,", "")
            if regression
            else kept["eval_fraction"].doc,
        ),
        replace(kept["seed"], doc="Seed of the hold-out, the search and the models."),
        *(() if regression else (_CLASS_WEIGHT,)),
        _OVERWRITE_MODEL,
        _SCHEDULE,
        replace(
            kept["promote_if"],
            doc=f"Condition under which the new version becomes the champion: comparisons of {measures} "
            f"with a number or with champion (+ or - a number), joined by AND; '{usual}' where "
            "only evaluate_on is given.",
        ),
        replace(
            kept["evaluate_on"],
            doc="Table on whose rows the new version and the champion are both measured, with the columns of "
            "the query; without it, on the rows that this training holds out.",
        ),
        _STRICT,
    )


_PREDICTION = (
    replace(_TEXT_COL, doc="The column that holds the text; models of tables find their columns by name."),
    OptionSpec("result_col", "column", "Name of the column with the predicted label.", default="predicted"),
    _BATCH_SIZE_ENGINE,
    OptionSpec(
        "label_col",
        "column",
        "The column that holds the true label, when there is one; the result then says how often "
        "the model was right.",
        aliases=("target", "target_col"),
    ),
    OptionSpec("proba", "boolean", "Also give the columns probability and probabilities.", default=True),
    OptionSpec(
        "on_error",
        "choice",
        "A row without text is kept with NULL ('abort', 'null') or left out ('skip'); "
        "a failure of the model itself stops the statement whatever is chosen.",
        default="abort",
        choices=("abort", "skip", "null"),
    ),
)

_ALL_SPECS: dict[str, tuple[OptionSpec, ...]] = {
    "COPY": (
        OptionSpec(
            "if_exists",
            "choice",
            "What to do when the table exists.",
            default="fail",
            choices=("fail", "replace", "append"),
            identity=False,
        ),
        OptionSpec("overwrite", "boolean", "True means if_exists='replace'.", default=False, identity=False),
        _SCHEDULE,
        OptionSpec(
            "watch",
            "boolean",
            "Copy again when a file of the path changes, comes or goes, and make again what hangs on the "
            "table, as long as `thano ui` runs. Files that are still being written are left alone.",
            default=False,
            identity=False,
        ),
    ),
    "BUILD MODEL": _TRAINING,
    "BUILD BASE MODEL": _PRETRAINING,
    **{build_kind(base): _table_training(task) for base, task in TABLE_BASES.items()},
    "FIT MODEL": _TRAINING,
    "PREDICT": (
        *_PREDICTION,
        OptionSpec(
            "version_col",
            "column",
            "Also give the number of the model version that answered, in a column of this name.",
        ),
        _SCHEDULE,
    ),
    "EXPLAIN PREDICT": (
        *_PREDICTION,
        OptionSpec(
            "top_k",
            "integer",
            "Words to show for each row, those that moved the prediction most.",
            default=10,
            minimum=1,
        ),
    ),
    "EVALUATE": (
        _TEXT_COL,
        _LABEL_COL,
        OptionSpec(
            "report",
            "choice",
            "Which rows to give: the scores, those of each class, the confusion matrix or the ROC curve.",
            default="summary",
            choices=("summary", "classes", "confusion", "roc"),
        ),
        _BATCH_SIZE_ENGINE,
        _STRICT,
    ),
    "CONVERT": (
        _TEXT_COL,
        OptionSpec(
            "result_col", "column", "Name of the column with the embedding.", default="convert_result"
        ),
        _BATCH_SIZE_ENGINE,
    ),
    "SEARCH TEXT": (
        OptionSpec("search_by", "choice", "What search_input is.", default="text", choices=("text",)),
        OptionSpec("search_input", "text", "The text to search for."),
        OptionSpec(
            "emb_col",
            "column",
            "The column of embeddings that CONVERT made, in the query's rows or of the same query. "
            "Without it the texts of text_col are embedded, those that are known already left out.",
        ),
        _TEXT_COL,
        OptionSpec(
            "result_col", "column", "Name of the column with the similarity.", default="search_result"
        ),
        OptionSpec(
            "top_k", "integer", "How many rows to give, the most similar first.", default=1000, minimum=1
        ),
    ),
    "SEARCH KEYWORD": (
        OptionSpec(
            "lang",
            "text",
            "Language of the texts, such as 'en' or 'ko': it decides which stop words are left out. By "
            "default English, and Korean with SBERTKo.",
        ),
        _TEXT_COL,
        OptionSpec(
            "ngram_range",
            "integers",
            "Fewest and most words in a keyword.",
            default=(1, 2),
            minimum=1,
            length=2,
        ),
        OptionSpec("top_n", "integer", "Keywords of each text.", default=5, minimum=1),
        OptionSpec(
            "diversity", "number", "How unlike each other they shall be.", default=0.5, minimum=0, maximum=1
        ),
        OptionSpec(
            "use_stopwords",
            "boolean",
            "Leave out words such as 'the', by scikit-learn's list of English stop words; for other "
            "languages there is no list and nothing is left out.",
            default=True,
        ),
        OptionSpec("threshold", "number", "Least score of a keyword.", default=0.0, minimum=0, maximum=1),
    ),
    "GET THANOSQL MODEL": (
        OptionSpec("model_name", "text", "Name to give the model; by default its own."),
        OptionSpec("overwrite", "boolean", "Fetch it again when it is there.", default=False, identity=False),
    ),
    "GET THANOSQL DATASET": (
        OptionSpec(
            "size",
            "choice",
            "'tutorial' is quick to train on, 'full' is all there is.",
            default="tutorial",
            choices=("tutorial", "full"),
        ),
        OptionSpec(
            "overwrite", "boolean", "Make the files again when they are there.", default=False, identity=False
        ),
    ),
    "UPLOAD MODEL": (
        OptionSpec("framework", "choice", "What wrote the files.", default="pytorch", choices=("pytorch",)),
        _OVERWRITE_MODEL,
    ),
}

#: Statement kind -> canonical option name -> its specification. Kinds that are missing take no options.
OPTION_SPECS: dict[str, dict[str, OptionSpec]] = {
    kind: {spec.name: spec for spec in specs} for kind, specs in _ALL_SPECS.items()
}


def default(kind: str, name: str) -> Any:
    """The default of option ``name`` of statement ``kind``.

    Raises:
        KeyError: the statement has no such option.
    """
    return OPTION_SPECS[kind][name].default


def find_spec(kind: str, spelling: str) -> OptionSpec:
    """The option of ``kind`` that ``spelling`` (a name or an alias, in any case) stands for.

    Raises:
        UnknownOption: there is none; the hint lists those that exist. The error has no place yet.
    """
    specs = OPTION_SPECS.get(kind, {})
    folded = spelling.casefold()
    for spec in specs.values():
        if folded == spec.name or folded in spec.aliases:
            return spec
    names = sorted({name for spec in specs.values() for name in (spec.name, *spec.aliases)})
    hint = did_you_mean(spelling, names, f"options of {kind}") if names else f"{kind} takes no options."
    raise UnknownOption(f"{kind} has no option {spelling}.", hint=hint)


@dataclass(frozen=True, slots=True)
class GivenOption:
    """One option as it stands in the text."""

    value: Any
    spelling: str
    key_span: Span
    value_span: Span


class Options(Mapping[str, Any]):
    """The options that a statement was given, by canonical name, checked; defaults are not filled in.

    ``options["max_epochs"]`` is the value given (also when it was spelt ``epochs``),
    ``options.value("max_epochs")`` the value that counts.
    """

    __slots__ = ("_given", "kind")

    def __init__(self, kind: str, given: Mapping[str, GivenOption] | None = None) -> None:
        self.kind = kind
        self._given: dict[str, GivenOption] = dict(given or {})

    @classmethod
    def of(cls, kind: str, **values: Any) -> Options:
        """Options made in code: checked like those of a text, without places."""
        nowhere = Span(0, 0)
        given = {}
        for spelling, value in values.items():
            spec = find_spec(kind, spelling)
            given[spec.name] = GivenOption(spec.check(value, kind), spelling, nowhere, nowhere)
        return cls(kind, given)

    def __getitem__(self, name: str) -> Any:
        return self._given[name].value

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Options):
            return self.kind == other.kind and dict(self) == dict(other)
        return super().__eq__(other)

    def __hash__(self) -> int:
        return hash((self.kind, frozenset(self.items())))

    def __repr__(self) -> str:
        return f"Options({self.kind!r}, {dict(self)!r})"

    def value(self, name: str) -> Any:
        """The value given, or the default.

        Raises:
            KeyError: the statement has no such option.
        """
        return self._given[name].value if name in self._given else default(self.kind, name)

    def filled(self) -> dict[str, Any]:
        """Every option of the statement with the value that counts."""
        return {name: self.value(name) for name in OPTION_SPECS.get(self.kind, {})}

    def place(self, name: str) -> Span:
        """Where the option's name stands.

        Raises:
            KeyError: it was not given.
        """
        return self._given[name].key_span

    def value_span(self, name: str) -> Span:
        """Where the option's value stands.

        Raises:
            KeyError: it was not given.
        """
        return self._given[name].value_span

    def given(self, name: str) -> str:
        """The name as it was spelt (an alias, another case).

        Raises:
            KeyError: it was not given.
        """
        return self._given[name].spelling

    def unavailable(self) -> list[str]:
        """Names of the options given that the engine does not act on yet."""
        specs = OPTION_SPECS.get(self.kind, {})
        return [name for name in self._given if not specs[name].available]


def _shown(value: Any) -> str:
    """A value as a person would write it in OPTIONS."""
    if isinstance(value, str):
        return f"the text '{value}'" if value.strip() else "an empty text"
    if isinstance(value, (list, tuple)):
        return "the list [" + ", ".join(str(item) for item in value) + "]"
    return str(value)


def _closest(value: str, choices: tuple[str, ...]) -> str | None:
    folded = value.casefold()
    for choice in choices:
        if SequenceMatcher(None, folded, choice).ratio() >= 0.6:
            return choice
    return None
