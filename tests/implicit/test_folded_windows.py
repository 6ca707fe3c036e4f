"""What windows of a convolution's output give back to its input: equal to the exact sum, whatever is done together."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit import convolution
from idl_audit.implicit.convolution import Convolution
from idl_audit.values.arrays import FloatArray


def by_definition(one: Convolution, y: FloatArray) -> FloatArray:
    """Return the sum over outputs and taps, one by one; y in whole numbers, so that it is exact."""
    rows, *extent, _ = y.shape
    taps = one.kernel.shape[2:]
    sizes = [(e - 1) * s + d * (n - 1) + 1 for e, s, d, n in zip(extent, one.strides, one.dilations, taps, strict=True)]
    found = np.zeros((rows, *sizes, one.channels_in))
    for place, tap in itertools.product(np.ndindex(*extent), np.ndindex(*taps)):
        at = tuple(p * s + t * d for p, t, s, d in zip(place, tap, one.strides, one.dilations, strict=True))
        for group in range(one.groups):
            wide, per = one.kernel.shape[1], one.channels_out // one.groups
            outs = slice(group * per, (group + 1) * per)
            given = y[(slice(None), *place, outs)] @ one.kernel[(outs, slice(None), *tap)]
            found[(slice(None), *at, slice(group * wide, (group + 1) * wide))] += given
    return found


@st.composite
def convolutions(draw: Any) -> tuple[Convolution, FloatArray]:
    rank, groups = draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2]))
    each = st.tuples(*[st.integers(1, 3)] * rank)
    taps, strides, dilations, extent = draw(each), draw(each), draw(each), draw(each)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    channels_in, channels_out = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    spatial = tuple((e - 1) * s + d * (n - 1) + 1 for e, s, d, n in zip(extent, strides, dilations, taps, strict=True))
    kernel = rng.integers(-9, 10, (channels_out, channels_in // groups, *taps)).astype(np.float64)
    one = Convolution(
        kernel=kernel,
        spatial_in=spatial,
        strides=strides,
        pads=(0,) * (2 * rank),
        dilations=dilations,
        groups=groups,
    )
    return one, rng.integers(-9, 10, (draw(st.integers(1, 4)), *extent, channels_out)).astype(np.float64)


@pytest.mark.parametrize("at_once", [1, 2**17])
@settings(max_examples=60, deadline=None)
@given(case=convolutions())
def test_windows_are_folded_as_the_definition_says(at_once: int, case: tuple[Convolution, FloatArray]) -> None:
    one, y = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolution, "FOLDED_AT_ONCE", at_once)
        patch.setattr(convolution, "SMALL_WINDOW", 0)  # not by the matrix of a small window
        np.testing.assert_array_equal(one.adjoint_patches(y), by_definition(one, y))
