"""Base models that were built here: versions of the registry, as bases to train from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import UnsupportedStatement
from .resolved_base import MODEL, ResolvedBase, model_type

if TYPE_CHECKING:
    from .model_version import ModelVersion

#: Tag of a version: which version of a base model that was built here it started from, ``name VERSION n``.
BASE_VERSION_TAG = "thano.base_version"


def no_base_model(name: str, *, tables: bool = False) -> UnsupportedStatement:
    """The refusal of a classifier, or of a model of ``tables``, where a base model is meant."""
    if tables:
        return UnsupportedStatement(
            f"{name} is a model of tables, not a base model.",
            hint="BUILD MODEL … USING AutomlClassifier or AutomlRegressor finds one for other rows.",
        )
    return UnsupportedStatement(
        f"{name} is a classifier, not a base model.",
        hint=f"FIT MODEL … USING {name} goes on training it; BUILD MODEL starts from a base model.",
    )


def of_version(version: ModelVersion) -> ResolvedBase:
    """The base model that a registered version is.

    Raises:
        UnsupportedStatement: it is a classifier.
    """
    if not version.is_base:
        raise no_base_model(version.name, tables=version.task is not None)
    tags = version.tags
    rows = tags.get("thano.rows_train", "")
    texts = f" on {int(rows):,} texts" if rows.isdigit() else ""
    return ResolvedBase(
        version.name,
        model_type(version.path),
        MODEL,
        version.data_version,
        note=tags.get("thano.base_note") or None,
        version=version.version,
        origin=f"{tags.get('thano.base', 'a base model')} pre-trained further{texts}",
        _folder=lambda progress: version.path,
    )


def behind(parent: ModelVersion) -> ResolvedBase:
    """The base model built here that ``parent`` was trained from, as its tags tell, also where it is gone.

    Its folder is the parent's own: who goes on from a model needs no other weights.
    """
    tags = parent.tags
    number = tags.get(BASE_VERSION_TAG, "").rpartition(" ")[2]
    return ResolvedBase(
        tags.get("thano.base", ""),
        model_type(parent.path),
        MODEL,
        tags.get("thano.base_revision", ""),
        note=tags.get("thano.base_note") or None,
        version=int(number) if number.isdigit() else None,
        _folder=lambda progress: parent.path,
    )
