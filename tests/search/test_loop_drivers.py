"""What drives a loop lies within the centre and radius that stand for it, down to the smallest numbers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from idl_audit.proof.bounds import Interval
from idl_audit.proof.loops.system import loop_system
from tests.shared.cyclic_models import plain


def test_centre_and_radius_hold_every_driver():
    system = loop_system(plain(-0.5 * np.eye(1), np.ones((1, 6)), [[1.0]]), 0)
    assert system is not None
    tiny = 5e-324
    lo = np.array([tiny, -tiny, 0.0, 1.0, 0.1, -1e300])
    hi = np.array([tiny, 3 * tiny, tiny, 1.0, 0.3, 1e300])
    centre, r = system.drivers({}, Interval(lo[None], hi[None]), 0)
    for c, reach, low, high in zip(centre, r, lo, hi, strict=True):
        assert Fraction(float(c)) - Fraction(float(reach)) <= Fraction(float(low))
        assert Fraction(float(high)) <= Fraction(float(c)) + Fraction(float(reach))
    assert r[3] == 0
