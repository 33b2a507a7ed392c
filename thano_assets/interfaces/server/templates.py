"""Query templates: text with ``{{ name }}`` in the places of values, as the public client has it.

A value is put in as text; ``$name`` in a statement stands for a value that is bound, and is to be preferred.
Templates come from the network, so Jinja's sandbox renders them, without what could make much of little:
functions, products, most filters, and loops inside loops.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from thano_assets.errors import TemplateProblem

_environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
_environment.globals.clear()
_LONGEST = 10_000_000  # characters that joined values may have
_FILTERS = (
    *("abs", "capitalize", "default", "d", "first", "float", "int", "last", "length", "list", "lower"),
    *("round", "sort", "string", "title", "tojson", "trim", "unique", "upper"),
)
_REFUSED = (
    *(nodes.Macro, nodes.CallBlock, nodes.Call, nodes.Include, nodes.Import, nodes.FromImport),
    *(nodes.Extends, nodes.Block, nodes.Mul, nodes.Pow, nodes.Mod, nodes.FilterBlock),
)


def _join(values: Iterable[Any], between: str = "") -> str:
    texts = [str(value) for value in values]
    if sum(map(len, texts)) + len(texts) * len(str(between)) > _LONGEST:
        raise ValueError(f"the joined values have more than {_LONGEST:,} characters")
    return str(between).join(texts)


_environment.filters = {name: _environment.filters[name] for name in _FILTERS} | {"join": _join}


def parameters(template: str) -> list[str]:
    """The names of the values that a template needs, sorted.

    Raises:
        TemplateProblem: it is no template.
    """
    return sorted(meta.find_undeclared_variables(_parsed(template)))


def rendered(template: str, values: Mapping[str, Any]) -> str:
    """The template with the values in their places.

    Raises:
        TemplateProblem: it is no template, or a value is missing.
    """
    missing = [name for name in parameters(template) if name not in values]
    if missing:
        raise TemplateProblem(
            f"The parameter {missing[0]} has no value.",
            hint=f"The template needs {', '.join(parameters(template))}.",
        )
    try:
        return _environment.from_string(template).render(dict(values))
    except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
        raise TemplateProblem(f"The template cannot be filled in: {error}.") from error


def _parsed(template: str) -> nodes.Template:
    try:
        tree = _environment.parse(template)
    except TemplateError as error:
        raise TemplateProblem(f"The query is no template: {error}.") from error
    if next(tree.find_all(_REFUSED), None) is not None:
        raise TemplateProblem("A template may not call functions, multiply, or include others.")
    for loop in tree.find_all(nodes.For):
        if loop.recursive or next(loop.find_all(nodes.For), None) is not None:
            raise TemplateProblem("A loop of a template may not hold another.")
    return tree
