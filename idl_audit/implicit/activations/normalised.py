"""Norms: a group divided by its own size, as in layer, group, instance and root-mean-square normalisation.

    phi(z)_i = d_i / s,    s = max(sqrt(q + under) + beside, least),    q = sum_i d_i^2 / count,

d = z - mean(z) where the group is `centred`, else d = z. A group has one pre-activation more: the factor 1 / s, which
other blocks compute (squares, their sum, a root and its reciprocal) and bound from the inputs. phi hands it on and
reads it nowhere: as a function phi is one of z alone, which is what holds for all inputs (docs/mathematics.md, section
6.10):

    |dx_i| <= ((1 - 1/n) |dz_i| + 1/2 sum over j <> i of |dz_j|) / least s,    1 in place of 1 - 1/n without a mean.

Over a box, with f = 1 / s in [fl, fh], v . x = f sum_i w_i d_i, w = v or v - mean(v), is bilinear: for any multipliers
the least of v . x - lam . z is concave in f, and is at one of its ends. Where a block is `aided`, what bounds the
factor's own pre-activation bounds f, too; only what wires it so may say that it is.

Elsewhere: LayerNorm, GroupNorm, RMSNorm, unit vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from idl_audit.implicit.activations.base import Activation
from idl_audit.implicit.activations.coupled import Coupled, Plane
from idl_audit.implicit.activations.product import usual_shares
from idl_audit.values.arrays import BoolArray, Float32Array, FloatArray
from idl_audit.values.errors import UnsupportedModelError
from idl_audit.values.rounding import LEAST, LOST, TINY, down, gamma, proved, up

LARGEST_SQUARE = 1e300
"""What a sum of squares is said to be at least where it overflows."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What one box says of every group; (..., groups, n), or (..., groups) where it is of the group."""

    middle: FloatArray
    """A number about which entries are looked at: 0 where no mean is taken. (..., groups, 1)."""
    low: FloatArray
    high: FloatArray
    """Ends of z - middle."""
    least: FloatArray
    most: FloatArray
    """Ends of d."""
    smallest: FloatArray
    largest: FloatArray
    """Ends of the factor 1 / s."""
    below: FloatArray
    above: FloatArray
    """Ends of x."""

    @property
    def far(self) -> FloatArray:
        """The largest |z - middle|."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    @property
    def tall(self) -> FloatArray:
        """The largest |x|."""
        return np.maximum(np.abs(self.below), np.abs(self.above))


@dataclass(frozen=True, eq=False)
class Normalised(Coupled):
    """phi(z, f) = (d / s, f) for every group of `width` states."""

    width: int
    count: float
    under: float = 0.0
    beside: float = 0.0
    least: float = 0.0
    centred: bool = True
    aided: bool = False
    """Whether, for every input, the last pre-activation is 1 / s of the others, and their mean 0 where centred."""
    name: str = "normalised"

    @property
    def n(self) -> int:
        """Entries that are normalised."""
        return self.width - 1

    @property
    def parameters(self) -> Mapping[str, float | FloatArray]:
        """The formula's; that a block is aided is no property of its function."""
        return {
            "width": float(self.width),
            "count": self.count,
            "under": self.under,
            "beside": self.beside,
            "least": self.least,
            "centred": float(self.centred),
        }

    def fits(self, size: int) -> bool:
        """Return whether groups have an entry and a factor, and something is divided by."""
        return self.width >= 2 and self.count > 0 and super().fits(size)

    @property
    def _takes_mean(self) -> bool:
        """Whether the mean is not known to be 0."""
        return self.centred and not self.aided

    def unaided(self) -> Activation:
        """Return the same function, that does not rely on where its last pre-activation comes from."""
        return replace(self, aided=False)

    def _parts(self, values: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the entries of every group, (..., groups, n), and its factor, (..., groups)."""
        groups = self.grouped(values)
        return groups[..., :-1], groups[..., -1]

    @staticmethod
    def _joined(entries: FloatArray, factor: FloatArray) -> FloatArray:
        shape = np.broadcast_shapes(entries.shape[:-1], factor.shape)
        both = (np.broadcast_to(entries, (*shape, entries.shape[-1])), np.broadcast_to(factor, shape)[..., None])
        joined = np.concatenate(both, axis=-1)
        return joined.reshape(*shape[:-1], shape[-1] * joined.shape[-1])

    # --- the function -------------------------------------------------------------------------------------------------

    def _moved(self, entries: FloatArray) -> FloatArray:
        """Return d."""
        return entries - entries.mean(axis=-1, keepdims=True) if self.centred else entries

    def _root(self, d: FloatArray) -> FloatArray:
        """Return sqrt(q + under), (..., groups, 1)."""
        return np.asarray(np.sqrt((d * d).sum(axis=-1, keepdims=True) / self.count + self.under))

    def __call__(self, z: FloatArray) -> FloatArray:
        """Return d / s, and the factor as it is; NaN where s is 0."""
        entries, factor = self._parts(z)
        d = self._moved(entries)
        with np.errstate(invalid="ignore", divide="ignore"):
            return self._joined(d / np.maximum(self._root(d) + self.beside, self.least), factor)

    def derivative(self, z: FloatArray) -> FloatArray:
        """Return the diagonal of the Jacobian."""
        _, x, turned, size = self._around(z)
        diagonal = ((1.0 - 1.0 / self.n if self.centred else 1.0) - x * turned) / size
        return self._joined(diagonal, np.ones(diagonal.shape[:-1]))

    def _around(self, z: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Return d, x, the gradient of s and s; the Jacobian is (P - x (gradient of s)^T) / s, P from z to d."""
        d = self._moved(self._parts(z)[0])
        with np.errstate(invalid="ignore", divide="ignore"):
            root = self._root(d)
            size = np.maximum(root + self.beside, self.least)
            turned = np.where(root + self.beside >= self.least, d / (self.count * root), 0.0)
            return d, d / size, turned, size

    def pull_back(self, z: FloatArray, v: FloatArray) -> FloatArray:
        """Return P (v - (x . v) (gradient of s)) / s, and v of the factor."""
        entries, factor = self._parts(v)
        _, x, turned, size = self._around(z)
        return self._joined(self._moved((entries - (x * entries).sum(axis=-1, keepdims=True) * turned) / size), factor)

    # --- slopes -------------------------------------------------------------------------------------------------------

    @property
    def divisor(self) -> float | FloatArray:
        """A number that s is never below, rounded downward: for all groups, or one a group."""
        return max(float(down(np.sqrt(self.under))) + self.beside, self.least) * (1 - gamma(4))

    def _gain(self) -> float | FloatArray:
        """Return 1 / least s, rounded upward."""
        with np.errstate(divide="ignore"):
            return np.asarray(1.0 / np.asarray(self.divisor)) * (1 + gamma(4))

    @property
    def lipschitz(self) -> float | FloatArray:
        """The l_inf norm: rows of the matrix above add up to no more, nor, its l2 norm being 1, than sqrt n."""
        rows = min((1.0 - 1.0 / self.n if self.centred else 1.0) + (self.n - 1) / 2, np.sqrt(self.n)) * (1 + gamma(8))
        steepest = np.maximum(rows * np.asarray(self._gain()), 1.0)
        return float(steepest) if steepest.ndim == 0 else np.repeat(steepest, self.width, axis=-1)

    def spread(self, r: FloatArray) -> FloatArray:
        """Return Gamma^T r, |dx_i| <= ((1 - 1/n) |dz_i| + 1/2 sum over the others of |dz_j|) / least s."""
        if not np.all(np.asarray(self.divisor) > 0):
            raise UnsupportedModelError(
                (
                    "a norm whose divisor may be 0 has no bounded slope over all inputs; over a box it may have: ask "
                    "for local sensitivity, or for certify, attack and bounds",
                )
            )
        entries, factor = self._parts(r)
        if self.centred and self.n == 1:
            return self._joined(np.zeros_like(entries), factor)  # of one entry nothing is left
        total = entries.sum(axis=-1, keepdims=True) / 2
        own = entries * max(0.5 - 1.0 / self.n, 0.0) if self.centred else entries / 2
        gain = np.asarray(self._gain())[..., None]
        return self._joined((own + total) * gain * (1 + gamma(self.n + 8)), factor)

    def felt(self, seen: BoolArray) -> BoolArray:
        """Return the entries of groups, and factors that are seen themselves."""
        groups = seen.reshape(*seen.shape[:-1], -1, self.width)
        entries = np.repeat(groups[..., :-1].any(axis=-1, keepdims=True), self.n, axis=-1)
        return np.concatenate([entries, groups[..., -1:]], axis=-1).reshape(seen.shape)

    def slopes(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return bounds of the diagonal slopes: between 0 and 1 / least s, and 1 of the factor."""
        entries, factor = self._parts(np.zeros(np.broadcast_shapes(lo.shape, hi.shape)))
        steepest = entries + np.asarray(self._gain())[..., None]
        return self._joined(entries, factor + 1.0), self._joined(steepest, factor + 1.0)

    def bends(self, lo: FloatArray, hi: FloatArray) -> BoolArray:
        """Return which groups move."""
        return np.repeat((self.grouped(hi) > self.grouped(lo)).any(axis=-1), self.width, axis=-1)

    def within(self, lo: FloatArray, hi: FloatArray) -> Activation:
        """Return the same function where the entries stay within [lo, hi], a convex set: s is bounded by it alone."""
        least, most = self._deviations(lo, hi)
        sizes, _ = self._sizes(least, most)
        far = np.maximum(np.abs(least), np.abs(most))
        rooted = replace(self, beside=0.0, least=0.0)
        with np.errstate(all="ignore"):
            roots, _ = rooted._sizes(least, most)
            shares = np.fmin(up(far / roots[..., None]), rooted._tallest(far))
        given = {name: getattr(self, name) for name in (*self.parameters, "aided")}
        return BoundedNormalised(**given, smallest_size=sizes, shares=shares)

    # --- bounds -------------------------------------------------------------------------------------------------------

    def interval(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return bounds of d / s: of the quotient, and of t / s(t), which grows, s(t) the least s with d_i = t."""
        seen = self.seen(lo, hi)
        return self._joined(seen.below, self._parts(lo)[1]), self._joined(seen.above, self._parts(hi)[1])

    def seen(self, lo: FloatArray, hi: FloatArray) -> Seen:
        """Return what a box says of every group."""
        (low, low_factor), (high, high_factor) = self._parts(lo), self._parts(hi)
        least, most = self._deviations(lo, hi)
        sizes, largest_sizes = self._sizes(least, most)
        with np.errstate(all="ignore"):
            middle = self._middle(low, high)
            first, second = down(1.0 / largest_sizes), up(1.0 / sizes)
            if self.aided:
                first, second = np.maximum(first, low_factor), np.fmin(second, high_factor)
            corners = [d * f[..., None] for d in (least, most) for f in (first, second)]
            below = np.fmax(down(np.minimum.reduce(corners)), -self._tallest(-least))
            above = np.fmin(up(np.maximum.reduce(corners)), self._tallest(most))
            unknown = (self._may_be_nothing(least, most) & ~(second < np.inf))[..., None]
            below, above = np.where(unknown, -np.inf, below), np.where(unknown, np.inf, above)
            return Seen(middle, down(low - middle), up(high - middle), least, most, first, second, below, above)

    def _may_be_nothing(self, least: FloatArray, most: FloatArray) -> BoolArray:
        """Return where s may be 0: of 0 / 0 nothing is known, however small the quotient is elsewhere."""
        away = (least > 0) | (most < 0) | (max(self.under, self.beside, self.least) > 0)
        return np.asarray(~away.any(axis=-1))

    def _middle(self, low: FloatArray, high: FloatArray) -> FloatArray:
        mean = (low / 2 + high / 2).mean(axis=-1, keepdims=True)
        return np.where(np.isfinite(mean), mean, 0.0) if self._takes_mean else np.zeros_like(mean)

    def _deviations(self, lo: FloatArray, hi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return bounds of d: the centre less the mean centre, and (1 - 2/n) r_i + mean(r) around it."""
        low, high = self._parts(lo)[0], self._parts(hi)[0]
        if not self._takes_mean:
            return low, high
        with np.errstate(invalid="ignore", over="ignore"):
            centre = low / 2 + high / 2
            radius = up(np.maximum(high - centre, centre - low))
            mean = centre.mean(axis=-1, keepdims=True)
            reach = radius * max(1.0 - 2.0 / self.n, 0.0) + radius.mean(axis=-1, keepdims=True)
            size = np.abs(centre) + np.abs(centre).mean(axis=-1, keepdims=True)
            reach = reach * (1 + gamma(self.n + 8)) + gamma(self.n + 8) * size + TINY
            least, most = down(centre - mean - reach), up(centre - mean + reach)
        return np.where(np.isnan(least), -np.inf, least), np.where(np.isnan(most), np.inf, most)

    def _sizes(self, least: FloatArray, most: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return bounds of s: sums of squares, which nothing is taken from, have errors relative to themselves.

        Beside that every square, and the product with 1 - gamma, is moved by no more than `LEAST` where it underflows.
        """
        near = np.maximum(np.maximum(least, -most), 0.0)
        far = np.maximum(np.abs(least), np.abs(most))
        with np.errstate(over="ignore"):
            ends = [(d * d).sum(axis=-1) for d in (near, far)]
            grown, lost = gamma(self.n + 16), (self.n + 2) * LEAST
            least_sum = np.maximum(np.minimum(ends[0], LARGEST_SQUARE) * (1 - grown) - lost, 0.0)
            least_mean = np.clip(down(least_sum / self.count), 0.0, LARGEST_SQUARE)
            most_mean = up((ends[1] * (1 + grown) + lost) / self.count)
            roots = [
                np.sqrt(least_mean + self.under) * (1 - gamma(8)),
                np.sqrt(most_mean + self.under) * (1 + gamma(8)),
            ]
            sizes = [np.maximum(root + self.beside, self.least) for root in roots]
        return sizes[0] * (1 - gamma(4)), sizes[1] * (1 + gamma(4))

    @property
    def _own_share(self) -> float:
        """k with q >= k d_i^2: of a centred group the others make up for d_i, which costs them d_i^2 / (n - 1)."""
        return (self.n / max(self.n - 1, 1) if self.centred else 1.0) / self.count

    def _tallest(self, t: FloatArray) -> FloatArray:
        """Return an upper bound of d_i / s for d_i <= t: t / s(t) where t >= 0, else 0; grows to 1 / sqrt(k)."""
        t = np.maximum(t, 0.0)
        with np.errstate(all="ignore"):
            share = self._own_share  # what underflows may be rounded up
            own = np.maximum(down(share * np.maximum(down(t * t), 0.0)), 0.0)
            size = np.maximum(np.sqrt(own + self.under) + self.beside, self.least)
            known = (t > 0) & np.isfinite(size)  # squares overflow where the quotient is at its limit
            found = np.where(known, t / size, np.where(t > 0, np.inf, 0.0)) * (1 + gamma(16)) + TINY
            limit = (1.0 / np.sqrt(share)) * (1 + gamma(16)) if np.isfinite(share) else np.inf
            return np.asarray(np.fmin(found, limit))

    # --- planes -------------------------------------------------------------------------------------------------------

    def multipliers(
        self, v: FloatArray, lo: FloatArray, hi: FloatArray, chosen: FloatArray | Float32Array | None = None
    ) -> FloatArray:
        """Return lam of the planes of f w_i d_i with the chosen shares; 0 where the ranges say more in the middle."""
        seen = self.seen(lo, hi)
        entries, own = self._parts(v)
        w, _ = self._weights(entries)
        with np.errstate(all="ignore"):
            small, large = seen.smallest[..., None], seen.largest[..., None]
            low, high = np.where(w >= 0, small, large), np.where(w >= 0, large, small)
            share = usual_shares(seen.low, seen.high, low, high)
            if chosen is not None:
                picked = self._parts(np.asarray(chosen, np.float64))[0]
                share = np.where(np.isnan(picked), share, picked)
            by_entry = w * (share * low + (1 - share) * high)
            by_factor = (w * (share * seen.low + (1 - share) * seen.high)).sum(axis=-1)
            lam = self._joined(by_entry, own + by_factor if self.aided else own)
            lam = np.where(np.isfinite(lam), lam, 0.0)
            middle = self.grouped(np.nan_to_num(lo / 2 + hi / 2, posinf=0.0, neginf=0.0))
            zero = np.zeros_like(v)
            there = self._by_planes(v, zero, lam, seen, lo, hi) + (self.grouped(lam) * middle).sum(axis=-1)
            usable = there > self._by_ranges(v, zero, zero, seen, lo, hi)
        return np.where(np.repeat(usable, self.width, axis=-1), lam, 0.0)

    def _weights(self, entries: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return w with sum_i v_i d_i = sum_i w_i z_i, and what rounding did to it."""
        if not self._takes_mean:
            return entries, np.zeros_like(entries)
        size = np.abs(entries) + np.abs(entries).mean(axis=-1, keepdims=True)
        return entries - entries.mean(axis=-1, keepdims=True), gamma(self.n + 8) * size + LOST

    def lower_support(
        self, v: FloatArray, v_error: FloatArray, lam: FloatArray, lo: FloatArray, hi: FloatArray
    ) -> FloatArray:
        """Return a lower bound of v . x - lam . z over each group, as its first summand: by planes, or by ranges."""
        seen = self.seen(lo, hi)
        by_planes = self._by_planes(v, v_error, lam, seen, lo, hi)
        best = np.maximum(proved(by_planes), proved(self._by_ranges(v, v_error, lam, seen, lo, hi)))
        best = np.where(np.isfinite(seen.tall).all(axis=-1), best, -np.inf)
        return self.as_first_summands(best)

    def _by_planes(
        self, v: FloatArray, v_error: FloatArray, lam: FloatArray, seen: Seen, lo: FloatArray, hi: FloatArray
    ) -> FloatArray:
        """Return the least over both ends f of sum_i min (f w_i (z_i - m) - lam_i z_i), with the factor's own part."""
        (entries, own), (doubts, own_doubt), (lam_n, lam_f) = map(self._parts, (v, v_error, lam))
        w, lost = self._weights(entries)
        with np.errstate(all="ignore"):
            far, tallest = seen.far, np.maximum(np.abs(seen.smallest), np.abs(seen.largest))
            ends = []
            for f in (seen.smallest, seen.largest):
                tilt = w * f[..., None] - lam_n
                least = np.minimum(tilt * seen.low, tilt * seen.high).sum(axis=-1)
                ends.append(least + (own - lam_f) * f if self.aided else least)
            constant = seen.middle[..., 0] * lam_n.sum(axis=-1)
            least = np.minimum(*map(proved, ends)) - constant
            large = tallest[..., None]
            size = (np.abs(w) * large + np.abs(lam_n)) * far + np.abs(lam_n * seen.middle)
            unsure = lost * large * far + doubts * seen.tall + LOST * far
            total = gamma(2 * self.n + 32) * size.sum(axis=-1) + unsure.sum(axis=-1) * (1 + gamma(self.n + 16))
            handed, spare = self._handed_on(own, own_doubt, lam_f, lo, hi)
            least = least - total - spare - TINY * (1 + np.abs(lam_n).sum(axis=-1) + np.abs(entries).sum(axis=-1))
            return np.asarray(least if self.aided else least + handed)

    def _handed_on(
        self, v: FloatArray, v_error: FloatArray, lam: FloatArray, lo: FloatArray, hi: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return min (v - lam) f over the factor's own interval, and what rounding and errors of v may cost."""
        low, high = self._parts(lo)[1], self._parts(hi)[1]
        rest = v - lam
        least = np.where(rest == 0, 0.0, np.minimum(rest * low, rest * high))
        largest = np.maximum(np.abs(low), np.abs(high))
        size = (gamma(8) * (np.abs(v) + np.abs(lam)) + v_error * (1 + gamma(8))) + LOST
        return least, np.where((v == 0) & (lam == 0) & (v_error == 0), 0.0, size * largest)

    def _by_ranges(
        self, v: FloatArray, v_error: FloatArray, lam: FloatArray, seen: Seen, lo: FloatArray, hi: FloatArray
    ) -> FloatArray:
        """Return the least v . x by the ranges of x, or -|w| sqrt(count), less the most that lam . z can be."""
        (entries, own), (doubts, own_doubt), (lam_n, lam_f) = map(self._parts, (v, v_error, lam))
        low, high = self._parts(lo)[0], self._parts(hi)[0]
        w, lost = self._weights(entries)
        with np.errstate(all="ignore"):
            tall = seen.tall
            found = [
                np.minimum(c * seen.below, c * seen.above).sum(axis=-1)
                - (gamma(self.n + 8) * np.abs(c) * tall + error * tall).sum(axis=-1) * (1 + gamma(self.n + 8))
                for c, error in ((entries, 0.0), (w, lost))
            ]
            length = _length(w) * np.sqrt(self.count) * (1 + gamma(self.n + 16))
            found.append(-length - (lost * tall).sum(axis=-1) * (1 + gamma(self.n + 8)))
            most = np.where(lam_n == 0, 0.0, np.maximum(lam_n * low, lam_n * high))
            handed, spare = self._handed_on(own, own_doubt, lam_f, lo, hi)
            least = np.maximum.reduce(found) - most.sum(axis=-1) + handed
            size = np.abs(most).sum(axis=-1) + np.abs(least) + np.abs(handed)
            unsure = (doubts * tall).sum(axis=-1) * (1 + gamma(self.n + 16)) + spare
            return np.asarray(least - unsure - gamma(self.n + 32) * size - TINY * (1 + np.abs(lam_n).sum(axis=-1)))

    def planes(self, lo: FloatArray, hi: FloatArray) -> list[Plane]:
        """Return the four planes of f d_i for each entry, and the factor as it is; none where f is not at hand."""
        if not self.aided:
            return []
        seen = self.seen(lo, hi)
        found = []
        for i in range(self.n):
            la, ha = seen.least[..., i], seen.most[..., i]
            for f, d, is_lower in (
                (seen.smallest, la, True),
                (seen.largest, ha, True),
                (seen.largest, la, False),
                (seen.smallest, ha, False),
            ):
                found.append(Plane(i, self._tilted(i, f, d), -f * d, is_lower))
        itself = np.zeros((seen.smallest.size, self.width))
        itself[:, -1] = 1.0
        return [*found, *(Plane(self.n, itself, np.zeros(len(itself)), is_lower) for is_lower in (True, False))]

    def _tilted(self, i: int, f: FloatArray, d: FloatArray) -> FloatArray:
        """Return slopes f of d_i, as slopes of z, and d of the factor."""
        slopes = np.zeros((f.size, self.width))
        if self.centred:
            slopes[:, :-1] = -f[:, None] / self.n
        slopes[:, i] += f
        slopes[:, -1] = d
        return slopes


@dataclass(frozen=True, eq=False)
class BoundedNormalised(Normalised):
    """Norms whose sizes are at least `smallest_size`, (groups,), and |d| at most `shares` of the root, (groups, n)."""

    smallest_size: FloatArray = field(default_factory=lambda: np.zeros(0))
    shares: FloatArray = field(default_factory=lambda: np.zeros(0))

    def spread(self, r: FloatArray) -> FloatArray:
        """Return the less of Gamma^T r and that of |J_ij| <= (1/n + shares_i shares_j / count) / least s, i <> j."""
        found = super().spread(r)
        entries, factor = self._parts(r)
        by_shares = self.shares * (entries * self.shares).sum(axis=-1, keepdims=True) / self.count
        if self.centred:
            by_shares = by_shares + entries.mean(axis=-1, keepdims=True)
        gain = np.asarray(self._gain())[..., None] * (1 + gamma(2 * self.n + 16))
        return np.minimum(found, self._joined((entries + by_shares) * gain, factor))

    @property
    def divisor(self) -> FloatArray:
        """One a group."""
        return self.smallest_size


def _length(w: FloatArray) -> FloatArray:
    """Return |w| = a sqrt(sum of (w / a)^2), a = max |w|: no square that matters underflows."""
    largest = np.abs(w).max(axis=-1)
    shares = w / np.where(largest > 0, largest, 1.0)[..., None]
    return np.asarray(largest * np.sqrt((shares * shares).sum(axis=-1)))


def normalised(
    width: float = 3.0,
    count: float = 2.0,
    under: float = 1e-5,
    beside: float = 0.0,
    least: float = 0.0,
    centred: float = 1.0,
) -> Normalised:
    """Return the norm of all but the last of every `width` neighbouring states; the last is its factor."""
    return Normalised(int(width), count, under, beside, least, bool(centred))
