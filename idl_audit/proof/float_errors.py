"""How far computed outputs may be from the exact ones over a box: a proved bound for floating-point arithmetic.

For one input in the format, x is what a network's tensors are in exact arithmetic and x' what a runtime computes: each
operator in the format, its sums in any order, with or without fused multiply-add, neighbouring linear operators in one,
constants multiplied or added beforehand, subnormal numbers flushed or not (docs/mathematics.md, section 12). Operator
by operator, the oldest first, with u the format's unit and gamma_N = N u / (1 - N u):

    y = sum W_k t_k + sum c_j, from computed t_k with |t_k| <= mag_k and |t_k - (their affine piece)| <= err_k:
        err = sum |W_k| err_k + gamma_N (sum |W_k| mag_k + sum |c_j|) + underflow,
        mag = sum |W_k| mag_k + sum |c_j| + err.

An affine piece is what linear operators make of the values of nonlinear ones; within it sizes are those of the terms,
as a runtime that multiplies W2 W1 out rounds with |W2||W1|. At a nonlinear operator x = phi(z), exact z in [l, h]:

    |z' - z| <= E = (the errors of the values that it reads, through the exact maps) + err,
    x' - x = s (z' - z) + (the kernel's own error),   s between the slopes of phi on [l - E, h + E],
    mag = |x| + |x' - x|, and err = 0 for this result: it is a value, whatever it was made of.

That is no circle: E of a block is made of those before it, and x and [l, h] are those of the exact network, so that
every proved bound of its states may be put in. Then |f y' - f y| is bounded by pushing f backwards with the middle c of
the slopes, s in [c - r, c + r]: what an error at z is multiplied by on its way to f y keeps its sign along c, and each
state adds |v| (r E + its kernel's error) + |c v| err. The arithmetic of this module itself is paid for by `GROWN`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from idl_audit.implicit.activations import Coupled
from idl_audit.implicit.activations.base import FAR
from idl_audit.implicit.activations.contraction import Contraction
from idl_audit.implicit.activations.jumping import Jumping
from idl_audit.implicit.activations.normalised import Normalised
from idl_audit.implicit.activations.product import Product, paired
from idl_audit.implicit.activations.softmax import Softmax
from idl_audit.implicit.affine import INPUT
from idl_audit.implicit.as_written import AsWritten, Rounding
from idl_audit.implicit.kernels import FLOAT32, Arithmetic
from idl_audit.implicit.linear_maps import LinearMap, Selection
from idl_audit.implicit.model import Affine, PoolWindows, StateBlock
from idl_audit.proof.bounds import Interval
from idl_audit.proof.intervals import affine_interval
from idl_audit.values.arrays import BoolArray, FloatArray
from idl_audit.values.check import Check, unchecked
from idl_audit.values.errors import UnsupportedModelError
from idl_audit.values.rounding import TINY, down, gamma, up

GROWN = 1 + 2.0**-20
"""Above what the roundings of one step of this module, in float64, may take away from a sum of nonnegative terms."""

NUMBERS_AT_ONCE = 2**22
"""That one array of a backward pass may hold."""


SMALL_SHARE = 2.0**-10
"""An error that is less than this beside a number's size matters to no other one."""


@dataclass(frozen=True)
class Tensor:
    """What is known of one computed tensor over m boxes; arrays of shape (m, n)."""

    size: FloatArray
    """|x'| at most, or the sum of the terms that it is made of."""
    piece: FloatArray
    """|x' - (the affine map of computed values that it stands for)| at most; 0 for values of nonlinear operators."""
    before: FloatArray
    """What the errors of those values make of it, at most."""

    @property
    def error(self) -> FloatArray:
        """|x' - x| at most."""
        return np.asarray((self.piece + self.before) * GROWN)


@dataclass(frozen=True)
class _Piece:
    """What runtimes may multiply out of the linear operators before a tensor, in any order; over m boxes."""

    load: FloatArray
    """The sum, over the products in an entry of the merged maps, of the sizes that the entry is multiplied by, (m,)."""
    gain: FloatArray
    """Entries of the merged maps at most, (n,), each map alone among them; empty behind nonlinear operators."""
    up: float = 1.0
    """What is multiplied by scalars (not below 1) before it, or behind the product of matrices that it is."""
    down: float = 1.0
    """What is divided by scalars likewise."""
    multiplied: bool = False
    """Whether it is behind a product of matrices."""


