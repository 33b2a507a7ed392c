"""``thano shell``: statements one after the other at a prompt, with history, completion and colours."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.lexers import PygmentsLexer
from pygments.lexers.sql import PostgresLexer
from pygments.token import Keyword, Name

from thano_assets.errors import SyntaxProblem, ThanoError
from thano_assets.interfaces.batch import TABLE_ROWS, Terminal
from thano_assets.interfaces.render import console_for, show_error
from thano_assets.resources.base_models import catalogue
from thano_assets.resources.warehouse import quote
from thano_assets.sql.grammar import CLAUSE_WORDS, CLAUSES, FIRST_WORDS, RESERVED_WORDS, STATEMENT_SPECS
from thano_assets.sql.lexer import tokenize
from thano_assets.sql.options import OPTION_SPECS
from thano_assets.stopping import stoppable, was_stopped

if TYPE_CHECKING:
    from thano_assets.session import Session

_HELP = r"""\d            tables              \d NAME       columns of a table
\models       models              \runs         runs, newest first
\plan …       what a statement would do, without doing it
\timing       show how long each statement took, or stop showing it
\?            this list           \q            leave (also Ctrl-D)
A statement ends with ; and may have several lines. Ctrl-C stops a statement, or clears the line."""
_FORMS = " ".join(form.syntax for form in STATEMENT_SPECS.values())
_WORDS = sorted(
    {*re.findall(r"\b[A-Z]{2,}\b", _FORMS), *FIRST_WORDS, *RESERVED_WORDS, *CLAUSE_WORDS, *CLAUSES}
)


def is_complete(text: str) -> bool:
    """Whether a statement, or a command of the shell, is typed to its end."""
    if not text.strip() or text.lstrip().startswith("\\"):
        return True
    try:
        tokens = tokenize(text)
    except SyntaxProblem:  # a string or comment that is still open
        return False
    return bool(tokens) and tokens[-1].text == ";"


class Words(Completer):
    """Completes words by what stands before them, and by what the workspace has."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.refresh()

    def refresh(self) -> None:
        """Look at the workspace again."""
        runtime = self._session._runtime
        try:
            found = runtime.warehouse.tables() if self._session.workspace.is_there else []
            self.models = runtime.registry.models() if self._session.workspace.is_there else []
        except ThanoError:  # the next statement says what is wrong
            found, self.models = [], []
        self.tables = [table.name for table in found]
        self.columns = sorted({column.name for table in found for column in table.columns})

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        """What may stand where the cursor is."""
        before = document.text_before_cursor
        if before.lstrip().startswith("\\") and " " not in before.strip():
            commands = ["\\d", "\\models", "\\runs", "\\plan", "\\timing", "\\?", "\\q"]
            yield from _starting(before.lstrip(), commands)
            return
        word = document.get_word_before_cursor(WORD=False)
        word = word if word.strip() and (word[0].isalnum() or word[0] == "_") else ""
        yield from _starting(word, self._fitting(before[: len(before) - len(word)]))

    def _fitting(self, before: str) -> Iterable[str]:
        try:
            tokens = tokenize(before)
        except SyntaxProblem:
            return []
        start = max((place + 1 for place, token in enumerate(tokens) if token.text == ";"), default=0)
        words = [token.upper for token in tokens[start:]]
        last = words[-1] if words else ""
        if last in ("FROM", "JOIN", "INTO", "ON", "TABLE"):
            return self.tables
        if last in ("USING", "MODEL"):
            bases = [base.name for base in catalogue()] if last == "USING" else []
            return [*self.models, *bases]
        if "OPTIONS" in words:
            inside = words[words.index("OPTIONS") + 1 :]
            if inside.count("(") > inside.count(")"):
                return sorted(OPTION_SPECS.get(_kind_of(words), {})) if last in ("(", ",") else []
        return [*_WORDS, *self.tables, *self.columns]


def _kind_of(words: list[str]) -> str:
    """The kind of statement whose options are typed."""
    text = " ".join(words)
    kinds = [kind for kind in OPTION_SPECS if f" {text} ".rfind(f" {kind} ") >= 0]
    return max(kinds, key=lambda kind: (text.rfind(kind), len(kind)), default="")


