"""The norms of balls by name, beside linf, whose balls are boxes; known before numpy is loaded."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

Norm: TypeAlias = Literal["l2", "l1"]
NORMS: Final[tuple[Norm, ...]] = ("l2", "l1")
