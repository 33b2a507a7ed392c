"""Statements from files, and how their results are shown on a terminal or written to a file."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from thano_assets.errors import ThanoError
from thano_assets.interfaces import formats
from thano_assets.stopping import was_stopped

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.console import Console

    from thano_assets.session import Result, Session
    from thano_assets.sql import Statement

#: Rows of a result that a terminal shows, unless it is told another number.
TABLE_ROWS = 40
#: Columns of a kind of result that are sentences: shown whole.
WRAPPED = {
    "PLAN": ("reason",),
    "SHOW RUNS": ("error",),
    "SHOW VERSIONS": ("why",),
    "SHOW LINEAGE": ("out_of_date",),
}
#: What a person needs first of the rows of some statements, where there is no room for all columns.
FIRST = {
    "PLAN": ("asset", "action", "reason", "rows", "estimated_seconds"),
    "SHOW RUNS": ("started", "status", "seconds", "assets", "launched_by", "error"),
    "SHOW VERSIONS": ("version", "aliases", "status", "accuracy", "f1_macro", "rmse", "why"),
    "SHOW LINEAGE": ("asset", "time", "rows", "model_version", "out_of_date"),
    "LIST": (
        *("name", "version", "aliases", "accuracy", "kind"),
        *("description", "size_mb", "available", "reason"),
        *("table_name", "rows", "made_by"),
    ),
}
#: Cells of a table of which nothing is cut.
_WIDE = 100_000
# Quoted text is matched first, so that comment marks inside it stay.
_QUOTED_OR_COMMENT = re.compile(r"""('(?:[^']|'')*'|"(?:[^"]|"")*")|--[^\n]*|/\*.*?\*/""", re.DOTALL)


class Script:
    """The statements of one file, of standard input, or given as text (then without a name)."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text

    @classmethod
    def read(cls, name: str) -> Script:
        """Read a file, or standard input for ``-``; a file that cannot be read is a usage error."""
        called = "standard input" if name == "-" else name
        try:
            content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
            return cls(called, content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n"))
        except FileNotFoundError:
            raise click.UsageError(f"there is no file {name}.") from None
        except IsADirectoryError:
            raise click.UsageError(f"{name} is a folder; name the .sql files in it.") from None
        except UnicodeDecodeError as error:
            raise click.UsageError(
                f"{called} is not UTF-8 text (byte {error.start:,}); save it as UTF-8."
            ) from None
        except OSError as error:
            raise click.UsageError(f"{name} cannot be read: {error.strerror}.") from None

    @classmethod
    def of(cls, target: str) -> Script:
        """The file that ``target`` names, or the statements that it is."""
        looks_like_a_path = len(target.split()) == 1 and (target.endswith(".sql") or "/" in target)
        names_a_file = target == "-" or looks_like_a_path or _is_file(target)
        return cls.read(target) if names_a_file else cls("", target)

    def statements(self, session: Session, values: Mapping[str, Any] | None = None) -> list[Statement]:
        """The statements of the text, checked; an error in one names the file."""
        with self.named_in_errors():
            return session.parse(self.text, values)

    @contextlib.contextmanager
    def named_in_errors(self) -> Iterator[None]:
        """Say, before an error goes on its way, in which file it is."""
        try:
            yield
        except ThanoError as error:
            if self.name:
                error.file = self.name
                place = f", line {error.line}" if error.line else ""
                click.echo(f"In {self.name}{place}:", err=True)
            raise


class Terminal:
    """Shows results: rows as tables on standard output, what is said about them on standard error."""

    def __init__(self, *, wide: bool = False) -> None:
        from thano_assets.interfaces.render import RichProgress, console_for

        self.console: Console = console_for(sys.stdout)
        self.tables: Console = console_for(sys.stdout)
        if wide:
            self.tables.width = _WIDE
        self.progress = RichProgress()

    def show(self, result: Result, max_rows: int | None, place: str = "") -> None:
        """The rows (``None``: all of them), then warnings and summary; ``place`` is the statement's."""
        from thano_assets.interfaces.render import count, show_table

        rows = result.table if max_rows is None else result.head(max_rows)
        if rows is not None:
            of_kind = (WRAPPED.get(result.kind, ()), FIRST.get(result.kind, ()))
            show_table(rows, self.tables, result.row_count, *of_kind)
        # The table's own last line already has the number of rows.
        counted = rows is not None and result.summary == count(result.row_count or 0, "row")
        self.say(result, summary=not counted)

    def say(self, result: Result, summary: bool = True) -> None:
        """The warnings that were not yet shown while the statement ran, and the summary line."""
        # The two streams often end in one terminal or one log: keep their order.
        sys.stdout.flush()
        for warning in result.warnings:
            self.progress.warning(warning)
        # The next statement may warn of the same thing again.
        self.progress.warned.clear()
        if summary and result.summary:
            click.echo(result.summary, err=True)


