"""Numbers, lists and radii as users type them."""

import contextlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idl_audit.data.numbers import (
    Eps,
    check_eps_units,
    parse_bounds,
    parse_eps,
    parse_number,
    parse_number_list,
)
from idl_audit.values.errors import OptionError


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_parse_number_inverts_repr(value):
    assert parse_number(repr(value), option="--x") == value


@given(st.integers(-(10**15), 10**15), st.integers(1, 10**15))
def test_fractions_are_rounded_once(over, under):
    assert parse_number(f"{over}/{under}", option="--x") == over / under


@given(st.lists(st.floats(-1e6, 1e6), min_size=1))
def test_lists_keep_their_order(values):
    assert parse_number_list(", ".join(map(repr, values))) == tuple(values)


def test_bounds():
    assert parse_bounds("0,1") == (0.0, 1.0)
    assert parse_bounds("-1 , 255/255") == (-1.0, 1.0)


# ---- eps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "radii"),
    [
        ("8/255", [(8 / 255, "8/255")]),
        (" 0.03 ", [(0.03, "0.03")]),
        ("3e-2", [(0.03, "3e-2")]),
        ("1/255,2/255", [(1 / 255, "1/255"), (2 / 255, "2/255")]),
        ("2/255,1/255", [(2 / 255, "2/255"), (1 / 255, "1/255")]),
        ("0:8/255:9", [(k / 255, f"{k}/255") for k in range(1, 9)]),
        ("1/255:2/255:3", [(1 / 255, "0.00392"), (1.5 / 255, "0.00588"), (2 / 255, "0.00784")]),
        ("0:0.1:3", [(0.05, "0.05"), (0.1, "0.1")]),
        ("0.1:0.2:2,8/255", [(0.1, "0.1"), (0.2, "0.2"), (8 / 255, "8/255")]),
        ("0.1:0.1001:3", [(0.1, "0.1"), (0.10005, "0.10005"), (0.1001, "0.1001")]),
    ],
)
def test_eps(text, radii):
    assert parse_eps(text) == tuple(Eps(value, name) for value, name in radii)


@given(st.integers(0, 200), st.integers(1, 200), st.integers(2, 50))
def test_ranges_are_linspace_without_a_start_of_zero(start, length, count):
    radii = parse_eps(f"{start}/255:{start + length}/255:{count}")
    expected = np.linspace(start / 255, (start + length) / 255, count)
    values = [eps.value for eps in radii]
    np.testing.assert_allclose(values, expected[expected > 0], rtol=1e-12)
    assert values == sorted(set(values))
    assert values[-1] == (start + length) / 255
    assert len({eps.text for eps in radii}) == len(radii)


@given(st.integers(1, 100), st.integers(2, 30))
def test_the_text_of_a_grey_level_means_the_value_exactly(stop, count):
    for eps in parse_eps(f"0:{stop}/255:{count}"):
        assert parse_number(eps.text, option="--eps") == pytest.approx(eps.value, rel=5e-3)
        if "/" in eps.text:
            assert eps.value == float(Fraction(eps.text))


@given(st.text(st.sampled_from("0123456789.,:/e+- "), max_size=20))
def test_whatever_is_typed_gives_positive_radii_or_a_sentence(text):
    with contextlib.suppress(OptionError):
        radii = parse_eps(text)
        assert radii
        assert all(0 < eps.value < float("inf") for eps in radii)


NUMBER = "where a number such as 0.03 or 8/255 is expected"
REFUSED = {
    "": f"--eps has '' {NUMBER}",
    "eight": f"--eps has 'eight' {NUMBER}",
    "nan": f"--eps has 'nan' {NUMBER}",
    "inf": f"--eps has 'inf' {NUMBER}",
    "1_0": f"--eps has '1_0' {NUMBER}",
    "٣": f"--eps has '٣' {NUMBER}",
    "1/2/3": f"--eps has '1/2/3' {NUMBER}",
    "1,": f"--eps has '' {NUMBER}",
    "1e9999": f"--eps has '1e9999' {NUMBER}",
    "9" * 100: f"--eps has '{'9' * 64}...' {NUMBER}",
    "1/0": "--eps divides by zero in '1/0'; write a number such as 0.03 or 8/255",
    "1e999": "--eps is out of range with '1e999'; give a number below 1e308",
    "1e-999": "--eps is out of range with '1e-999'; give 0 or a number above 1e-300 in size",
    "0": "--eps must be above zero, not '0'; write for example 8/255 or 0.03",
    "-0.1": "--eps must be above zero, not '-0.1'; write for example 8/255 or 0.03",
    "0.1,0": "--eps must be above zero, not '0'; write for example 8/255 or 0.03",
    "0.1,1/10": "--eps has 1/10 twice in '0.1,1/10'; give every radius once",
    "0:1": "--eps has the range '0:1'; write start:stop:count, for example 0:8/255:9",
    "0:1:2:3": "--eps has the range '0:1:2:3'; write start:stop:count, for example 0:8/255:9",
    "0:1:1": "--eps has '1' points in the range '0:1:1'; give a count from 2 to 1000",
    "0:1:1e9": "--eps has '1e9' points in the range '0:1:1e9'; give a count from 2 to 1000",
    "0:1:99999": "--eps has '99999' points in the range '0:1:99999'; give a count from 2 to 1000",
    "-1:1:3": "--eps has the range '-1:1:3'; its start must be 0 or more, and its stop above that",
    "1:1:3": "--eps has the range '1:1:3'; its start must be 0 or more, and its stop above that",
}


@pytest.mark.parametrize(("text", "message"), REFUSED.items())
def test_eps_is_refused_in_one_sentence(text, message):
    with pytest.raises(OptionError) as caught:
        parse_eps(text)
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["8", "1", "8.0", "0.1,8", "0:8:9"])
def test_bare_radii_on_unit_data_are_refused_with_the_hint(text):
    with pytest.raises(OptionError, match=r"covers the whole range of data within \[0, 1\]; .* so write .*/255 for"):
        check_eps_units(parse_eps(text), 0.0, 1.0)


def test_the_hint_repeats_what_was_typed():
    with pytest.raises(OptionError) as caught:
        check_eps_units(parse_eps("8"), 0.1, 0.9)
    assert str(caught.value) == (
        "--eps 8 covers the whole range of data within [0, 1]; eps is in data units, "
        "so write 8/255 for 8 of 255 grey levels"
    )


@pytest.mark.parametrize(
    ("text", "lo", "hi"),
    [("8", 0.0, 255.0), ("8", -1.0, 1.0), ("8/255", 0.0, 1.0), ("0.99", 0.0, 1.0), ("255/255", 0, 1)],
)
def test_other_radii_pass(text, lo, hi):
    check_eps_units(parse_eps(text), lo, hi)


def test_the_width_of_the_valid_range_is_meant():
    check_eps_units(parse_eps("1"), 0.0, 1.0, (0.0, 1.0))
    check_eps_units(parse_eps("0.5,1.0"), 0.0, 1.0, (0.0, 1.0))
    check_eps_units(parse_eps("2"), 0.0, 1.0, (-1.0, 1.0))
    for text, valid in (("8", (0.0, 1.0)), ("1", (0.0, 255.0)), ("1", None), ("1", (-1.0, 1.0))):
        with pytest.raises(OptionError, match="covers the whole range"):
            check_eps_units(parse_eps(text), 0.0, 1.0, valid)
