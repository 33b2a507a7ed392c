"""Which options each kind of statement takes.

:data:`OPTION_SPECS` is the single source of the parser's checks, the command line's help,
``docs/language.md`` (see :mod:`thano_assets.sql.reference`) and the tests.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from thano_assets.errors import UnknownOption, UnsupportedStatement, did_you_mean
from thano_assets.sql.base_names import TABLE_BASES, build_kind
from thano_assets.sql.grammar import MEDIA_REFUSAL
from thano_assets.sql.options.shared import (
    BATCH_SIZE,
    LABEL_COL,
    OF_ASSETS,
    OVERWRITE,
    SCHEDULE,
    STRICT,
    TEXT_COL,
)
from thano_assets.sql.options.spec import OptionSpec
from thano_assets.sql.options.training import PRETRAINING, TRAINING, table_training

# Options of ThanoSQL's other models, after its public documentation.
_MEDIA_OPTION = re.compile(
    r"(?:image|audio|video)_cols?|time_idx_cols?|time_varying_\w+|static_(?:categorical|real)_cols|group_id_cols|"
    r"group_normalizer|special_day_cols|(?:min|max)_(?:encoder|prediction)_length|allow_missing_timesteps"
)

_TRAINED_ON = (
    "The column that holds the {}; where the query has none of the default's name, the one that the model "
    "was trained on."
)
_RESULT_COL = OptionSpec(
    "result_col", "column", "Name of the column with the predicted label.", default="predicted"
)
_TOP_K = OptionSpec(
    "top_k",
    "integer",
    "Words to show for each row, those that moved the prediction most; None shows all.",
    default=10,
    minimum=1,
    nullable=True,
)
_PREDICTION = (
    replace(TEXT_COL, doc=_TRAINED_ON.format("text") + " Models of tables find their columns by name."),
    _RESULT_COL,
    BATCH_SIZE,
    replace(
        LABEL_COL,
        doc="The column that holds the true label, when there is one; the result then says how often "
        "the model was right.",
        default=None,
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

_READING = (
    OptionSpec(
        "columns",
        "types",
        "Types of some columns by their names, such as {'sku': 'VARCHAR'}; a value that does not fit "
        "is an error. A list instead names all columns of a file without a header.",
    ),
    OptionSpec("all_text", "boolean", "Make every column VARCHAR, spelled as in the file.", default=False),
    OptionSpec("encoding", "encoding", "What the file is written in; by default UTF-8."),
    OptionSpec(
        "delimiter",
        "mark",
        "What stands between the values of a row; by default found from the file, a tab in .tsv.",
        aliases=("delim", "sep"),
    ),
    OptionSpec(
        "quote",
        "mark",
        "What stands around a value that holds the delimiter; None where quotes are characters like others.",
        default='"',
        nullable=True,
    ),
    OptionSpec(
        "escape", "mark", "What stands before a quote inside a quoted value; by default the quote itself."
    ),
    OptionSpec(
        "header",
        "boolean",
        "Whether the first row holds the names of the columns; by default found from its values.",
    ),
    OptionSpec("skip", "integer", "Lines, or rows of a sheet, to leave out above the header.", minimum=0),
    OptionSpec(
        "comment",
        "mark",
        "What lines begin with that are left out; by default # above the header, and nothing below it.",
    ),
    OptionSpec(
        "null",
        "texts",
        "Spellings that mean NULL, such as ['NA', '']; by default the empty field.",
        aliases=("nullstr",),
    ),
    OptionSpec("decimal", "choice", "The decimal mark.", default=".", choices=(".", ",")),
    OptionSpec("sheet", "text", "The sheet of a workbook; by default the first."),
    OptionSpec("max_line_size", "integer", "Bytes of the longest row that can be read.", minimum=1),
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
        replace(OVERWRITE, doc="True means if_exists='replace'."),
        *_READING,
        SCHEDULE,
        OptionSpec(
            "watch",
            "boolean",
            "Copy again when a file of the path changes, comes or goes, and make again what hangs on the "
            "table, as long as `thano ui` runs. Files that are still being written are left alone.",
            default=False,
            identity=False,
        ),
        *OF_ASSETS,
    ),
    "BUILD MODEL": TRAINING,
    "BUILD BASE MODEL": PRETRAINING,
    **{build_kind(base): table_training(task) for base, task in TABLE_BASES.items()},
    "FIT MODEL": TRAINING,
    "PREDICT": (
        *_PREDICTION,
        OptionSpec(
            "version_col",
            "column",
            "Also give the number of the model version that answered, in a column of this name.",
        ),
        SCHEDULE,
        *OF_ASSETS,
    ),
    "EXPLAIN PREDICT": (
        *_PREDICTION,
        _TOP_K,
        *OF_ASSETS,
    ),
    "EVALUATE": (
        replace(TEXT_COL, doc=_TRAINED_ON.format("text")),
        replace(LABEL_COL, doc=_TRAINED_ON.format("true label")),
        OptionSpec(
            "report",
            "choice",
            "Which rows to give: the scores, those of each class, the confusion matrix or the ROC curve.",
            default="summary",
            choices=("summary", "classes", "confusion", "roc"),
        ),
        BATCH_SIZE,
        STRICT,
        *OF_ASSETS,
    ),
    "CONVERT": (
        TEXT_COL,
        replace(_RESULT_COL, doc="Name of the column with the embedding.", default="convert_result"),
        BATCH_SIZE,
        *OF_ASSETS,
    ),
    "SEARCH TEXT": (
        OptionSpec(
            "search_by",
            "choice",
            "What search_input is.",
            default="text",
            choices=("text",),
            refused=("image", "audio", "video"),
        ),
        OptionSpec("search_input", "text", "The text to search for."),
        OptionSpec(
            "emb_col",
            "column",
            "The column of embeddings that CONVERT made, in the query's rows or of the same query. "
            "Without it the texts of text_col are embedded, those that are known already left out.",
        ),
        TEXT_COL,
        replace(_RESULT_COL, doc="Name of the column with the similarity.", default="search_result"),
        replace(_TOP_K, doc="How many rows to give, the most similar first; None gives all.", default=1000),
        *OF_ASSETS,
    ),
    "SEARCH KEYWORD": (
        OptionSpec(
            "lang",
            "text",
            "Language of the texts, such as 'en' or 'ko': it decides which stop words are left out. By "
            "default English, and Korean with SBERTKo.",
        ),
        TEXT_COL,
        OptionSpec(
            "ngram_range",
            "integers",
            "Fewest and most words in a keyword.",
            default=(1, 2),
            minimum=1,
            length=2,
        ),
        OptionSpec(
            "top_n", "integer", "Keywords of each text; None gives all.", default=5, minimum=1, nullable=True
        ),
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
        *OF_ASSETS,
    ),
    "GET THANOSQL MODEL": (
        OptionSpec("model_name", "text", "Name to give the model; by default its own."),
        replace(OVERWRITE, doc="Fetch it again when it is there."),
    ),
    "GET THANOSQL DATASET": (
        OptionSpec(
            "size",
            "choice",
            "'tutorial' is quick to train on, 'full' is all there is.",
            default="tutorial",
            choices=("tutorial", "full"),
        ),
        replace(OVERWRITE, doc="Make the files again when they are there."),
    ),
    "UPLOAD MODEL": (
        OptionSpec("framework", "choice", "What wrote the files.", default="pytorch", choices=("pytorch",)),
        OVERWRITE,
        *OF_ASSETS,
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
        UnsupportedStatement: it is an option of models that are not served, or not by this statement.
    """
    specs = OPTION_SPECS.get(kind, {})
    folded = spelling.casefold()
    for spec in specs.values():
        if folded == spec.name or folded in spec.aliases:
            return spec
    if _MEDIA_OPTION.fullmatch(folded):
        raise UnsupportedStatement(
            f"{spelling} is an option of models for images, audio, video or time series.", hint=MEDIA_REFUSAL
        )
    of_tables = {name for base in TABLE_BASES for name in OPTION_SPECS[build_kind(base)]}
    if kind == "FIT MODEL" and folded in of_tables:
        raise UnsupportedStatement(
            f"{spelling} is an option of models of tables; FIT MODEL goes on training classifiers of texts.",
            hint="BUILD MODEL … USING AutomlClassifier OPTIONS (overwrite=True) finds a new one.",
        )
    names = sorted({name for spec in specs.values() for name in (spec.name, *spec.aliases)})
    hint = did_you_mean(spelling, names, f"options of {kind}") if names else f"{kind} takes no options."
    raise UnknownOption(f"{kind} has no option {spelling}.", hint=hint)
