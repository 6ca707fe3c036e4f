"""Bounds of states and outputs over one input set, by a ladder of methods.

Intermediate bounds, in other verifiers' words (docs/mathematics.md, sections 5.2, 5.4 and 6).

    norm          |y - y0| <= rho max|u - u0|: a figure to compare with, which nothing below uses
    norm-matrix   block by block, |x_k - x0_k|_inf <= T_k |u - u0|_inf; for models with softmax or pools (norm_matrix)
    sensitivity   |z - z0| <= S_z |u - u0| and |y - y0| <= S |u - u0|, S for all inputs at once
    interval      forward, block by block
    linear        backward linear bounds of every state that is still unstable, and of the outputs

From norm-matrix on, each is intersected with those before it. The set is a box or U_card; over the latter, a sum of p
changes becomes the sum of the k largest ones, in S, in the first layer's intervals and in the backward bounds.

Elsewhere: active, inactive, unstable ReLU, reachable set, output range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, TypeVar

import numpy as np

from idl_audit.implicit.activations.base import FAR
from idl_audit.implicit.linear_maps import LinearMap
from idl_audit.implicit.model import Affine, ImplicitModel, PoolWindows, StateBlock
from idl_audit.implicit.scaling import rescale
from idl_audit.measure.centre_radius import centre_radius_bytes
from idl_audit.measure.norm_matrix import NormMatrix, norm_bound, norm_matrix
from idl_audit.measure.sensitivity import sensitivity_matrix
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.intervals import affine_interval, block_interval, interval_bounds, with_interval
from idl_audit.proof.linear_bounds import output_lower_bounds, rows_at_once, state_lower_bounds, tightened_by_lines
from idl_audit.proof.zonotopes import Zonotopes, left_to_lines, zonotopes_over
from idl_audit.values.arrays import BoolArray, FloatArray, IntArray
from idl_audit.values.box import SparseBall
from idl_audit.values.budget import UNLIMITED, Budget
from idl_audit.values.check import Check
from idl_audit.values.errors import BudgetError, MemoryLimitError, OptionError, UnsupportedModelError
from idl_audit.values.input_sets import InputSet
from idl_audit.values.rounding import TINY, gamma

METHODS: Final = ("norm", "sensitivity", "interval", "linear")
"""What can be asked for, in the order of the ladder; norm brings norm-matrix with it."""

LARGEST: Final = 10**9
"""Bytes that matrices over all inputs may take, unless another limit is given."""

DEEPEST_SHARP: Final = 32
"""Up to so many blocks, every block's own S is the sharper of two kinds: its cost grows with their third power."""


NUMBERS_AT_ONCE: Final = 2**20
"""Numbers of a matrix over all inputs that are made, or looked at for one set, between two looks at the clock."""
COPIES_AT_ONCE: Final = 8
"""Arrays of so many numbers that such a unit of work holds at most."""


Proved = TypeVar("Proved", Interval, FloatArray, tuple[StateBounds, BoolArray])


