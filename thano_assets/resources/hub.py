"""The Hugging Face hub and its cache on this machine, asked with a short time limit.

A closed network must cost seconds, once: whether the hub answers is found by one request, made in a thread of
its own because name resolution has no time limit that could be set, and a failure is remembered.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

SECONDS = 5.0  # a hub that has not answered by then counts as out of reach
_MEMORY_SECONDS = 300.0  # how long an unreachable hub is not asked again
_REFUSED = frozenset({403, 407, 451})  # what a proxy or firewall answers in the hub's place
_WEIGHTS = frozenset({"model.safetensors", "model.safetensors.index.json"})
_FILES = ["*.json", "model*.safetensors", "*.txt", "*.model"]  # of a repository: all that is ever fetched

_unreachable: dict[str, float] = {}  # endpoint -> until when it is not asked again


class NotThere(Exception):  # noqa: N818 - an answer, not a failure
    """Why the hub cannot serve a model, in words."""


def reachable(endpoint: str | None = None) -> None:
    """Return when the hub answers at all.

    Raises:
        NotThere: switched off by ``HF_HUB_OFFLINE``, or no answer within :data:`SECONDS`; the answer is
            remembered for five minutes.
    """
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "ON", "YES"}:
        raise NotThere("switched off by HF_HUB_OFFLINE")
    endpoint = endpoint or constants.ENDPOINT
    if time.monotonic() < _unreachable.get(endpoint, 0.0):
        raise NotThere("not reachable")
    try:
        status = _within(SECONDS, lambda: get_session().head(endpoint, timeout=SECONDS).status_code)
        if status in _REFUSED or status >= 500:
            raise ConnectionError(f"status {status}")
    except Exception as error:  # the HTTP client's family of errors differs between its versions
        _unreachable[endpoint] = time.monotonic() + _MEMORY_SECONDS
        raise NotThere("not reachable") from error


def ask(repository: str, revision: str | None) -> tuple[str, str]:
    """Commit and Transformers model type of a repository with safetensors weights.

    Raises:
        NotThere: why it cannot be had.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    api = HfApi()

    def question() -> tuple[str, str]:
        found = api.model_info(repository, revision=revision, timeout=SECONDS)
        if not _has_weights(found) and revision is None:
            converted = _converted_branch(api, repository)
            if converted:
                found = api.model_info(repository, revision=converted, timeout=SECONDS)
        if not _has_weights(found):
            raise NotThere("its repository has no safetensors weights")
        return str(found.sha), str((found.config or {}).get("model_type", "unknown"))

    reachable(api.endpoint)
    try:
        return _within(3 * SECONDS, question)
    except HFValidationError as error:
        raise NotThere("not a repository's name") from error
    except GatedRepoError as error:
        raise NotThere("its repository wants a token") from error
    except RevisionNotFoundError as error:
        raise NotThere(f"its repository has no revision {revision}") from error
    except RepositoryNotFoundError as error:
        raise NotThere("the hub has no such repository") from error
    except (HfHubHTTPError, OSError, RuntimeError, LookupError, ValueError) as error:
        raise NotThere("the hub did not answer as expected") from error


def download(repository: str, commit: str) -> Path:
    """Fetch a repository's configuration, safetensors and tokenizer; the folder in the cache."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(repository, revision=commit, allow_patterns=_FILES))


def cached_snapshots(repository: str, revision: str | None) -> list[Path]:
    """Folders of this machine's cache that may serve ``revision``, the most fitting first."""
    from huggingface_hub import constants

    root = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    main = root / "refs" / "main"
    # Where the main branch has no safetensors, the hub's converted copy is on a pull request's branch.
    named = (
        [main, *sorted((root / "refs" / "pr").glob("*"))] if revision is None else [root / "refs" / revision]
    )
    commits = [path.read_text().strip() for path in named if path.is_file()]
    if revision is not None and not commits:
        commits = [revision]
    return [path for path in (root / "snapshots" / commit for commit in commits) if path.is_dir()]


def _has_weights(info: Any) -> bool:
    return bool(_WEIGHTS & {file.rfilename for file in info.siblings or ()})


def _converted_branch(api: Any, repository: str) -> str | None:
    """The pull request on which the hub's own converter keeps a safetensors copy of an older repository."""
    for thread in api.get_repo_discussions(repository, discussion_type="pull_request", author="SFconvertbot"):
        if "safetensors" in thread.title:
            return f"refs/pr/{thread.num}"
    return None


def _within(seconds: float, work: Callable[[], T]) -> T:
    results: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:  # carried to the caller, below
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return results[0]
