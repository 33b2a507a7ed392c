"""The reference says what the code accepts."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

from thano_assets import errors
from thano_assets.sql import OPTION_SPECS, statements
from thano_assets.sql.grammar import STATEMENT_SPECS
from thano_assets.sql.reference import documented_kinds, statement_section, with_sections

REFERENCE = Path(__file__).parents[2] / "docs" / "language.md"


@pytest.fixture(scope="module")
def document() -> str:
    return REFERENCE.read_text(encoding="utf-8")


def test_every_statement_has_a_section(document: str) -> None:
    assert documented_kinds(document) == set(STATEMENT_SPECS)


def test_sections_are_up_to_date(document: str) -> None:
    assert with_sections(document) == document, "run: python -m thano_assets.sql.reference docs/language.md"


@pytest.mark.parametrize("kind", OPTION_SPECS)
def test_every_option_is_in_its_section(kind: str) -> None:
    section = statement_section(kind)
    for spec in OPTION_SPECS[kind].values():
        (row,) = [line for line in section.splitlines() if line.startswith(f"| `{spec.name}` |")]
        assert spec.doc in row
        assert spec.allowed in row
        assert all(f"`{alias}`" in row for alias in spec.aliases)


def test_every_statement_class_has_a_form() -> None:
    kinds = {
        thing.kind
        for thing in vars(statements).values()
        if inspect.isclass(thing)
        and issubclass(thing, statements.Statement)
        and thing.kind != statements.Statement.kind  # not a base class of several
    }
    forms = {
        " ".join(kind.split()[: len(k.split())])
        for kind in STATEMENT_SPECS
        for k in kinds
        if kind.startswith(k)
    }
    assert kinds == forms & kinds


def test_every_error_code_is_listed(document: str) -> None:
    codes = {
        thing.default_code
        for thing in vars(importlib.import_module(errors.__name__)).values()
        if inspect.isclass(thing) and issubclass(thing, errors.ThanoError) and thing is not errors.ThanoError
    }
    listed = {
        line.split("`")[1] for line in document.split("## Errors")[1].splitlines() if line.startswith("| `")
    }
    assert listed == codes
