"""The command line: ``thano init | run | sql | plan | ui | doctor | diff | env``.

Only Click is imported until a command needs more, so that ``thano --help`` answers at once.
Rows go to standard output, everything said about them to standard error.
Exit codes: 0 all well, 1 a statement failed, 2 the command was misused, 130 stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from thano_assets import __version__
from thano_assets.interfaces.batch import TABLE_ROWS, JsonLines, Runner, Script, Terminal, changes, deliver
from thano_assets.interfaces.command_group import (
    Group,
    Settings,
    check_values,
    common_options,
    open_session,
    pass_settings,
    read_values,
)
from thano_assets.interfaces.formats import BINARY_FORMATS, DATA_FORMATS, format_of
from thano_assets.interfaces.serve_commands import serve, token
from thano_assets.stopping import stoppable

if TYPE_CHECKING:
    from thano_assets.session import Result

RUN_ROWS = 10


_wide = click.option(
    "--wide", is_flag=True, help="Show all columns of a table uncut, however wide the terminal is."
)
_values = click.option(
    "--set",
    "values",
    multiple=True,
    metavar="NAME=VALUE",
    callback=read_values,
    help="A value for $NAME in the statements; a number, true, false, null, or else a text.",
)


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  thano run tutorials/text_classification.sql
  thano sql "SELECT count(*) FROM movie_review_test"
  thano sql "LIST MODEL" --format json
  thano plan tutorials/text_classification.sql
  thano ui""",
)
@click.version_option(__version__, prog_name="thano", message="%(prog)s %(version)s")
@common_options
def cli() -> None:
    """Train, judge and use text classifiers with SQL statements, each one a Dagster asset."""


@cli.command(
    short_help="Make a workspace.",
    epilog="""\b
Examples:
  thano init                 make ./workspace
  thano init reviews         make ./reviews""",
)
@click.argument("directory", required=False, type=click.Path(file_okay=False))
@common_options
@pass_settings
def init(settings: Settings, directory: str | None) -> None:
    """Make a workspace: the folder that holds data, statements, tables, models and runs."""
    if directory is not None:
        settings.workspace = directory
    workspace = settings.open_workspace().create()
    root = Path(workspace.root)
    with contextlib.suppress(ValueError):
        root = root.relative_to(Path.cwd())
    click.echo(f"The workspace {workspace.root} is ready.")
    click.echo(
        f"  put files that COPY reads into {root / 'data'}{os.sep}; settings are in {root / 'thano.toml'}"
    )
    option = "" if str(root) in (".", "workspace") else f"-w {root} "
    click.echo(f"  then: thano {option}sql \"COPY reviews FROM 'reviews.csv'\"")


