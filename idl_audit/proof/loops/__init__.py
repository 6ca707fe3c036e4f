"""Bounds of a loop's states over a box of what drives it: ellipsoids and zonotopes by turns.

See docs/mathematics.md, section 6.6.

`narrowed` starts from bounds that hold already and makes them smaller, as long as a round takes off a fiftieth:

1. for all slopes of the activation: S(c, r) of every contraction, and the ellipsoid of a monotone loop; made once;
2. the zonotope over the bounds of z;
3. the ellipsoid for the slopes over the bounds of z; S(c, r) with them where the loop is not monotone.

The changes are measured from the state at the centre of the box, with the residual of its solver paid for.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from idl_audit.implicit.activations.base import FAR
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval
from idl_audit.proof.loops.ellipsoid import Ellipsoid, ellipsoid
from idl_audit.proof.loops.system import LoopSystem, Reference, loop_system, reference
from idl_audit.proof.loops.zonotope import zonotope
from idl_audit.values.arrays import FloatArray
from idl_audit.values.check import Check, unchecked
from idl_audit.values.rounding import down, gamma, up

ROUNDS = 12
ENOUGH = 0.02
"""A round that takes off less than this share of all widths is the last."""


class _Box:
    """Bounds of one box's z and x, shapes (n,), that only shrink."""

    def __init__(self, system: LoopSystem, z: Interval, x: Interval) -> None:
        self.system = system
        self.z_lo, self.z_hi, self.x_lo, self.x_hi = z.lo, z.hi, x.lo, x.hi

    def within_z(self, lo: FloatArray, hi: FloatArray) -> None:
        """Take in bounds of z, and what follows for x."""
        self.z_lo, self.z_hi = np.fmax(self.z_lo, lo), np.fmin(self.z_hi, hi)
        self.within_x(*self.system.block.interval(self.z_lo, self.z_hi))

    def within_x(self, lo: FloatArray, hi: FloatArray) -> None:
        """Take in bounds of x, and what follows for z."""
        self.x_lo, self.x_hi = np.fmax(self.x_lo, lo), np.fmin(self.x_hi, hi)
        self.z_lo, self.z_hi = self.system.block.preimage(self.x_lo, self.x_hi, self.z_lo, self.z_hi)

    @property
    def size(self) -> float:
        return float((self.z_hi - self.z_lo).sum())


def narrowed(
    model: ImplicitModel,
    k: int,
    z: Interval,
    x: Interval,
    states: Mapping[int, Interval],
    inputs: Interval,
    *,
    check: Check = unchecked,
) -> tuple[Interval, Interval]:
    """Return bounds of z and x of loop k over each of m boxes, shape (m, n), within those given.

    Args:
        model: the model.
        k: the loop's block.
        z, x: bounds that are proved already.
        states: bounds of the blocks that drive the loop.
        inputs: the boxes.
        check: called between small units of work; what it raises ends the work.
    """
    system = loop_system(model, k)
    if system is None:
        return z, x
    boxes = []
    for i in range(len(inputs.lo)):
        box = _Box(system, Interval(z.lo[i], z.hi[i]), Interval(x.lo[i], x.hi[i]))
        if np.isfinite(box.size):
            _narrow(system, box, *system.drivers(states, inputs, i), check)
        boxes.append(box)
    return (
        Interval(np.stack([box.z_lo for box in boxes]), np.stack([box.z_hi for box in boxes])),
        Interval(np.stack([box.x_lo for box in boxes]), np.stack([box.x_hi for box in boxes])),
    )


def _narrow(system: LoopSystem, box: _Box, centre: FloatArray, r: FloatArray, check: Check) -> None:
    if not (np.isfinite(centre).all() and np.isfinite(r).all()):
        return
    start = reference(system, centre, check)
    for T, N in system.everywhere:
        _respond(box, start, T, N, r)
    if not system.block.everywhere[0].any():  # there Y = I, and no bounds of z are needed
        _move(box, start, _global_ellipsoid(system), r)
    for _ in range(ROUNDS):
        check()
        before = box.size
        found = zonotope(system, box.z_lo, box.z_hi, centre, r)
        if found is not None:
            box.within_z(found[0].lo, found[0].hi)
            box.within_x(found[1].lo, found[1].hi)
        slopes = system.gradient_slopes(np.minimum(box.z_lo, start.z), np.maximum(box.z_hi, start.z))
        check()
        inner = None if slopes is None else ellipsoid(system, *slopes)
        if inner is not None:
            _move(box, start, inner, r)
        elif slopes is not None and system.loop.coupling is None:
            for T, N in system.responses(*slopes, search=False):
                _respond(box, start, T, N, r)
        if not before - box.size > ENOUGH * before:
            break


@lru_cache(maxsize=8)
def _global_ellipsoid(system: LoopSystem) -> Ellipsoid | None:
    slopes = system.gradient_slopes(np.full(system.n, -FAR), np.full(system.n, FAR))
    return None if slopes is None else ellipsoid(system, *slopes)


def _respond(box: _Box, start: Reference, T: FloatArray, N: FloatArray, r: FloatArray) -> None:
    """Take in |x - x0| <= T r + N delta."""
    change = (T @ r + N @ start.delta) * (1 + gamma(r.size + len(N) + 16))
    box.within_x(down(start.x.lo[0] - change), up(start.x.hi[0] + change))


def _move(box: _Box, start: Reference, found: Ellipsoid | None, r: FloatArray) -> None:
    """Take in the box around an ellipsoid."""
    if found is None:
        return
    widths = up(np.maximum(box.z_hi - start.z, start.z - box.z_lo))
    z, x = found.changes(r, start.delta, np.maximum(widths, 0.0))
    box.within_z(down(start.z - z), up(start.z + z))
    box.within_x(down(start.x.lo[0] - x), up(start.x.hi[0] + x))
