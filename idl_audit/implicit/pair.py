"""Two models on one input as one implicit model: outputs (y, y', y - y') (docs/mathematics.md, section 9.6).

    apart         A = [[A, 0], [0, A']], B = [B; B'], C = [[C, 0], [0, C'], [C, -C']]
    differences   states x' and d = x - x', where blocks pair up: z' = A' x' + B' u + b' and
                  dz = A d + (A - A') x' + (B - B') u + b - b', dx = phi(z' + dz) - phi(z')

In `differences`, blocks of which nothing differs (A = A', and neither does what they read) are there once: one state
for both, as the same function of equal numbers in exact arithmetic. Blocks that do not pair up (other activations or
sizes, coupled states, jumps) stand apart, and d = x - x' is a sum of theirs. Before that states get one unit
(`alignment`): `convert` divides them by powers of two.

What rounding did to differences of coefficients is in the result's `slack`: two weights of float32 have a difference
that float64 holds exactly, unless one is some 2^29 times the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

import numpy as np
import scipy.sparse as sp

from idl_audit.implicit.activations import Activation, Coupled, Mixed
from idl_audit.implicit.activations.curved import Curved
from idl_audit.implicit.activations.kinked import Kinked
from idl_audit.implicit.activations.paired import Paired
from idl_audit.implicit.affine import INPUT
from idl_audit.implicit.alignment import aligned
from idl_audit.implicit.last_operator import NAMED
from idl_audit.implicit.linear_maps import Dense, LinearMap, Reindexed, Sparse
from idl_audit.implicit.model import Affine, ImplicitModel, PoolWindows, StateBlock
from idl_audit.values.arrays import BoolArray, FloatArray, IntArray
from idl_audit.values.errors import OptionError
from idl_audit.values.rounding import LOST, gamma

Form: TypeAlias = Literal["apart", "differences"]
FORMS: Final[tuple[Form, ...]] = ("apart", "differences")

MOST_ENTRIES: Final = 2**24
"""Of the maps of both models: with more, differences are not written out."""
SPARSE: Final = 0.1
"""Below this share of nonzeros a matrix stays sparse."""


def why_not_comparable(first: ImplicitModel, second: ImplicitModel) -> str:
    """Return why two models have no outputs to compare, as one sentence goes on; empty where they have."""
    if first.n_inputs != second.n_inputs:
        return f"the first has {first.n_inputs:,} inputs, and the second {second.n_inputs:,}"
    if first.n_outputs != second.n_outputs:
        return f"the first has {first.n_outputs:,} outputs, and the second {second.n_outputs:,}"
    for which, model in (("first", first), ("second", second)):
        if model.stripped_output in NAMED:  # equal scores may be two classes: files break ties in ways of their own
            return f"the {which} ends in {model.stripped_output} and gives no scores; make those before it the output"
    return ""


def has_differences(first: ImplicitModel, second: ImplicitModel) -> bool:
    """Return whether two models have the form `differences`: feed-forward, as many blocks, not too large."""
    return (
        first.is_feed_forward
        and second.is_feed_forward
        and len(first.blocks) == len(second.blocks)
        and first.nnz + second.nnz <= MOST_ENTRIES
    )


def paired_model(first: ImplicitModel, second: ImplicitModel, form: Form) -> ImplicitModel:
    """Return both models as one, with the outputs (y, y', y - y'), shape (3 q,).

    Args:
        first: y.
        second: y'.
        form: how the states are written.

    Raises:
        OptionError: where the models have other inputs or outputs, or not this form.
    """
    why = why_not_comparable(first, second)
    if why:
        raise OptionError(f"two models are compared on the same inputs and outputs: {why}")
    if form == "differences" and not has_differences(first, second):
        raise OptionError("these two models have no states that pair up, so that their differences are no states")
    if form == "apart":
        return _apart(first, second)
    first, second = aligned(first, second)
    return _Pairing(first, second, _kinds(first, second)).model()


def equal_outputs(model: ImplicitModel) -> BoolArray:
    """Return which outputs of a pair are equal for every input, (q,): nothing is left of their difference."""
    q, output = model.n_outputs // 3, model.output
    equal = np.full(q, not output.constant_error) & (output.constant[2 * q :] == 0)
    for linear_map in output.maps:
        matrix = _entries(linear_map)
        for part in (matrix.values, matrix.errors):
            if part is not None:
                equal &= np.asarray(abs(part[2 * q :]).sum(axis=1)).ravel() == 0
    return np.asarray(equal, np.bool_)


# --- apart ------------------------------------------------------------------------------------------------------------


def _apart(first: ImplicitModel, second: ImplicitModel) -> ImplicitModel:
    """Return the blocks of both models, one behind the other."""
    n = len(first.blocks)
    shifted = [_shifted(row, n) for row in (*second.rows, second.output)]
    blocks = (*first.blocks, *(_moved_windows(block, n) for block in second.blocks))
    weights = {**first.loop_weights, **{k + n: own for k, own in second.loop_weights.items()}}
    one, other = _Row.of(first.output), _Row.of(shifted[-1])
    output = _stacked([one, other, one.minus(other)])
    return ImplicitModel(
        blocks,
        (*first.rows, *shifted[:-1]),
        output,
        first.input_shape,
        (output.size,),
        loop_weights=MappingProxyType(weights),
        input_parts=first.input_parts,
    )


def _shifted(row: Affine, offset: int) -> Affine:
    return replace(row, states={k + offset: linear_map for k, linear_map in row.states.items()})


def _moved_windows(block: StateBlock, offset: int) -> StateBlock:
    if block.maximum is None:
        return block
    return replace(block, maximum=PoolWindows(block.maximum.source + offset, block.maximum.windows))


def _terms(row: Affine) -> dict[int, LinearMap]:
    """Return source -> map of a row of blocks, the input included."""
    return {**row.states, **({} if row.input is None else {INPUT: row.input})}


# --- differences ------------------------------------------------------------------------------------------------------

Kind: TypeAlias = Literal["same", "coupled", "apart"]
"""Of a pair of blocks: one block for both; pairs (z', dz); two blocks."""


def _kinds(first: ImplicitModel, second: ImplicitModel) -> tuple[Kind, ...]:
    """Return what becomes of every pair of blocks, the oldest looked at first."""
    kinds: dict[int, Kind] = {}
    for k in first.evaluation_order:
        mine, theirs = first.blocks[k], second.blocks[k]
        if mine.size != theirs.size or not _is_same_function(mine, theirs):
            kinds[k] = "apart"
        elif _reads_the_same(first.rows[k], second.rows[k], kinds):
            kinds[k] = "same"
        else:
            kinds[k] = "coupled" if _has_slopes(mine) else "apart"
    return tuple(kinds[k] for k in range(len(first.blocks)))


def _is_same_function(mine: StateBlock, theirs: StateBlock) -> bool:
    if not np.array_equal(mine.exponent, theirs.exponent):
        return False
    return _is_same_activation(mine.activation, theirs.activation)


def _is_same_activation(mine: Activation, theirs: Activation) -> bool:
    if type(mine) is not type(theirs) or mine.name != theirs.name or isinstance(mine, Mixed):
        return False
    if isinstance(mine, Coupled) and isinstance(theirs, Coupled) and mine.width != theirs.width:
        return False
    ours, others = dict(mine.parameters), dict(theirs.parameters)
    return ours.keys() == others.keys() and all(np.array_equal(ours[name], others[name]) for name in ours)


def _has_slopes(block: StateBlock) -> bool:
    """Return whether the states of a block are functions of one variable with bounded slopes, in their own units."""
    phi = block.activation
    plain = isinstance(phi, (Kinked, Curved)) and not phi.coupled and not phi.forbidden
    return plain and not np.any(block.exponent) and bool(np.isfinite(phi.lipschitz).all())


def _reads_the_same(mine: Affine, theirs: Affine, kinds: Mapping[int, Kind]) -> bool:
    """Return whether two rows are one function of equal states, coefficient by coefficient, none of them rounded."""
    if any(kinds[k] != "same" for k in mine.states) or mine.states.keys() != theirs.states.keys():
        return False
    if mine.constant_error or theirs.constant_error or not np.array_equal(mine.constant, theirs.constant):
        return False
    one, other = _terms(mine), _terms(theirs)
    return one.keys() == other.keys() and all(_entries(one[k]).minus(_entries(other[k])).is_zero for k in one)


@dataclass(frozen=True, eq=False)
class _Pairing:
    """The making of the form `differences`."""

    first: ImplicitModel
    second: ImplicitModel
    kinds: tuple[Kind, ...]

    def model(self) -> ImplicitModel:
        """Return the model."""
        blocks: list[StateBlock] = []
        rows: list[Affine] = []
        for k, kind in enumerate(self.kinds):
            mine, theirs = self.first.blocks[k], self.second.blocks[k]
            ours, others = self.first.rows[k], self.second.rows[k]
            if kind == "same":
                blocks.append(self._renumbered(mine, 0))
                rows.append(self._made(self._of_side(ours, 0)))
            elif kind == "coupled":
                both = Paired(base=mine.activation)
                blocks.append(StateBlock(mine.name, mine.op, both, (2 * mine.size,)))
                rows.append(self._made(self._of_side(others, 1), self._of_difference(ours, others), beside=True))
            else:
                blocks += [self._renumbered(mine, 0), self._renumbered(theirs, 1)]
                rows += [self._made(self._of_side(ours, 0)), self._made(self._of_side(others, 1))]
        one, other = self.first.output, self.second.output
        output = self._made(self._of_side(one, 0), self._of_side(other, 1), self._of_difference(one, other))
        return ImplicitModel(
            tuple(blocks),
            tuple(rows),
            output,
            self.first.input_shape,
            (output.size,),
            input_parts=self.first.input_parts,
        )

    def _made(self, *parts: _Row, beside: bool = False) -> Affine:
        return _stacked(parts, beside=beside)

    @cached_property
    def _places(self) -> tuple[int, ...]:
        """The number that the first block of each pair has."""
        counts = [2 if kind == "apart" else 1 for kind in self.kinds]
        return tuple(int(place) for place in np.cumsum([0, *counts])[:-1])

    def _renumbered(self, block: StateBlock, side: int) -> StateBlock:
        """Return a block whose windows read the block that its source has become; none where that is a pair."""
        if block.maximum is None:
            return block
        source = block.maximum.source
        if self.kinds[source] == "coupled":
            return replace(block, maximum=None)
        place = self._places[source] + (side if self.kinds[source] == "apart" else 0)
        return replace(block, maximum=PoolWindows(place, block.maximum.windows))

    def _of_side(self, row: Affine, side: int) -> _Row:
        """Return z (side 0) or z' (side 1) over the states of the pair: where blocks are coupled, x = x' + d."""
        parts: dict[int, _Entries] = {}
        for source, linear_map in _terms(row).items():
            own = _entries(linear_map)
            if source == INPUT:
                parts[INPUT] = own
            elif self.kinds[source] == "coupled":
                shared = own.widened(0)
                parts[self._places[source]] = shared if side else shared.plus_other(own.widened(1))
            else:
                parts[self._places[source] + (side if self.kinds[source] == "apart" else 0)] = own
        return _Row(parts, row.constant, row.constant_error)

    def _of_difference(self, mine: Affine, theirs: Affine) -> _Row:
        """Return z - z' = A d + (A - A') x' + (B - B') u + b - b' over the states of the pair.

        Maps of blocks that stand apart are not subtracted: these may have different numbers of states.
        """
        one, other = _Row.of(mine), _Row.of(theirs)
        parts = {self._places[k]: part for k, part in one.parts.items() if self._is_apart(k)}
        parts |= {self._places[k] + 1: part.negative for k, part in other.parts.items() if self._is_apart(k)}
        change = one.without(self._is_apart).minus(other.without(self._is_apart))
        for source, part in change.parts.items():
            if source == INPUT:
                parts[INPUT] = part
            elif self.kinds[source] == "same":
                parts[self._places[source]] = part
            else:
                own = one.parts.get(source)
                wide = part.widened(0)
                parts[self._places[source]] = wide if own is None else wide.plus_other(own.widened(1))
        left = {k: part for k, part in parts.items() if not part.is_zero}
        return _Row(left, change.constant, change.constant_error)

    def _is_apart(self, source: int) -> bool:
        return source != INPUT and self.kinds[source] == "apart"


# --- coefficients -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Entries:
    """A map written out: |exact - values| <= errors, entry by entry; None stands for zeros."""

    values: sp.csr_array
    errors: sp.csr_array | None = None

    @property
    def is_zero(self) -> bool:
        """Whether it is exactly 0."""
        return not self.values.data.any() and (self.errors is None or not self.errors.data.any())

    @property
    def negative(self) -> _Entries:
        """The map with the other sign."""
        return _Entries(sp.csr_array(-self.values), self.errors)

    def minus(self, other: _Entries) -> _Entries:
        """Return the difference, with what rounding did to it (Knuth's two-sum)."""
        a, b = self.values, other.values
        difference = sp.csr_array(a - b)
        back = sp.csr_array(a - difference)
        lost = abs(sp.csr_array(a - sp.csr_array(difference + back)) + sp.csr_array(back - b))
        parts = [part for part in (self.errors, other.errors, lost) if part is not None and part.data.any()]
        return _Entries(_without_zeros(difference), _added_up(parts))

    def widened(self, place: int) -> _Entries:
        """Return the map that reads the first, or second, of every pair of states."""
        errors = None if self.errors is None else _every_second(self.errors, place)
        return _Entries(_every_second(self.values, place), errors)

    def plus_other(self, other: _Entries) -> _Entries:
        """Return the sum of two maps that read different states."""
        errors = [part for part in (self.errors, other.errors) if part is not None]
        return _Entries(sp.csr_array(self.values + other.values), _added_up(errors))

    def as_map(self) -> LinearMap:
        """Return it as a map."""
        slack = None if self.errors is None else _Entries(self.errors).as_map()
        if self.values.nnz < SPARSE * self.values.shape[0] * self.values.shape[1]:
            return Sparse(matrix=self.values, slack=slack)
        return Dense(matrix=self.values.toarray(), slack=slack)


def written_out(row: Affine) -> dict[int, tuple[sp.csr_array, sp.csr_array | None]]:
    """Return source -> the entries of a row of blocks, and bounds of what rounding did to them where it did."""
    return {k: (part.values, part.errors) for k, part in _Row.of(row).parts.items()}


def _entries(linear_map: LinearMap) -> _Entries:
    """Return a map written out, what is uncertain in it included."""
    matrix = linear_map.to_sparse()
    relative = linear_map.relative + (gamma(4) if isinstance(linear_map, Reindexed) else 0.0)  # entries are products
    errors = None
    if relative:
        errors = sp.csr_array(abs(matrix) * (relative * (1 + gamma(4))))
        errors.data = errors.data + LOST
    if linear_map.slack is not None:
        slack = linear_map.slack.to_sparse() * (1 + gamma(8))
        slack.data = slack.data + LOST
        errors = sp.csr_array(slack) if errors is None else _added_up([errors, slack])
    return _Entries(sp.csr_array(matrix), errors)


def _added_up(parts: Iterable[sp.csr_array]) -> sp.csr_array | None:
    """Return the sum of nonnegative matrices, rounded upward; None for none."""
    total = None
    for part in parts:
        total = part if total is None else sp.csr_array(total + part) * (1 + gamma(4))
    return None if total is None else sp.csr_array(total)


def _without_zeros(matrix: sp.csr_array) -> sp.csr_array:
    matrix.eliminate_zeros()
    return matrix


def _every_second(matrix: sp.csr_array, place: int) -> sp.csr_array:
    shape = matrix.shape[0], 2 * matrix.shape[1]
    return sp.csr_array((matrix.data, 2 * matrix.indices.astype(np.int64) + place, matrix.indptr), shape=shape)


def _subtracted(a: FloatArray, b: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return a - b, and how far that is from the exact difference (Knuth's two-sum)."""
    difference = a - b
    back = a - difference
    return difference, np.abs((a - (difference + back)) + (back - b))


def _sum_up(*values: float) -> float:
    """Return the sum of nonnegative numbers, rounded upward; 0 where all are 0."""
    return float(sum(values)) * (1 + gamma(8))


@dataclass(frozen=True, eq=False)
class _Row:
    """A row of blocks written out."""

    parts: Mapping[int, _Entries]
    constant: FloatArray
    constant_error: float

    @classmethod
    def of(cls, row: Affine) -> _Row:
        """Return a row of blocks as it is."""
        return cls({k: _entries(linear_map) for k, linear_map in _terms(row).items()}, row.constant, row.constant_error)

    def without(self, leave: Callable[[int], bool]) -> _Row:
        """Return the row without what it reads of some sources."""
        parts = {source: part for source, part in self.parts.items() if not leave(source)}
        return _Row(parts, self.constant, self.constant_error)

    def minus(self, other: _Row) -> _Row:
        """Return the difference of two rows over the same sources; what is 0 in it stays named."""
        parts = {}
        for source in self.parts.keys() | other.parts.keys():
            a, b = self.parts.get(source), other.parts.get(source)
            parts[source] = a.minus(b) if a and b else a or other.parts[source].negative
        constant, lost = _subtracted(self.constant, other.constant)
        error = _sum_up(float(np.max(lost, initial=0.0)), self.constant_error, other.constant_error)
        return _Row(parts, constant, error)


def _stacked(rows: Sequence[_Row], *, beside: bool = False) -> Affine:
    """Return rows of blocks one below the other; `beside`, entry by entry in turns."""
    constant = np.concatenate([row.constant for row in rows])
    order = _order(len(rows), constant.size // len(rows)) if beside else np.arange(constant.size)
    terms = {}
    for source in sorted({source for row in rows for source in row.parts}):
        width = next(row.parts[source].values.shape[1] for row in rows if source in row.parts)
        every = [row.parts.get(source) or _nothing(row.constant.size, width) for row in rows]
        values = sp.csr_array(sp.vstack([one.values for one in every], format="csr"))[order]
        errors = None
        if any(one.errors is not None for one in every):
            blank = [sp.csr_array(one.values.shape) if one.errors is None else one.errors for one in every]
            errors = sp.csr_array(sp.csr_array(sp.vstack(blank, format="csr"))[order])
        terms[source] = _Entries(_sorted(values), errors).as_map()
    error = max(row.constant_error for row in rows)
    states = MappingProxyType({k: linear_map for k, linear_map in terms.items() if k != INPUT})
    return Affine(states, terms.get(INPUT), constant[order], error)


def _order(count: int, size: int) -> IntArray:
    """Return the places of the entries of `count` vectors of one size, taken in turns."""
    return np.arange(count * size).reshape(count, size).T.reshape(-1)


def _nothing(rows: int, columns: int) -> _Entries:
    return _Entries(sp.csr_array((rows, columns)))


def _sorted(matrix: sp.csr_array) -> sp.csr_array:
    found = sp.csr_array(matrix)
    found.sort_indices()
    return found