@cli.command(
    short_help="Run the statements of files in order.",
    epilog="""\b
Examples:
  thano run tutorials/text_classification.sql
  thano run load.sql train.sql --force
  thano run daily.sql --format json > results.jsonl""",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE.sql…", type=click.Path(allow_dash=True))
@click.option(
    "--force",
    is_flag=True,
    help="Do every statement, also where nothing has changed since the last time.",
)
@click.option(
    "--max-rows",
    type=click.IntRange(min=0),
    default=RUN_ROWS,
    show_default=True,
    metavar="N",
    help="Rows shown of each result; 0 shows all.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="json gives one line for each statement: what it did, its first rows, its warnings, its seconds.",
)
@_wide
@_values
@common_options
@pass_settings
def run(
    settings: Settings,
    files: tuple[str, ...],
    force: bool,
    max_rows: int,
    format_: str,
    wide: bool,
    values: dict[str, Any],
) -> None:
    """Run the statements of files in order, and of each only what is out of date (see `thano plan`).

    All files are read, parsed and planned before the first statement runs. The first error stops the run;
    what was finished before it is kept. `-` reads standard input.
    """
    settings.errors_as_json = format_ == "json"
    scripts = [Script.read(name) for name in files]
    check_values(values, *(script.text for script in scripts))
    terminal: Terminal = JsonLines() if format_ == "json" else Terminal(wide=wide)
    with stoppable(), open_session(settings, terminal) as session:
        Runner(session, terminal, max_rows=max_rows or None).run(scripts, values, force=force)


@cli.command(
    short_help="Run statements and print their rows.",
    epilog="""\b
Examples:
  thano sql "SELECT * FROM movie_review_train LIMIT 5"
  thano sql "LIST THANOSQL MODEL"
  thano sql "SELECT * FROM movie_review_test" -o reviews.parquet
  echo "LIST TABLE" | thano sql - --format json""",
)
@click.argument("text", metavar="STATEMENTS")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["table", *DATA_FORMATS]),
    help="table fits rows to the terminal; the others give the last statement's rows whole, and nothing else "
    "[default: from the ending of -o, else table].",
)
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(dir_okay=False), help="Write the rows to a file."
)
@click.option(
    "--max-rows",
    type=click.IntRange(min=0),
    metavar="N",
    help=f"At most so many rows; 0 means all [default: {TABLE_ROWS} in a table, all elsewhere].",
)
@_wide
@_values
@common_options
@pass_settings
def sql(
    settings: Settings,
    text: str,
    format_: str | None,
    output: str | None,
    max_rows: int | None,
    wide: bool,
    values: dict[str, Any],
) -> None:
    """Run statements given as text and print the rows; `-` reads them from standard input."""
    format_ = format_ or (format_of(output) if output else "table")
    if format_ in BINARY_FORMATS and output is None and sys.stdout.isatty():
        raise click.UsageError(f"{format_} is binary; name a file with -o, or send it on through a pipe.")
    if output is not None and not Path(output).absolute().parent.is_dir():
        raise click.UsageError(f"the folder of {output} does not exist; make it first.")
    settings.errors_as_json = format_ == "json"
    statements = Script.read("-").text if text == "-" else text
    check_values(values, statements)
    terminal = Terminal(wide=wide)
    with stoppable(), open_session(settings, terminal) as session:
        if format_ == "table" and output is None:
            for result in session.run(statements, values):
                terminal.show(result, TABLE_ROWS if max_rows is None else max_rows or None)
            return
        last: Result | None = None
        for last in session.run(statements, values):
            terminal.say(last)
    if last is None:
        return
    if last.table is None:
        if output is not None:
            click.echo(f"{last.kind} gives no rows, so {output} was not written.", err=True)
        return
    table = last.table.slice(0, max_rows) if max_rows else last.table
    deliver(table, format_, output)


@cli.command(
    short_help="Show what running would do, and why.",
    epilog="""\b
Examples:
  thano plan tutorials/text_classification.sql
  thano plan daily.sql --all
  thano plan "PREDICT USING tutorial_text_classification OPTIONS (text_col='review')
              AS SELECT * FROM movie_review_test" """,
)
@click.argument("targets", nargs=-1, required=True, metavar="FILE.sql…|STATEMENTS")
@click.option(
    "--format", "format_", type=click.Choice(["table", *DATA_FORMATS[:3]]), default="table", show_default=True
)
@click.option("--all", "everything", is_flag=True, help="Also list the assets that are up to date.")
@_wide
@_values
@common_options
@pass_settings
def plan(
    settings: Settings,
    targets: tuple[str, ...],
    format_: str,
    everything: bool,
    wide: bool,
    values: dict[str, Any],
) -> None:
    """Show what `thano run` would do, asset by asset and why, without doing it."""
    settings.errors_as_json = format_ == "json"
    scripts = [Script.of(target) for target in targets]
    check_values(values, *(script.text for script in scripts))
    terminal = Terminal(wide=wide)
    with stoppable(), open_session(settings, terminal) as session:
        statements = [one for script in scripts for one in script.statements(session, values)]
        with scripts[0].named_in_errors() if len(scripts) == 1 else contextlib.nullcontext():
            result = session.plan_statements(statements, "\n".join(script.text for script in scripts))
    if not everything:
        result = changes(result)
    if format_ == "table":
        terminal.show(result, None)
    else:
        terminal.say(result)
        if result.table is not None:
            deliver(result.table, format_, None)