@dataclass(frozen=True)
class _State:
    """How errors pass through a nonlinear operator; arrays of shape (m, n)."""

    entering: FloatArray
    """err of what it reads: enters z here and nowhere else."""
    centre: FloatArray
    """c; 0 where its error is not followed any further."""
    added: FloatArray
    """r E + the kernel's error."""
    error: FloatArray
    """E."""
    crossed: FloatArray | None = None
    """Of products, pairs (z1, z2): what the error of z2 is multiplied by on its way into z1 z2, at the places of z1."""


@dataclass(eq=False)
class FloatErrors:
    """Errors over m boxes, computed block by block.

    `sharp` bounds the error of every state by a backward pass of its own: tighter by far in deep networks, for about
    the price of backward linear bounds.
    """

    written: AsWritten
    inputs: Interval
    """The boxes, as the network reads them, (m, p)."""
    input_error: FloatArray
    """|u' - u| at most, (m, p): of preprocessing; 0 where inputs are numbers of the format."""
    known: Mapping[int, Interval]
    """Block of `written` -> proved bounds of its exact z, where there are some."""
    sharp: bool = False
    check: Check = unchecked
    """Called between the parts of the sharp bounds."""
    tensors: dict[int, Tensor] = field(default_factory=dict)
    overflowing: BoolArray = field(init=False)
    """(m,): where a computed number may leave the format's range."""
    _states: dict[int, _State] = field(default_factory=dict)
    _pieces: dict[int, _Piece] = field(default_factory=dict)
    _exact: dict[int, Interval] = field(default_factory=dict)

    def __post_init__(self) -> None:
        m = len(self.inputs.lo)
        self.overflowing = np.zeros(m, np.bool_)
        size = self.inputs.largest + self.input_error
        if self.written.entry.largest < FLOAT32.largest:
            self.overflowing |= ~(size < self.written.entry.largest).all(axis=1)
        piece = self.input_error + _flushed_inputs(self.inputs, self.written.entry)
        self.tensors[INPUT] = Tensor(size * GROWN, piece, np.zeros_like(size))
        with np.errstate(all="ignore"):
            for k in self.written.model.evaluation_order:
                self._step(k)

    def of_outputs(self, functionals: FloatArray) -> FloatArray:
        """Return bounds of |f y' - f y| for rows f; infinite where nothing is known.

        Args:
            functionals: (R, q), or of each box its own, (m, R, q); the result has the shape (m, R).
        """
        with np.errstate(all="ignore"):
            row = self.written.model.output
            piece, merged_lost = self._merged(row, self.written.output)
            read = self._read(row, self.written.output, piece)
            entering, before = (_weighed(np.abs(functionals), part) for part in (read.piece, read.before))
            total = np.minimum(self._pushed(row, functionals, 0), before) + entering
            total = (total * GROWN**4) + TINY
        lost = self.overflowing | merged_lost | _overflows(read.size, self.written.output.arithmetic)
        return np.where(lost[:, None] | ~np.isfinite(total), np.inf, total)

    @property
    def exact_outputs(self) -> Interval:
        """Return bounds of the exact outputs, (m, q)."""
        return affine_interval(self.written.model.output, self._exact, self.inputs).known

    @property
    def largest_output(self) -> FloatArray:
        """Return the largest |y'|, (m,)."""
        row, rounding = self.written.model.output, self.written.output
        return np.asarray(self._read(row, rounding, self._merged(row, rounding)[0]).size.max(axis=1, initial=0.0))

    # --- forwards -----------------------------------------------------------------------------------------------------

    def _step(self, k: int) -> None:
        model, rounding = self.written.model, self.written.roundings[k]
        block, row = model.blocks[k], model.rows[k]
        piece, lost = self._merged(row, rounding)
        read = self._read(row, rounding, piece)
        if block.maximum is not None:
            read = self._largest(block.maximum)
        z = affine_interval(row, self._exact, self.inputs).known
        if k in self.known:
            z = z.intersected(self.known[k])
        if rounding.least > -np.inf:
            z = Interval(np.maximum(z.lo, rounding.least), np.maximum(z.hi, rounding.least)).known
        if rounding.never_negative:
            z = Interval(np.maximum(z.lo, 0.0), np.maximum(z.hi, 0.0)).known
        self._exact[k] = Interval(*block.interval(z.lo, z.hi)).known
        made = self._through(k, block, rounding, z, read, piece) if rounding.is_state else read
        if not rounding.is_state:
            self._pieces[k] = piece
        elif _is_of_products(block):
            sizes = block(read.size).max(axis=1, initial=0.0) * piece.down**2 * GROWN
            self._pieces[k] = _Piece(piece.load, np.zeros(0), piece.up**2, piece.down**2, True)
            lost |= ~(np.maximum(sizes, piece.up**2) < _in_sums(rounding).largest)
        lost |= _overflows(read.size, rounding.arithmetic) | _overflows(made.size, rounding.arithmetic)
        lost |= ~np.isfinite(made.error).all(axis=1)
        self.overflowing |= lost
        keep = np.where(lost, 0.0, 1.0)[:, None]  # the others go on without infinities
        self.tensors[k] = Tensor(*(np.where(keep > 0, part, 0.0) for part in (made.size, made.piece, made.before)))

    def _read(self, row: Affine, rounding: Rounding, merged: _Piece) -> Tensor:
        """Return what is known of an affine map of computed tensors."""
        arithmetic = rounding.arithmetic
        m, n = len(self.inputs.lo), row.size
        sums = np.zeros((3 * m, n))
        weights, count = np.zeros(n), 1.0
        for source, linear_map in _sources(row):
            tensor = self.tensors[source]
            sums += _pushed_forwards(linear_map, np.vstack([tensor.size, tensor.piece, tensor.before]))
            weights += linear_map.row_sums
            count += linear_map.row_terms
        size, piece, before = sums.reshape(3, m, n) * GROWN
        constant = np.abs(row.constant) + row.constant_error
        if rounding.parts is not None:
            constant = np.maximum(constant, rounding.parts)
        size, piece = size + constant, piece + row.constant_error + rounding.besides
        piece = piece + np.where(constant < arithmetic.smallest, constant, 0.0)  # it may be taken for 0
        if rounding.share:
            after = 1.0 if rounding.inside is None else rounding.inside.after
            wide = _in_sums(rounding)
            load = merged.load[:, None] if _multiplies(row) else 0.0
            flushed = arithmetic.smallest * after * (count + weights + load)
            if merged.multiplied:  # by scalars before the product, or behind it, or by the product of these
                flushed = flushed * merged.up + wide.smallest * merged.down * merged.load[:, None]
            piece = piece + rounding.share * size + flushed
        return Tensor((size + piece) * GROWN, piece * GROWN, before)

    def _merged(self, row: Affine, rounding: Rounding) -> tuple[_Piece, BoolArray]:
        """Return what may be merged into an affine map, and where numbers on the way may leave the range, (m,).

        Entries of W3 W2 W1 are sums of products which may be subnormal in the format, or too large for it, whatever
        they are multiplied by then.
        """
        load, gain, merged = np.zeros(len(self.inputs.lo)), np.zeros(row.size), np.zeros(row.size)
        widest, up, down_by, multiplied = np.zeros_like(load), 1.0, 1.0, False
        for source, linear_map in _sources(row):
            piece, sizes = self._pieces.get(source), self.tensors[source].size.max(axis=1, initial=0.0)
            widest = np.maximum(widest, sizes)
            if piece is not None:
                up, down_by = max(up, piece.up), max(down_by, piece.down)
                multiplied |= piece.multiplied
            multiplied |= not isinstance(linear_map, Selection)
            load = load + linear_map.row_terms * (sizes if piece is None else np.maximum(sizes, piece.load))
            if piece is None or not piece.gain.size:
                gain = gain + linear_map.row_sums
            else:
                own = _pushed_forwards(linear_map, np.maximum(piece.gain, 1.0)[None])[0]
                gain, merged = gain + own, merged + own
        scalar = _scalar(row)
        up, down_by = up * max(1.0, scalar), down_by * max(1.0, 1 / scalar)
        largest, inside = rounding.arithmetic.largest, rounding.inside
        lost = np.full(len(load), _multiplies(row) and not bool((merged < largest).all()))
        if multiplied and max(up, down_by) > 1:
            sizes = np.maximum(np.max(gain, initial=1.0) * widest, up) * down_by * GROWN
            lost |= ~(sizes < _in_sums(rounding).largest)
        if inside is not None:
            lost |= ~(inside.factor * (widest + inside.shift) * GROWN < inside.largest)
        return _Piece(load * GROWN, gain * GROWN, up, down_by, multiplied), lost

    def _largest(self, pool: PoolWindows) -> Tensor:
        """Return what is known of maxima of entries of another block: a maximum moves no more than its window does."""
        source, outside = self.tensors[pool.source], pool.windows < 0
        return Tensor(*(_over_windows(part, pool, outside) for part in (source.size, source.piece, source.before)))

    def _through(
        self, k: int, block: StateBlock, rounding: Rounding, z: Interval, read: Tensor, piece: _Piece
    ) -> Tensor:
        """Return what is known of x' = phi'(z'), and keep how errors pass."""
        smallest, kernel, x = rounding.arithmetic.smallest, rounding.kernel, self._exact[k]
        error = read.error
        if self.sharp and block.maximum is None:
            error = self._sharpened(k, block, z, read)
        reach = z.largest + error
        own, crossed = _off(block, rounding, reach, x.largest) + smallest, None
        if _is_of_products(block):
            own = own + _scaled(block, rounding, reach, piece)
        if isinstance(block.activation, Coupled) or block.maximum is not None:
            centre = np.zeros_like(error)
            moved = _moved(block, z, error)
            if isinstance(block.activation, Softmax):
                moved = np.minimum(moved, _of_shares(block.activation, x.hi, error))
            if isinstance(block.activation, Normalised) and kernel.of_group:
                factor = z.hi + error
                own = own + _of_norm(block.activation, rounding, read.size, factor, x.largest + moved)
            along = own + kernel.of_value * moved
            added = whole = (moved + along) * GROWN
            if isinstance(block.activation, Product) and not np.any(block.exponent):
                centre, crossed, rest = _about_the_middle(z, error, moved)
                added = (rest + along + smallest * (np.abs(centre) + np.abs(crossed))) * GROWN
        else:
            lo, hi = down(z.lo - error), up(z.hi + error)
            lo = np.maximum(lo, 0.0) if rounding.never_negative else lo
            least, most = block.slopes(np.clip(lo, -FAR, FAR), np.clip(hi, -FAR, FAR))
            centre = least / 2 + most / 2
            radius = up(np.maximum(most - centre, centre - least))
            spread = np.where(most > least, radius, 0.0) * error
            steep = ~(np.isfinite(centre) & np.isfinite(spread))
            if steep.any():
                centre, spread = np.where(steep, 0.0, centre), np.where(steep, _jumped(block, lo, hi, error), spread)
            along = kernel.of_value * (np.abs(centre) * error + spread)
            added = (spread + own + along + smallest * np.abs(centre)) * GROWN
            whole = (np.abs(centre) * error + added) * GROWN
        self._states[k] = _State(read.piece, centre, added, error, crossed)
        return Tensor((x.largest + whole) * GROWN, np.zeros_like(whole), whole)

    # --- backwards ----------------------------------------------------------------------------------------------------

    def _sharpened(self, k: int, block: StateBlock, z: Interval, read: Tensor) -> FloatArray:
        """Return bounds E of the errors of block k's z, (m, n), by a backward pass where that is of use.

        States whose slope is one number, and whose error is small beside their size, gain nothing by it.
        """
        error = read.error
        least, most = block.slopes(np.clip(z.lo - error, -FAR, FAR), np.clip(z.hi + error, -FAR, FAR))
        wanted = (least < most) | (error > SMALL_SHARE * z.largest)
        states = np.flatnonzero(wanted.any(axis=0))
        model = self.written.model
        widest = max([model.n_inputs, *(block.size for block in model.blocks)])
        at_once = max(1, NUMBERS_AT_ONCE // (widest * len(self.inputs.lo)))
        for start in range(0, states.size, at_once):
            self.check()
            some = states[start : start + at_once]
            seeds = np.zeros((some.size, block.size))
            seeds[np.arange(some.size), some] = 1.0
            found = (self._pushed(model.rows[k], seeds, k + 1) + read.piece[:, some]) * GROWN
            better = np.minimum(error[:, some], found)
            error[:, some] = np.where(wanted[:, some], better, error[:, some])  # whatever boxes are beside it
        return error

    def _pushed(self, row: Affine, seeds: FloatArray, newest: int) -> FloatArray:
        """Return bounds of |seeds . (the row of x' - x)|, its own roundings left out, (R, size) -> (m, R).

        Seeds may be (m, R, size), too. Blocks with a number below `newest` do not occur.
        """
        m = len(self.inputs.lo)
        total = np.zeros((m, seeds.shape[-2]))
        pull = _Pull()
        pull.push(row, np.broadcast_to(seeds, (m, *seeds.shape[-2:])))
        for k in range(newest, len(self.written.model.blocks)):
            v = pull.sums.pop(k, None)
            if v is None:
                continue
            doubt = pull.doubts.pop(k)[..., None]
            state, tensor = self._states.get(k), self.tensors[k]
            if state is None:  # a linear operator: its own roundings are part of `entering` further on
                lam = v
                total += (doubt * tensor.error[:, None, :]).sum(axis=-1)
            else:
                lam, lost = _through_slopes(v, doubt, state)
                total += (lost * state.error[:, None, :]).sum(axis=-1)
                total += np.einsum("mrn,mn->mr", np.abs(v) + doubt, state.added)
                total += np.einsum("mrn,mn->mr", np.abs(lam), state.entering)
            if lam.any():
                pull.push(self.written.model.rows[k], lam)
        return total * GROWN


class _Pull:
    """The sums of a backward pass, each with a bound on its rounding: one number for all entries of a row."""

    def __init__(self) -> None:
        self.sums: dict[int, FloatArray] = {}
        self.doubts: dict[int, FloatArray] = {}

    def push(self, row: Affine, lam: FloatArray) -> None:
        """Add lam P_k to the sums of the blocks that the row reads; what the inputs get is no error."""
        m, n_rows, n = lam.shape
        greatest = np.abs(lam).max(axis=-1, initial=0.0)
        flat = np.ascontiguousarray(lam).reshape(m * n_rows, n)
        for k, linear_map in row.states.items():
            product = linear_map.adjoint(flat).reshape(m, n_rows, -1)
            share = gamma(linear_map.column_terms + 64) * linear_map.column_sums + linear_map.uncertain_column_sums
            doubt = greatest * (float(share.max(initial=0.0)) * GROWN) + TINY
            if k in self.sums:
                product, doubt = self.sums[k] + product, self.doubts[k] + doubt
            self.sums[k], self.doubts[k] = product, doubt


def _through_slopes(v: FloatArray, doubt: FloatArray, state: _State) -> tuple[FloatArray, FloatArray]:
    """Return v times the middles of a block's slopes, (m, R, n), and what is uncertain in that, v off by a doubt."""
    lam, weights = v * state.centre[:, None, :], np.abs(state.centre)
    size = np.abs(lam)
    if state.crossed is not None:
        over = v[..., 0::2] * state.crossed[:, None, 0::2]
        lam[..., 1::2] += over
        size[..., 1::2] += np.abs(over)
        weights[:, 1::2] += np.abs(state.crossed[:, 0::2])
    return lam, doubt * weights[:, None, :] + 2.0**-50 * size


def _about_the_middle(z: Interval, error: FloatArray, moved: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return how errors pass through products of pairs: by c2 and 1, by c1 at the places of z1, and what is left.

    z1' z2' - z1 z2 = c2 e1 + c1 e2 + (z2 - c2) e1 + (z1 - c1) e2 + e1 e2, c the middles of the intervals of z; the
    second state of a pair is z2. Where there are no such numbers all of it is left, `moved`.
    """
    middle = z.lo / 2 + z.hi / 2
    radius = up(np.maximum(z.hi - middle, middle - z.lo))
    (c1, c2), (r1, r2), (e1, e2) = ((part[:, 0::2], part[:, 1::2]) for part in (middle, radius, error))
    rest = (r2 * e1 + r1 * e2 + e1 * e2) * GROWN
    known = np.isfinite(c1) & np.isfinite(c2) & np.isfinite(rest)
    centre, crossed = paired(np.where(known, c2, 0.0), np.ones(1)), paired(np.where(known, c1, 0.0), np.zeros(1))
    return centre, crossed, paired(np.where(known, rest, moved[:, 0::2]), np.zeros(1))


def _off(block: StateBlock, rounding: Rounding, reach: FloatArray, value: FloatArray) -> FloatArray:
    """Return what a kernel is off by at most, where |z'| <= reach and |phi(z)| <= value."""
    kernel = rounding.kernel
    off = kernel.absolute + kernel.relative * reach + kernel.of_value * value
    if kernel.of_terms:  # sums of the products of the factors' sizes, which parts of a sum may reach
        sizes = GROWN * block(reach)
        off = np.where(sizes < rounding.arithmetic.largest, off + kernel.of_terms * sizes, np.inf)
    return np.where(np.maximum(reach, value) < kernel.within, off, np.inf)


def _jumped(block: StateBlock, lo: FloatArray, hi: FloatArray, error: FloatArray) -> FloatArray:
    """Return how far a state may move between two places of [lo, hi] no further apart than an error.

    Where slopes are infinite: by all that is between its least and its greatest value there, and of stairs or a step by
    what lies within the error of the threshold.
    """
    first, last = block.interval(lo, hi)
    moved = up(last - first)
    if isinstance(block.activation, Jumping) and not np.any(block.exponent):
        moved = np.fmin(moved, block.activation.jumped(error))
    return np.where(error > 0, moved, 0.0)


def _moved(block: StateBlock, z: Interval, error: FloatArray) -> FloatArray:
    """Return how far the states of a block move over m boxes where what they read is off by an error, (m, n)."""
    if not isinstance(block.activation, Coupled):
        return block.activation.moved(error)
    lo, hi = block.unscaled(down(z.lo - error), up(z.hi + error))
    return np.stack([_moved_within(block.activation, *ends) for ends in zip(lo, hi, error, strict=True)])


def _moved_within(activation: Coupled, lo: FloatArray, hi: FloatArray, error: FloatArray) -> FloatArray:
    """Return how far the states of a block move within one box, (n,); infinite where nothing bounds its slopes."""
    try:
        return activation.within(lo, hi).moved(error)
    except UnsupportedModelError:  # a norm whose divisor may be 0
        return np.full_like(error, np.inf)


def _weighed(weights: FloatArray, sizes: FloatArray) -> FloatArray:
    """Return sums of sizes, (m, q), by the weights of rows, (R, q) or (m, R, q) -> (m, R)."""
    return np.asarray(sizes @ weights.T if weights.ndim == 2 else np.einsum("mrq,mq->mr", weights, sizes))


def _of_norm(
    activation: Normalised, rounding: Rounding, size: FloatArray, factor: FloatArray, value: FloatArray
) -> FloatArray:
    """Return what d / s is off by, s^2 = q + eps, made in whatever order of computed numbers below M.

    The mean is off by gamma M, the mean square - of deviations, or of entries, less the mean's square - by no more than
    4 gamma M^2 = D, and 1 / s by a share D / s^2 of itself, where that is below 1/2, and by its own roundings:

        |x' - x| <= 2 gamma M / s + (D / s^2 + 8 u) |x|.

    Where the mean square is a sum divided by another count than n, D is n / count times that; squares that are
    subnormal may be lost, each. What is added beside the
    root, s = t + beta, is 1e-9 in MeanVarianceNormalization, and some runtimes add it below the root: a share of
    beta / t + beta / t^2 of 1 / s covers both. Nothing is known where the sum of the squares may overflow.

    Args:
        activation: the norm, its groups with the factor 1 / s behind the entries.
        rounding: its block's, with gamma and u.
        size: (1 - 1/n) M at least for one entry of each group: sums of the sizes of what d is made of.
        factor: 1 / s at most, behind the entries of each group.
        value: |d / s| at most.
    """
    share, unit, smallest = rounding.kernel.of_group, rounding.arithmetic.unit, rounding.arithmetic.smallest
    most = activation.grouped(size)[..., :-1].max(axis=-1, keepdims=True) * (1 + 2 / activation.n)
    steep = activation.grouped(factor)[..., -1:]
    beside, ratio = activation.beside, activation.n / activation.count
    root = steep / np.where(beside * steep < 0.5, 1 - beside * steep, 0.0) * GROWN  # 1 / t
    square = (4 * share * ratio * most * most + 4 * (1 + ratio) * smallest) * root * root * GROWN + beside * (
        root + root * root
    )
    off = (square + 8 * unit) * activation.grouped(value)[..., :-1]
    own = (2 * share * most + 4 * smallest) * steep * (1 + square + 8 * unit) + off * (1 + 8 * unit)
    fits = activation.n * most * most < rounding.arithmetic.largest
    known = np.where((square < 0.5) & (steep > 0) & fits, own * GROWN, np.inf)
    return np.concatenate([known, np.zeros_like(steep)], axis=-1).reshape(size.shape)


def _of_shares(activation: Softmax, most: FloatArray, error: FloatArray) -> FloatArray:
    """Return x (exp(2 E) - 1), E the largest error of a group: how far shares x <= most move.

    x'_i / x_i = exp(d_i) / sum over j of x_j exp(d_j) with |d_j| <= E, and the x_j add up to 1.
    """
    widest = activation.grouped(error).max(axis=-1, keepdims=True)
    return np.asarray(activation.grouped(most) * (np.expm1(2 * widest) * GROWN)).reshape(most.shape)


def _flushed_inputs(inputs: Interval, entry: Arithmetic) -> FloatArray:
    """Return how far an input is from what is read where subnormal inputs are taken for 0, (m, p).

    Where 0 is in the box that is another point of it, of which the same is known.
    """
    if entry.largest < FLOAT32.largest:  # numbers of float16 are none in float32
        return np.zeros_like(inputs.lo)
    least = np.maximum(inputs.lo, -inputs.hi)  # below 0 where 0 is inside
    return np.where((least > 0) & (least < entry.smallest), entry.smallest, 0.0)


def _overflows(size: FloatArray, arithmetic: Arithmetic) -> BoolArray:
    return np.asarray(~(size < arithmetic.largest).all(axis=1))


def _sources(row: Affine) -> list[tuple[int, LinearMap]]:
    pairs = list(row.states.items())
    return [*pairs, (INPUT, row.input)] if row.input is not None else pairs


def _is_of_products(block: StateBlock) -> bool:
    """Whether a block's states are products of tensors, or sums of these."""
    return isinstance(block.activation, Contraction | Product) or block.activation.name == "square"


def _scaled(block: StateBlock, rounding: Rounding, reach: FloatArray, piece: _Piece) -> FloatArray:
    """Return what products of matrices lose, besides, where scalars before them are multiplied into one behind."""
    if piece.up == piece.down == 1:
        return np.zeros_like(reach)
    inner = block.activation.inner if isinstance(block.activation, Contraction) else 1
    lost = 2 * inner * rounding.arithmetic.smallest * (piece.up**2 - 1)
    return np.asarray(lost + _in_sums(rounding).smallest * piece.down**2 * GROWN * block(reach))


def _scalar(row: Affine) -> float:
    """Return c where an affine map multiplies everything by c or -c, else 1."""
    weights = [one.row_weights if isinstance(one, Selection) else np.zeros(2) for _, one in _sources(row)]
    sizes = np.unique(np.abs(np.concatenate(weights))) if weights else np.ones(1)
    sizes = sizes[sizes > 0]
    is_selected = all(isinstance(one, Selection) for _, one in _sources(row))
    return float(sizes[0]) if is_selected and sizes.size == 1 else 1.0


def _in_sums(rounding: Rounding) -> Arithmetic:
    """Return the format that sums of products are made in."""
    return FLOAT32 if rounding.arithmetic.unit > FLOAT32.unit else rounding.arithmetic


def _multiplies(row: Affine) -> bool:
    """Whether some factor of an affine map is not 1, -1 or 0."""
    return not all(
        isinstance(one, Selection) and np.isin(np.abs(one.row_weights), (0.0, 1.0)).all() for _, one in _sources(row)
    )


def _pushed_forwards(linear_map: LinearMap, values: FloatArray) -> FloatArray:
    """Return |W_true| values at least, for values >= 0."""
    product = linear_map.magnitude.apply(values) * (1 + linear_map.relative)
    return product if linear_map.slack is None else product + linear_map.slack.apply(values)


def _over_windows(part: FloatArray, pool: PoolWindows, outside: BoolArray) -> FloatArray:
    return np.asarray(np.where(outside, 0.0, part[:, pool.windows]).max(axis=-1))
