"""Options of the statements that train: classifiers of texts, base models of texts, models of tables."""

from __future__ import annotations

from dataclasses import replace

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

_MAX_EPOCHS = OptionSpec(
    "max_epochs",
    "integer",
    "How often training goes through all the rows.",
    default=3,
    aliases=("epochs",),
    minimum=1,
    maximum=10_000,
)
_LEARNING_RATE = OptionSpec(
    "learning_rate",
    "number",
    "Peak learning rate; by default the one that suits the base model's size.",
    above=0,
    maximum=1,
)
_MAX_LENGTH = OptionSpec(
    "max_length",
    "integer",
    "Tokens of a text that the model reads; by default as the base model and the texts need.",
    minimum=4,
    maximum=8192,
)
_EVAL_FRACTION = OptionSpec(
    "eval_fraction",
    "number",
    "Share of the distinct texts that is held out, stratified by label, to measure the model; copies of a "
    "text stay on one side.",
    default=0.1,
    minimum=0,
    below=1,
)
_SEED = OptionSpec(
    "seed",
    "integer",
    "Seed of the hold-out, the shuffling and the new weights.",
    default=42,
    minimum=0,
    maximum=2**32 - 1,
)
_CLASS_WEIGHT = OptionSpec(
    "class_weight",
    "choice",
    "'balanced' gives every class the same weight in the loss, however few its rows.",
    choices=("balanced",),
)
_BASE_REVISION = OptionSpec("base_revision", "text", "Revision (commit or tag) of the base model on the hub.")
_OBJECTIVE = OptionSpec(
    "objective",
    "choice",
    "What is learned: labels, or ELECTRA's own pre-training on unlabelled text, which makes a base model.",
    default="classification",
    choices=("classification", "replaced_token_detection"),
)
_EVALUATE_ON = OptionSpec(
    "evaluate_on",
    "text",
    "Table on whose rows the new version and the champion are both measured, with the columns text_col "
    "and label_col; without it, on the rows that this training holds out.",
)


def _promote_if(measures: str, usual: str) -> OptionSpec:
    return OptionSpec(
        "promote_if",
        "text",
        f"Condition under which the new version becomes the champion: comparisons of {measures} with a "
        f"number or with champion (+ or - a number), joined by AND; '{usual}' where only evaluate_on is "
        "given.",
    )


_PROMOTE_CLASSIFIER_IF = _promote_if(
    "accuracy, f1_macro, precision_macro, recall_macro, loss or roc_auc", "f1_macro >= champion"
)
_PROMOTE_REGRESSOR_IF = _promote_if("mae, rmse or r2", "rmse <= champion")

#: BUILD MODEL and FIT MODEL of a classifier of texts.
TRAINING = (
    TEXT_COL,
    LABEL_COL,
    _MAX_EPOCHS,
    replace(BATCH_SIZE, doc="Texts in one step of training.", default=16),
    _LEARNING_RATE,
    _MAX_LENGTH,
    _EVAL_FRACTION,
    _SEED,
    OVERWRITE,
    OptionSpec(
        "early_stopping",
        "integer",
        "Stop after so many epochs in a row without a better score on the hold-out.",
        minimum=1,
    ),
    _CLASS_WEIGHT,
    _BASE_REVISION,
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
    SCHEDULE,
    *OF_ASSETS,
    _PROMOTE_CLASSIFIER_IF,
    _EVALUATE_ON,
    STRICT,
)

#: BUILD MODEL with the other objective: what it takes, with defaults of its own.
PRETRAINING = (
    _OBJECTIVE,
    TEXT_COL,
    replace(_MAX_EPOCHS, doc="How often pre-training goes through all the texts.", default=1),
    replace(BATCH_SIZE, doc="Windows of text in one step.", default=32),
    replace(_LEARNING_RATE, doc="Peak learning rate; by default 0.0002."),
    replace(
        _MAX_LENGTH,
        doc="Tokens of a window, special tokens included; longer texts are read in several. By default 128.",
    ),
    replace(
        _EVAL_FRACTION,
        doc="Share of the texts that is held out, to measure the pre-training.",
        default=0.01,
    ),
    replace(_SEED, doc="Seed of the hold-out, the masks, what takes their place, and the shuffling."),
    OVERWRITE,
    _BASE_REVISION,
    SCHEDULE,
    *OF_ASSETS,
)


def table_training(task: str) -> tuple[OptionSpec, ...]:
    """The options of BUILD MODEL for a base that learns from the columns of a table.

    Args:
        task: ``classification`` or ``regression``.
    """
    regression = task == "regression"
    return (
        replace(
            LABEL_COL,
            doc="The column that is predicted; all others of the query are learnt from.",
            default="target",
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
            "Seconds after which no setting is tried any more; the first is always brought to its end.",
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
        replace(_EVAL_FRACTION, doc="Share of the rows that is held out to measure the model.")
        if regression
        else _EVAL_FRACTION,
        replace(_SEED, doc="Seed of the hold-out, the search and the models."),
        *(() if regression else (_CLASS_WEIGHT,)),
        OVERWRITE,
        SCHEDULE,
        *OF_ASSETS,
        _PROMOTE_REGRESSOR_IF if regression else _PROMOTE_CLASSIFIER_IF,
        replace(
            _EVALUATE_ON,
            doc="Table on whose rows the new version and the champion are both measured, with the columns of "
            "the query; without it, on the rows that this training holds out.",
        ),
        STRICT,
    )
