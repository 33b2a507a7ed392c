"""What can be said in Dagster's launch form of a model, and what the log of a launch says first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dagster as dg

from thano_assets.errors import ThanoError
from thano_assets.graph import Node, NodeKind
from thano_assets.graph.build import Key
from thano_assets.orchestration import run_tags
from thano_assets.orchestration.due import due
from thano_assets.planning import PlannedAsset
from thano_assets.planning.kept_options import with_options
from thano_assets.sql.options import OPTION_SPECS
from thano_assets.sql.statements import TrainModel

if TYPE_CHECKING:
    from thano_assets.resources.workspace import Workspace

#: Names in the form -> options of the statement.
_SETTINGS = {
    "epochs": "max_epochs",
    "batch_size": "batch_size",
    "learning_rate": "learning_rate",
    "seed": "seed",
    "max_trials": "max_trials",
}
_RETRAIN, _ALWAYS, _IF_CHANGED = "retrain", "always", "if changed"
_CHOICE = dg.Enum(
    "Retrain",
    [
        dg.EnumValue(_ALWAYS, description="Train, whether or not anything has changed."),
        dg.EnumValue(_IF_CHANGED, description="Use a version that was trained from the very same, if any."),
    ],
)
_TYPES: dict[str, Any] = {"integer": dg.Int, "number": dg.Float}


def config_schema(node: Node) -> dict[str, dg.Field] | None:
    """The fields of a model's launch form; ``None`` for what is not trained."""
    statement = node.entry.statement
    if node.kind is not NodeKind.MODEL or not isinstance(statement, TrainModel):
        return None
    known = OPTION_SPECS[statement.option_kind]
    settings = {
        field: dg.Field(
            _TYPES[known[name].type],
            is_required=False,
            description=f"{known[name].doc} In place of what the statement says, in this run only.",
        )
        for field, name in _SETTINGS.items()
        if name in known
    }
    retrain = dg.Field(
        _CHOICE,
        is_required=False,
        description="By default a launch by hand always trains, and a schedule only if something changed.",
    )
    return {_RETRAIN: retrain, **settings}


def configured(node: Node, config: Mapping[str, Any] | None) -> tuple[Node, bool | None, list[str]]:
    """The node as the launch form has it.

    Returns:
        The node with the form's settings in its statement; whether it is trained only if something
        changed, where the form says so; and the form's settings in words.

    Raises:
        InvalidOption: a setting is out of range.
    """
    config = dict(config or {})
    retrain = config.pop(_RETRAIN, None)
    if_changed = None if retrain is None else retrain == _IF_CHANGED
    statement = node.entry.statement
    if not config or not isinstance(statement, TrainModel):
        return node, if_changed, []
    known = OPTION_SPECS[statement.option_kind]
    values = {
        _SETTINGS[field]: known[_SETTINGS[field]].check(value, statement.kind)
        for field, value in config.items()
    }
    told = [
        f"{field} {value} in place of {_shown(statement.options.value(_SETTINGS[field]))}"
        for field, value in config.items()
    ]
    text = with_options(statement, values).text + "\n;\n"
    return replace(node, entry=replace(node.entry, text=text)), if_changed, told


def _shown(value: Any) -> str:
    return "the default" if value is None else str(value)


# The plan of the run that this process executes: it is asked by each of the run's assets, and made once.
_plans: dict[str, dict[Key, PlannedAsset] | ThanoError] = {}


def reason(node: Node, workspace: Workspace, run: dg.DagsterRun, instance: dg.DagsterInstance) -> str:
    """What a plan said of the asset when the run began, in a sentence for the log.

    A run that a schedule or sensor asked for was planned by it; its tag has the words.
    """
    name = "/".join(node.key)
    if run_tags.REASON in run.tags:
        return f"{name} is made by the plan of {run_tags.launched_by(run.tags)}: {run.tags[run_tags.REASON]}"
    if run.run_id not in _plans:
        _plans.clear()
        _plans[run.run_id] = _plan(workspace, run, instance)
    plan = _plans[run.run_id]
    if isinstance(plan, ThanoError):
        return f"{name} is made; a plan cannot say why: {plan}"
    one = plan.get(node.key)
    if one is None:
        return f"{name} is made; the catalog no longer has its statement."
    if not one.made:
        return f"{name} is made because this run asks for it; a plan finds it {one.reason}."
    return f"{name} is made ({one.action}): {one.reason}."


def _plan(
    workspace: Workspace, run: dg.DagsterRun, instance: dg.DagsterInstance
) -> dict[Key, PlannedAsset] | ThanoError:
    try:
        keys = [(key.path[0], key.path[-1]) for key in run.asset_selection or ()]
        return {one.node.key: one for one in due(workspace, keys, instance)}
    except ThanoError as error:
        return error