@dataclass(frozen=True, eq=False)
class InputMatrix:
    """B and a bound on its error, both (n, p), made some rows at a time when they are first asked for, and kept."""

    linear_map: LinearMap
    _made: dict[int, tuple[FloatArray, FloatArray]] = field(default_factory=dict)

    def rise(self, inputs: InputSet, check: Check) -> tuple[FloatArray, FloatArray]:
        """Return how far B (u - centre) falls and rises at most over a set, each (n,), rounded upward.

        Raises:
            BudgetError: from `check`, which is called before every unit of work; what was made is kept.
        """
        n, at_once = self.linear_map.n_out, max(1, NUMBERS_AT_ONCE // max(self.linear_map.n_in, 1))
        falls, rises = np.empty(n), np.empty(n)
        for start in range(0, n, at_once):
            rows = slice(start, min(start + at_once, n))
            for moves, sign in ((falls, -1.0), (rises, 1.0)):
                check()
                matrix, error = self._rows(rows)
                moves[rows] = inputs.rise(sign * matrix, error)
        return falls, rises

    def _rows(self, rows: slice) -> tuple[FloatArray, FloatArray]:
        if rows.start not in self._made:
            made, unit = self.linear_map, np.eye(rows.stop - rows.start, self.linear_map.n_out, rows.start)
            rounding = gamma(made.column_terms + 8) * made.magnitude.adjoint(unit)
            error = (rounding + made.pull_uncertainty(unit)) * (1 + gamma(8)) + TINY
            self._made[rows.start] = made.adjoint(unit), error
        return self._made[rows.start]


@dataclass(frozen=True)
class Prepared:
    """What holds for all input sets of a model, computed once: the matrices of the ladder's first rungs."""

    model: ImplicitModel
    methods: tuple[str, ...]
    rho: float | None = None
    """|y - y0|_inf <= rho |u - u0|_inf."""
    norms: NormMatrix | None = None
    matrix: FloatArray | None = None
    """S of the outputs, shape (q, p)."""
    state_matrices: Mapping[int, FloatArray] = field(default_factory=dict)
    """S of the pre-activations, block -> (n_k, p); only blocks where it fits into memory."""
    input_matrices: Mapping[int, InputMatrix] = field(default_factory=dict)
    """For U_card: block -> B_k; OUTPUT for D."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Method -> why it, or a part of it, is not used."""


OUTPUT: Final = -1
"""Stands for the outputs where blocks are counted."""


@dataclass(frozen=True)
class Rung:
    """What is known once a method has been used."""

    method: str
    outputs: Interval
    """Shape (1, q); that of norm alone for norm, intersected with all before it for the others."""
    unstable: int | None
    """States whose slope is not one number; None where some states have no bounds yet."""
    seconds: float


@dataclass(frozen=True)
class SetBounds:
    """Bounds over one input set."""

    states: StateBounds
    """Blocks that no method reached are missing."""
    outputs: Interval
    """Shape (1, q); that of norm where nothing else was asked for."""
    rungs: tuple[Rung, ...]
    cut_short: bool
    """Whether the time ran out: some states have the bounds of an earlier method."""


def prepare(
    model: ImplicitModel, methods: Sequence[str] = METHODS, *, sparse: bool = False, max_bytes: int | None = None
) -> Prepared:
    """Compute what the ladder needs for all input sets of a model; what is too large is left out, with the reason.

    Args:
        model: the model in data units.
        methods: some of METHODS, in any order.
        sparse: whether the sets are of the kind U_card.
        max_bytes: limit on the matrices over all inputs.

    Raises:
        OptionError: for an unknown method.
        UnsupportedModelError: where a loop of the model has no proof that it is well-posed.
    """
    for name in methods:
        if name not in METHODS:
            raise OptionError(f"there is no method '{name}' for bounds; known are {', '.join(METHODS)}")
    if not model.is_well_posed:
        raise UnsupportedModelError(
            ("nothing proves that the model has one state for every input, so nothing bounds its states",)
        )
    left_out: dict[str, str] = {}
    made = Prepared(model, tuple(name for name in METHODS if name in methods))
    limit = LARGEST if max_bytes is None else max_bytes
    if "norm" in methods:
        rho = norm_bound(rescale(model))
        if rho is None or not np.isfinite(rho):
            left_out["norm"] = _JUMPS if model.has_jumps else model.unbounded or _NO_SCALING
        made = replace(made, rho=None if "norm" in left_out else rho)
        if not model.has_jumps and any(b.activation.coupled or b.maximum is not None for b in model.blocks):
            made = replace(made, norms=norm_matrix(model))
    if "sensitivity" in methods:
        method = "best" if centre_radius_bytes(model) <= limit or not model.is_feed_forward else "paper"
        matrices, why = ({}, "") if model.has_jumps else _state_matrices(model, limit)
        try:
            matrix = sensitivity_matrix(model, method, max_bytes=max_bytes)
            made = replace(made, matrix=matrix, state_matrices=matrices)
        except (
            UnsupportedModelError,
            MemoryLimitError,
        ) as error:  # a loop that is well-posed, and yet has no bound entry by entry
            made, why = replace(made, methods=tuple(m for m in made.methods if m != "sensitivity")), str(error)
        if why:
            left_out["sensitivity"] = why
    if sparse and made.methods != ("norm",):
        matrices_of_inputs, why = _input_matrices(model, limit)
        made = replace(made, input_matrices=matrices_of_inputs)
        if why:
            left_out["interval"] = why
    return replace(made, left_out=left_out)


_JUMPS: Final = "the network jumps, so that no number bounds its slope"
_NO_SCALING: Final = "no scaling brings the norm of A below 1 within the range of float64"


def _state_matrices(model: ImplicitModel, limit: int) -> tuple[dict[int, FloatArray], str]:
    """Return S of each block's pre-activations, as far as they fit, and what was left out."""
    found: dict[int, FloatArray] = {}
    kept, missing = 0, 0
    for k in model.evaluation_order:
        size, part = model.blocks[k].size, state_model(model, k)
        widest = max([model.n_inputs, *(block.size for block in part.blocks)])
        kept += size * model.n_inputs * 8
        if kept + 3 * size * widest * 8 > limit:
            missing += 1
            kept -= size * model.n_inputs * 8
            continue
        sharp = len(model.blocks) <= DEEPEST_SHARP and centre_radius_bytes(part) <= limit
        try:
            name = "best" if sharp or not part.is_feed_forward else "paper"
            found[k] = sensitivity_matrix(part, name, max_bytes=limit)
        except (UnsupportedModelError, MemoryLimitError):
            missing += 1
    why = (
        f"the matrices of {missing} of {len(model.blocks)} blocks would exceed {_megabytes(limit)}; outputs have theirs"
    )
    return found, why if missing else ""


def _input_matrices(model: ImplicitModel, limit: int) -> tuple[dict[int, InputMatrix], str]:
    """Return B of each block and D, as far as they fit, and what was left out."""
    found: dict[int, InputMatrix] = {}
    kept, missing = 0, 0
    for k, row in [*enumerate(model.rows), (OUTPUT, model.output)]:
        if row.input is None:
            continue
        needed = 2 * row.size * model.n_inputs * 8
        if kept + needed + COPIES_AT_ONCE * NUMBERS_AT_ONCE * 8 > limit:
            missing += 1
            continue
        kept += needed
        found[k] = InputMatrix(row.input)
    why = f"the input's matrix of {missing} blocks would exceed {_megabytes(limit)}; they use the box around the set"
    return found, why if missing else ""


def _megabytes(limit: int) -> str:
    return f"{limit / 1e6:,.0f} MB"


def state_model(model: ImplicitModel, k: int) -> ImplicitModel:
    """Return the model whose outputs are the pre-activations z_k of block k, without the blocks that z_k cannot see."""
    first = k if k in model.rows[k].states else k + 1

    def shifted(row: Affine) -> Affine:
        return replace(row, states={j - first: linear_map for j, linear_map in row.states.items()})

    def moved(block: StateBlock) -> StateBlock:
        if block.maximum is None:
            return block
        return replace(block, maximum=PoolWindows(block.maximum.source - first, block.maximum.windows))

    return replace(
        model,
        blocks=tuple(moved(block) for block in model.blocks[first:]),
        rows=tuple(shifted(row) for row in model.rows[first:]),
        output=shifted(model.rows[k]),
        output_shape=(model.blocks[k].size,),
    )


def bound_set(prepared: Prepared, inputs: InputSet, *, budget: Budget = UNLIMITED) -> SetBounds:
    """Return bounds of every state and output over one input set, rounded outward, and what each method gave.

    Args:
        prepared: the model and its matrices.
        inputs: the set; where it is a SparseBall, `prepare(..., sparse=True)` gives sharper intervals.
        budget: when backward bounds stop; the others are quick.
    """
    climb = _Climb(prepared, inputs, budget)
    if prepared.rho is not None:
        climb.note("norm", climb.by_norm)
    if prepared.norms is not None:
        climb.note("norm-matrix", climb.by_norm_matrix)
    for name, step in (
        ("sensitivity", climb.by_sensitivity),
        ("interval", climb.by_intervals),
        ("linear", climb.by_lines),
    ):
        if name in prepared.methods:
            climb.note(name, step)
    only_norm = [rung.method for rung in climb.rungs] == ["norm"]
    outputs = climb.rungs[0].outputs if only_norm else climb.outputs
    return SetBounds(climb.bounds, outputs, tuple(climb.rungs), climb.cut_short)


class _Climb:
    """The ladder over one set; every step leaves `bounds` and `outputs` at least as tight as before."""

    def __init__(self, prepared: Prepared, inputs: InputSet, budget: Budget) -> None:
        model = prepared.model
        self.bounds = StateBounds()
        self.outputs = Interval(np.full((1, model.n_outputs), -np.inf), np.full((1, model.n_outputs), np.inf))
        self.rungs: list[Rung] = []
        self.cut_short = False
        self._prepared, self._model, self._inputs, self._budget = prepared, model, inputs, budget
        self._hull, self._set = Interval.of_boxes(inputs.hull), Interval.of_set(inputs)
        self._point = Interval(inputs.centre[None], inputs.centre[None])
        self._input_moves: dict[int, tuple[FloatArray, FloatArray]] = {}
        self._at_centre = interval_bounds(model, self._point)
        self._output_at_centre = affine_interval(model.output, self._at_centre.x, self._point)

    def note(self, name: str, step: Callable[[], Interval]) -> None:
        """Take one step and keep what it gives for the outputs."""
        start = self._budget.clock()
        found = step()
        if name != "norm":
            self.outputs = found = self.outputs.intersected(found)
        unstable = None if name == "norm" else self._unstable()
        self.rungs.append(Rung(name, found, unstable, self._budget.clock() - start))

    def _unstable(self) -> int | None:
        model = self._model
        if len(self.bounds.z) < len(model.blocks):
            return None
        return sum(int((~_fixed(block, self.bounds.z[k])[0]).sum()) for k, block in enumerate(model.blocks))

    def by_norm(self) -> Interval:
        """y0 +- rho max|u - u0|."""
        assert self._prepared.rho is not None
        return _around(self._output_at_centre, np.full(self._model.n_outputs, self._prepared.rho * self._farthest))

    @property
    def _farthest(self) -> float:
        """The largest change of an input."""
        return float(self._inputs.radius.max(initial=0.0))

    def by_norm_matrix(self) -> Interval:
        """z0 +- Z_k r, x0 +- T_k r, y0 +- (N(C) T + N(D)) r, r = max|u - u0|."""
        norms, centre = self._prepared.norms, self._at_centre
        assert norms is not None
        for k, block in enumerate(self._model.blocks):
            z = _around(centre.z[k], np.full(block.size, self._reach(norms.pre_activation_gains[k])))
            x = _around(centre.x[k], np.full(block.size, self._reach(norms.block_gains[k])))
            self._put(k, z, x)
        return _around(self._output_at_centre, self._reach(norms.output_gains)).intersected(self._by_states())

    def _reach(self, gains: FloatArray) -> FloatArray:
        """Return how far the largest change of an input reaches; NaN where a gain is infinite and nothing changes."""
        with np.errstate(invalid="ignore"):
            return np.asarray(gains * self._farthest)

    def by_sensitivity(self) -> Interval:
        """z0 +- S_z |u - u0| where S_z is there, y0 +- S |u - u0|."""
        matrix = self._prepared.matrix
        assert matrix is not None
        for k, own in self._prepared.state_matrices.items():
            self._put(k, _around(self._at_centre.z[k], self._inputs.reach(own)))
        return _around(self._output_at_centre, self._inputs.reach(matrix)).intersected(self._by_states())

    def by_intervals(self) -> Interval:
        """l = A+ x_lo + A- x_hi + ..., block by block."""
        for k in self._model.evaluation_order:
            self._put_interval(k)
        return self._by_states()

    def by_lines(self) -> Interval:
        """Backward linear bounds of the states that are still unstable, oldest block first, and of the outputs.

        Zonotopes stand in for those that would be dear.
        """
        zonotopes = zonotopes_over(self._model, self._set, self._budget.max_bytes)
        for k in self._model.evaluation_order:
            self._put_interval(k)
            reads_states = bool(self._model.rows[k].states)
            bending = self._left_to_lines(k, zonotopes)
            if bending.size and (reads_states or k not in self._prepared.input_matrices):
                self._put(k, self._backward(k, bending))
        return self._output_backward().intersected(self._by_states())

    def _put(self, k: int, z: Interval, x: Interval | None = None) -> None:
        """Intersect what is known of block k with more; x = phi(z) lies in the range of phi over z."""
        if k in self.bounds.z:
            z = z.intersected(self.bounds.z[k])
        with np.errstate(invalid="ignore", over="ignore"):
            made = self.bounds.with_block(k, self._model.blocks[k], z)
        own = Interval(_known(made.x[k].lo, -np.inf), _known(made.x[k].hi, np.inf))
        for more in (x, self.bounds.x.get(k)):
            own = own if more is None else own.intersected(more)
        self.bounds = StateBounds(made.z, {**made.x, k: own})

    def _put_interval(self, k: int) -> None:
        if k in self._model.loops:
            found = with_interval(self._model, k, self.bounds, self._hull)
            self._put(k, found.z[k], found.x[k])
            known = self.bounds.z[k]
        else:
            known = block_interval(self._model, k, self.bounds, self._hull)
        self._put(k, self._with_sparse_input(k, self._model.rows[k], known))

    def _by_states(self) -> Interval:
        """Return the outputs' interval that follows from the states', where every one that is read has one."""
        row = self._model.output
        if any(k not in self.bounds.x for k in row.states):
            return self.outputs
        return self._with_sparse_input(OUTPUT, row, affine_interval(row, self.bounds.x, self._hull))

    def _with_sparse_input(self, k: int, row: Affine, found: Interval) -> Interval:
        """Intersect with A x + B u0 + b + B (u - u0), the last term over U_card in closed form."""
        moves = self._moved_by_inputs(k)
        if moves is None:
            return found
        at_centre = affine_interval(row, self.bounds.x, self._point)
        return found.intersected(_moved(at_centre, *moves))

    def _moved_by_inputs(self, k: int) -> tuple[FloatArray, FloatArray] | None:
        """Return how far B (u - u0) falls and rises over U_card; None where nothing says, or the time is over."""
        if not isinstance(self._inputs, SparseBall) or k not in self._prepared.input_matrices:
            return None
        if k not in self._input_moves:
            try:
                self._input_moves[k] = self._prepared.input_matrices[k].rise(self._inputs, self._budget.check)
            except BudgetError:
                self.cut_short = True
                return None
        return self._input_moves[k]

    def _left_to_lines(self, k: int, zonotopes: Zonotopes | None) -> IntArray:
        """Return the states of a block that are left to lines; none where the time is over."""
        found = self._within(partial(left_to_lines, self._model, k, self.bounds, zonotopes))
        if found is None:
            return np.zeros(0, np.int64)
        self.bounds, bending = found
        return np.flatnonzero(bending[0])

    def _backward(self, k: int, states: IntArray) -> Interval:
        """Return backward bounds of some pre-activations of block k; the others keep what they have."""
        z = self.bounds.z[k]
        for some in self._pieces(states):
            both, signs = np.tile(some, 2), np.repeat([1.0, -1.0], some.size)
            own = np.isin(np.arange(z.lo.shape[1]), some)[None]
            found = self._within(partial(tightened_by_lines, self._model, k, own, self.bounds, self._set))
            proved = self._within(partial(state_lower_bounds, self._model, k, both, signs, self.bounds, self._set))
            if found is None or proved is None:
                return z
            z = z.intersected(found).tightened(both, signs, proved)
        return z

    def _pieces(self, rows: IntArray) -> Iterator[IntArray]:
        """Yield the rows in pieces whose backward pass fits into memory and does not take long."""
        at_once = rows_at_once(self._model)
        yield from (rows[start : start + at_once] for start in range(0, rows.size, at_once))

    def _output_backward(self) -> Interval:
        q = self._model.n_outputs
        found = self.outputs
        for some in self._pieces(np.arange(q)):
            for sign in (1.0, -1.0):
                seeds = sign * np.eye(q)[some]
                proved = self._within(partial(output_lower_bounds, self._model, self._set, self.bounds, seeds))
                if proved is None:
                    return found
                found = found.tightened(some, sign, proved)
        return found

    def _within(self, prove: Callable[..., Proved]) -> Proved | None:
        """Return what is proved; None where the time is over."""
        check = self._budget.check
        try:
            check()
            return prove(check=check)
        except BudgetError:
            self.cut_short = True
            return None


@dataclass(frozen=True)
class Counts:
    """How the states of one block behave within their bounds."""

    dead: int
    """phi is constant there."""
    active: int
    """phi is linear there, with another slope than 0."""
    unstable: int
    """All others."""


def counts(block: StateBlock, z: Interval) -> Counts:
    """Return how many states of a block are dead, active and unstable for z in [lo, hi], shape (1, n_k)."""
    fixed, slope = _fixed(block, z)
    dead = int((fixed & (slope == 0)).sum())
    return Counts(dead, int(fixed.sum()) - dead, int((~fixed).sum()))


def _fixed(block: StateBlock, z: Interval) -> tuple[np.ndarray, FloatArray]:
    """Return for each state whether its slope is one number over [lo, hi], and that number."""
    least, most = block.slopes(np.clip(z.lo, -FAR, FAR), np.clip(z.hi, -FAR, FAR))
    return np.asarray(least == most), least


def _around(centre: Interval, distance: FloatArray) -> Interval:
    """Return [centre.lo - distance, centre.hi + distance], rounded outward; all numbers where it is none."""
    return _moved(centre, distance, distance)


def _moved(centre: Interval, down: FloatArray, up: FloatArray) -> Interval:
    """Return [centre.lo - down, centre.hi + up], rounded outward."""
    with np.errstate(invalid="ignore", over="ignore"):
        lo, hi = centre.lo - down * (1 + gamma(8)), centre.hi + up * (1 + gamma(8))
    return Interval(_known(np.nextafter(lo, -np.inf), -np.inf), _known(np.nextafter(hi, np.inf), np.inf))


def _known(value: FloatArray, otherwise: float) -> FloatArray:
    return np.asarray(np.where(np.isnan(value), otherwise, value))
