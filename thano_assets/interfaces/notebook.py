"""The magics ``%thanosql`` and ``%%thanosql``: statements in a notebook cell, a pandas DataFrame back.

``%load_ext thano_assets`` loads them. One session serves the kernel, so a model is loaded once. Progress is
one output that changes in place; what keeps outputs (a saved notebook, nbclient) keeps its last state only.
An error fails the cell with one sentence and a caret instead of a traceback.
"""

from __future__ import annotations

import atexit
import html
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand
from IPython.display import DisplayHandle, display

from thano_assets.errors import ThanoError, UnknownTable, did_you_mean
from thano_assets.interfaces.formats import weighted_words, words_text
from thano_assets.interfaces.render import Meter, RichProgress, duration
from thano_assets.progress import Progress, Relay, Task
from thano_assets.sql.lexer import PARAMETER, tokenize
from thano_assets.sql.variables import names_in
from thano_assets.stopping import stoppable, was_stopped
from thano_assets.system import scratch_file

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from thano_assets.session import Result, Session

_ASSIGNMENT = re.compile(r"\s*([^\W\d]\w*)\s*(?:=\s*)?<<(?=\s|$)")
_SETTING = re.compile(r"\s*(api_token|workspace|engine_url)\s*=\s*(.*)", re.IGNORECASE | re.DOTALL)
_ADDRESS = re.compile(r"\s*(?:wss?|https?)://\S+\s*$", re.IGNORECASE)

_HELP = """\
%%thanosql            statements in a cell; the last one's rows come back as a DataFrame
%thanosql STATEMENT   one line; `df = %thanosql SELECT …` keeps the rows
COPY t FROM $df       copies the rows of a DataFrame; `%thanosql $text` runs a statement kept in a variable
name << STATEMENT     keeps the rows in `name` instead of showing them (line or cell)
%thanosql workspace=PATH   works in another workspace from here on"""


