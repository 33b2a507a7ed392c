"""``thano serve`` and ``thano token``: the server, and who may ask it."""

from __future__ import annotations

import ipaddress
import re
import signal
import sys
from typing import TYPE_CHECKING, Any

import click

from thano_assets.errors import ThanoError
from thano_assets.interfaces.command_group import Settings, common_options, pass_settings
from thano_assets.resources.access import RIGHTS, Tokens

if TYPE_CHECKING:
    from thano_assets.resources.workspace import Workspace

_PORT = 8765


def _rights(_context: click.Context, _option: click.Parameter, given: str) -> tuple[str, ...]:
    rights = tuple(right.strip() for right in re.split("[, ]+", given) if right.strip())
    wrong = [right for right in rights if right not in RIGHTS]
    if wrong or not rights:
        raise click.BadParameter(f"'{', '.join(wrong)}' is not among {', '.join(RIGHTS)}.")
    return rights


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.casefold() == "localhost"


@click.command(
    short_help="Serve statements and models over HTTP.",
    epilog="""\b
Examples:
  thano serve
  thano serve --port 9000
  thano token create ci --rights read,build && thano serve --host 0.0.0.0""",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="The address to listen at; one that other machines reach needs an access token.",
)
@click.option("--port", type=click.IntRange(0, 65535), default=_PORT, show_default=True)
@common_options
@pass_settings
def serve(settings: Settings, host: str, port: int) -> None:
    """Answer the public ThanoSQL client, and anybody else who asks over HTTP, until Ctrl-C.

    The page /docs of the server shows what may be asked. Log lines, one of JSON for each request, go to
    standard error.
    """
    try:
        import uvicorn

        from thano_assets.interfaces.server.app import create_app
    except ModuleNotFoundError as error:
        raise ThanoError(
            f"The server needs the package {error.name}.",
            hint="pip install 'thano-assets[server]' brings it.",
        ) from error
    workspace = settings.open_workspace().create()
    check_address(workspace, host)
    app = create_app(workspace, loopback=is_loopback(host))
    server = _announced(
        uvicorn.Config(
            app, host=host, port=port, access_log=False, log_level="warning", timeout_graceful_shutdown=10
        )
    )
    server.run()
    if not server.started:
        raise ThanoError(f"The server cannot listen at {host}, port {port}.", hint="--port names another.")


def check_address(workspace: Workspace, host: str) -> None:
    """Refuse to listen where other machines reach the server while anybody may ask.

    Raises:
        ThanoError: there is no token.
    """
    if not is_loopback(host) and not Tokens(workspace).all():
        raise ThanoError(
            f"The server would answer everybody who reaches {host}, and there is no access token.",
            hint="`thano token create NAME --rights read` makes one.",
        )


def _announced(config: Any) -> Any:
    """A server that says where it answers, and ends well when it is told to stop."""
    import uvicorn

    class Announced(uvicorn.Server):
        """Says where it answers, once it does."""

        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            if self.started:
                host, port = self.servers[0].sockets[0].getsockname()[:2]
                shown = f"[{host}]" if ":" in host else host
                print(f"Thano    http://{shown}:{port}   /docs shows what may be asked", flush=True)
                print("Ctrl-C stops the server; runs go on.", flush=True)

        def handle_exit(self, sig: int, frame: Any) -> None:
            if sig == signal.SIGINT and not self.should_exit:
                print("Stopping…", file=sys.stderr, flush=True)
            config.app.state.server.runs.end_waiting()  # whoever follows a run would keep the server
            super().handle_exit(sig, frame)
            self._captured_signals.clear()  # the command ends well: it was told to

    return Announced(config)


@click.group(
    short_help="Make, list and revoke access tokens.",
    epilog="""\b
Examples:
  thano token create alice --rights read,write,build
  thano token list
  thano token revoke alice""",
)
def token() -> None:
    """Access tokens of `thano serve`; with the first one, nobody is let in without."""


@token.command("create")
@click.argument("name")
@click.option(
    "--rights",
    required=True,
    callback=_rights,
    metavar="LIST",
    help="read (rows, answers of models), write (tables) and build (models), with commas between.",
)
@common_options
@pass_settings
def token_create(settings: Settings, name: str, rights: tuple[str, ...]) -> None:
    """Make a token and print it: it is kept hashed, and cannot be shown again."""
    text = Tokens(settings.open_workspace().create()).create(name, rights)
    click.echo(text)
    click.echo(f"The token {name} may {', '.join(rights)}. It is not shown again.", err=True)


@token.command("list")
@common_options
@pass_settings
def token_list(settings: Settings) -> None:
    """Print the tokens: name, rights and when it was made, with tabs between."""
    for one in Tokens(settings.open_workspace()).all():
        click.echo(f"{one.name}\t{','.join(one.rights)}\t{one.created}")


@token.command("revoke")
@click.argument("name")
@common_options
@pass_settings
def token_revoke(settings: Settings, name: str) -> None:
    """End a token at once; a server that runs refuses it from then on."""
    Tokens(settings.open_workspace()).revoke(name)
    click.echo(f"The token {name} is revoked.")
