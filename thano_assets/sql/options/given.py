"""The options that one statement was given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from thano_assets.sql.options.by_statement import OPTION_SPECS, default, find_spec
from thano_assets.sql.source import Span


@dataclass(frozen=True, slots=True)
class GivenOption:
    """One option as it stands in the text."""

    value: Any
    spelling: str
    key_span: Span
    value_span: Span


class Options(Mapping[str, Any]):
    """The options that a statement was given, by canonical name, checked; defaults are not filled in.

    ``options["max_epochs"]`` is the value given (also when it was spelt ``epochs``),
    ``options.value("max_epochs")`` the value that counts.
    """

    __slots__ = ("_given", "kind")

    def __init__(self, kind: str, given: Mapping[str, GivenOption] | None = None) -> None:
        self.kind = kind
        self._given: dict[str, GivenOption] = dict(given or {})

    @classmethod
    def of(cls, kind: str, **values: Any) -> Options:
        """Options made in code: checked like those of a text, without places."""
        nowhere = Span(0, 0)
        given = {}
        for spelling, value in values.items():
            spec = find_spec(kind, spelling)
            given[spec.name] = GivenOption(spec.check(value, kind), spelling, nowhere, nowhere)
        return cls(kind, given)

    def __getitem__(self, name: str) -> Any:
        return self._given[name].value

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Options):
            return self.kind == other.kind and dict(self) == dict(other)
        return super().__eq__(other)

    def __hash__(self) -> int:
        return hash((self.kind, frozenset(self.items())))

    def __repr__(self) -> str:
        return f"Options({self.kind!r}, {dict(self)!r})"

    def value(self, name: str) -> Any:
        """The value given, or the default.

        Raises:
            KeyError: the statement has no such option.
        """
        return self._given[name].value if name in self._given else default(self.kind, name)

    def filled(self) -> dict[str, Any]:
        """Every option of the statement with the value that counts."""
        return {name: self.value(name) for name in OPTION_SPECS.get(self.kind, {})}

    def place(self, name: str) -> Span:
        """Where the option's name stands.

        Raises:
            KeyError: it was not given.
        """
        return self._given[name].key_span

    def value_span(self, name: str) -> Span:
        """Where the option's value stands.

        Raises:
            KeyError: it was not given.
        """
        return self._given[name].value_span

    def given(self, name: str) -> str:
        """The name as it was spelt (an alias, another case).

        Raises:
            KeyError: it was not given.
        """
        return self._given[name].spelling

    def unavailable(self) -> list[str]:
        """Names of the options given that the engine does not act on yet."""
        specs = OPTION_SPECS.get(self.kind, {})
        return [name for name in self._given if not specs[name].available]
