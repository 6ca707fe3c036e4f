"""The zonotope of a loop: x = k z + e with one slope k a state and e in an interval, solved for z.

See docs/mathematics.md, section 6.6.

For a ReLU that is open over [l, h], k = h / (h - l) and e in [0, -k l]. The loop solved for z (`linearised`) is affine
in e and in what drives it, and bounds z without any condition on k beyond what is computed.

Elsewhere: DeepZ, affine arithmetic.
"""

from __future__ import annotations

import numpy as np

from idl_audit.proof.bounds import Interval
from idl_audit.proof.loops.enclosed import image, largest, reach, scaled_rows
from idl_audit.proof.loops.linearised import linearised
from idl_audit.proof.loops.system import LoopSystem, plus_identity
from idl_audit.values.arrays import FloatArray
from idl_audit.values.rounding import TINY, down, gamma, up


def zonotope(
    system: LoopSystem, z_lo: FloatArray, z_hi: FloatArray, centre: FloatArray, r: FloatArray
) -> tuple[Interval, Interval] | None:
    """Return bounds of z and x, shapes (n,), from bounds of z that are known; None where the loop is singular.

    Args:
        system: the loop.
        z_lo, z_hi: known bounds of z.
        centre, r: |w - centre| <= r.
    """
    block, n = system.block, system.n
    if block.activation.coupled:
        return None
    width = z_hi - z_lo
    ends = block(np.stack([z_lo, z_hi]))
    least, most = block.slopes(z_lo, z_hi)
    with np.errstate(all="ignore"):
        chord = (ends[1] - ends[0]) / width
    k = np.where((least == most) | ~np.isfinite(chord), least, np.clip(chord, least, most))
    one, zero = np.ones(n), np.zeros(n)
    e_lo = block.lower_support(one, zero, k, z_lo, z_hi)
    e_hi = -block.lower_support(-one, zero, -k, z_lo, z_hi)
    solved = linearised(system, k)
    if solved is None or not (np.isfinite(e_lo).all() and np.isfinite(e_hi).all()):
        return None
    e = e_lo / 2 + e_hi / 2
    e_r = up(np.maximum(e_hi - e, e - e_lo))
    from_e, error_e = image(solved.YA, e)
    from_w, error_w = image(solved.YP, centre)
    from_b, error_b = image(solved.Y, system.b)
    z = from_e + from_w + from_b
    farthest = np.maximum(np.abs(z_lo), np.abs(z_hi))
    lost = error_e + error_w + error_b + (largest(solved.Y).sum(axis=1) * system.b_error + solved.defect @ farthest)
    lost = lost * (1 + gamma(n + 16)) + gamma(8) * (np.abs(from_e) + np.abs(from_w) + np.abs(from_b)) + TINY
    moved = reach(solved.YP, r)
    z_r = (reach(solved.YA, e_r) + moved + lost) * (1 + gamma(8))
    x = k * z + e
    direct = plus_identity(scaled_rows(k, solved.YA))  # x = (k Y A + I) e + ...
    x_r = reach(direct, e_r) + np.abs(k) * (moved + lost) + gamma(4) * (np.abs(k * z) + np.abs(e))
    x_r = x_r * (1 + gamma(8)) + TINY
    return _around(z, z_r), _around(x, x_r)


def _around(centre: FloatArray, r: FloatArray) -> Interval:
    return Interval(down(centre - r), up(centre + r))