class StatementError(Exception):
    """A statement failed. Shown as its sentence with a caret, without a traceback.

    Attributes:
        error: the engine's error, with ``code``, ``line``, ``column`` and ``hint``.
        code: the error's stable name.
    """

    def __init__(self, error: ThanoError) -> None:
        super().__init__(str(error))
        self.error = error
        self.code = error.code

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback."""
        return self.error.pretty().splitlines()


class StatementStopped(KeyboardInterrupt):
    """The kernel was interrupted while a statement ran. Shown as one sentence."""

    def __init__(self) -> None:
        super().__init__("Stopped. What was finished before is kept; nothing is left half done.")

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


@magics_class
class ThanoMagics(Magics):
    """``%thanosql`` and ``%%thanosql``, with one session for the kernel."""

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self.workspace: str | None = None
        self._session: Session | None = None
        self._progress = Relay(CellProgress())

    @no_var_expand
    @line_cell_magic
    def thanosql(self, line: str, cell: str | None = None) -> pd.DataFrame | None:
        """Run ThanoSQL statements; the last one's rows come back as a DataFrame.

        %thanosql API_TOKEN=…, and an engine address, are accepted: the engine is this machine's own.
        """
        try:
            with stoppable(terminate=False):
                return self._answer(line, cell)
        except (KeyboardInterrupt, Exception) as error:
            if was_stopped(error):
                raise StatementStopped from None
            if isinstance(error, ThanoError):
                raise StatementError(error) from None
            raise

    def close(self) -> None:
        """Close the session; the next statement opens another."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def session(self) -> Session:
        """The kernel's session, opened at the first statement."""
        if self._session is None:
            from thano_assets.session import Session

            self._session = Session(self.workspace, progress=self._progress)
        return self._session

    def _answer(self, line: str, cell: str | None) -> pd.DataFrame | None:
        if cell is None:
            if not line.strip():
                print(_HELP)
                return None
            if self._is_setting(line):
                return None
        name, rest = _assignment(line)
        # The cell's own lines are counted from 1 when nothing but `name <<` stands beside the magic.
        text = rest if cell is None else cell if not rest.strip() else f"{rest}\n{cell}"
        if name is None and cell is not None and not rest.strip():
            name, text = _assignment(text)
        result = self._run(self._with_variables(text))
        frame = None if result is None or result.table is None else result.df()
        if name is not None:
            assert self.shell is not None
            self.shell.user_ns[name] = frame
            return None
        if result is not None and result.table is not None:
            explained = explanations_of(result.table)
            if explained is not None:
                display(explained, raw=True)
        return frame

    def _with_variables(self, text: str) -> str:
        """``text`` with what ``$name`` stands for: rows after COPY … FROM, or a whole statement.

        Raises:
            UnknownTable: there is no variable of that name, or it holds neither rows nor text.
        """
        assert self.shell is not None
        if whole := re.fullmatch(r"\s*\$([^\W\d]\w*)\s*;?\s*", text):
            value = self._variable(whole[1])
            if isinstance(value, str):
                return value
            raise UnknownTable(
                f"${whole[1]} is no text of a statement.", hint="COPY table FROM $df copies rows."
            )
        parts, position = [], 0
        before = ""
        for token in tokenize(text):
            name = token.text[1:]
            if token.kind is PARAMETER and before == "FROM" and name and not name.isdigit():
                parts += [text[position : token.start], _literal(self._given(name))]
                position = token.end
            before = token.upper
        return "".join([*parts, text[position:]]) if parts else text

    def _variable(self, name: str) -> Any:
        assert self.shell is not None
        try:
            return self.shell.user_ns[name]
        except KeyError:
            known = [one for one in self.shell.user_ns if not one.startswith("_")]
            hint = did_you_mean(name, known, "variables")
            raise UnknownTable(f"There is no variable {name} in the notebook.", hint=hint) from None

    def _given(self, name: str) -> str:
        """A path for COPY: the text of a variable, or the Parquet file that its rows are put into."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        value = self._variable(name)
        if isinstance(value, str):
            return value
        try:
            if isinstance(value, pa.Table):
                table = value
            elif hasattr(value, "to_arrow"):  # polars
                table = value.to_arrow()
            elif hasattr(value, "columns") and hasattr(value, "itertuples"):  # pandas
                table = pa.Table.from_pandas(value, preserve_index=False)
            else:
                raise UnknownTable(
                    f"${name} is a {type(value).__name__}, and no rows.",
                    hint="A DataFrame, an Arrow table or the path of a file may stand there.",
                )
        except (pa.ArrowException, ValueError) as error:
            raise UnknownTable(
                f"${name} cannot become a table: {str(error).splitlines()[0].rstrip('.')}.",
                hint="Give each column one type of values, and a name of its own.",
            ) from error
        workspace = self.session().workspace.create()
        path = workspace.data / "from_notebook" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch_file(path.parent) as temporary:
            pq.write_table(table, temporary)
            temporary.replace(path)
        return f"from_notebook/{name}.parquet"

    def _run(self, text: str) -> Result | None:
        """Run every statement, telling of each; returns the last result."""
        progress = self._progress.to = progress_for(self.shell)
        last = None
        with progress.shown():
            values = {name: self._variable(name) for name in names_in(text)}
            for last in self.session().run(text, values):
                for warning in last.warnings:
                    progress.warning(warning)
                if last.summary:
                    progress.summary(last.summary)
        return last

    def _is_setting(self, line: str) -> bool:
        """Deal with ``API_TOKEN=…``, ``workspace=…`` or an address; False where the line is a statement."""
        if _ADDRESS.match(line):
            print("Noted, and not needed: statements run in this machine's own engine, not at an address.")
            return True
        setting = _SETTING.match(line)
        if setting is None:
            return False
        key, value = setting[1].lower(), setting[2].strip().strip("'\"")
        if key == "workspace":
            self.close()
            self.workspace = str(Path(value).expanduser()) if value else None
            print(f"Workspace: {self.session().workspace.create().root}")
        elif key == "api_token":
            print("No token is needed: statements run in this machine's own engine. The token was not kept.")
        else:
            print("Noted, and not needed: statements run in this machine's own engine, not at an address.")
        return True


def _literal(text: str) -> str:
    """``text`` as a string of SQL."""
    return "'" + text.replace("'", "''") + "'"


def _assignment(text: str) -> tuple[str | None, str]:
    """Split ``name << statement``; the name is ``None`` where there is none.

    What was cut off is replaced by blanks, so that places in the rest stay those of the whole.
    """
    match = _ASSIGNMENT.match(text)
    if match is None:
        return None, text
    return match[1], re.sub(r"[^\n]", " ", match[0]) + text[match.end() :]


# ---------------------------------------------------------------- explanations

_EXPLAINED_ROWS = 20


def explanations_of(table: pa.Table) -> dict[str, str] | None:
    """The first rows' explanations for a cell's output, words coloured by weight; ``None`` without any.

    Words for the label are green, those against it red, stronger ones deeper.
    """
    import pyarrow.types as types

    column = next(
        (
            field.name
            for field in table.schema
            if types.is_list(field.type)
            and types.is_struct(field.type.value_type)
            and {part.name for part in field.type.value_type} == {"token", "weight"}
        ),
        None,
    )
    if column is None or len(set(table.column_names)) < table.num_columns:
        return None
    head = table.slice(0, _EXPLAINED_ROWS)
    labels = head.column("predicted").to_pylist() if "predicted" in head.column_names else [None] * len(head)
    plain, rows = [], []
    for label, value in zip(labels, head.column(column).to_pylist(), strict=True):
        words = weighted_words(value) or []
        plain.append(f"{label}: {words_text(words)}" if label is not None else words_text(words))
        chips = " ".join(_chip(word, weight, max(abs(one) for _, one in words)) for word, weight in words)
        rows.append(f"<tr><td>{html.escape('' if label is None else str(label))}</td><td>{chips}</td></tr>")
    more = f"<div>first {len(head):,} of {len(table):,} rows</div>" if len(table) > len(head) else ""
    return {"text/plain": "\n".join(plain), "text/html": f"<table>{''.join(rows)}</table>{more}"}


def _chip(word: str, weight: float, most: float) -> str:
    colour = "22, 163, 74" if weight > 0 else "220, 38, 38"
    depth = 0.1 + 0.6 * abs(weight) / most if most else 0.1
    return (
        f'<span style="background:rgba({colour}, {depth:.2f});padding:0 .3em;border-radius:.2em" '
        f'title="{weight:+.3f}">{html.escape(word)} <small>{weight:+.2f}</small></span>'
    )


# ---------------------------------------------------------------- progress


class CellProgress(Progress):
    """What one cell shows; the base for a terminal and for a notebook."""

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Around all statements of one cell."""
        yield

    def summary(self, text: str) -> None:
        """The one-line summary of a statement."""
        print(text)


