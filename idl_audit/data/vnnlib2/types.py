"""The element types of VNN-LIB 2, and which numbers are constants of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from idl_audit.data.vnnlib2.syntax import REAL

Family: TypeAlias = Literal["decimal", "integer", "bool", "string"]


@dataclass(frozen=True)
class ElementType:
    """A type of tensor entries."""

    name: str
    family: Family
    lo: int = 0
    hi: int = 0
    """Of integers: the smallest and the largest."""

    def refusal(self, text: str, value: Fraction) -> str | None:
        """Return why the number `text` is no constant of this type, or None where it is one."""
        if self.family == "decimal":
            return None
        if self.family == "string":
            return "there are no numbers of this type"
        if "." in text:
            return "constants of this type have no decimal point"
        lo, hi = (0, 1) if self.family == "bool" else (self.lo, self.hi)
        return None if lo <= value <= hi else f"constants of this type are from {lo} to {hi}"


def _signed(bits: int) -> ElementType:
    return ElementType(f"int{bits}", "integer", -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _unsigned(bits: int) -> ElementType:
    return ElementType(f"uint{bits}", "integer", 0, 2**bits - 1)


_DECIMAL: Final = (
    REAL,
    *("float16", "float32", "float64", "bfloat16"),
    *("float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz", "float8e8m0", "float4e2m1"),
    *("complex64", "complex128"),
)
_BITS: Final = (2, 4, 8, 16, 32, 64)

ELEMENT_TYPES: Final[Mapping[str, ElementType]] = MappingProxyType(
    {
        known.name: known
        for known in (
            *(ElementType(name, "decimal") for name in _DECIMAL),
            *map(_signed, _BITS),
            *map(_unsigned, _BITS),
            ElementType("bool", "bool"),
            ElementType("string", "string"),
        )
    }
)
"""Those of the ONNX IR, by name, and `REAL`."""

_OTHER_NAMES: Final[Mapping[str, str]] = MappingProxyType({"float": "float32", "double": "float64", "int": "int64"})


def suggestion(word: str) -> str:
    """Return which element type a word that names none may have meant."""
    lower = word.lower()
    meant = _OTHER_NAMES.get(lower, lower if lower in ELEMENT_TYPES else None)
    return f"write {meant}" if meant else "write float32, another type of ONNX, or real for exact arithmetic"
