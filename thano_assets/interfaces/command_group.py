"""What all commands share: the group that turns errors into exit codes, and the options before a command.

Only Click is imported until a command needs more.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import click

from thano_assets.errors import ThanoError
from thano_assets.stopping import was_stopped

if TYPE_CHECKING:
    from thano_assets.interfaces.batch import Terminal
    from thano_assets.resources.workspace import Workspace
    from thano_assets.session import Session

STOPPED = 130


class Group(click.Group):
    """A command group that turns exceptions into sentences and exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Commands in the order in which a newcomer meets them."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a traceback is shown only with ``-v``."""
        # Made here, so that `thano sql -v` speaks of the same settings as `thano -v sql`.
        ctx.ensure_object(Settings)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            self._stopped(ctx, str(stop))
        except BrokenPipeError:
            # The reader of our output went away (``| head``): nobody is left to tell.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if was_stopped(error):
                self._stopped(ctx)
            self._failed(ctx, error)

    def _stopped(self, ctx: click.Context, words: str = "") -> NoReturn:
        click.echo(words or "Stopped. Nothing is left half done.", err=True)
        ctx.exit(STOPPED)

    def _failed(self, ctx: click.Context, error: Exception) -> NoReturn:
        from thano_assets.interfaces.render import console_for, show_error

        verbose = ctx.ensure_object(Settings).verbose
        if verbose:
            import traceback

            traceback.print_exception(error, file=sys.stderr)
        if ctx.ensure_object(Settings).errors_as_json:
            found = error if isinstance(error, ThanoError) else ThanoError(f"{type(error).__name__}: {error}")
            click.echo(json.dumps({"error": found.as_json()}, ensure_ascii=False), err=True)
        elif isinstance(error, ThanoError):
            show_error(error, console_for(sys.stderr))
        else:
            words = f"error: unexpected {type(error).__name__}: {error}"
            click.echo(words if verbose else f"{words} (`thano -v …` shows where it came from)", err=True)
        ctx.exit(1)


class Settings:
    """What the options before the command say."""

    def __init__(self) -> None:
        self.workspace: str | None = None
        self.environment: str | None = None
        self.verbose = False
        #: Whether an error is a line of JSON on standard error instead of a sentence.
        self.errors_as_json = False

    def open_workspace(self) -> Workspace:
        """The workspace that ``-w``, THANO_WORKSPACE or the current folder names; it may not be there yet.

        With ``--env`` or THANO_ENV it is that environment of it.
        """
        from thano_assets.resources.environments import find

        workspace = find(self.workspace, self.environment)
        _ = workspace.settings
        return workspace

    def open_production(self) -> Workspace:
        """The workspace itself, whatever environment is named; it must be there."""
        from thano_assets.resources.environments import open_workspace

        return open_workspace(self.workspace, create=False, environment="")


pass_settings = click.make_pass_decorator(Settings, ensure=True)


def _workspace_given(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(Settings).workspace = value


def _environment_given(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(Settings).environment = value


def _verbose_given(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Settings).verbose = True


def read_values(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> dict[str, Any]:
    """The values of ``--set NAME=VALUE``, by name."""
    from thano_assets.sql.variables import read_value

    values = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals or not re.fullmatch(r"\w+", name):
            raise click.BadParameter(f"'{one}' is not NAME=VALUE, such as cutoff=2024-01-01.")
        values[name] = read_value(value)
    return values


def check_values(values: Mapping[str, Any], *texts: str) -> None:
    """Refuse values that no statement uses: their names are misspelt, perhaps."""
    from thano_assets.sql.variables import names_in

    used = {name for text in texts for name in names_in(text)} if values else set()
    for name in values:
        if name not in used:
            there = f"; it has {', '.join(f'${one}' for one in sorted(used))}" if used else ""
            raise click.UsageError(f"no statement has the variable ${name} of --set{there}.")


def common_options(command: Any) -> Any:
    """``-w``, ``--env`` and ``-v``, understood before and after the command's name."""
    command = click.option(
        "-v",
        "--verbose",
        is_flag=True,
        expose_value=False,
        callback=_verbose_given,
        help="Show the logs of Dagster and MLflow, and tracebacks.",
    )(command)
    command = click.option(
        "--env",
        metavar="NAME",
        expose_value=False,
        callback=_environment_given,
        help="Work in this environment: own tables, models and runs, all else borrowed from production "
        "[default: $THANO_ENV, else production itself].",
    )(command)
    return click.option(
        "-w",
        "--workspace",
        metavar="DIR",
        expose_value=False,
        callback=_workspace_given,
        help="The workspace folder [default: $THANO_WORKSPACE, else the nearest folder upward with a "
        "thano.toml, else ./workspace].",
    )(command)


@contextlib.contextmanager
def open_session(settings: Settings, terminal: Terminal) -> Iterator[Session]:
    """A session on the chosen workspace that reports to the terminal, closed afterwards."""
    from thano_assets.session import Session

    workspace = settings.open_workspace()
    with Session(workspace, progress=terminal.progress, verbose=settings.verbose) as session:
        yield session
