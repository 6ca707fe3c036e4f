"""The benchmark of float32 kernels: its reference is right, its bounds cover, its files are made of its figures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import kernel_errors, kernel_tables, recurrent_kernels
from benchmarks.kernel_errors import EXPONENTS, Form, Function, functions, measure, order
from benchmarks.kernel_tables import BINS, FILES, Bins, Fit, beyond, distance, fitted, report_of, rounded_up, table_of
from idl_audit.implicit.kernel_table import MEASURED
from idl_audit.implicit.kernels import RECURRENT, measured

FUNCTIONS = functions()
QUICK = ("tanh", "exp", "power 3")
mp = mpmath.mp


def gelu_tanh(z: Any) -> Any:
    t = mp.sqrt(2 / mp.pi) * (z + mp.mpf("0.044715") * z**3)
    return z / (1 + mp.exp(-2 * t))


SELU = mp.mpf(1.67326319217681884765625), mp.mpf(1.05070102214813232421875)
BY_HAND: dict[str, Callable[[Any], Any]] = {
    **{name: getattr(mp, name) for name in ("tanh", "erf", "exp", "log", "sqrt", "sin", "cos", "tan")},
    **{name: getattr(mp, name) for name in ("asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh")},
    "sigmoid": lambda z: 1 / (1 + mp.exp(-z)),
    "softplus": lambda z: mp.log1p(mp.exp(z)),
    "softsign": lambda z: z / (1 + abs(z)),
    "mish": lambda z: z * mp.tanh(mp.log1p(mp.exp(z))),
    "silu": lambda z: z / (1 + mp.exp(-z)),
    "gelu": lambda z: z * mp.ncdf(z),
    "gelu_tanh": gelu_tanh,
    "elu": lambda z: z if z > 0 else mp.expm1(z),
    "celu": lambda z: z if z > 0 else mp.expm1(z),
    "selu": lambda z: SELU[1] * (z if z > 0 else SELU[0] * mp.expm1(z)),
    "hard_swish": lambda z: z * min(max(z / 6 + mp.mpf(0.5), mp.mpf(0)), mp.mpf(1)),
    "reciprocal": lambda z: 1 / z,
    "rsqrt": lambda z: 1 / mp.sqrt(z),
    "square": lambda z: z * z,
    **{f"power {exponent:g}": lambda z, exponent=exponent: z**exponent for exponent in EXPONENTS},
}
BY_HAND |= {f"{RECURRENT}{name}": BY_HAND[name] for name in recurrent_kernels.FUNCTIONS}
"""The functions once more, in 40 digits."""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_reference_is_good_to_far_more_than_float32(name: str) -> None:
    points = [float(np.float32(s * 2.0**e * 1.37)) for e in range(-30, 7, 2) for s in (1, -1)]
    with mp.workdps(40), np.errstate(all="ignore"):
        for point in points:
            found = float(FUNCTIONS[name].exact(np.array(point)))
            try:
                exact = BY_HAND[name](mp.mpf(point))
            except ZeroDivisionError:
                continue
            if isinstance(exact, mpmath.mpf) and mp.isfinite(exact) and abs(exact) < 2**127 and math.isfinite(found):
                assert abs(found - exact) <= 1e-13 * abs(exact) + 1e-40, (name, point)


def test_every_bin_of_finite_numbers_has_its_turn_those_next_to_1_first() -> None:
    numbers = order()
    assert len(set(numbers)) == len(numbers) == 1020
    assert [distance(number) for number in numbers] == sorted(distance(number) for number in numbers)
    for number in numbers:
        sizes, k = np.abs(kernel_errors._inputs(number, 2**18).astype(float)), distance(number)
        above, below = (sizes >= 2.0**k) & (sizes < 2.0 ** (k + 1)), (sizes >= 2.0 ** -(k + 1)) & (sizes < 2.0**-k)
        assert above.all() or below.all() or (sizes < 2.0**-126).all()
    every = np.concatenate([kernel_errors._inputs(number, 2**21) for number in range(BINS)]).view(np.uint32)
    assert len(np.unique(every)) == len(every) == 2048


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in FUNCTIONS])
def test_the_installed_kernels_are_within_the_bounds_that_proofs_take(name: str, tmp_path: Path) -> None:
    bins = measure(FUNCTIONS[name], 2**17, tmp_path)
    kernel = measured(name)
    assert beyond(bins, Fit(kernel.absolute, float(kernel.relative), kernel.of_value, kernel.within)) == []
    assert beyond(bins, Fit(kernel.absolute / 1e3, 0.0, 0.0, kernel.within)) != []


def test_a_kernel_that_is_off_in_a_tail_alone_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(x: np.ndarray) -> np.ndarray:
        y = np.tanh(x.astype(float)).astype(np.float32)
        return y + np.float32(0.25) if len(x) == 7 else y

    monkeypatch.setattr(Function, "forms", lambda self: [Form("one of mine", run)])
    bins = measure(FUNCTIONS["tanh"], 2**17, tmp_path)
    (told,) = beyond(bins, Fit(1e-6, 0.0, 0.0, 2.0**127))
    assert told.startswith("one of mine: 0.25")


def test_what_is_measured_is_kept_and_only_replaced_by_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = kernel_errors.measure_bin

    def counted(function: Any, forms: Any, number: int, every: int) -> Any:
        asked.append(number)
        return real(function, forms, number, every)

    monkeypatch.setattr(kernel_errors, "measure_bin", counted)
    first = measure(FUNCTIONS["exp"], 2**18, tmp_path)
    assert (len(asked), first.sparsest, first.dense) == (1020, 2**18, 0)
    measure(FUNCTIONS["exp"], 2**18, tmp_path)
    measure(FUNCTIONS["exp"], 2**19, tmp_path)
    assert len(asked) == 1020
    again = Bins.read(tmp_path, "exp")
    np.testing.assert_array_equal(again.numbers, first.numbers)
    assert again.forms == first.forms


def drawn(seed: int) -> Bins:
    """Return made-up measurements of a function with errors of all three kinds."""
    rng = np.random.default_rng(seed)
    starts = np.array(
        [kernel_tables._start(number) if kernel_tables.is_finite(number) else 1.0 for number in range(BINS)]
    )
    value = np.exp(np.clip(starts, None, 80))
    errors = rng.random(BINS) * (10.0 ** -rng.uniform(6, 9) + 1e-7 * starts + 1e-7 * value * rng.integers(0, 2))
    numbers = np.zeros((1, BINS, 10))
    numbers[0, :, :3] = np.stack([errors, errors / np.maximum(starts, 1e-40), errors / value], axis=1)
    return Bins("f", ["one"], numbers, value, np.ones(BINS, np.int64))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_bound_covers_what_it_was_fitted_to(seed: int) -> None:
    bins = drawn(seed)
    fit = fitted(bins)
    assert beyond(bins, fit) == []
    assert beyond(bins, replace(fit, absolute=fit.absolute / 2, relative=0.0, of_value=0.0)) != []


@given(st.floats(1e-40, 1e30))
def test_bounds_are_rounded_upward_to_three_digits(value: float) -> None:
    assert value <= rounded_up(value) <= value * 1.02
    assert len(f"{rounded_up(value):e}".partition("e")[0].rstrip("0").replace(".", "")) <= 3


def test_where_no_bound_holds_none_is_claimed() -> None:
    bins = drawn(0)
    number = next(n for n in range(BINS // 2) if kernel_tables._start(n) == 2.0**100)
    bins.numbers[0, number, :3] = np.inf
    assert fitted(bins).within == 2.0**100


def test_the_committed_files_are_made_of_the_committed_figures() -> None:
    figures, report, table = (path.read_text(encoding="utf-8") for path in FILES)
    told = json.loads(figures)
    assert table_of(told) == table
    assert report_of(told) == report
    assert set(MEASURED) == set(FUNCTIONS)
    assert all(one["every"] for one in told["functions"].values())
