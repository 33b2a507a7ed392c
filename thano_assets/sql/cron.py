"""Cron expressions: the part of them that everybody means alike, checked without a library."""

from __future__ import annotations

#: Short forms, whatever their case.
SHORT_FORMS = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 7, _DAYS),
)
_LONGEST_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def cron_problem(text: str) -> str | None:
    """What is wrong with a cron expression, as half a sentence; ``None`` where it is right.

    Allowed in each of the five fields are ``*``, numbers, ranges (``1-5``), steps (``*/15``, ``8-18/2``) and
    lists of these; months and days of the week also by their first three letters.
    """
    text = text.strip()
    if text.startswith("@"):
        known = text.lower() in SHORT_FORMS
        return None if known else f"'{text}' is none of {', '.join(SHORT_FORMS)}"
    words = text.split()
    if len(words) != len(_FIELDS):
        names = ", ".join(field[0] for field in _FIELDS)
        return f"'{text}' has {len(words)} field{'' if len(words) == 1 else 's'} instead of five ({names})"
    values: list[set[int]] = []
    for word, (name, low, high, names_of) in zip(words, _FIELDS, strict=True):
        found: set[int] = set()
        for part in word.lower().split(","):
            numbers = _numbers(part, low, high, names_of)
            if numbers is None:
                return f"'{part}' does not fit the {name} ({low} to {high})"
            found.update(numbers)
        values.append(found)
    days, months, any_weekday = values[2], values[3], words[4] == "*"
    if any_weekday and not any(min(days) <= _LONGEST_DAYS[month - 1] for month in months):
        return f"there is no day {min(days)} in the months of '{text}'"
    return None


def _numbers(part: str, low: int, high: int, names: tuple[str, ...]) -> range | None:
    """The values of ``part`` of a field, ``None`` where it is not one."""
    span, slash, step_text = part.partition("/")
    step = _number(step_text, (), 0) if slash else 1
    if step is None or step < 1 or step > high:
        return None
    if span == "*":
        return range(low, high + 1, step)
    first_text, dash, last_text = span.partition("-")
    if slash and not dash:
        return None
    first = _number(first_text, names, low)
    last = _number(last_text, names, low) if dash else first
    if first is None or last is None or not low <= first <= last <= high:
        return None
    return range(first, last + 1, step)


def _number(text: str, names: tuple[str, ...], low: int) -> int | None:
    if text in names:
        return names.index(text) + low
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 2 else None
