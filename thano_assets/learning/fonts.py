"""Fonts for pictures: labels may be Korean, which matplotlib's own font cannot write."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text

_OWN = "DejaVu Sans"
# Those that Linux, Windows and macOS have for Korean, the likeliest first; the Noto ones have all of CJK.
_KOREAN = (
    "Noto Sans CJK KR",
    "Noto Sans CJK JP",
    "Noto Sans KR",
    "NanumGothic",
    "NanumBarunGothic",
    "Malgun Gothic",
    "Apple SD Gothic Neo",
    "AppleGothic",
    "UnDotum",
    "Baekmuk Dotum",
)


@cache
def families() -> tuple[str, ...]:
    """Font families to write with, each for what those before it lack: matplotlib's own and a Korean one."""
    installed = set(font_manager.get_font_names())
    return (_OWN, *[name for name in _KOREAN if name in installed][:1])


@contextmanager
def written(figure: Figure) -> Iterator[None]:
    """While it is drawn, let ``figure`` write what its labels need.

    matplotlib falls back from font to font, letter by letter. A letter that no font has is drawn as a box,
    which a person sees; the warning about it would stand between the lines of a statement's progress.
    """
    for text in figure.findobj(Text):
        text.set_fontfamily(families())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield
