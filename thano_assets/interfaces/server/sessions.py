"""Sessions that requests borrow, and what a token may have them do."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from thano_assets.errors import PermissionRefused, TimeOver
from thano_assets.progress import Progress, Relay
from thano_assets.resources.settings import FileSettings
from thano_assets.session import READING, Session
from thano_assets.sql.statements import (
    DeleteModel,
    ModelQuery,
    PromoteModel,
    RebuildModel,
    Statement,
    TrainModel,
    UploadModel,
)
from thano_assets.stopping import time_limit, was_stopped

if TYPE_CHECKING:
    from thano_assets.resources.access import Token
    from thano_assets.resources.workspace import Workspace

_BUILD = (TrainModel, UploadModel, DeleteModel, PromoteModel, RebuildModel)
#: Statements that train: they take minutes, and are run in a process of their own.
LONG = (TrainModel, RebuildModel)


def confined(workspace: Workspace) -> Workspace:
    """The workspace as statements from the network see it: of files, COPY reads those in ``data/`` only."""
    workspace.settings = replace(workspace.settings, files=FileSettings())
    return workspace


def right_for(statement: Statement) -> str:
    """The right that a statement needs: ``'read'``, ``'write'`` or ``'build'``.

    What a query asks of a model (PREDICT, EVALUATE …) is reading, whatever is kept of the answer.
    """
    if isinstance(statement, (*READING, ModelQuery)):
        return "read"
    return "build" if isinstance(statement, _BUILD) else "write"


def check_right(token: Token | None, right: str, what: str) -> None:
    """Refuse what a token is not good for; without a token (on loopback) everything goes.

    Raises:
        PermissionRefused: it needs another right.
    """
    if token is not None and right not in token.rights:
        raise PermissionRefused(
            f"{what} needs the right '{right}', and the token {token.name} has {', '.join(token.rights)}.",
            hint=f"`thano token create NAME --rights {right}` makes one that has it.",
        )


class Sessions:
    """Sessions of one workspace, one to a request at a time."""

    def __init__(self, workspace: Workspace, max_rows: int) -> None:
        self._workspace, self._max_rows = workspace, max_rows
        self._free: queue.LifoQueue[tuple[Session, Relay]] = queue.LifoQueue()

    @contextmanager
    def lend(self, seconds: float | None = None, progress: Progress | None = None) -> Iterator[Session]:
        """A session for one request.

        Args:
            seconds: How long the request may take.
            progress: Who is told how the work goes on.

        Raises:
            TimeOver: the time was over before the work was done; nothing is half done.
        """
        try:
            session, relay = self._free.get_nowait()
        except queue.Empty:
            relay = Relay(Progress())
            session = Session(self._workspace, progress=relay, max_rows=self._max_rows)
        told = progress or Progress()
        try:
            if seconds is None:
                relay.to = told
                yield session
            else:
                with time_limit(seconds, told) as relay.to:
                    yield session
        except BaseException as error:
            if seconds is not None and was_stopped(error):
                raise TimeOver(
                    f"The statement took longer than {seconds:g} seconds and was stopped.",
                    hint="POST /api/v1/runs takes longer ones; max_seconds under [server] is the limit.",
                ) from error
            raise
        finally:
            relay.to = Progress()
            self._free.put((session, relay))

    def close(self) -> None:
        """Close the sessions that nobody has."""
        while True:
            try:
                session, _ = self._free.get_nowait()
            except queue.Empty:
                return
            session.close()
