"""Being stopped: Ctrl-C, SIGTERM and Dagster's Terminate mean the same, and reach the work wherever it is.

A handler of a signal stops the work by raising, and what it raises can be lost: Python prints and drops what
is raised in a callback of the garbage collector, and libraries drop what is raised while they are imported.
So a request to stop is also noted in a :class:`Stop`. Every report of progress reads it, and whoever does
what cannot be undone (commits a transaction, registers a version, moves an alias) asks :func:`permit` first.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Any, NoReturn

from .progress import Progress, Relay, Task, reporting_to

#: Seconds between two looks at whether a run was cancelled without a signal.
_LOOK_SECONDS = 2.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether a piece of work was told to stop.

    Args:
        is_cancelled: Asks whoever else may cancel it, such as Dagster's instance.
        outer: Of the work that this is a part of; it stops with it.
    """

    def __init__(self, is_cancelled: Callable[[], bool] = lambda: False, outer: Stop | None = None) -> None:
        self._is_cancelled = is_cancelled
        self._outer = outer
        self._requested = threading.Event()

    def request(self) -> None:
        """Tell the work to stop."""
        self._requested.set()

    def check(self) -> None:
        """Raise :class:`KeyboardInterrupt` if the work was told to stop."""
        if self._requested.is_set():
            raise KeyboardInterrupt("The run was told to stop.")
        if self._outer is not None:
            self._outer.check()

    def permit(self) -> None:
        """As :meth:`check`, after asking whether the run was cancelled."""
        if not self._requested.is_set() and self._is_cancelled():
            self.request()
        self.check()

    def watch(self, ended: threading.Event) -> None:
        """Until ``ended``, look for a cancellation without a signal; the main thread is then interrupted."""
        while not ended.wait(_LOOK_SECONDS):
            if self._requested.is_set():
                return
            try:
                cancelled = self._is_cancelled()
            except Exception:  # the instance was closed, or is busy: whoever asks for a permit hears of it
                continue
            if cancelled:
                # Dagster writes the request down before it signals; a signal of its own arrives meanwhile.
                if not ended.wait(_LOOK_SECONDS) and not self._requested.is_set():
                    self.request()
                    _thread.interrupt_main(signal.SIGINT)
                return


_stop: ContextVar[Stop | None] = ContextVar("thano_stop", default=None)


def permit() -> None:
    """Raise :class:`KeyboardInterrupt` if the run of this context is being or has been cancelled.

    For the moment before a step that cannot be undone. Outside of a run it does nothing.
    """
    stop = _stop.get()
    if stop is not None:
        stop.permit()


@contextmanager
def heeding(is_cancelled: Callable[[], bool], progress: Progress) -> Iterator[None]:
    """The block is one piece of work that stops when it is told to; it reports to ``progress``.

    Args:
        is_cancelled: Whether its run was cancelled; asked by :func:`permit`, and by a thread now and then.
        progress: Receiver of the block's reports.

    Raises:
        KeyboardInterrupt: it was told to stop before it began, or at a report of progress.
    """
    stop, ended = Stop(is_cancelled, _stop.get()), threading.Event()
    token = _stop.set(stop)
    try:
        stop.permit()
        with _noting_signals(stop, ended), reporting_to(_Heeding(progress, stop)):
            yield
    finally:
        ended.set()
        _stop.reset(token)