class TerminalProgress(RichProgress, CellProgress):
    """For IPython in a terminal: the command line's own bars."""


class NotebookProgress(CellProgress):
    """One display that is updated in place, a few times a second at most.

    It appears with the first thing to say, so a SELECT leaves the cell with nothing but its rows and a line.
    """

    EVERY = 0.4

    def __init__(self) -> None:
        self._lines: list[tuple[str, str]] = []
        self._tasks: list[_NotebookMeter] = []
        self._handle: DisplayHandle | None = None
        self._drawn_at = 0.0

    @contextmanager
    def shown(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._tasks.clear()
            if self._lines or self._handle is not None:
                self.draw()

    def message(self, text: str) -> None:
        self._lines.append(("message", text))
        self.draw()

    def warning(self, text: str) -> None:
        # The engine tells of a warning while it runs, and the result repeats it.
        if ("warning", text) not in self._lines:
            self._lines.append(("warning", text))
            self.draw()

    def summary(self, text: str) -> None:
        self._lines.append(("summary", text))
        self.draw()

    @contextmanager
    def task(self, label: str, total: int | None = None, unit: str = "rows") -> Iterator[Task]:
        meter = _NotebookMeter(label, total, unit, self)
        self._tasks.append(meter)
        try:
            yield meter
        finally:
            # By identity and leniently: `shown` clears the list when a statement fails.
            self._tasks = [task for task in self._tasks if task is not meter]

    def draw_soon(self) -> None:
        """Draw unless that was done a moment ago."""
        if time.monotonic() - self._drawn_at >= self.EVERY:
            self.draw()

    def draw(self) -> None:
        """Show the present state in the cell's one output."""
        self._drawn_at = time.monotonic()
        bundle = {"text/plain": self.plain_text(), "text/html": self.html_text()}
        if self._handle is None:
            self._handle = DisplayHandle()
            self._handle.display(bundle, raw=True)
        else:
            self._handle.update(bundle, raw=True)

    def plain_text(self) -> str:
        """The state for front ends without HTML."""
        lines = [f"warning: {text}" if kind == "warning" else text for kind, text in self._lines]
        return "\n".join([*lines, *(task.line() for task in self._tasks)])

    def html_text(self) -> str:
        """The state with bars; everything that comes from data or users is escaped."""
        styles = {"message": "opacity:.65", "warning": "color:#b45309", "summary": ""}
        parts = []
        for kind, text in self._lines:
            words = f"warning: {text}" if kind == "warning" else text
            parts.append(f'<div style="{styles[kind]}">{html.escape(words)}</div>')
        parts.extend(task.bar() for task in self._tasks)
        return f'<div style="font-size:90%">{"".join(parts)}</div>'


class _NotebookMeter(Meter):
    def __init__(self, label: str, total: int | None, unit: str, owner: NotebookProgress) -> None:
        super().__init__(label, total, unit)
        self._owner = owner

    def changed(self) -> None:
        self._owner.draw_soon()

    def bar(self) -> str:
        """A progress element and the figures beside it."""
        share = "" if not self.total else f' value="{min(self.done, self.total)}" max="{self.total}"'
        remaining = self.remaining()
        words = [self.amount(), *self.words(), *([f"{duration(remaining)} left"] if remaining else [])]
        return (
            f'<div>{html.escape(self.label)} <progress{share} style="vertical-align:middle"></progress> '
            f"{html.escape(' · '.join(words))}</div>"
        )


def progress_for(shell: InteractiveShell | None) -> CellProgress:
    """The progress that fits: in-place output under a Jupyter kernel, terminal bars in IPython itself."""
    return NotebookProgress() if getattr(shell, "kernel", None) is not None else TerminalProgress()


# ---------------------------------------------------------------- loading

_loaded: dict[int, ThanoMagics] = {}


def load(shell: InteractiveShell) -> None:
    """Register the magics with ``shell``; loading twice keeps the session that is there."""
    if id(shell) in _loaded:
        return
    magics = ThanoMagics(shell)
    shell.register_magics(magics)
    _loaded[id(shell)] = magics
    atexit.register(magics.close)


def unload(shell: InteractiveShell) -> None:
    """Close the session and take the magics away again."""
    magics = _loaded.pop(id(shell), None)
    if magics is None:
        return
    atexit.unregister(magics.close)
    magics.close()
    registered: dict[str, dict[str, Any]] = shell.magics_manager.magics
    for kind in ("line", "cell"):
        with suppress(KeyError):
            del registered[kind]["thanosql"]