def _starting(word: str, candidates: Iterable[str]) -> Iterator[Completion]:
    lower = word.isalpha() and word.islower()
    for one in dict.fromkeys(candidates):
        if one.casefold().startswith(word.casefold()) and one != word:
            keyword = one in FIRST_WORDS or one in _WORDS
            plain = one.isidentifier() or one.startswith("\\")
            shown = one.lower() if keyword and lower else one if plain else quote(one)
            yield Completion(shown, start_position=-len(word), display=one)


class _Colours(PostgresLexer):
    """Also knows the words that our statements begin with."""

    def get_tokens_unprocessed(self, *given: Any) -> Iterator[tuple[int, Any, str]]:
        """Pygments' tokens."""
        for place, kind, text in super().get_tokens_unprocessed(*given):
            ours = kind in Name and text.upper() in _WORDS
            yield place, Keyword if ours else kind, text


class Shell:
    """A prompt on a session."""

    def __init__(self, session: Session, terminal: Terminal, prompt: Callable[[], str] | None = None) -> None:
        self.session, self.terminal = session, terminal
        self.timing = False
        self.words = Words(session)
        self._prompt = prompt or self._prompter()

    def run(self) -> None:
        """Read and do until the person leaves."""
        click.echo(
            f"Workspace {self.session.workspace.root}. \\? lists commands; statements end with ;", err=True
        )
        while True:
            try:
                text = self._prompt().strip()
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            if text in ("\\q", "\\quit", "exit", "quit"):
                return
            if text:
                with self._survived():
                    self._do(text)

    def _do(self, text: str) -> None:
        if not text.startswith("\\"):
            for result in self.session.run(text):
                self.terminal.show(result, TABLE_ROWS)
                if self.timing:
                    click.echo(f"{result.seconds:.2f} s", err=True)
            self.words.refresh()
            return
        command, _, rest = text.rstrip(";").partition(" ")
        rest = rest.strip()
        match command:
            case "\\d" if rest:
                name = shlex.split(rest)[0] if rest[0] in "'\"" else rest
                self._do(f"SELECT column_name, column_type FROM (DESCRIBE {quote(name)})")
            case "\\d":
                self._do("LIST TABLE")
            case "\\models":
                self._do("LIST MODEL")
            case "\\runs":
                self._do("SHOW RUNS")
            case "\\plan" if rest:
                self.terminal.show(self.session.plan(rest), None)
            case "\\timing":
                self.timing = not self.timing
                click.echo(f"Timing is {'on' if self.timing else 'off'}.", err=True)
            case "\\?" | "\\help":
                click.echo(_HELP, err=True)
            case _:
                click.echo(f"{text.split()[0]} is no command of the shell; \\? lists them.", err=True)

    @contextmanager
    def _survived(self) -> Iterator[None]:
        """Tell errors in one sentence, and go on."""
        try:
            with stoppable(terminate=False):
                yield
        except ThanoError as error:
            show_error(error, console_for(sys.stderr))
        except BaseException as error:
            if was_stopped(error):
                click.echo("Stopped. Nothing is left half done.", err=True)
            elif isinstance(error, Exception):
                click.echo(f"error: unexpected {type(error).__name__}: {error}", err=True)
            else:
                raise

    def _prompter(self) -> Callable[[], str]:
        keys = KeyBindings()

        @keys.add("enter")
        def _(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            if is_complete(buffer.text):
                buffer.validate_and_handle()
            else:
                buffer.insert_text("\n")

        asked: PromptSession[str] = PromptSession(
            history=_history(),
            lexer=PygmentsLexer(_Colours),
            completer=self.words,
            complete_while_typing=False,
            multiline=True,
            key_bindings=keys,
            prompt_continuation=lambda width, line, wrapped: " " * (width - 2) + "· ",
        )
        name = self.session.workspace.root.name
        return lambda: asked.prompt(f"{name}> ")


def _history() -> History:
    """Of all workspaces; in memory where no file can be written."""
    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "thano"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "history").touch(mode=0o600)
    except OSError:
        return InMemoryHistory()
    return FileHistory(str(folder / "history"))