@cli.command(
    short_help="Type statements at a prompt.",
    epilog="""\b
Examples:
  thano shell
  thano --env trial shell""",
)
@_wide
@common_options
@pass_settings
def shell(settings: Settings, wide: bool) -> None:
    """Type statements at a prompt with history, completion (Tab) and colours; `\\?` there lists commands.

    For statements from a file or a pipe there is `thano run`.
    """
    if not sys.stdin.isatty():
        raise click.UsageError("the shell reads from a terminal; `thano run -` reads statements from a pipe.")
    from thano_assets.interfaces.shell import Shell

    terminal = Terminal(wide=wide)
    with open_session(settings, terminal) as session:
        Shell(session, terminal).run()


@cli.command(
    short_help="Start the web pages of Dagster and MLflow.",
    epilog="""\b
Examples:
  thano ui
  thano ui --port 3100 --no-browser""",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="Dagster's port [default: 3000 or a free one].",
)
@click.option(
    "--mlflow-port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="MLflow's port [default: 5000 or a free one].",
)
@click.option("--no-browser", is_flag=True, help="Do not open a browser.")
@common_options
@pass_settings
def ui(settings: Settings, port: int | None, mlflow_port: int | None, no_browser: bool) -> None:
    """Start Dagster's and MLflow's web pages for the workspace; Ctrl-C stops both."""
    from thano_assets.interfaces.ui import serve

    workspace = settings.open_workspace()
    if workspace.named and not workspace.is_there:
        raise workspace.missing()
    workspace.create()
    with stoppable():
        code = serve(
            workspace,
            port=port,
            mlflow_port=mlflow_port,
            browser=not no_browser,
            verbose=settings.verbose,
            say=click.echo,
        )
    click.get_current_context().exit(code)


@cli.command(
    short_help="Check this machine and the workspace.",
    epilog="""\b
Examples:
  thano doctor
  thano doctor --repair
  thano doctor --format json""",
)
@click.option("--repair", is_flag=True, help="First mend what is damaged in the workspace.")
@click.option("--format", "format_", type=click.Choice(["table", "json"]), default="table", show_default=True)
@common_options
@pass_settings
def doctor(settings: Settings, format_: str, repair: bool) -> None:
    """Check versions, processor, memory, disk, base models, data sets and the workspace, and say what to do.

    The exit code is 1 only if something keeps statements from running.
    """
    from thano_assets.commands.doctor import repair as mend
    from thano_assets.interfaces.doctor import report

    with stoppable():
        if repair:
            mend(settings.workspace, lambda text: click.echo(text, err=True))
        sound = report(settings.workspace, format_)
    click.get_current_context().exit(0 if sound else 1)


@cli.command(
    short_help="Show what the workspace takes on disk.",
    epilog="""\b
Examples:
  thano du
  thano du --format json""",
)
@click.option(
    "--format", "format_", type=click.Choice(["table", *DATA_FORMATS[:3]]), default="table", show_default=True
)
@common_options
@pass_settings
def du(settings: Settings, format_: str) -> None:
    """Show what the parts of the workspace take on disk, the largest first."""
    import pyarrow as pa

    from thano_assets.commands.housekeeping import usage
    from thano_assets.interfaces.render import console_for, show_table

    workspace = settings.open_workspace()
    if not workspace.is_there:
        raise workspace.missing()
    parts = usage(workspace)
    table = pa.table(
        {
            "part": [part.name for part in parts],
            "mb": [round(part.bytes / 1e6, 1) for part in parts],
            "files": [part.files for part in parts],
            "path": [os.path.relpath(part.path, workspace.root) for part in parts],
        }
    )
    if format_ == "table":
        show_table(table, console_for(sys.stdout))
        click.echo(f"{sum(part.bytes for part in parts) / 1e6:,.1f} MB in {workspace.root}")
    else:
        deliver(table, format_, None)


