"""One training in several processes, each with a GPU of its own (or a part of the processor).

``THANO_PROCESSES`` says how many; the rest is torch's launcher (``torchrun``) and, inside the processes,
Accelerate. The first process tells its progress over a socket, so bars, loss curves and MLflow's figures are
those of a training in one process, and what it made is what this returns.
"""

from __future__ import annotations

import json
import os
import pickle
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO, TypeVar

from ..errors import InvalidOption, TrainingStopped
from ..progress import Progress, Task

if TYPE_CHECKING:
    from .base_model import BaseModel
    from .loop import OnMetrics

_Result = TypeVar("_Result", covariant=True)

PROCESSES_VARIABLE = "THANO_PROCESSES"
_ADDRESS, _TOKEN = "THANO_TRAINING_ADDRESS", "THANO_TRAINING_TOKEN"
_JOB, _RESULT = "job.pickle", "result.pickle"
_STARTING = 600.0  # seconds in which the first process must have reported
_ENDING = 10.0  # seconds that stopped processes have before they are killed


def wanted_processes() -> int:
    """In how many processes one training is to run: what ``THANO_PROCESSES`` says, else 1.

    Raises:
        InvalidOption: not a whole number of at least 1.
    """
    written = os.environ.get(PROCESSES_VARIABLE, "").strip()
    if not written:
        return 1
    if not written.isdecimal() or int(written) < 1:
        raise InvalidOption(
            f"{PROCESSES_VARIABLE}={written!r} is not a number of processes.",
            hint="It must be a whole number of at least 1: as many as there are GPUs to train on.",
        )
    return int(written)


class Job(Protocol[_Result]):
    """A training that can be pickled."""

    @property
    def base(self) -> BaseModel:
        """The base model."""

    def run(self, progress: Progress, on_metrics: OnMetrics) -> _Result:
        """Train, in one of the processes."""


def run_in_processes(job: Job[_Result], number: int, progress: Progress, on_metrics: OnMetrics) -> _Result:
    """Do ``job`` in ``number`` processes of this machine; they end with this one, whatever ends it.

    Raises:
        InvalidOption: more processes than GPUs.
        TrainingStopped: a process ended before its time; what its training raised is raised as it is.
    """
    _check_gpus(number)
    given: Any = job
    job = replace(given, base=job.base.fetched(progress))  # once, here, and found there by all
    with ExitStack() as ended, tempfile.TemporaryDirectory(prefix="thano-training-") as place:
        folder = Path(place)
        (folder / _JOB).write_bytes(pickle.dumps(job))
        server = ended.enter_context(socket.create_server(("127.0.0.1", 0)))
        token = secrets.token_hex()
        log = ended.enter_context((folder / "log.txt").open("w+", encoding="utf-8", errors="replace"))
        launched = ended.enter_context(_launched(folder, number, _environment(number, server, token), log))
        _relay(server, token, launched, progress, on_metrics)
        launched.wait()
        found: _Result = _result(folder, number, log)
        return found


def _check_gpus(number: int) -> None:
    import torch

    there = torch.accelerator.device_count() if torch.accelerator.is_available() else number
    if number > there:
        raise InvalidOption(
            f"{PROCESSES_VARIABLE}={number}, but there {'is' if there == 1 else 'are'} {there} GPU"
            f"{'' if there == 1 else 's'} here.",
            hint=f"Set it to {there} or fewer.",
        )