class JsonLines(Terminal):
    """Shows each result as one line of JSON on standard output, and what a person reads on standard error."""

    def __init__(self) -> None:
        super().__init__()
        self.console = self.progress.console

    def show(self, result: Result, max_rows: int | None, place: str = "") -> None:
        rows = result.table if max_rows is None else result.head(max_rows)
        told = {
            "place": place,
            "kind": result.kind,
            "statement": result.statement,
            "summary": result.summary,
            "warnings": result.warnings,
            "seconds": round(result.seconds, 3),
            "run_id": result.run_id,
            "mlflow_run_id": result.mlflow_run_id,
            "assets": result.assets,
            "kept_as": result.kept_as,
            "row_count": result.row_count,
            "rows": None if rows is None else list(formats.objects(rows)),
        }
        sys.stdout.write(json.dumps(told, ensure_ascii=False) + "\n")
        sys.stdout.flush()
        self.progress.warned.clear()


def changes(plan: Result) -> Result:
    """A plan without what is up to date; the summary says how much that is."""
    import pyarrow.compute as pc

    assert plan.table is not None
    done = pc.equal(plan.table["action"], "skip")
    table, left = plan.table.filter(pc.invert(done)), pc.sum(done).as_py() or 0
    told = f"{left} asset is" if left == 1 else f"{left} assets are"
    summary = f"{plan.summary}; {told} up to date (--all lists them)" if left else plan.summary
    return replace(plan, rows=table if table.num_rows else None, row_count=table.num_rows, summary=summary)


class Runner:
    """Runs scripts and shows each statement, its progress, its rows and its summary."""

    def __init__(self, session: Session, terminal: Terminal, *, max_rows: int | None) -> None:
        self.session = session
        self.terminal = terminal
        self.console = terminal.console
        self.max_rows = max_rows

    def run(
        self, scripts: Sequence[Script], values: Mapping[str, Any] | None = None, *, force: bool = False
    ) -> None:
        """Run what is out of date, or everything with ``force``; ``values`` are those of variables.

        Raises:
            ThanoError: the first one, after saying where it happened.
        """
        from rich.text import Text

        from thano_assets.interfaces.render import count, duration

        parsed = [(script, script.statements(self.session, values)) for script in scripts]
        work = [(script, statement) for script, statements in parsed for statement in statements]
        if not work:
            click.echo(
                "There is no statement in " + ", ".join(script.name for script in scripts) + ".", err=True
            )
            return
        started = time.monotonic()
        try:
            steps = self.session.script([statement for _, statement in work], force=force)
        except ThanoError as error:
            for script in (script for script, statement in work if statement.source == error.text):
                error.file = script.name
                click.echo(f"In {script.name}, line {error.line}; no statement has run:", err=True)
                break
            raise
        for number, ((script, statement), step) in enumerate(zip(work, steps, strict=True), 1):
            where = f"{script.name}:{statement.place[0]}"
            step.place = where
            self._head(statement, f"{number}/{len(work)}", where)
            try:
                result = self.session.execute_step(step)
            except (KeyboardInterrupt, Exception) as error:
                if was_stopped(error):
                    raise KeyboardInterrupt(
                        f"Stopped in statement {number} of {len(work)} ({statement.kind}, {where}). "
                        "What was finished before it is kept; nothing of it is left half done."
                    ) from error
                sys.stdout.flush()
                left = len(work) - number
                rest = f"; the {left} after it did not run" if left else ""
                which = f"Statement {number} of {len(work)} ({statement.kind}, {where})"
                click.echo(f"{which} failed{rest}.", err=True)
                raise
            self.terminal.show(result, self.max_rows, where)
        spent = duration(time.monotonic() - started)
        self.console.print(Text(f"\n{count(len(work), 'statement')} done in {spent}.", style="bold green"))

    def _head(self, statement: Statement, label: str, where: str) -> None:
        from rich.text import Text

        mark = f"[{label}] "
        room = self.console.width - len(mark) - len(where) - 2
        self.console.print(
            Text.assemble(
                "" if label.startswith("1/") else "\n",
                (mark, "bold cyan"),
                (one_line(statement.text, room), "bold"),
                (f"  {where}", "dim"),
            ),
            soft_wrap=True,
        )


def one_line(statement: str, width: int) -> str:
    """A statement on one line of at most ``width`` characters (30 at least): comments and line breaks out."""
    line = " ".join(_QUOTED_OR_COMMENT.sub(lambda match: match[1] or " ", statement).split())
    width = max(width, 30)
    return line if len(line) <= width else line[: width - 1] + "…"


def deliver(table: pa.Table, format_: str, output: str | None) -> None:
    """Write rows, and only rows, to a file or standard output."""
    if output is None:
        if format_ in formats.BINARY_FORMATS:
            formats.write(table, format_, sys.stdout.buffer)
        else:
            formats.write(table, format_, sys.stdout)
        return
    if format_ == "table":
        from thano_assets.interfaces.render import console_for, show_table

        with Path(output).open("w", encoding="utf-8") as file:
            show_table(table, console_for(file))
    else:
        formats.write_file(table, format_, Path(output))
    click.echo(f"{table.num_rows:,} rows written to {output}.", err=True)


def _is_file(name: str) -> bool:
    """``Path(name).is_file()`` for any text, also one too long to be a file name."""
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False
