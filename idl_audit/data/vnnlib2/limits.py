"""How large a VNN-LIB 2 file may be: it may come from anywhere."""

from __future__ import annotations

from typing import Final

MAX_BYTES: Final = 2**26
"""Largest size of a file, after decompression (64 MB)."""
MAX_DEPTH: Final = 100
"""How deep the parentheses of a formula may be nested."""
MAX_TERMS: Final = 2**22
"""Most numbers, entries and operators of all assertions."""
MAX_CHARACTERS: Final = 2_000
"""Longest text of a number or name; every number of float64 has fewer digits."""
MAX_DIMENSIONS: Final = 32
"""Most dimensions of a tensor."""
MAX_ENTRIES: Final = 10**7
"""Most entries of all tensors together."""
MAX_VARIABLES: Final = 10_000
"""Most variables of all networks together."""
