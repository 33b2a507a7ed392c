"""Being stopped: Ctrl-C and SIGTERM mean the same, and arrive wherever the work is."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


@contextmanager
def stoppable() -> Iterator[None]:
    """Inside the block SIGTERM stops the work as Ctrl-C does; outside the main thread it does nothing.

    A handler that raises is not enough: Python runs it between two steps of its own, while DuckDB, busy with
    a query, looks out for SIGINT alone. So a thread is told of every signal, and where SIGTERM finds the main
    thread inside of DuckDB, it sends SIGINT after it. (Holding SIGTERM back for a thread that waits for it
    would be shorter, but child processes inherit that, and could no longer be ended.)
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_signal: int, _frame: object) -> NoReturn:
        raise KeyboardInterrupt

    terminate = signal.signal(signal.SIGTERM, stop)
    # A shell starts a background job with SIGINT ignored; a stop must still arrive.
    interrupt = signal.getsignal(signal.SIGINT)
    if interrupt == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    wakeup = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    helper = threading.Thread(target=_wake_duckdb, args=(told,), name="thano-signals", daemon=True)
    helper.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        os.close(tell)
        helper.join()
        signal.signal(signal.SIGINT, interrupt)
        signal.signal(signal.SIGTERM, terminate)


def _wake_duckdb(signals: int) -> None:
    """Read signal numbers, a byte each, until the pipe is closed."""
    main = threading.main_thread().ident or 0
    while numbers := os.read(signals, 64):
        if signal.SIGTERM not in numbers:
            continue
        time.sleep(0.1)  # enough for Python's own handler, if Python is what runs
        frame = sys._current_frames().get(main)
        if frame is not None and "duckdb" in frame.f_code.co_filename.replace("\\", "/").split("/"):
            os.kill(os.getpid(), signal.SIGINT)
    os.close(signals)


def was_stopped(error: BaseException | None) -> bool:
    """Whether an error is what became of a stop: libraries turn an interrupt into errors of their own."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        # DuckDB's answer to SIGINT during a query.
        if isinstance(error, RuntimeError) and str(error) == "Query interrupted":
            return True
        error = error.__cause__ or error.__context__
    return False