@cli.command(
    short_help="Remove what nothing needs any more.",
    epilog="""\b
Examples:
  thano clean --dry-run
  thano clean --keep 2          also remove all but the two newest versions of each model""",
)
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    metavar="N",
    help="Keep the N newest versions of each model, and those that have an alias, that a statement names or "
    "that another went on from [default: all].",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@common_options
@pass_settings
def clean(settings: Settings, keep: int | None, dry_run: bool) -> None:
    """Remove training sets of no version, stopped trainings, files of killed processes and, with --keep, old
    versions of models.

    Tables, predictions, statements and what answers now are never touched.
    """
    from thano_assets.assets.runtime import Runtime
    from thano_assets.catalog import catalog_of
    from thano_assets.commands.housekeeping import leftovers, remove

    workspace = settings.open_workspace()
    if not workspace.is_there:
        raise workspace.missing()
    workspace.use_reserve()
    runtime = Runtime.of(workspace)
    with stoppable():
        found = leftovers(runtime, catalog_of(workspace), keep)
        for one in found:
            click.echo(f"{one.bytes / 1e6:10,.1f} MB  {one.what}" + (f"  {one.path}" if one.path else ""))
        if not dry_run:
            remove(found, runtime)
        workspace.keep_reserve()
    size = sum(one.bytes for one in found) / 1e6
    click.echo(
        f"{size:,.1f} MB {'would be' if dry_run else 'were'} freed."
        if found
        else "There is nothing to remove."
    )


@cli.command(
    short_help="Show what an environment made differently.",
    epilog="""\b
Examples:
  thano diff --env trial
  thano diff --env trial --examples 20
  thano diff --env trial --format json --exit-code""",
)
@click.option(
    "--format", "format_", type=click.Choice(["table", *DATA_FORMATS[:3]]), default="table", show_default=True
)
@click.option(
    "--examples",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    metavar="N",
    help="Rows shown of each prediction table whose label flipped.",
)
@click.option("--exit-code", is_flag=True, help="Exit with 1 if anything differs.")
@common_options
@pass_settings
def diff(settings: Settings, format_: str, examples: int, exit_code: bool) -> None:
    """Compare what an environment made with production: metrics of models, flipped labels, rows of tables."""
    from thano_assets.commands.diff import compare
    from thano_assets.resources.environments import ENVIRONMENT_NAME_VARIABLE, existing_environment

    name = settings.environment or os.environ.get(ENVIRONMENT_NAME_VARIABLE)
    if not name:
        raise click.UsageError(
            "which environment? Name it: thano diff --env NAME (thano env list shows them)."
        )
    terminal = Terminal()
    with stoppable():
        result = compare(existing_environment(settings.open_production(), name), examples)
    if format_ == "table":
        if result.row_count:
            terminal.show(result, None)
        else:
            terminal.say(result)
    else:
        terminal.say(result)
        deliver(result.arrow(), format_, None)
    click.get_current_context().exit(1 if exit_code and result.row_count else 0)


@cli.group(
    short_help="List and remove environments.",
    epilog="""\b
Examples:
  thano env list
  thano env remove trial""",
)
def env() -> None:
    """Environments of the workspace; `thano --env NAME …` makes one the first time that it is named."""


@env.command("list")
@common_options
@pass_settings
def env_list(settings: Settings) -> None:
    """Print the names of the workspace's environments, one a line."""
    from thano_assets.resources.environments import environments

    for one in environments(settings.open_production()):
        click.echo(one.name)


@env.command("remove")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@common_options
@pass_settings
def env_remove(settings: Settings, name: str, yes: bool) -> None:
    """Delete an environment with the tables, models and runs that were made there; production stays."""
    from thano_assets.resources.environments import existing_environment, remove

    environment = existing_environment(settings.open_production(), name)
    if not yes:
        click.confirm(f"Delete {environment.root} with everything made there?", abort=True, err=True)
    remove(environment)
    click.echo(f"The environment {name} is removed.")


cli.add_command(serve)
cli.add_command(token)


def main() -> None:
    """Console script ``thano``."""
    cli(prog_name="thano")


if __name__ == "__main__":
    main()
