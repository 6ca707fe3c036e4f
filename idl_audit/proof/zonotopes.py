"""Zonotopes: forward affine forms whose bending states are symbols of their own, over one box, rounded outward.

See docs/mathematics.md, section 6.11.

Values over a box are kept as

    centre + sum_j terms_j t_j + e,    |t_j| <= 1,  |e| <= error,

j over the inputs that move and over states that bend: phi(z) over [l, h] is s z + m + rho t with a new symbol t. An
affine map takes terms to W terms; what rounding does to them, and states that have no symbol, belong to the error.
Only values that are not one number over the box have terms, and a symbol only for the values that it reaches: early in
a convolutional network a window, of which half the states are dead.

Elsewhere: DeepZ, AI2, affine arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final, TypeAlias

import numpy as np

from idl_audit.implicit.activations.kinked import Kinked
from idl_audit.implicit.affine import INPUT
from idl_audit.implicit.linear_maps import LinearMap
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.crown import lines_suit
from idl_audit.proof.forms import linearised, moving
from idl_audit.proof.intervals import centre_and_radius, row_terms
from idl_audit.proof.patches import Image, images_of, products_of_row
from idl_audit.proof.spectral_norms import spectral_norm
from idl_audit.proof.split_products import product
from idl_audit.proof.symbol_terms import Terms, pushed, summed
from idl_audit.proof.wanted import to_tighten
from idl_audit.values.arrays import BoolArray, FloatArray, IntArray
from idl_audit.values.check import Check, unchecked
from idl_audit.values.rounding import TINY, down, gamma, up

MOST_SYMBOLS: Final = 2**14
"""Of a model over a box, at most: the states that bend least have none beyond."""
MOST_NUMBERS: Final = 3 * 2**26
"""Coefficients of a zonotope, at most (1.6 GB)."""
TOGETHER: Final = 192
"""Symbols of a group, at most: they go through a network together, and stay in the cache there."""

SQUARE_LOST: Final = 2.0**-500
"""Above what a sum of squares that underflow may take from its root."""

DEAR: Final = 2**35
"""Products that lines may take in a block and as many in each later one: more are a matter of many seconds."""
CHEAP: Final = 2**31
"""Products that lines may take in a block after zonotopes."""
COPIES: Final = 3
"""Zonotopes that are there at a time: a sum has two sources."""

Group: TypeAlias = tuple[int, int]
"""The source whose values the symbols of a group are of, and its number among these."""


@dataclass(frozen=True, eq=False)
class Zonotope:
    """n values over one box: centre + sum_j terms_j t_j, up to an error."""

    centre: FloatArray
    """(n,)"""
    error: FloatArray
    """(n,)"""
    norm: float
    """At least ||e||_2."""
    reach: FloatArray
    """At least sum_j |terms_j|, (n,); infinite for values whose terms nobody asked for."""
    groups: Mapping[Group, Terms]
    """The terms of each group of symbols that reaches any of the values."""

    @classmethod
    def of_interval(cls, interval: Interval) -> Zonotope:
        """Return values of which nothing but bounds over one box is known."""
        centre, radius = (side[0] for side in centre_and_radius(interval))
        known = np.isfinite(centre) & np.isfinite(radius)
        return cls.up_to(np.where(known, centre, 0.0), np.where(known, radius, np.inf))

    @classmethod
    def up_to(cls, centre: FloatArray, error: FloatArray) -> Zonotope:
        """Return values without terms."""
        return cls(centre, error, length(error), np.zeros_like(centre), {})

    @classmethod
    def of_inputs(cls, inputs: Interval, image: Image | None, most: int) -> Zonotope:
        """Return the inputs themselves, with symbols for those that move."""
        plain, moves = cls.of_interval(inputs), np.zeros(inputs.lo.shape[1], np.bool_)
        moves[moving(inputs)] = True
        moves &= np.isfinite(plain.error)
        fixed = cls.up_to(plain.centre, np.where(moves, 0.0, plain.error))
        return fixed.plus(np.where(moves, plain.error, 0.0), most, INPUT, image)

    def plus(self, radius: FloatArray, most: int, source: int, image: Image | None) -> Zonotope:
        """Return these values with up to `radius` added to each: symbols of their own for the `most` largest radii.

        Symbols have the name of the source whose values they are of; what has none is added to the error.
        """
        chosen = np.argsort(-radius, kind="stable")[: max(0, min(most, np.count_nonzero(radius)))]
        groups, rest = dict(self.groups), radius.copy()
        for number, some in enumerate(_neighbours(np.sort(chosen), image)):
            groups[source, number] = Terms.of(radius.size, some, np.diag(radius[some]))
        rest[chosen] = 0.0
        error, norm = up(self.error + rest), math.nextafter(self.norm + length(rest), math.inf)
        return Zonotope(self.centre, error, norm, up(self.reach + (radius - rest)), groups)

    @property
    def symbols(self) -> int:
        """How many there are."""
        return sum(terms.count for terms in self.groups.values())

    @property
    def interval(self) -> Interval:
        """centre -+ (sum_j |terms_j| + error), rounded outward; infinite after an overflow, (1, n)."""
        reach = up(self.reach + self.error)
        known = np.isfinite(self.centre) & np.isfinite(reach)
        with np.errstate(invalid="ignore"):
            lo, hi = down(self.centre - reach), up(self.centre + reach)
        return Interval(np.where(known, lo, -np.inf)[None], np.where(known, hi, np.inf)[None])

    def through(self, block: StateBlock, z: Interval, x: Interval) -> tuple[Zonotope, FloatArray]:
        """Return x = phi(z) from these z, which are used up, and from bounds of z and x, (1, n); and rho, (n,).

        x = s z + m up to rho, which is 0 here where phi does not bend and is no part of the error where it does. Where
        bounds of x are as narrow as the rest of the error, they take its place: so states that are dead have no terms.
        """
        slope, middle, radius = (side[0] for side in linearised(block, z))
        least, greatest = (side[0] for side in block.slopes(z.lo, z.hi))
        size = np.abs(slope)
        rounding = gamma(4) * (size * (np.abs(self.centre) + self.reach) + np.abs(middle)) + TINY
        same = (least == 1) & (greatest == 1) & _is_kinked(block)  # x = z, whatever the range says of rounding
        middle, radius, rounding = (np.where(same, 0.0, part) for part in (middle, radius, rounding))
        other = Zonotope.of_interval(x)
        own = (size * self.error + rounding < other.error) & np.isfinite(self.centre) & np.isfinite(self.reach + radius)
        bends = own & (least < greatest)
        added = np.where(own, rounding + np.where(bends, 0.0, radius), other.error) * (1 + gamma(8))
        carried = np.where(own, size * self.error, 0.0) * (1 + gamma(8))
        steepest = float(size[own].max(initial=0.0))
        made = Zonotope(
            np.where(own, slope * self.centre + middle, other.centre),
            up(carried + added),
            (steepest * self.norm + length(added)) * (1 + gamma(8)),
            np.where(own, size * self.reach * (1 + gamma(4)) + TINY, 0.0),
            {group: terms.scaled(slope, own) for group, terms in self.groups.items()},
        )
        return made, np.where(bends, radius, 0.0)


def _is_kinked(block: StateBlock) -> bool:
    """Return whether phi is z itself where its slope is 1."""
    return isinstance(block.activation, Kinked) and not np.any(block.exponent)


def length(values: FloatArray) -> float:
    """Return ||values||_2, rounded upward."""
    return float(np.linalg.norm(values)) * (1 + gamma(values.size + 8)) + SQUARE_LOST


def _neighbours(values: IntArray, image: Image | None) -> Iterator[IntArray]:
    """Yield values in groups: of an image those that lie near to each other, so that their windows are small."""
    if values.size <= TOGETHER:
        if values.size:
            yield values
        return
    half = values.size // 2
    if image is not None:
        places = np.stack(np.unravel_index(values, image)[1:])
        axis = int(np.argmax(np.ptp(places, axis=1)))
        values = values[np.argsort(places[axis], kind="stable")]
    yield from _neighbours(values[:half], image)
    yield from _neighbours(values[half:], image)


def affine_zonotope(
    row: Affine,
    states: Mapping[int, Zonotope],
    inputs: Zonotope,
    wanted: BoolArray,
    norm_of: Callable[[LinearMap], float] = spectral_norm,
    check: Check = unchecked,
) -> Zonotope | None:
    """Return sum_k P_k x_k + Q u + r from the states and inputs; terms only for the values that are wanted.

    None where these would be more than `MOST_NUMBERS`.

    error' = |W| (error + gamma reach + relative (|centre| + reach)) + ..., gamma for all roundings of an entry; the
    centres are far larger, and rounded about once.
    """
    parts = [(row.states[k], states[k]) for k in sorted(row.states, reverse=True)]
    if row.input is not None:
        parts.append((row.input, inputs))
    rounding = gamma(row_terms(row) + 8)
    centre, carried, norm = row.constant.copy(), np.zeros(row.size), 0.0
    added, centres = np.full(row.size, row.constant_error + TINY), np.abs(row.constant)
    groups: dict[Group, Terms] = {}
    for linear_map, source in parts:
        check()
        moved, doubt = product(linear_map, source.centre)
        centre, centres = centre + moved, centres + np.abs(moved)
        size, relative = np.abs(source.centre) + source.reach, linear_map.relative
        carried += _pushed_error(linear_map, source.error * (1 + 2 * relative))
        added += _pushed_error(linear_map, rounding * source.reach + 2 * relative * size + TINY)
        added += doubt + source.symbols * linear_map.row_loss
        if linear_map.slack is not None:
            added += _pushed_error(linear_map.slack, size + source.error)
        norm += norm_of(linear_map) * source.norm * (1 + gamma(4))
        made = pushed(linear_map, list(source.groups.values()), wanted, MOST_NUMBERS, check)
        if made is None:
            return None
        for group, terms in zip(source.groups, made, strict=True):
            groups[group] = summed(groups[group], terms) if group in groups else terms
    added += gamma(len(parts) + 4) * centres
    norm = (norm + length(added * (1 + 2 * rounding))) * (1 + gamma(len(parts) + 4))
    error = np.fmin((carried + added) * (1 + 2 * rounding), norm)
    reach, symbols = np.where(wanted, 0.0, np.inf), sum(terms.count for terms in groups.values())
    for terms in groups.values():
        reach += terms.sums
    return Zonotope(centre, error, norm, reach * (1 + 2 * gamma(symbols + 8)), groups)


def _pushed_error(linear_map: LinearMap, error: FloatArray) -> FloatArray:
    """Return |W| error, rounded upward."""
    made = linear_map.magnitude.apply(error[None])[0]
    return np.asarray(made * (1 + gamma(linear_map.row_terms + 4)) + linear_map.row_loss)


@lru_cache(maxsize=2)
def _norms(model: ImplicitModel) -> Callable[[LinearMap], float]:
    """Return what finds the spectral norm of a map of a model once."""
    return lru_cache(maxsize=None)(partial(spectral_norm, quickly=True))


def zonotopes_over(model: ImplicitModel, inputs: Interval, max_bytes: int | None = None) -> Zonotopes | None:
    """Return what makes zonotopes over one box when it is asked to; None for sets and models that they do not suit."""
    coupled = any(block.activation.coupled for block in model.blocks)
    suits = len(inputs.lo) == 1 and lines_suit(model, inputs) and not coupled
    return Zonotopes(model, inputs, max_bytes) if suits else None


def left_to_lines(
    model: ImplicitModel, k: int, bounds: StateBounds, zonotopes: Zonotopes | None, *, check: Check = unchecked
) -> tuple[StateBounds, BoolArray]:
    """Return bounds up to block k, by zonotopes too where lines would be dear, and of which states lines are left."""
    bending = to_tighten(model, k, bounds)
    if zonotopes is None or _products(model, k, bending) * (k + 1) <= DEAR:
        return bounds, bending
    bounds = zonotopes.bounded(k, bounds, check=check)
    bending = to_tighten(model, k, bounds)
    return bounds, bending & (zonotopes.is_over or _products(model, k, bending) <= CHEAP)


def _products(model: ImplicitModel, k: int, bending: BoolArray) -> int:
    """Return how many products the lines of some states take, at most."""
    return 2 * int(np.count_nonzero(bending)) * products_of_row(model, k)


class Zonotopes:
    """The zonotopes of one box, block after block, for bounds of the pre-activations."""

    def __init__(self, model: ImplicitModel, inputs: Interval, max_bytes: int | None = None) -> None:
        """Take a model without loops and one box; nothing is made before it is asked for."""
        self._model, self._box, self._max_bytes = model, inputs, max_bytes
        self._left = MOST_SYMBOLS
        """How many symbols may still be made."""
        self.is_over = False
        """Whether they have become too large, so that they say nothing of this block and later ones."""
        self._inputs: Zonotope | None = None
        self._z: dict[int, Zonotope] = {}
        self._x: dict[int, Zonotope] = {}
        self._next = len(model.blocks) - 1
        """The oldest block that has not been bounded."""

    def bounded(self, k: int, bounds: StateBounds, *, check: Check = unchecked) -> StateBounds:
        """Return bounds with those of block k tightened, and of the blocks before it that were not looked at before."""
        if self._inputs is None:
            self._inputs = self._begun()
        while self._next >= k and not self.is_over:
            j = self._next
            self._go_through(j + 1, bounds)
            with np.errstate(over="ignore", invalid="ignore"):  # what is endless says nothing
                z = affine_zonotope(
                    self._model.rows[j], self._x, self._inputs, self._wanted(j, bounds), _norms(self._model), check
                )
            self.is_over = z is None
            if z is not None:
                known = bounds.z[j].intersected(z.interval)
                bounds = bounds.with_block(j, self._model.blocks[j], known, bounds.x[j])
                self._z[j], self._next = z, j - 1
        return bounds

    def _begun(self) -> Zonotope:
        """Return the inputs; all is over where each that moves cannot have a symbol, or `max_bytes` is too little."""
        symbols, widest = moving(self._box).size, max(block.size for block in self._model.blocks)
        fits = self._max_bytes is None or COPIES * 8 * symbols * widest <= self._max_bytes
        self.is_over = symbols > self._left or not fits
        self._left -= symbols
        return Zonotope.of_inputs(self._box, images_of(self._model).get(INPUT), 0 if self.is_over else symbols)

    def _wanted(self, k: int, bounds: StateBounds) -> BoolArray:
        """Return the states of a block whose terms are of use: those that are not one number, or bend in a last one."""
        x = bounds.x[k]
        moves = ~(x.hi[0] <= x.lo[0])
        return np.asarray(moves if self._readers(k) else moves & bounds.unstable(k, self._model.blocks[k])[0])

    def _go_through(self, k: int, bounds: StateBounds) -> None:
        """Make the states of a block from what is known of its pre-activations now; forget what no block reads."""
        if k not in self._z:
            return
        z = self._z.pop(k)
        if self._readers(k):
            with np.errstate(over="ignore", invalid="ignore"):
                x, radius = z.through(self._model.blocks[k], bounds.z[k], bounds.x[k])
            room = MOST_NUMBERS // max(1, int(np.count_nonzero(x.reach))) - x.symbols
            self._x[k] = x.plus(radius, min(self._left, room), k, images_of(self._model).get(k))
            self._left -= self._x[k].symbols - x.symbols
        for j in [j for j in self._x if min(self._readers(j)) >= k]:
            del self._x[j]

    def _readers(self, k: int) -> list[int]:
        """Return the blocks that read a block."""
        return [j for j in range(k) if k in self._model.rows[j].states]
