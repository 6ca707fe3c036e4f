"""Cells of tables as numbers: decimal points or commas, one kind a file, and nothing that could mean two numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, NoReturn, TypeAlias

from idl_audit.values.errors import DataError

Kind: TypeAlias = Literal["number", "missing", "truth", "text"]

MISSING: Final = frozenset(
    {"", "nan", "+nan", "-nan", "na", "n/a", "<na>", "null", "none", "nil", "nat", "?", "-", ".", "missing"}
    | {"#n/a", "#nv", "#null!", "#num!", "#div/0!", "#value!", "#ref!", "#name?", "1.#qnan", "1.#ind", "-1.#ind"}
)
"""What programs write where there is no number, in small letters."""

TRUTHS: Final = MappingProxyType({"true": 1.0, "false": 0.0})
INFINITIES: Final = frozenset(f"{sign}{word}" for sign in ("", "+", "-") for word in ("inf", "infinity"))

_EXPONENT = r"(?:[eEdD][+-]?[0-9]{1,6})?"
_POINT = re.compile(rf"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+){_EXPONENT}")
_COMMA = re.compile(rf"[+-]?(?:[0-9]+,[0-9]*|,[0-9]+){_EXPONENT}")
_ONE_GROUP = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")
"""A decimal comma with three digits behind it, or a thousands separator: the cell alone does not say which."""
_GROUPED = re.compile(r"[+-]?[0-9]{1,3}(?:([.,'’_ \u00a0\u2009\u202f])[0-9]{3})(?:\1[0-9]{3})*(?:[.,][0-9]*)?")


def kind_of(cell: str) -> Kind:
    """Return what a cell is by itself; text is neither a number nor a word for a missing one."""
    low = cell.lower()
    if low in MISSING:
        return "missing"
    if low in TRUTHS:
        return "truth"
    patterns = (_POINT, _COMMA, _GROUPED)
    return "number" if low in INFINITIES or any(pattern.fullmatch(cell) for pattern in patterns) else "text"


def shown(cell: str) -> str:
    """Quote a cell, cut where it is long; '' where it is empty."""
    return repr(cell if len(cell) <= 40 else cell[:40] + "...")


@dataclass
class Cells:
    """Reads the cells of one file and remembers which decimal mark they have had."""

    path: Path
    separator: str
    """What separates the columns, in words."""
    _point: str = field(default="", init=False)
    """Where the first decimal point stands, and the cell."""
    _comma: str = field(default="", init=False)
    """The first decimal comma that is no thousands separator."""
    _either: str = field(default="", init=False)
    """The first cell whose comma may be both."""

    def number(self, cell: str, where: Callable[[], str]) -> float:
        """Return the number in a cell, NaN where it is missing; `where` names its place, for messages.

        Raises:
            DataError: where it is none, or has thousands separators.
        """
        low = cell.lower()
        if _COMMA.fullmatch(cell):
            self._note_comma(cell, where)
            return float(low.replace("d", "e").replace(",", "."))
        if _POINT.fullmatch(cell):
            if "." in cell and not self._point:
                self._point = f"{cell} ({where()})"
            return float(low.replace("d", "e"))
        if low in MISSING:
            return math.nan
        if low in TRUTHS or low in INFINITIES:
            return TRUTHS[low] if low in TRUTHS else float(low)
        self._refuse(cell, where())

    def _note_comma(self, cell: str, where: Callable[[], str]) -> None:
        if _ONE_GROUP.fullmatch(cell):
            self._either = self._either or f"{cell} ({where()})"
        elif not self._comma:
            self._comma = f"{cell} ({where()})"

    def _refuse(self, cell: str, where: str) -> NoReturn:
        if _GROUPED.fullmatch(cell):
            raise DataError(
                f"{self.path}, {where} has {shown(cell)} with separators of thousands; write numbers without them"
            )
        raise DataError(
            f"{self.path}, {where} has {shown(cell)}, which is no number; separate columns by commas, semicolons, tabs "
            f"or blanks (taken here: {self.separator}), and give classes as whole numbers from 0"
        )

    def check_marks(self) -> None:
        """Refuse a file whose commas may be decimal marks or separate thousands. Raises DataError."""
        if (self._comma or self._either) and self._point:
            raise DataError(
                f"{self.path} has {self._point} with a decimal point and {self._comma or self._either} with a comma; "
                "write all numbers with decimal points, and none with separators of thousands"
            )
        if self._either and not self._comma:
            raise DataError(
                f"{self.path} has {self._either}, whose comma may be a decimal mark or a separator of thousands; write "
                "decimal points"
            )
