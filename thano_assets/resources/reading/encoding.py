"""Encodings: which one a file that is not UTF-8 is likely in, and a copy of it in UTF-8."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from ...errors import DataFileError
from .faults import bytes_of

_CHUNK = 1 << 20
_LIKELY = 0.2  # chardet's confidence from which its answer is given as one, not as one of several
#: What files that are not UTF-8 mostly are; other encodings that would read without error are not suggested.
_USUAL = {
    **{name: name for name in ("cp949", "cp932", "gb18030", "big5", "koi8-r", "utf-16")},
    "shift_jis": "cp932",
    "euc-kr": "cp949",
    "euc-jp": "euc_jp",
    "macroman": "mac_roman",
    **{f"windows-{page}": f"cp{page}" for page in (1250, 1251, 1252, 1253, 1254, 1255, 1256, 1257, 1258)},
    **{f"cp{page}": f"cp{page}" for page in (874, 1251, 1252)},
}
_FEW_BYTES = 60  # beyond ASCII: so few tell chardet little
#: Encodings of two bytes a character, with the script that shows that one may be right, the rarest first.
_SCRIPTS = {
    "cp932": "[\u3041-\u30fe]",
    "cp949": "^[\\x00-\\x7f\uac00-\ud7a3]*$",
    "big5": "[\u4e00-\u9fff]",
    "gb18030": "[\u4e00-\u9fff]",
}
#: Tried where a few bytes are all that tells: both read nearly every byte, so a person has to choose.
_WESTERN = ("cp1252", "mac_roman")


def codec(encoding: str) -> str:
    """Python's name of ``encoding``; a mark at the file's start is left out of the text.

    Raises:
        LookupError: Python knows no such encoding of texts.
    """
    name = codecs.lookup(encoding).name
    b"".decode(name)  # raises LookupError for codecs that are none of texts, such as base64
    return {"utf-8": "utf-8-sig"}.get(name, name)


def not_utf8(file: Path) -> DataFileError | None:
    """The first line that is not UTF-8, with the encodings in which the file may be; ``None`` if all are."""
    try:
        with bytes_of(file) as content:
            start = content.read(4)
            for mark, name in (
                (codecs.BOM_UTF32_LE, "utf-32"),
                (codecs.BOM_UTF16_LE, "utf-16"),
                (codecs.BOM_UTF16_BE, "utf-16"),
            ):
                if start.startswith(mark):
                    what = f"it is {name.upper()}"
                    return DataFileError(f"'{file.name}' is not UTF-8: {what}.", hint=_advice([name]))
            content.seek(0)
            for number, line in enumerate(content, start=1):
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError as error:
                    rest = [line]
                    size = len(line)
                    for other in content:
                        if not other.isascii():
                            rest.append(other)
                            size += len(other)
                        if size > _CHUNK // 16:
                            break
                    what = f"line {number:,} has the byte 0x{line[error.start]:02x}"
                    hint = _suggestion(b"".join(rest), line, error.start)
                    return DataFileError(f"'{file.name}' is not UTF-8: {what}.", hint=hint)
    except OSError:
        return None
    return None


def _suggestion(sample: bytes, line: bytes, place: int) -> str:
    """The encoding to give, and how the line reads in it; several where the bytes do not tell."""
    import chardet

    found: dict[str, float] = {}
    for guess in chardet.detect_all(sample, ignore_threshold=True):
        name = _USUAL.get((guess["encoding"] or "").lower())
        if name is not None:
            found[name] = max(found.get(name, 0.0), guess["confidence"])
    few = sum(byte >= 0x80 for byte in sample) < _FEW_BYTES
    if few and (eastern := _eastern(sample)):
        return _told(line, place, eastern + [name for name in found if found[name] >= _LIKELY])
    likely = [name for name, confidence in found.items() if confidence >= _LIKELY]
    others = [name for name, confidence in found.items() if confidence >= _LIKELY / 4]
    names = likely[:1] or [*_WESTERN, *(name for name in others if name not in _WESTERN)]
    return _told(line, place, names)


def _eastern(sample: bytes) -> list[str]:
    """Encodings of two bytes a character that give words in their own script, the surest first.

    Where Western words are read in these, a character mostly stands alone beside Latin letters.
    """
    read: list[str] = []
    for name, script in _SCRIPTS.items():
        try:
            text = sample.decode(name)
        except UnicodeDecodeError:
            continue
        words = re.findall(r"[^\x00-\x7f]+", text)
        alone = sum(len(word) == 1 for word in words) > len(words) / 2
        if words and not alone and not re.search(r"[a-zA-Z][^\x00-\x7f]", text) and re.search(script, text):
            read.append(name)
    return read


def _told(line: bytes, place: int, names: list[str]) -> str:
    """How a line reads in some encodings, and the advice."""
    readings: dict[str, str] = {}
    for name in names:
        shown = _decoded(line, name, place)
        if shown is not None and shown not in readings.values():
            readings[name] = shown
    told = "; ".join(f"as {name} the line reads {shown!r}" for name, shown in list(readings.items())[:4])
    if not told:
        return "Give the encoding that it was saved in by OPTIONS (encoding='…'), or save it as UTF-8."
    return f"{told[0].upper()}{told[1:]}. {_advice(list(readings)[:4])}"


def _decoded(line: bytes, encoding: str, place: int) -> str | None:
    """Some 40 characters of the line around the byte at ``place``; ``None`` where it cannot be read."""
    try:
        text = line.decode(encoding).strip()
        at = len(line[:place].decode(encoding, errors="ignore"))
    except UnicodeDecodeError:
        return None
    if any(not character.isprintable() and character not in "\t\xa0" for character in text):
        return None  # control characters: no one meant that
    start = max(0, at - 20)
    part = text[start : start + 40]
    return ("…" if start else "") + part + ("…" if start + 40 < len(text) else "")


def _advice(names: list[str]) -> str:
    if len(names) == 1:
        return f"Read it with OPTIONS (encoding='{names[0]}')."
    return f"Choose the one that reads right: OPTIONS (encoding='{names[0]}')."


def write_utf8(file: Path, encoding: str, target: Path, *, line_ends: bool = False) -> None:
    """Write the content of ``file`` to ``target`` as UTF-8, decompressed.

    Args:
        file: the file as it lies.
        encoding: what it is in.
        target: where to write.
        line_ends: make every line break ``\\n``, those inside quoted texts too.

    Raises:
        DataFileError: the file is not in that encoding; names the first line that is not.
    """
    line = 1
    decoder = codecs.getincrementaldecoder(codec(encoding))()
    with bytes_of(file) as content, target.open("w", encoding="utf-8", newline="") as out:
        held = ""
        while True:
            chunk = content.read(_CHUNK)
            try:
                text = held + decoder.decode(chunk, final=not chunk)
            except UnicodeError as error:
                start = getattr(error, "start", 0)
                number = line + chunk[:start].count(b"\n")
                byte = chunk[start : start + 1].hex()
                raise DataFileError(
                    f"'{file.name}' is not {encoding}: line {number:,} has the byte 0x{byte}.",
                    hint="Choose another encoding, or leave it out: the error then says what it may be.",
                ) from error
            held = ""
            if line_ends:
                if chunk and text.endswith("\r"):
                    text, held = text[:-1], "\r"  # its \n may come with the next piece
                text = text.replace("\r\n", "\n").replace("\r", "\n")
            line += text.count("\n")
            try:
                out.write(text)
            except UnicodeEncodeError as error:
                raise DataFileError(f"'{file.name}' has half a character in {encoding}.") from error
            if not chunk:
                return
