"""Options of several statements; a statement replaces the sentence or the default where its own differs."""

from __future__ import annotations

import re
from datetime import timedelta

from thano_assets.sql.options.spec import OptionSpec

_SECONDS = {"minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}

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

#: What Dagster shows of the assets of a statement, and how it treats them; not what the statement makes.
OF_ASSETS = (
    OptionSpec(
        "owner",
        "texts",
        "Who answers for the assets of the statement; Dagster shows it and searches by it.",
        identity=False,
        # Dagster's own rule.
        pattern=r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}|team:.+",
        form="an address of e-mail or 'team:' and a name, or a list of them",
    ),
    OptionSpec(
        "tags",
        "texts",
        "Words by which the assets of the statement are found in Dagster.",
        identity=False,
        pattern=r"([A-Za-z0-9_.-]{1,63}/)?[A-Za-z0-9_.-]{1,63}(=[A-Za-z0-9_.-]{0,63})?",
        form="a tag or a list of them, each 'name' or 'name=value' of Latin letters, digits, _, . and -",
    ),
    OptionSpec(
        "group",
        "text",
        "The group of the statement's assets in Dagster; by default their kind, such as tables or models.",
        identity=False,
        pattern=r"[A-Za-z0-9_]+(/[A-Za-z0-9_]+)*",
        form="a name of Latin letters, digits and _, or several with / between them",
    ),
    OptionSpec(
        "fresh_within",
        "text",
        "How old the table or model may become: an older one is out of date for plans and schedules, overdue "
        "on Dagster's page, and told of by [alerts].",
        identity=False,
        pattern=rf"\s*[1-9]\d{{0,5}}\s*({'|'.join(_SECONDS)})s?\s*",
        form="a time such as '30 minutes', '6 hours', '1 day' or '2 weeks'",
    ),
    OptionSpec(
        "retries",
        "integer",
        "How often a step is tried again in the same run when it fails for a reason that may pass: a full "
        "disk, a busy warehouse, no memory, a hub that does not answer. What is wrong with a statement or "
        "its rows is not tried again.",
        default=0,
        minimum=0,
        maximum=20,
        identity=False,
    ),
)


def duration(text: str) -> timedelta:
    """The time that an option such as ``fresh_within`` names."""
    number, unit = re.fullmatch(r"\s*(\d+)\s*([a-z]+?)s?\s*", text).groups()  # type: ignore[union-attr]
    return timedelta(seconds=int(number) * _SECONDS[unit])