@contextmanager
def _noting_signals(stop: Stop, ended: threading.Event) -> Iterator[None]:
    """Note signals in ``stop`` before their handlers raise; only the main thread has any."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers: dict[int, Any] = {number: signal.getsignal(number) for number in _SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        stop.request()
        handler = handlers[number]
        if callable(handler):
            handler(number, frame)

    watcher = threading.Thread(target=stop.watch, args=(ended,), name="thano-cancelled", daemon=True)
    with _interruptible_queries():
        for number, handler in handlers.items():
            if callable(handler):
                signal.signal(number, note)
        watcher.start()
        try:
            yield
        finally:
            for number, handler in handlers.items():
                if callable(handler):
                    signal.signal(number, handler)


class _HeedingTask(Task):
    def __init__(self, task: Task, stop: Stop) -> None:
        self._task, self._stop = task, stop

    def advance(self, amount: int = 1, **fields: float | str) -> None:
        self._stop.check()
        self._task.advance(amount, **fields)


class _Heeding(Relay):
    """Stops the work that reports where it was told to stop."""

    def __init__(self, progress: Progress, stop: Stop) -> None:
        super().__init__(progress)
        self._stop = stop

    @contextmanager
    def task(self, label: str, total: int | None = None, unit: str = "rows") -> Iterator[Task]:
        self._stop.check()
        with super().task(label, total, unit) as task:
            yield _HeedingTask(task, self._stop)


@contextmanager
def time_limit(seconds: float, progress: Progress) -> Iterator[Progress]:
    """Stop the block's work after so many seconds, in whatever thread it is.

    Gives the receiver that the work has to report to: it hears of the end at a report, or in a query.

    Raises:
        KeyboardInterrupt: the time is over.
    """
    stop, ended, thread = Stop(outer=_stop.get()), threading.Event(), threading.get_ident()

    def watch() -> None:
        if ended.wait(seconds):
            return
        stop.request()
        while not ended.wait(0.2):
            for connection in _connections(sys._current_frames().get(thread)):
                connection.interrupt()

    token = _stop.set(stop)
    threading.Thread(target=watch, name="thano-time-limit", daemon=True).start()
    try:
        yield _Heeding(progress, stop)
    finally:
        ended.set()
        _stop.reset(token)


@contextmanager
def stoppable(terminate: bool = True) -> Iterator[None]:
    """Inside the block Ctrl-C, and SIGTERM with ``terminate``, stop the work; only in the main thread.

    A handler that raises is not enough. DuckDB 2.0 notices a signal during a query and then waits, often for
    ever, for its own threads to finish what they are at; only ``connection.interrupt()`` makes them stop. So
    a thread is told of every signal, and where the main thread stays in one call, interrupts its connections.
    (Holding signals back for a thread that waits for them would be shorter, but child processes inherit that:
    Dagster's could then no longer be ended.)
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_signal: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt

    before: dict[int, Any] = {}
    if terminate:
        before[signal.SIGTERM] = signal.signal(signal.SIGTERM, stop)
        # A shell starts a background job with SIGINT ignored; a stop must still arrive.
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
            before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with _interruptible_queries():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _interruptible_queries() -> Iterator[None]:
    """In the block a thread interrupts the DuckDB queries that a signal meets; the innermost block's."""
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    wakeup = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    helper = threading.Thread(target=_interrupt_queries, args=(told,), name="thano-signals", daemon=True)
    helper.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        os.close(tell)
        helper.join()


def _interrupt_queries(signals: int) -> None:
    """Read signal numbers, a byte each, until the pipe is closed."""
    main = threading.main_thread().ident or 0
    while numbers := os.read(signals, 64):
        if not set(_SIGNALS) & set(numbers):
            continue
        frame = sys._current_frames().get(main)
        at = None if frame is None else frame.f_lasti
        # Only the call that the signal met: what tidies up after it must not be interrupted.
        for _ in range(10):
            time.sleep(0.05)
            if frame is None or sys._current_frames().get(main) is not frame or frame.f_lasti != at:
                break
            for connection in _connections(frame):
                connection.interrupt()
        del frame
    os.close(signals)


def _connections(frame: FrameType | None) -> Iterator[Any]:
    """The DuckDB connections that a thread holds in its variables, innermost first."""
    while frame is not None:
        for value in frame.f_locals.values():
            if "duckdb" in type(value).__module__:
                # A relation has its connection inside. To interrupt one that is idle does nothing.
                connection = getattr(value, "_con", value)
                if hasattr(connection, "interrupt"):
                    yield connection
        frame = frame.f_back


def was_stopped(error: BaseException | None) -> bool:
    """Whether an error is what became of a stop: libraries turn an interrupt into errors of their own."""
    seen: set[int] = set()  # an error that Dagster raises again has itself among its causes
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, KeyboardInterrupt):
            return True
        # DuckDB's answers to a signal and to `connection.interrupt()`.
        if type(error).__name__ == "InterruptException" or str(error) == "Query interrupted":
            return True
        error = error.__cause__ or error.__context__
    return False