def _environment(number: int, server: socket.socket, token: str) -> dict[str, str]:
    import torch

    address = "{}:{}".format(*server.getsockname()[:2])
    found = os.environ | {_ADDRESS: address, _TOKEN: token}
    if not torch.accelerator.is_available():
        # Accelerate takes a processor only if told, and each process would use all cores.
        threads = max(1, torch.get_num_threads() // number)
        found |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": str(threads)}
    return found


@contextmanager
def _launched(
    folder: Path, number: int, environment: dict[str, str], log: TextIO
) -> Iterator[subprocess.Popen[bytes]]:
    """The launcher, running; it is stopped, and with it what it started, where the block is left early."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nnodes=1"]
    command += [f"--nproc-per-node={number}", "-m", f"{__package__}.worker", str(folder)]
    launched = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
    )
    try:
        yield launched
    finally:
        if launched.poll() is None:
            launched.terminate()
            try:
                launched.wait(_ENDING)
            except subprocess.TimeoutExpired:
                launched.kill()
                launched.wait()


def _relay(
    server: socket.socket,
    token: str,
    launched: subprocess.Popen[bytes],
    progress: Progress,
    on_metrics: OnMetrics,
) -> None:
    """Tell ``progress`` and ``on_metrics`` what the first process tells, until it ends."""
    server.settimeout(0.2)
    waited = 0.0
    while True:
        try:
            connection, _ = server.accept()
        except TimeoutError:
            waited += 0.2
            if launched.poll() is not None or waited > _STARTING:
                return
            continue
        connection.settimeout(None)
        with connection, connection.makefile("r", encoding="utf-8") as lines:
            if lines.readline().strip() == token:
                _retold(lines, progress, on_metrics)
                return


def _retold(lines: TextIO, progress: Progress, on_metrics: OnMetrics) -> None:
    tasks: dict[int, tuple[ExitStack, Task]] = {}
    try:
        for line in lines:
            kind, *facts = json.loads(line)
            if kind == "message":
                progress.message(*facts)
            elif kind == "warning":
                progress.warning(*facts)
            elif kind == "metrics":
                on_metrics(*facts)
            elif kind == "begin":
                number, label, total, unit = facts
                entered = ExitStack()
                tasks[number] = (entered, entered.enter_context(progress.task(label, total, unit)))
            elif kind == "advance":
                number, amount, fields = facts
                tasks[number][1].advance(amount, **fields)
            elif kind == "end":
                tasks.pop(facts[0])[0].close()
    except (OSError, ValueError):
        pass  # cut off in the middle of a line: the process was killed, which its exit tells
    finally:
        for entered, _ in reversed(tasks.values()):
            entered.close()


def _result(folder: Path, number: int, log: TextIO) -> Any:
    raised = sorted(folder.glob("error-*.pickle"), key=lambda path: path.stat().st_mtime_ns)
    if raised:  # the first to fail is the cause, the others only miss it
        error: Exception = pickle.loads(raised[0].read_bytes())
        raise error
    if (folder / _RESULT).is_file():
        return pickle.loads((folder / _RESULT).read_bytes())
    log.seek(0)
    said = [line.strip() for line in log if line.strip()]
    raise TrainingStopped(
        f"One of the {number} processes that train the model ended before its time"
        + (f" ({said[-1][:200]})." if said else "."),
        hint="Run the statement again: it goes on from the last state that was kept.",
    )


# ---------------------------------------------------------------------------------------- in the processes


class _Told(Progress):
    """Tells the process that launched this one."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._tasks = 0

    def tell(self, *facts: Any) -> None:
        """One line; fails, and so ends the training, where nobody listens any more."""
        self._stream.write(json.dumps(facts) + "\n")
        self._stream.flush()

    def message(self, text: str) -> None:
        self.tell("message", text)

    def warning(self, text: str) -> None:
        self.tell("warning", text)

    @contextmanager
    def task(self, label: str, total: int | None = None, unit: str = "rows") -> Iterator[Task]:
        self._tasks += 1
        task = _ToldTask(self, self._tasks)
        self.tell("begin", self._tasks, label, total, unit)
        try:
            yield task
        finally:
            self.tell("end", task.number)


class _ToldTask(Task):
    def __init__(self, told: _Told, number: int) -> None:
        self._told, self.number = told, number

    def advance(self, amount: int = 1, **fields: float | str) -> None:
        self._told.tell("advance", self.number, int(amount), fields)


def work(folder: Path) -> None:
    """What each process does: its part of the job in ``folder``; the first one leaves the result there."""
    rank = int(os.environ["RANK"])
    try:
        job: Job[Any] = pickle.loads((folder / _JOB).read_bytes())
        if rank:
            job.run(Progress(), lambda figures, step: None)
            return
        host, _, port = os.environ[_ADDRESS].rpartition(":")
        with (
            socket.create_connection((host, int(port))) as connection,
            connection.makefile("w", encoding="utf-8") as stream,
        ):
            stream.write(os.environ[_TOKEN] + "\n")
            told = _Told(stream)
            result = job.run(told, lambda figures, step: told.tell("metrics", figures, step))
            _written(folder / _RESULT, result)
    except ConnectionError:
        shutil.rmtree(folder, ignore_errors=True)  # whoever would have removed it was killed
        raise
    except Exception as error:
        with suppress(Exception):  # not every exception can be pickled
            _written(folder / f"error-{rank}.pickle", error)
        raise


def _written(path: Path, value: object) -> None:
    temporary = path.with_suffix(".writing")
    temporary.write_bytes(pickle.dumps(value))
    temporary.rename(path)
