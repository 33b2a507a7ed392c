"""Tags of Dagster runs: what the list of runs shows of one, and what is known by later ones."""

from __future__ import annotations

from collections.abc import Mapping

#: The beginning of the statement that is carried out, and where it stands, as ``daily.sql:12``.
STATEMENT, SCRIPT = "statement", "script"
#: Whether the run does only what a plan found to be out of date.
INCREMENTAL = "thano/incremental"
#: Why a schedule or sensor asked for the run: what the planner found.
REASON = "thano/reason"
#: The process of a person (a terminal, a notebook) that executes the run.
PROCESS = "thano/process"
#: The run of a job that this run is part of.
PARENT = "thano/part-of"
#: Why the run failed, in one sentence.
ERROR = "thano/error"
#: A hash of the asset that failed and of its inputs.
FAILED_INPUTS = "thano/failed-inputs"

_LONGEST = 200


def launched_by(tags: Mapping[str, str]) -> str:
    """Who asked for a run: ``schedule NAME``, ``sensor NAME``, ``thano`` or ``Dagster UI``."""
    for tag, what in (("dagster/schedule_name", "schedule"), ("dagster/sensor_name", "sensor")):
        if tag in tags:
            return f"{what} {tags[tag]}"
    return "thano" if PROCESS in tags else "Dagster UI"


def shortened(text: str) -> str:
    """A text of one line that is short enough for a tag."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
