"""The arrays of proof files: one table of what each is, and one door through which all of them are read.

An array is read where the file's `meta` speaks of it, after its header was compared with the table: type, number of
axes, and the length of every axis, which is the model's or that of another array of the file, and never a number that
the file states. What nothing speaks of is refused at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import numpy as np

from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.files.strict_json import Damaged, Misfit
from idl_audit.values.arrays import AnyArray
from idl_audit.values.npz import NpzFile

Values: TypeAlias = Callable[[AnyArray, int], str]
"""(array, limit) -> what is wrong with its values; empty where nothing is."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of a model: inputs, outputs, and the states of each block."""

    inputs: int
    outputs: int
    blocks: tuple[int, ...]

    @classmethod
    def of(cls, model: ImplicitModel) -> Sizes:
        """Return those of a model."""
        return cls(model.n_inputs, model.n_outputs, tuple(block.size for block in model.blocks))

    @property
    def states(self) -> int:
        """States of all blocks."""
        return sum(self.blocks)

    def kept(self, counts: Mapping[int, int]) -> Sizes:
        """Return those of the model with fewer states in some blocks."""
        return replace(self, blocks=tuple(counts.get(k, n) for k, n in enumerate(self.blocks)))


def _finite(array: AnyArray, limit: int) -> str:
    return "" if np.isfinite(array).all() else "holds what is no finite number"


def _not_negative(array: AnyArray, limit: int) -> str:
    return _finite(array, limit) or ("" if (array >= 0).all() else "holds a negative number")


def _ends(array: AnyArray, limit: int) -> str:
    return "" if not np.isnan(array).any() else "holds what is no number"


def _signs(array: AnyArray, limit: int) -> str:
    return "" if ((array >= -1) & (array <= 1)).all() else "holds phases other than -1, 0 and 1"


def _units(array: AnyArray, limit: int) -> str:
    return "" if (np.abs(array) == 1).all() else "holds signs other than -1 and 1"


def _index(array: AnyArray, limit: int) -> str:
    return "" if ((array >= 0) & (array < limit)).all() else f"holds numbers outside 0 to {limit - 1}"


def _distinct(array: AnyArray, limit: int) -> str:
    return _index(array, limit) or ("" if np.unique(array).size == array.size else "holds a number twice")


def _ascending(array: AnyArray, limit: int) -> str:
    return _index(array, limit) or ("" if (np.diff(array) > 0).all() else "is not in ascending order")


def _any(array: AnyArray, limit: int) -> str:
    return ""


MODEL_AXES: Final = frozenset({"inputs", "outputs", "states"})
"""Axes whose length the model gives; the others have that of the first array that has them."""


@dataclass(frozen=True)
class Rule:
    """What an array of a proof file is."""

    dtype: type[np.generic]
    axes: tuple[str, ...]
    values: Values


PROOFS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = MappingProxyType(
    {
        "contraction": {"alpha": ("states",), "Y": ("states", "states"), "v": ("states",)},
        "monotone": {"m": ("one",), "factor": ("states", "states")},
    }
)
"""Kind of a proof that a state is unique, or of S -> the arrays it has, and their axes."""
PROOFS_OF: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"loop.#": ("contraction", "monotone"), "flat.#": ("contraction",), "monotone": ("monotone",)}
)
"""What is proved -> the kinds of proofs that it may have."""

RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        # the set of a sample
        "centre": Rule(np.float64, ("inputs",), _finite),
        "sigma": Rule(np.float64, ("inputs",), _not_negative),
        # the query of a property, one box
        "lo": Rule(np.float64, ("inputs",), _finite),
        "hi": Rule(np.float64, ("inputs",), _finite),
        "#.rows": Rule(np.float64, ("rows", "outputs"), _finite),
        "#.offsets": Rule(np.float64, ("rows",), _finite),
        # chains
        "step.#.states": Rule(np.int64, ("goals",), _distinct),
        "step.#.slopes.#": Rule(np.float32, ("goals", "states"), _finite),
        "kept.#": Rule(np.int64, ("kept",), _ascending),
        "round.#.#.states": Rule(np.int64, ("goals",), _index),
        "round.#.#.signs": Rule(np.float64, ("goals",), _units),
        "round.#.#.owner": Rule(np.int64, ("leaves",), _index),
        # trees of boxes
        "split.inputs": Rule(np.int64, ("nodes",), _any),
        "split.cuts": Rule(np.float64, ("nodes",), _finite),
        "split.children": Rule(np.int64, ("nodes",), _any),
        # trees of linear programs
        "box.#.lo": Rule(np.float64, ("states",), _ends),
        "box.#.hi": Rule(np.float64, ("states",), _ends),
        "leaves.#.phases": Rule(np.int8, ("leaves", "states"), _signs),
        "leaves.#.multipliers": Rule(np.float32, ("leaves", "states"), _finite),
        # sensitivity
        "S": Rule(np.float64, ("outputs", "inputs"), _finite),
        "adjoint.#": Rule(np.float64, ("outputs", "states"), _not_negative),
        "flat.#.r": Rule(np.float64, ("outputs", "states"), _not_negative),
        **{
            f"{tree}.{name}.#": rule
            for tree in ("tree.#.#", "round.#.#")
            for name, rule in {
                "phases": Rule(np.int8, ("leaves", "states"), _signs),
                "slopes": Rule(np.float32, ("leaves", "states"), _finite),
                "multipliers": Rule(np.float32, ("leaves", "states"), _finite),
            }.items()
        },
        **{
            f"{tree}.planes.#.{name}": rule
            for tree in ("tree.#.#", "round.#.#")
            for name, rule in {
                "states": Rule(np.int64, ("planes",), _ascending),
                "shares": Rule(np.uint8, ("leaves", "planes", "reads"), _any),
            }.items()
        },
        **{
            f"{proof}.{name}": Rule(np.float64, axes, _finite)
            for proof, kinds in PROOFS_OF.items()
            for kind in kinds
            for name, axes in PROOFS[kind].items()
        },
    }
)
"""Name, # for a number -> what the array is. A property's names have the number of its box in front."""


class ProofArrays:
    """The arrays of one open file, each taken once; `sizes` are those of the model that it is checked against."""

    def __init__(self, file: NpzFile, sizes: Sizes) -> None:
        self._file, self.sizes = file, sizes
        self._left = set(file.headers) - {"meta"}

    def among(self, sizes: Sizes) -> ProofArrays:
        """Return the same arrays, to be checked against other sizes."""
        found = copy(self)
        found.sizes = sizes
        return found

    def has(self, name: str) -> bool:
        """Return whether there is an array of this name."""
        return name in self._file.headers

    def take(self, name: str, *numbers: int, prefix: str = "", below: int = 0, free: str = "", **axes: int) -> AnyArray:
        """Return the array of a rule, its numbers put in for each #.

        Args:
            name: a key of `RULES`.
            numbers: what stands for each #.
            prefix: of the part that the array belongs to.
            below: the limit of its values, where they are numbers of something.
            free: an axis of any length but 0.
            axes: the length of every other axis.

        Raises:
            Damaged: where it is missing, of another type, or contradicts other arrays.
            Misfit: where it does not fit the model.
        """
        rule, whole = RULES[name], prefix + filled(name, numbers)
        header = self._file.headers.get(whole)
        if header is None or whole not in self._left:
            raise Damaged(f"the array '{whole}' is missing")
        if header.dtype != rule.dtype or len(header.shape) != len(rule.axes):
            raise Damaged(f"the array '{whole}' is of {header.dtype} and shape {header.shape}, which it never is")
        wanted = {"inputs": self.sizes.inputs, "outputs": self.sizes.outputs, "one": 1, **axes}
        for axis, length in zip(rule.axes, header.shape, strict=True):
            fits = length > 0 if axis == free else length == wanted[axis]
            if not fits:
                kind = Misfit if axis in MODEL_AXES else Damaged
                expected = "1 or more" if axis == free else wanted[axis]
                raise kind(f"the array '{whole}' has the shape {header.shape}, where {axis} should be {expected}")
        if 0 in header.shape and not MODEL_AXES.issuperset(rule.axes):
            raise Damaged(f"the array '{whole}' is empty")
        self._left.remove(whole)
        array = self._file.read(whole)
        why = rule.values(array, below)
        if why:
            raise (Misfit if below and rule.values is not _any else Damaged)(f"the array '{whole}' {why}")
        return array

    def rows(self, name: str, *numbers: int, prefix: str = "") -> int:
        """Return the length of an array's first axis, without reading it. Raises Damaged where it has none."""
        header = self._file.headers.get(prefix + filled(name, numbers))
        if header is None or not header.shape:
            raise Damaged(f"the array '{prefix + filled(name, numbers)}' is missing")
        return header.shape[0]

    def done(self) -> None:
        """Raise Damaged where an array is left that was not taken."""
        if self._left:
            raise Damaged(f"it holds the array '{min(self._left)[:80]}', which nothing in it speaks of")


def filled(name: str, numbers: tuple[int, ...]) -> str:
    """Return a name with its numbers put in."""
    parts: list[Any] = name.split("#")
    return "".join(f"{part}{number}" for part, number in zip(parts, (*numbers, ""), strict=True))
