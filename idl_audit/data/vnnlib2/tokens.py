"""The words of a VNN-LIB 2 file, as the standard's grammar tells them apart: the longest match counts."""

from __future__ import annotations

import itertools
import re
from typing import Final, TypeAlias

from idl_audit.data.vnnlib2.limits import MAX_DIMENSIONS
from idl_audit.data.vnnlib2.syntax import Place

_SKIP: Final = r"(?:[ \t\r\n\f]++|;[^\n]*+)*+"
"""White space and comments; nothing is given back, so that no text takes more than one pass."""

TOKEN: Final = re.compile(
    rf"""{_SKIP}(?:
      (?P<close>\))
    | (?P<open>\({_SKIP}(?P<operator>[A-Za-z][A-Za-z0-9_-]*+|[<>=!]=?+|[+*/]|-(?![0-9])))
    | (?P<entry>(?P<name>[A-Za-z][A-Za-z0-9_]*+)
        (?:{_SKIP}\[{_SKIP}(?P<index>[0-9]++(?:{_SKIP},{_SKIP}[0-9]++)*+){_SKIP}\])?+)
    | (?P<number>-?+[0-9]++(?:\.[0-9]++)?+)
    | (?P<quoted>"(?:[^"\\]|\\["\\nt])*+")
    | (?P<version><(?P<major>[0-9]++)\.(?P<minor>[0-9]++)>)
    | (?P<end>\Z)
    | (?P<other>.)
    )""",
    re.VERBOSE | re.DOTALL,
)
"""One word, with what stands before it: `lastgroup` is its kind. An opening parenthesis comes with its operator, a name
with its indices; what does not fit is `other`, one character."""

Match: TypeAlias = "re.Match[str]"

HINTS: Final = {
    "=": "an equation is written (== X[0] 1.0)",
    "=>": "an implication is written with or and the opposite comparison",
    "/": "a quotient by a number is written as a product: (* 0.5 X[0])",
    "not": "a negation is written with the opposite comparison",
    "let": "write the term out where it is used",
    "declare-const": "tensors are declared in (declare-network ...)",
    "declare-fun": "tensors are declared in (declare-network ...)",
}
"""Operators and commands of related languages -> what works here."""


def start(match: Match) -> int:
    """Return where a word begins, behind what is skipped before it."""
    return match.start(match.lastgroup or 0)


def raw(match: Match) -> str:
    """Return a word as it is written."""
    return str(match[match.lastgroup or 0])


_WHOLE: Final = re.compile(r";[^\n]*|([0-9]+)")
_ESCAPE: Final = re.compile(r"\\(.)")
_ESCAPED: Final = {"n": "\n", "t": "\t"}


def whole_numbers(index: str) -> list[str]:
    """Return the digits of each number between the brackets of an entry or a shape: one more than may be, at most."""
    every = (found[1] for found in _WHOLE.finditer(index) if found[1])
    return list(itertools.islice(every, MAX_DIMENSIONS + 1))


def unquoted(quoted: str) -> str:
    """Return what a quoted name says."""
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), quoted[1:-1])


def quoted(name: str) -> str:
    """Return a name in quotation marks; `unquoted` gives it back."""
    whole = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{whole}"'


def shown(text: str) -> str:
    """Return the beginning of a text, to be named in a message."""
    short = " ".join(text[:200].split())
    return repr((short or text[:40]) if len(short) <= 40 and len(text) <= 200 else short[:40] + "...")


_BRACKETS: Final = re.compile(rf"{_SKIP}(\[[^\]]{{0,100}}\]?)")


def bracketed(text: str, position: int) -> str:
    """Return what stands in brackets behind a position, shortened; nothing where no bracket follows."""
    found = _BRACKETS.match(text, position)
    return "" if found is None else found[1]


class Lines:
    """Tells lines and columns of positions in a text; asked in ascending order, it passes over the text once."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._line = 1
        self._start = 0
        self._end = self._end_of_line(0)

    def _end_of_line(self, position: int) -> int:
        found = self._text.find("\n", position)
        return len(self._text) if found < 0 else found

    def place(self, position: int) -> Place:
        """Return the place of a position that is not before the last one."""
        if position > self._end:
            self._line += self._text.count("\n", self._end, position)
            self._start = self._text.rfind("\n", self._end, position) + 1
            self._end = self._end_of_line(position)
        return Place(self._line, position - self._start + 1)
