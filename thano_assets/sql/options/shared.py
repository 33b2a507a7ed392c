"""Options of several statements; a statement replaces the sentence or the default where its own differs."""

from __future__ import annotations

from thano_assets.sql.options.spec import OptionSpec

TEXT_COL = OptionSpec("text_col", "column", "The column that holds the text.", default="text")
LABEL_COL = OptionSpec(
    "label_col",
    "column",
    "The column that holds the true label.",
    default="label",
    aliases=("target", "target_col"),
)
BATCH_SIZE = OptionSpec(
    "batch_size",
    "integer",
    "Texts that the model reads at a time; by default batches are filled by their number of tokens.",
    minimum=1,
)
OVERWRITE = OptionSpec(
    "overwrite",
    "boolean",
    "Add a version when a model of that name exists; with False an existing name is an error. "
    "No version is ever erased.",
    default=False,
    identity=False,
)
SCHEDULE = OptionSpec(
    "schedule",
    "cron",
    "When Dagster shall look by itself, as long as `thano ui` runs: what is out of date by then is made "
    "again, the table or model and what it stands on, and nothing else. The time zone is `timezone` under "
    "`[dagster]` in thano.toml.",
    identity=False,
)
STRICT = OptionSpec(
    "strict",
    "boolean",
    "Make it an error when evaluated rows were among the model's training rows.",
    default=False,
)
