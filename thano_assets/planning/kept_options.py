"""What a model keeps when it is built again, unless the new statement says otherwise: schedule, gate, …"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thano_assets.catalog.overlay import Entries
from thano_assets.errors import ThanoError
from thano_assets.sql import parse
from thano_assets.sql.canonical import option_text, value_text
from thano_assets.sql.lexer import tokenize
from thano_assets.sql.options import OF_ASSETS, OPTION_SPECS
from thano_assets.sql.statements import Statement, TrainModel

#: Options that say when a model is trained, which version answers and whose it is, not what is trained.
POLICY = ("promote_if", "evaluate_on", "schedule", *(spec.name for spec in OF_ASSETS))


def with_policy(statement: Statement, catalog: Entries) -> tuple[Statement, list[str]]:
    """A BUILD or FIT MODEL with the policy that the model has and the statement does not speak of.

    Args:
        statement: as a person gave it.
        catalog: what was defined before.

    Returns:
        The statement to carry out, and what was kept, as options; the same statement where nothing was.
    """
    if not isinstance(statement, TrainModel):
        return statement, []
    entry = catalog.model(statement.name)
    try:
        before = entry.statement if entry is not None else None
    except ThanoError:
        return statement, []  # what stood there cannot be read
    if not isinstance(before, TrainModel):
        return statement, []
    known = OPTION_SPECS[statement.option_kind]
    kept = [
        option_text(name, before.options[name])
        for name in POLICY
        if name in known and name not in statement.options and before.options.get(name) is not None
    ]
    if not kept:
        return statement, []
    text = _with_more_options(statement, ", ".join(kept))
    return parse(text)[0], kept


def with_options(statement: TrainModel, values: Mapping[str, Any]) -> TrainModel:
    """The statement with these options in place of its own, in its text too.

    Args:
        statement: as a person gave it.
        values: legal values by the names of options.
    """
    text, start = statement.text, statement.span.start
    own = [(statement.options.value_span(name), name) for name in values if name in statement.options]
    for span, name in sorted(own, key=lambda each: each[0].start, reverse=True):
        text = f"{text[: span.start - start]}{value_text(values[name])}{text[span.end - start :]}"
    more = [option_text(name, value) for name, value in values.items() if name not in statement.options]
    changed = _training(text)
    return _training(_with_more_options(changed, ", ".join(more))) if more else changed


def _training(text: str) -> TrainModel:
    statement = parse(text)[0]
    assert isinstance(statement, TrainModel)
    return statement


def _with_more_options(statement: TrainModel, options: str) -> str:
    """The statement's text with more options."""
    text = statement.text
    tokens = tokenize(text)
    for number, token in enumerate(tokens[:-2]):
        if token.upper == "AS":
            break
        if token.upper == "OPTIONS" and tokens[number + 1].upper == "(":
            end = tokens[number + 1].end
            comma = "" if tokens[number + 2].upper == ")" else ", "
            return f"{text[:end]}{options}{comma}{text[end:]}"
    end = statement.start_span.end - statement.span.start
    return f"{text[:end]} OPTIONS ({options}){text[end:]}"
