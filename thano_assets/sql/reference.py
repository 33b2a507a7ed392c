"""The generated parts of ``docs/language.md``: the forms of the statements and the tables of their options.

``python -m thano_assets.sql.reference docs/language.md`` writes them again between their marks; a test
compares them with what stands there.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from thano_assets.sql.grammar import STATEMENT_SPECS
from thano_assets.sql.options import OPTION_SPECS, OptionSpec

_BLOCK = re.compile(r"(<!-- begin (?P<kind>[A-Za-z ]+) -->\n).*?(<!-- end (?P=kind) -->)", re.DOTALL)


def statement_section(kind: str) -> str:
    """The form of a statement, what it does, and the table of its options, as Markdown."""
    spec = STATEMENT_SPECS[kind]
    lines = [f"```\n{spec.syntax}\n```", "", spec.doc]
    if not spec.available:
        lines[-1] += " *Parsed and checked; this version does not carry it out.*"
    options = OPTION_SPECS.get(kind, {})
    if options:
        lines += ["", "| option | aliases | default | allowed | meaning |", "|---|---|---|---|---|"]
        lines += [_row(option) for option in options.values()]
    return "\n".join(lines) + "\n"


def with_sections(document: str) -> str:
    """``document`` with the text between each ``<!-- begin KIND -->`` and ``<!-- end KIND -->`` made again.

    Raises:
        KeyError: a mark names a kind of statement that does not exist.
    """

    def section(match: re.Match[str]) -> str:
        return match[1] + statement_section(match["kind"]) + match[3]

    return _BLOCK.sub(section, document)


def documented_kinds(document: str) -> set[str]:
    """The kinds of statements that have a section in ``document``."""
    return {match["kind"] for match in _BLOCK.finditer(document)}


def _row(spec: OptionSpec) -> str:
    aliases = ", ".join(f"`{alias}`" for alias in spec.aliases)
    meaning = spec.doc + ("" if spec.available else " *Not acted on in this version.*")
    return f"| `{spec.name}` | {aliases} | {_default(spec.default)} | {spec.allowed} | {meaning} |"


def _default(value: Any) -> str:
    if value is None:
        return ""
    return f"`{list(value) if isinstance(value, tuple) else value!r}`"


def main(arguments: list[str]) -> int:
    """Write the sections of each file named."""
    for name in arguments:
        path = Path(name)
        path.write_text(with_sections(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
