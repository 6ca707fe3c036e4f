"""Text of files that other programs wrote: marks of the encoding, and line ends of every system."""

from __future__ import annotations

import codecs
import os
import tomllib
from pathlib import Path
from typing import Any, Final

from idl_audit.values.errors import DataError, InvalidInputError, OptionError

MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins as the mark of UTF-16 does
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte order mark -> encoding."""

_MARK: Final = "\ufeff"


def is_marked(start: bytes) -> bool:
    """Return whether a file's first bytes are a byte order mark: it is text."""
    return any(start.startswith(mark) for mark, _ in MARKS)


def decoded(content: bytes, path: Path | str, advice: str, error: type[InvalidInputError] = DataError) -> str:
    """Return the text of a file, every line end as one newline.

    UTF-8, or what a byte order mark says: UTF-8, UTF-16 or UTF-32.

    Args:
        content: of the file.
        path: its name, for messages.
        advice: what would work, the end of every message.
        error: what to raise.

    Raises:
        InvalidInputError: `error`, where the bytes are no text in that encoding.
    """
    encoding = next((name for mark, name in MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as found:
        line = content.count(b"\n", 0, found.start) + 1
        which = encoding.upper().removesuffix("-LE").removesuffix("-BE")
        raise error(
            f"{path} is no {which} text (line {line} has the byte 0x{content[found.start]:02x}); save it as UTF-8, "
            f"or {advice}"
        ) from None
    if "\0" in text:
        wide = 4 * content.count(0) >= len(content)
        hint = "; save it as UTF-8, or as UTF-16 with a byte order mark" if wide else ""
        raise error(f"{path} is no text file{hint}; {advice}")
    return text.lstrip(_MARK).replace("\r\n", "\n").replace("\r", "\n")


def read_toml(path: Path, what: str, advice: str, *, most: int) -> dict[str, Any]:
    """Return a file of TOML.

    Args:
        path: the file.
        what: what it is to be, for messages.
        advice: what would work.
        most: bytes that it may have.

    Raises:
        OptionError: where it is none, is no regular file, or cannot be read.
    """
    try:
        if path.exists() and not path.is_file():
            raise OptionError(f"{path} cannot be read: it is no regular file; {advice}")
        if path.is_file() and os.path.getsize(path) > most:
            raise OptionError(f"{path} is longer than {most:,} bytes; no {what} is")
        return tomllib.loads(decoded(path.read_bytes(), path, advice, OptionError))
    except FileNotFoundError:
        raise OptionError(f"{path}: no such file; {advice}") from None
    except OSError as error:
        raise OptionError(f"{path} cannot be read ({error.strerror}); give another file") from None
    except RecursionError:
        raise OptionError(f"{path} is nested too deeply; no {what} is") from None
    except tomllib.TOMLDecodeError as error:
        raise OptionError(f"{path} is no TOML: {error}; mend it there") from None
