"""What BUILD MODEL starts from, a base model that was built here among the rest, and what may name one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from thano_assets.catalog import EntryKind
from thano_assets.errors import InvalidOption, ThanoError, UnsupportedStatement, WorkspaceError
from thano_assets.graph import Node
from thano_assets.graph.build import Key, NodeKind, makes_base, model_ref
from thano_assets.resources import base_models, own_bases, resolved_base
from thano_assets.sql.base_names import CATALOGUE_NAMES, may_be_own_base
from thano_assets.sql.objectives import REPLACED_TOKEN_DETECTION
from thano_assets.sql.statements import (
    BuildBaseModel,
    BuildModel,
    BuildTableModel,
    ClassifierQuery,
    Evaluate,
    ExplainPredict,
    FitModel,
    Predict,
    Statement,
)

if TYPE_CHECKING:
    from thano_assets.catalog.overlay import Entries
    from thano_assets.resources.model_version import ModelVersion
    from thano_assets.resources.registry import Registry
    from thano_assets.resources.resolved_base import ResolvedBase
    from thano_assets.resources.workspace import Workspace

#: Layouts whose pre-training goes on here, by Transformers' model type.
PRETRAINABLE = ("electra", "bert")


def base_of(
    statement: BuildModel, registry: Registry, workspace: Workspace, *, network: bool = True
) -> ResolvedBase:
    """The base model that ``statement`` starts from; of one built here, the version that answers now.

    Raises:
        UnknownBaseModel, BaseModelUnavailable, UnsupportedStatement, PathRefused: it cannot be had, or its
            pre-training cannot go on; without a place.
        WorkspaceError: the files of a model that was built here are gone.
    """
    if isinstance(statement, BuildBaseModel):
        known = next((one for one in base_models.catalogue() if one.name == statement.base), None)
        if known is not None and known.purpose == "classify":  # its layout is known without its weights
            _check_layout(statement, known.class_name.partition("For")[0].lower())
    base = base_models.resolve(
        statement.base,
        quoted=statement.base_quoted,
        revision=statement.options.get("base_revision"),
        workspace=workspace,
        network=network,
        own=lambda name: None if name == statement.name else registry.resolve(name),
    )
    if isinstance(statement, BuildBaseModel):
        _check_layout(statement, base.architecture)
    return base


def _check_layout(statement: BuildModel, architecture: str) -> None:
    if architecture not in PRETRAINABLE:
        raise UnsupportedStatement(
            f"The pre-training of {statement.base} ({architecture.upper()}) cannot go on here.",
            hint=f"objective='{REPLACED_TOKEN_DETECTION}' takes encoders in ELECTRA's or BERT's layout: "
            "ElectraEn, ElectraKo, BertEn, or a repository or folder of such a one.",
        )


def base_behind(version: ModelVersion, registry: Registry) -> ResolvedBase | None:
    """The version of a base model built here that ``version`` started from; ``None`` where it was no such.

    Raises:
        WorkspaceError: it is no longer kept.
    """
    reference = version.tags.get(own_bases.BASE_VERSION_TAG)
    if not reference:
        return None
    name = version.tags.get("thano.base", "")
    wanted = version.tags.get("thano.base_revision")
    found = [
        one
        for one in registry.versions(name)
        if one.data_version == wanted and (one.path / "config.json").is_file()
    ]
    if not found:
        raise WorkspaceError(
            f"{version.name} VERSION {version.version} was built on {reference}, which is no longer kept.",
            hint=f"BUILD MODEL {version.name} USING {name} builds it on the version that answers now.",
        )
    same = next((one for one in found if f"{name} VERSION {one.version}" == reference), found[-1])
    return own_bases.of_version(same)


def base_tags(base: ResolvedBase) -> dict[str, str]:
    """What a version keeps of the base model that it was made from."""
    tags = {
        "thano.base": base.name,
        "thano.base_source": base.describe().removeprefix(base.name).lstrip(": "),
        "thano.base_note": base.note or "",
        "thano.base_revision": base.revision,
        "thano.base_identity": base.identity,
        "thano.class_name": base.name,
    }
    if base.source == resolved_base.MODEL:
        tags[own_bases.BASE_VERSION_TAG] = f"{base.name} VERSION {base.version}"
    return tags


def read_base(node: Node) -> Key | None:
    """The key of the base model built here that ``node``, a model, reads."""
    if node.kind is not NodeKind.MODEL or not isinstance(node.entry.statement, BuildModel):
        return None
    return next((key for key in node.reads if key[0] == NodeKind.MODEL), None)


# ------------------------------------------------------------------------------- what a statement may name


def check_models(part: Statement, catalog: Entries, known: Iterable[str]) -> None:
    """Check that base models and classifiers stand where they belong, as far as the catalog tells.

    Args:
        part: a statement without those nested in it.
        catalog: what is defined, ``part`` among it.
        known: models of the registry.

    Raises:
        UnknownBaseModel: ``USING`` names neither a base of the catalogue nor a model.
        UnsupportedStatement: a classifier in a base model's place, or the other way round.
        InvalidOption: a base model with a name of the catalogue, or ``base_revision`` of one built here.
    """
    if isinstance(part, BuildModel):
        _check_base(part, catalog, known)
    elif isinstance(part, (Predict, ExplainPredict, Evaluate, FitModel)):
        ref = model_ref(part)
        if ref is not None and makes_base(catalog.model(ref.name)):
            raise asked_of_base(part)


def _check_base(statement: BuildModel, catalog: Entries, known: Iterable[str]) -> None:
    name, place = statement.base, statement.base_span
    if isinstance(statement, BuildBaseModel) and statement.name in CATALOGUE_NAMES:
        own = statement.name_span
        raise InvalidOption(
            f"{statement.name} is a base model of the catalogue, so USING {statement.name} would never mean "
            "this one.",
            hint="Give it another name.",
        ).at(statement.source, own.start, len(own))
    if not may_be_own_base(name, statement.base_quoted):
        return
    error: ThanoError | None = None
    entry = catalog.model(name)
    ours = entry is not None and entry.name == name
    if name == statement.name and not statement.base_quoted:
        error = UnsupportedStatement(
            f"{name} cannot be its own base model.",
            hint="Give the result another name: each base model can be made again from what it names."
            if isinstance(statement, BuildBaseModel)
            else f"FIT MODEL {name} USING {name} goes on training a classifier.",
        )
    elif ours and makes_base(entry):
        if "base_revision" in statement.options:
            place = statement.options.place("base_revision")
            error = InvalidOption(
                f"base_revision is of the hub, and {name} was built here.",
                hint=f"PROMOTE MODEL {name} VERSION n chooses the version that is built on.",
            )
    elif statement.base_quoted:
        return
    elif ours:
        made = entry.statement if entry is not None else None
        error = own_bases.no_base_model(name, tables=isinstance(made, BuildTableModel))
    elif name not in set(known):
        bases = [one for one in catalog.names(EntryKind.MODEL) if makes_base(catalog.model(one))]
        error = base_models.unknown_base(name, bases)
    if error is not None:
        raise error.at(statement.source, place.start, len(place))


def asked_of_base(statement: ClassifierQuery | FitModel) -> ThanoError:
    """The refusal to ask a base model what only a classifier answers, placed at its name."""
    ref = model_ref(statement)
    assert ref is not None
    does = "knows no labels to go on with" if isinstance(statement, FitModel) else "gives no labels"
    return UnsupportedStatement(
        f"{ref.name} is a base model, which {does}.",
        hint=f"BUILD MODEL name USING {ref.name} OPTIONS (…) AS query trains a classifier from it.",
    ).at(statement.source, ref.span.start, len(ref.span))
