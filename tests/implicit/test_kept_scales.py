"""Blocks that keep a scale: their bounds hold where 2^e z or 2^-e phi leaves the range of float64."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.model import StateBlock

VALUES = np.array([1.2345, -1.2345, 1e-300, -3e-310, 5e-324, 1e200, -1e300, 0.0])


@pytest.mark.parametrize("exponent", [-1070, -1000, 0, 1000, 1070])
def test_the_interval_of_a_point_holds_it(exponent: int) -> None:
    block = StateBlock("b", "Identity", ACTIVATIONS["identity"](), (VALUES.size,), exponent=exponent)
    low, high = block.interval(VALUES, VALUES)
    for value, lo, hi in zip(VALUES, low, high, strict=True):
        assert lo == -np.inf or Fraction(float(lo)) <= Fraction(float(value))
        assert hi == np.inf or Fraction(float(value)) <= Fraction(float(hi))


@pytest.mark.parametrize("exponent", [-1070, -1000, 1000, 1070])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_support_over_a_point_is_a_lower_bound(exponent: int) -> None:
    block = StateBlock("b", "Identity", ACTIVATIONS["identity"](), (VALUES.size,), exponent=exponent)
    for v, lam in ((1.0, 0.0), (-1.0, 0.0), (1.0, 1.0), (0.0, -1.0)):
        ones = np.ones_like(VALUES)
        least = block.lower_support(v * ones, 0 * ones, lam * ones, VALUES, VALUES)
        for value, found in zip(VALUES, least, strict=True):
            exact = (Fraction(v) - Fraction(lam)) * Fraction(float(value))
            assert not np.isfinite(found) or Fraction(float(found)) <= exact
