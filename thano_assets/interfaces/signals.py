"""Being stopped: Ctrl-C and SIGTERM mean the same, and reach the work wherever it is."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn


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
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt_queries(signals: int) -> None:
    """Read signal numbers, a byte each, until the pipe is closed."""
    main = threading.main_thread().ident or 0
    while numbers := os.read(signals, 64):
        if not {signal.SIGINT, signal.SIGTERM} & set(numbers):
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
