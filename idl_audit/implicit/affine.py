"""AffineForm: a tensor of the network as sum_k P_k x_k + Q u + r over the states made so far and the input."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from idl_audit.implicit.composition import add, compose, product_nnz
from idl_audit.implicit.linear_maps import LinearMap, Selection
from idl_audit.values.arrays import BoolArray, FloatArray, IntArray
from idl_audit.values.rounding import TINY, gamma

INPUT: Final = -1
"""The source that stands for u; states are numbered 0, 1, ... in the order they were made."""


@dataclass(frozen=True, eq=False)
class AffineForm:
    """sum over sources of terms[source] (source) + constant, reshaped to `shape` (batch axis of 1 included)."""

    shape: tuple[int, ...]
    terms: Mapping[int, LinearMap]
    constant: FloatArray
    """Flat, shape (size,)."""
    constant_error: float = 0.0
    """Bounds the largest difference between the constant in exact arithmetic and the one stored."""

    @classmethod
    def of_source(cls, source: int, shape: tuple[int, ...]) -> AffineForm:
        """Return the form that is just "x_source" (or u)."""
        size = math.prod(shape)
        return cls(shape, {source: Selection.identity(size)}, np.zeros(size))

    @property
    def size(self) -> int:
        """Number of entries of the tensor."""
        return int(self.constant.size)

    @property
    def nnz(self) -> int:
        """Entries that its maps hold."""
        return sum(term.nnz for term in self.terms.values())

    @property
    def is_bare(self) -> bool:
        """Whether the form is one source as it is, up to reordering: no sums, no weights, no constant."""
        if len(self.terms) != 1 or self.constant.any() or self.constant_error:
            return False
        (term,) = self.terms.values()
        return isinstance(term, Selection) and term.weights is None and bool((term.index >= 0).all())

    @property
    def is_zero(self) -> BoolArray:
        """Which entries are 0 whatever the input is, flat."""
        return np.asarray(self.is_constant & (self.constant == 0))

    @property
    def is_constant(self) -> BoolArray:
        """Which entries are the constant's, exactly, whatever the input is, flat."""
        found: BoolArray = np.full(self.size, not self.constant_error)
        for term in self.terms.values():
            found &= np.diff(term.to_sparse().indptr) == 0
            if term.slack is not None:
                found &= np.diff(term.slack.to_sparse().indptr) == 0
        return found

    def reshaped(self, shape: tuple[int, ...]) -> AffineForm:
        """Return the same numbers in another shape of the same size."""
        return AffineForm(shape, self.terms, self.constant, self.constant_error)

    def selected(self, index: IntArray, fill: float = 0.0) -> AffineForm:
        """Return the tensor whose entries are this one's at `index` (an array of flat positions; -1 gives `fill`)."""
        flat = index.reshape(-1)
        selection = Selection(index=flat, size_in=self.size)
        terms = {source: compose(selection, term) for source, term in self.terms.items()}
        constant = np.full(flat.size, float(fill))
        constant[flat >= 0] = self.constant[flat[flat >= 0]]
        return AffineForm(index.shape, terms, constant, self.constant_error)

    def mapped(
        self,
        linear_map: LinearMap,
        shape: tuple[int, ...],
        *,
        offset: FloatArray | None = None,
        offset_error: float = 0.0,
    ) -> AffineForm:
        """Return linear_map (this) + offset, multiplied out; `offset_error` bounds what rounding did to the offset."""
        terms = {source: compose(linear_map, term) for source, term in self.terms.items()}
        constant = linear_map.apply(self.constant[None])[0]
        size = float(np.abs(self.constant).max(initial=0.0))
        error = (
            linear_map.norm_inf * self.constant_error
            + linear_map.uncertain_norm * (size + self.constant_error)
            + offset_error
        )
        if size:
            error += gamma(linear_map.row_terms + 2) * linear_map.norm_inf * size
        if size or self.constant_error or offset_error:
            error += TINY  # products may fall below the range of float64, here and in what bounds their errors
        if offset is not None:
            if constant.any():
                error += gamma(2) * float((np.abs(constant) + np.abs(offset)).max(initial=0.0))
            constant = constant + offset
        return AffineForm(shape, terms, constant, error * (1 + gamma(8)))

    def product_nnz(self, linear_map: LinearMap) -> int:
        """Return an upper bound on the entries of `mapped(linear_map)`, without computing it."""
        return sum(product_nnz(linear_map, term) for term in self.terms.values())

    def scaled(self, weights: FloatArray | float, offset: FloatArray | float = 0.0) -> AffineForm:
        """Return weights * this + offset, entrywise; both broadcast to the tensor's shape."""
        factor = np.broadcast_to(np.asarray(weights, np.float64), self.shape).reshape(-1)
        shift = np.broadcast_to(np.asarray(offset, np.float64), self.shape).reshape(-1)
        if bool((factor == 1).all()):
            return self.shifted(shift)
        return self.mapped(Selection.diagonal(factor), self.shape, offset=shift if shift.any() else None)

    def shifted(self, offset: FloatArray) -> AffineForm:
        """Return this + offset (flat)."""
        if not offset.any():
            return self
        rounding = gamma(2) * float((np.abs(self.constant) + np.abs(offset)).max()) if self.constant.any() else 0.0
        return AffineForm(self.shape, self.terms, self.constant + offset, self.constant_error + rounding)

    def plus(self, other: AffineForm) -> AffineForm:
        """Return this + other, tensors of one shape."""
        if self.shape != other.shape:
            raise ValueError(f"cannot add tensors of shapes {self.shape} and {other.shape}")
        terms = dict(self.terms)
        for source, term in other.terms.items():
            terms[source] = add(terms[source], term) if source in terms else term
        summed = AffineForm(self.shape, terms, self.constant, self.constant_error).shifted(other.constant)
        return AffineForm(self.shape, terms, summed.constant, summed.constant_error + other.constant_error)


@dataclass(frozen=True, eq=False, kw_only=True)
class PartlyAbsent(AffineForm):
    """A form some of whose entries stand for minus infinity, and are 0 here: only maxima can pass over them."""

    absent: BoolArray
    """Flat, shape (size,)."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Whole(AffineForm):
    """A form whose entries are whole numbers or truth values: an operator may do otherwise with those (7 / 2 is 3)."""

    kind: str
    """Their type: int8, int64, bool."""


def typed(form: AffineForm, kind: str) -> Whole:
    """Return the form with the type of its entries."""
    return Whole(form.shape, form.terms, form.constant, form.constant_error, kind=kind)


@dataclass(frozen=True, eq=False, kw_only=True)
class OnGrid(AffineForm):
    """A form whose entries are (q - zero) scale for whole numbers q of a type: quantised so again, the same."""

    kind: str
    scale: float
    zero: float


def alike(form: AffineForm, other: AffineForm) -> AffineForm:
    """Return the form, with what is known of the entries of another one known of its own."""
    if isinstance(other, Whole):
        return typed(form, other.kind)
    if isinstance(other, OnGrid):
        parts = form.shape, form.terms, form.constant, form.constant_error
        return OnGrid(*parts, kind=other.kind, scale=other.scale, zero=other.zero)
    return form
