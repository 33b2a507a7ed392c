"""What a statement trains from: rows, base model and parent, who trains, and the fingerprint of all this."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from thano_assets.assets.models.bases import base_of
from thano_assets.assets.models.table_training import TableTrainer
from thano_assets.assets.models.text_training import TextTrainer
from thano_assets.assets.models.trainers import Trainer
from thano_assets.assets.models.training import Training
from thano_assets.assets.models.training_sets import TrainingSet
from thano_assets.assets.runtime import Runtime
from thano_assets.catalog.kinds import CODE_VERSIONS
from thano_assets.graph import Node, NodeKind
from thano_assets.graph.build import training_identity
from thano_assets.learning.settings import PRETRAINING_VERSION
from thano_assets.resources import base_models, own_bases, resolved_base
from thano_assets.sql.statements import BuildBaseModel, BuildModel, TrainModel

if TYPE_CHECKING:
    from thano_assets.resources.registry import ModelVersion
    from thano_assets.resources.resolved_base import ResolvedBase


def trainer_of(statement: TrainModel) -> Trainer:
    """The trainer that a statement asks for."""
    if statement.task:
        return TableTrainer(statement.task)
    return TextTrainer()


def training_fingerprint(
    node: Node, training_set_identity: str, base_identity: str, parent_digest: str | None
) -> str:
    """What stands for a training in the registry (tag ``thano.fingerprint``): the same gives the same model.

    Args:
        node: The model; the options that only say how it is judged do not count.
        training_set_identity: :attr:`.TrainingSet.identity` of its rows.
        base_identity: Of the base model.
        parent_digest: ``thano.data_version`` of the version that a FIT MODEL goes on from.
    """
    statement = node.statement(TrainModel)
    return fingerprint_of(statement, training_set_identity, base_identity, parent_digest)


def fingerprint_of(
    statement: TrainModel,
    training_set_identity: str,
    base_identity: str,
    parent_digest: str | None,
) -> str:
    """See :func:`training_fingerprint`."""
    parts = [
        CODE_VERSIONS[NodeKind.MODEL],
        _code_version(statement),
        training_identity(statement, judged=False),
        training_set_identity,
        base_identity,
        parent_digest or "",
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _code_version(statement: TrainModel) -> str:
    if isinstance(statement, BuildBaseModel):
        return PRETRAINING_VERSION
    return trainer_of(statement).code_version


def training_from(
    name: str,
    statement: TrainModel,
    training_set: TrainingSet,
    parent: ModelVersion | None,
    runtime: Runtime,
    *,
    base: ResolvedBase | None = None,
) -> Training:
    """The training of ``statement`` on these rows, from this parent.

    Args:
        name: Of the model.
        statement: Has the options.
        training_set: The rows.
        parent: What FIT MODEL goes on from.
        runtime: Where models are.
        base: The base model, where it is not what the statement's name means now.

    Raises:
        BaseModelUnavailable: no source has the base model now.
    """
    if base is not None:
        pass
    elif isinstance(statement, BuildModel):
        base = base_of(statement, runtime.registry, runtime.workspace)
    elif parent is not None and own_bases.BASE_VERSION_TAG in parent.tags:
        base = own_bases.behind(parent)
    elif parent is not None and parent.tags.get("thano.base") == resolved_base.UPLOADED:
        base = base_models.uploaded(parent.path, parent.tags.get("thano.base_revision", ""))
    else:
        base = base_models.resolve(
            _root_base(parent),
            quoted=True,
            revision=statement.options.get("base_revision"),
            workspace=runtime.workspace,
        )
    digest = parent.data_version if parent is not None else None
    fingerprint = fingerprint_of(statement, training_set.identity, base.identity, digest)
    return Training(name, statement, training_set, base, parent, fingerprint, trainer_of(statement))


def _root_base(parent: ModelVersion | None) -> str:
    return parent.tags.get("thano.base", "ElectraEn") if parent is not None else "ElectraEn"
