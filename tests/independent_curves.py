"""An independent checker of proofs about networks that jump or bend, written from docs/proof-format.md.

    python -m tests.independent_curves MODEL PROOF.npz [CONVERTED.npz]

Beside what `tests.independent_checker` knows: stairs and steps (in fractions), curves of one number (in intervals of
mpmath), and groups: products, matrix products, norms and softmax (`tests.independent_groups`). z, trees, lemmas and
goals are as there. Of a few operators it makes the model of an ONNX file itself: Sign, Floor, Ceil, Round,
QuantizeLinear with DequantizeLinear, Exp, Log, Reciprocal, Sigmoid, Softplus, Sqrt, Tanh, squares, and Mul of two
tensors. Else `convert` has written what the model is (part 13 of the format): `tests.independent_models` reads that,
for a claim about that file or about the network that was converted. It shares no code with idl_audit.
"""

import functools
import math
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx

from tests.independent_calculus import CURVES, NEVER, Curve
from tests.independent_checker import GRID, Bounds, Exact, Maps, Network, Part, Tensor, linear, picked
from tests.independent_files import Array, Arrays, Choices, Proof, demand, read
from tests.independent_groups import Group, Products

HALF = Fraction(1, 2)


@dataclass(frozen=True)
class Jumps:
    """x = k where k + c - 1/2 <= z/unit <= k + c + 1/2, k within [lowest, highest]; at a threshold both values count.

    Where an end of the bounds is a threshold, a split has put it there: what lies behind it is the other child's.
    """

    c: Fraction = Fraction(0)
    lowest: float = -math.inf
    highest: float = math.inf
    unit: Fraction = Fraction(1)
    reach: float = math.inf
    """Nothing is known of x where |z| is not below this."""

    has_domain = False

    def is_defined(self, lo: Fraction, hi: Fraction) -> bool:
        """Whether something is known of all values over an interval."""
        return lo > hi or (-self.reach < lo and hi < self.reach)

    def corners(self, lo: Fraction, hi: Fraction) -> list[tuple[Fraction, Fraction]]:
        """Points (z, x) of the closed graph over [lo, hi], at one of which any linear function is least."""
        ends = math.floor(lo / self.unit - self.c + HALF), math.ceil(hi / self.unit - self.c - HALF)
        first, last = (Fraction(min(max(k, self.lowest), self.highest)) for k in (min(ends), max(ends)))
        places = [(k, (k + self.c + HALF) * self.unit) for k in ({first, last - 1} if last > first else ())]
        return [(lo, first), *((t, k + more) for k, t in places for more in (0, 1)), (hi, last)]

    def least(self, v: Fraction, lam: Fraction, lo: Fraction, hi: Fraction) -> int:
        """A lower bound of v x - lam z over [lo, hi], times 2**GRID."""
        if not self.is_defined(lo, hi):
            return NEVER
        return math.floor(min(v * x - lam * z for z, x in self.corners(lo, hi)) * (1 << GRID))

    def points(self, lo: Fraction, hi: Fraction) -> tuple[Array, Array]:
        """Some points of the graph in floating point, which lines are to lie below or above."""
        z, x = zip(*self.corners(lo, hi), strict=True)
        return np.array(z, float), np.array(x, float)

    def __call__(self, z: float) -> float:
        """phi(z); at a threshold the larger value."""
        return min(max(math.floor(Fraction(z) / self.unit - self.c + HALF), self.lowest), self.highest)


@dataclass(frozen=True)
class Steps(Jumps):
    """x = below z for z <= 0 and above z + jump for z >= 0: at 0 both values count where there is a jump."""

    below: Fraction = Fraction(0)
    above: Fraction = Fraction(0)
    jump: Fraction = Fraction(1)

    def corners(self, lo: Fraction, hi: Fraction) -> list[tuple[Fraction, Fraction]]:
        """The ends, and both places at 0 where it lies between them."""
        first = self.below * lo if lo < 0 else self.above * lo + self.jump
        last = self.above * hi + self.jump if hi > 0 else self.below * hi
        middle = [(Fraction(0), Fraction(0)), (Fraction(0), self.jump)] if lo < 0 < hi else []
        return [(lo, first), *middle, (hi, last)]

    def __call__(self, z: float) -> float:
        """phi(z), 0 at 0."""
        return float(self.above * Fraction(z) + self.jump if z > 0 else self.below * Fraction(z))


@dataclass(frozen=True)
class Bent(Steps):
    """A bend without a jump: slopes may be chosen for lines below alone, where it bends."""

    jump: Fraction = Fraction(0)


Phi: TypeAlias = Jumps | Curve
Phis: TypeAlias = Group | tuple[Phi, ...]  # of a block: groups, or for each of its states


STEP = Steps()
ROUNDING = {"Round": Jumps(), "Floor": Jumps(HALF), "Ceil": Jumps(-HALF)}
OPERATORS = ("Exp", "Log", "Reciprocal", "Sigmoid", "Softplus", "Sqrt", "Tanh")


class CurvedNetwork(Network):
    """Blocks of other activations as well: `phis` has these, by the number of their block."""

    def __init__(self, *given: Any) -> None:
        self.phis: dict[int, Phis] = {}
        self.errors: dict[int, tuple[Maps, Fraction]] = {}
        """Of a block's z, or of the outputs: what the coefficients may be off by, and the constants."""
        self.grids: dict[str, tuple[Array, Array]] = {}
        super().__init__(*given)

    def apply(self, node: onnx.NodeProto, x: Any, *more: Any) -> Any:
        """What a node makes of a tensor, and of constants."""
        kind = node.op_type
        if not isinstance(x, Tensor) and not any(isinstance(one, Tensor) for one in more):
            return self.run(node, x, *more)
        if kind in ("Identity", "DequantizeLinear", "QuantizeLinear"):
            demand(isinstance(x, Tensor) and not node.domain, f"operator {kind}")
            return {"Identity": lambda *_: x, "QuantizeLinear": self.stairs}.get(kind, self.levels)(node, x, *more)
        if kind == "Mul" and isinstance(x, Tensor) and isinstance(more[0], Tensor):
            return self.states(x, CURVES["square"]()) if node.input[0] == node.input[1] else self.products(x, more[0])
        if kind in OPERATORS or kind in ROUNDING:
            return self.states(x, CURVES[kind.lower()]() if kind in OPERATORS else ROUNDING[kind])
        if kind == "Sign":  # a step of z less one of -z: both are 0 at 0
            negative = Tensor(x.shape, {t: m.times(-1) for t, m in self.full(x).items()})
            return self.plus(self.states(x, STEP), self.states(negative, STEP), -1)
        return super().apply(node, x, *more)

    def states(self, x: Tensor, phi: Group | Phi) -> Tensor:
        """Make states of the entries of a tensor."""
        made = self.block(x, 0)
        self.phis[len(self.maps) - 1] = phi if isinstance(phi, Group) else (phi,) * self.sizes[-1]
        return made

    def products(self, x: Tensor, y: Tensor) -> Tensor:
        """Pairs of states, one for each entry; a factor that reads more than two numbers an entry is a block first."""
        demand(x.shape == y.shape, "a product of tensors of several shapes")
        x, y = (one if self.reads(one) <= 2 * math.prod(one.shape) else self.block(one, 1) for one in (x, y))
        n = math.prod(x.shape)
        even, odd = np.repeat(np.eye(n), 2, axis=0), np.repeat(np.eye(n), 2, axis=0)
        even[1::2], odd[0::2] = 0, 0
        pairs = self.plus(linear(even, x), linear(odd, y))
        demand(sum((m.ints != 0).any(axis=1) for m in self.full(pairs).values()).all(), "a factor that is always 0")
        return Tensor(x.shape, linear(np.eye(2 * n)[0::2], self.states(pairs, Products())).maps)

    def reads(self, x: Tensor) -> int:
        """How many numbers the entries of a tensor read, constants aside."""
        return sum(np.count_nonzero(m.ints) if m else self.sizes[t] for t, m in x.maps.items() if t)

    def stairs(self, node: onnx.NodeProto, x: Tensor, scale: Array, zero: Any = None) -> Tensor:
        """The levels less the zero point, per tensor: round(x / scale) between the ends of the type."""
        zero = np.uint8(0) if zero is None else zero
        demand(np.size(scale) == np.size(zero) == 1 and np.all(scale > 0), "a grid for each axis")
        ends, own = np.iinfo(np.asarray(zero).dtype), int(np.reshape(zero, ()))
        self.grids[node.output[0]] = np.reshape(scale, ()), np.reshape(zero, ())
        unit = Fraction(float(np.reshape(scale, ())))
        return self.states(x, Jumps(Fraction(0), ends.min - own, ends.max - own, unit))

    def levels(self, node: onnx.NodeProto, x: Tensor, scale: Array, zero: Any = None) -> Tensor:
        """(q - zero) scale, of what was made with the same zero point."""
        zero = np.uint8(0) if zero is None else zero
        demand(node.input[0] in self.grids and np.size(scale) == 1, "levels of no grid")
        demand(np.reshape(zero, ()) == self.grids[node.input[0]][1], "levels of another zero point")
        factor = Exact.of(np.reshape(scale, (1,)))
        own = {t: Exact(m.ints * factor.ints[0], m.exp + factor.exp) for t, m in self.full(x).items()}
        return Tensor(x.shape, own)


class CurvedPart(Part):
    """A part of a proof about such a network."""

    network: CurvedNetwork

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.reached: dict[int, tuple[Array, Array]] = {}

    def states(self, t: int, v: Exact, lam: Exact, bounds: Array) -> Array:
        """The sum over states of the minimum of v phi(z) - lam z, times 2**GRID."""
        if t not in self.network.phis:
            return super().states(t, v, lam, bounds)
        phis = self.network.phis[t]
        if isinstance(phis, Group):
            return phis.least(v, lam, bounds)
        each = ends(bounds)
        if not all(phi.is_defined(*end) for phi, end in zip(phis, each, strict=True)):
            return np.full(len(v.ints), NEVER, object)
        down = [1 << v.exp, 1 << lam.exp]
        found = np.zeros(len(v.ints), object)
        for r, rows in enumerate(zip(v.ints, lam.ints, strict=True)):
            for phi, factor, slope, end in zip(phis, *rows, each, strict=True):
                if factor or slope:
                    found[r] += phi.least(Fraction(factor, down[0]), Fraction(slope, down[1]), *end)
        return found

    def rest(self, t: int, w: Exact, b: Bounds) -> Array:
        """The least that the constant or the inputs add, or (t < 0) what z, or the outputs, may be off by."""
        if t >= 0:
            return super().rest(t, w, b)
        maps, constant = self.network.errors[-t]
        off = sum((m.ints @ self.reach(j, b) >> m.exp) + 1 for j, m in maps.items()) + math.ceil(constant * (1 << GRID))
        return -((abs(w.ints) * off).sum(axis=1) >> w.exp) - 1

    def reach(self, j: int, b: Bounds) -> Array:
        """The largest |x| of each state of a block, or of each input, times 2**GRID."""
        if j == 1:
            return abs(b[1]).max(axis=0)
        if j not in self.reached or self.reached[j][0] is not b[j]:
            unit = Exact.of(np.vstack([one := np.eye(self.network.sizes[j]), -one]))
            lower = self.states(j, unit, unit.times(0), b[j])
            self.reached[j] = b[j], (-lower).reshape(2, -1).max(axis=0)
        return self.reached[j][1]

    def bends(self, t: int, b: Bounds) -> Array:
        """Which states are still worth a line."""
        return np.full(b[t].shape[1], True) if t in self.network.phis else super().bends(t, b)

    def hair(self, t: int, values: Array) -> int:
        """How much further ends are taken: not out of a domain."""
        phis = self.network.phis.get(t, ())
        narrow = not isinstance(phis, Group) and any(phi.has_domain for phi in phis)
        return 0 if narrow else super().hair(t, values)

    def place(self, t: int, j: int, cut: Fraction) -> Fraction:
        """Where an input or a state is cut: of stairs in numbers of steps."""
        phis = self.network.phis.get(t)
        return super().place(t, j, cut) if phis is None or isinstance(phis, Group) else cut * phis[j].unit

    def multipliers(self, t: int, v: Exact, lo: Array, hi: Array, lines: str, chosen: Choices) -> Array:
        """The multipliers lam that the format tells, in floating point: any numbers are sound."""
        if t not in self.network.phis:
            return super().multipliers(t, v, lo, hi, lines, chosen)
        phis, pick = self.network.phis[t], functools.partial(picked, chosen, t, v.ints.shape)
        if isinstance(phis, Group):
            lam = phis.multipliers(v, pick("slopes", math.nan), np.stack([lo, -hi]))
            return np.asarray(pick("duals", lam - pick("multipliers", 0.0)))
        graphs = [phi.points(*end) for phi, end in zip(phis, ends(np.stack([lo, -hi])), strict=True)]
        unit, real = np.array([float(phi.unit) for phi in phis]), v.floats()
        below, above = (np.array([sign * side(z, sign * x) for z, x in graphs]) for sign in (1, -1))
        bent = np.array([isinstance(phi, Bent) for phi in phis])
        s = np.where(bent & ~((lo < 0) & (hi > 0)), below, pick("slopes", below * unit))
        u = np.where(bent, above, pick("slopes", above * unit))
        lam = np.where(real >= 0, s, u) * real
        return np.asarray(pick("duals", lam - pick("multipliers", 0.0)) / unit)


def ends(bounds: Array) -> list[tuple[Fraction, Fraction]]:
    """The bounds of each state."""
    return [(Fraction(lo, 1 << GRID), Fraction(-up, 1 << GRID)) for lo, up in bounds.T.tolist()]


def side(z: Array, x: Array) -> float:
    """The slope of the side of the lower hull of points that their middle lies over."""
    middle = (z[0] + z[-1]) / 2
    first, second = np.nonzero((z[:, None] <= middle) & (z > middle))
    if not len(first):
        return 0.0
    slopes = (x[second] - x[first]) / (z[second] - z[first])
    return float(slopes[np.argmin(x[first] + slopes * (middle - z[first]))])


load = functools.lru_cache(CurvedNetwork)


def prove(network: CurvedNetwork, arrays: Arrays, name: str, lo: Array, hi: Array, *alternatives: Array) -> None:
    """Refuse unless a part is proved."""
    CurvedPart(arrays, name, network, lo, hi).check(*alternatives)


def check(model: Path, proof: Proof, converted: Path | None = None) -> str:
    """The claim of a proof file that is right about a model; Refused otherwise, whatever the file holds.

    `converted` is what `convert` wrote of the network; a model that it has written itself may be a claim's subject.
    """
    if converted is None and model.suffix == ".npz":
        converted = model
    if converted is None:
        return read(model, proof, "real", load, prove)
    from tests.independent_models import StoredNetwork

    return read(model, proof, "real", functools.partial(StoredNetwork, converted), prove)


if __name__ == "__main__":
    print("accepted:", check(*map(Path, sys.argv[1:])))
