"""VNN-LIB 2 queries in disjunctive normal form: numbers of each type, bounds, ties, what follows from comparisons."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idl_audit.data.vnnlib import MAX_CASES
from idl_audit.data.vnnlib2.arithmetic import ARITHMETICS
from idl_audit.data.vnnlib2.evaluation import evaluated, holds
from idl_audit.data.vnnlib2.normal_form import NormalForm, normal_form
from idl_audit.data.vnnlib2.reader import is_version_2, parse_specification
from idl_audit.data.vnnlib2.terms import Entry, polynomial_of
from idl_audit.values.errors import DataError

FLOAT = ARITHMETICS["float32"]
MOST = Fraction(float(np.finfo(np.float32).max))


def query(*assertions: str, element: str = "float32", size: int = 2) -> str:
    body = "".join(f"(assert {one})" for one in assertions)
    return (
        f"(vnnlib-version <2.0>)(declare-network N (declare-input X {element} [{size}])"
        f"(declare-output Y {element} [{size}])){body}"
    )


def form(*assertions: str, element: str = "float32", size: int = 2) -> NormalForm:
    return normal_form(parse_specification(query(*assertions, element=element, size=size)))


def f32(text: str) -> Fraction:
    return Fraction(float(np.float32(text)))


# --- numbers ----------------------------------------------------------------------------------------------------------


NEXT_TO_MOST = float(np.nextafter(np.finfo(np.float32).max, np.float32(0)))
"""The largest float whose distance to the next one numpy tells."""


@given(st.floats(-NEXT_TO_MOST, NEXT_TO_MOST, width=32), st.integers(-3, 3), st.integers(1, 2**40))
def test_the_nearest_float_is_that_of_numpy_and_never_rounded_twice(value: float, shift: int, parts: int) -> None:
    exact = Fraction(value) + Fraction(shift, parts) * Fraction(float(np.spacing(np.float32(abs(value)))))
    found = FLOAT.nearest(exact)
    if found is None:
        assert abs(exact) > MOST
        return
    own = np.float32(float(found))
    with np.errstate(over="ignore"):  # beyond the largest
        near = [own, *(np.nextafter(own, np.float32(s)) for s in (-np.inf, np.inf))]
    distances = [abs(Fraction(float(one)) - exact) for one in near if np.isfinite(one)]
    assert distances[0] == min(distances)


def test_a_number_halfway_between_two_floats_is_the_even_one_however_near_float64_rounds_it() -> None:
    one, next_ = Fraction(1), Fraction(float(np.nextafter(np.float32(1), np.float32(2))))
    half = (one + next_) / 2
    assert FLOAT.nearest(half) == one
    assert FLOAT.nearest(half + Fraction(1, 2**80)) == next_  # float64 rounds this to the half itself


def test_constants_beyond_the_largest_float_are_refused() -> None:
    assert FLOAT.nearest(MOST + Fraction(1)) == MOST
    with pytest.raises(DataError, match="beyond the largest float32"):
        form(f"(<= X[0] {'9' * 40})")


def test_operations_on_constants_are_rounded_one_by_one() -> None:
    spec = parse_specification(query("(<= X[0] (+ 0.1 0.2))"))
    (comparison,) = spec.assertions
    assert evaluated(comparison.right, FLOAT, None) == np.float32(0.1) + np.float32(0.2)  # type: ignore[union-attr]
    (box,) = form("(<= X[0] (+ 0.1 0.2))").boxes
    assert box.hi[0] == Fraction(float(np.float32(0.1) + np.float32(0.2)))


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_strict_bounds_of_floats_are_the_next_number() -> None:
    (box,) = form("(and (> X[0] 1.0) (< X[0] 2.0))").boxes
    assert box.lo[0] == Fraction(float(np.nextafter(np.float32(1), np.float32(2))))
    assert box.hi[0] == Fraction(float(np.nextafter(np.float32(2), np.float32(1))))
    assert box.alternatives == ((),)


def test_strict_bounds_of_reals_stay_as_literals() -> None:
    (box,) = form("(and (> X[0] 1.0) (<= X[0] 2.0))", element="real").boxes
    assert (box.lo[0], box.hi[0]) == (1, 2)
    ((literal,),) = box.alternatives
    assert literal.strict


def test_no_float_is_below_the_least_one_and_a_point_is_no_open_interval() -> None:
    least = f"-{int(MOST)}"
    assert form(f"(< X[0] {least})").boxes == ()
    assert form("(and (> X[0] 1.0) (< X[0] 1.00000005))").boxes == ()
    assert len(form("(and (> X[0] 1.0) (< X[0] 1.00000005))", element="real").boxes) == 1


def test_inputs_without_bounds_range_over_all_of_their_type() -> None:
    (box,) = form("(<= X[0] 1.0)").boxes
    assert box.lo == (-MOST, -MOST)
    assert box.hi == (1, MOST)
    (box,) = form("(<= X[0] 1.0)", element="real").boxes
    assert box.lo == (None, None)
    assert box.hi == (1, None)


def test_not_equal_is_two_cases_and_equal_is_two_literals() -> None:
    assert len(form("(!= X[0] 1.0)").boxes) == 2
    (box,) = form("(!= Y[0] 1.0)").boxes
    assert len(box.alternatives) == 2
    assert all(literal.strict for case in box.alternatives for literal in case)
    (box,) = form("(== Y[0] Y[1])").boxes
    assert [len(case) for case in box.alternatives] == [2]


def test_cases_with_one_box_are_together_and_contradictions_go() -> None:
    found = form("(or (and (<= X[0] 0.0) (<= Y[0] 1.0)) (and (<= X[0] 0.0) (<= Y[1] 1.0)))")
    assert [len(box.alternatives) for box in found.boxes] == [2]
    assert form("(<= X[0] 0.0)", "(or (>= X[0] 1.0) (>= X[0] 2.0))").boxes == ()
    assert form("(<= 1.0 X[0])", "(< X[0] X[0])").boxes == ()


def test_too_many_cases_are_refused() -> None:
    several = [f"(or (<= Y[0] {k}.0) (<= Y[1] {k}.0))" for k in range(20)]
    with pytest.raises(DataError, match=f"more than {MAX_CASES:,} cases"):
        form(*several)


# --- ties, and what follows -------------------------------------------------------------------------------------------


def test_inputs_that_are_stated_to_be_equal_are_one_column() -> None:
    found = form("(== X[0] X[1])", "(<= X[1] 1.0)")
    assert found.columns.count == 1
    assert found.boxes[0].hi == (1,)
    assert form("(or (== X[0] X[1]) (<= Y[0] 1.0))").columns.count == 2


def test_bounds_follow_from_comparisons_of_inputs() -> None:
    (box,) = form("(and (<= X[0] X[1]) (<= X[1] 2.0) (>= X[0] 1.0))").boxes
    assert (box.lo, box.hi) == ((1, 1), (2, 2))
    (box,) = form("(and (<= (+ X[0] X[1]) 1.0) (>= X[0] 0.0) (>= X[1] 0.25))", element="real").boxes
    assert box.hi == (Fraction(3, 4), 1)


def test_what_follows_pays_for_the_rounding_of_floats() -> None:
    """fl(x + 1) <= 4 holds for x a little above 3."""
    (box,) = form("(and (>= X[0] 0.0) (<= X[0] 8.0) (<= (+ X[0] 1.0) 4.0))").boxes
    above = np.nextafter(np.float32(3), np.float32(4))
    assert np.float32(above) + np.float32(1) <= np.float32(4)
    assert box.hi[0] is not None
    assert float(above) <= float(box.hi[0]) < 3.001


@given(st.integers(0, 10**6), st.sampled_from(["float32", "real"]))
def test_no_assignment_is_lost(seed: int, element: str) -> None:
    """Whatever satisfies the query lies in a box, and satisfies all literals of one of its alternatives."""
    rng = np.random.default_rng(seed)
    text = query(*(_formula(rng, 2) for _ in range(2)), element=element)
    spec = parse_specification(text)
    found = normal_form(spec)
    for _ in range(10):
        point = {(name, k): rng.choice([rng.integers(-3, 4), rng.normal()]) for name in "XY" for k in range(2)}
        read = {
            entry: Fraction(float(value)) if element == "real" else np.float32(value) for entry, value in point.items()
        }
        if holds(spec, read.__getitem__):
            assert any(_inside(box, found, read) for box in found.boxes)


def _inside(box: object, found: NormalForm, read: dict[Entry, object]) -> bool:
    for entry, column in found.columns.numbers.items():
        value = Fraction(float(read[entry]))  # type: ignore[arg-type]
        lo, hi = box.lo[column], box.hi[column]  # type: ignore[attr-defined]
        if (lo is not None and value < lo) or (hi is not None and value > hi):
            return False
    for case in box.alternatives:  # type: ignore[attr-defined]
        sides = [[evaluated(side, one.arithmetic, read.__getitem__) for side in (one.left, one.right)] for one in case]
        if all(a < b if one.strict else a <= b for one, (a, b) in zip(case, sides, strict=True)):
            return True
    return False


def _formula(rng: np.random.Generator, depth: int) -> str:
    if depth and rng.random() < 0.6:
        parts = " ".join(_formula(rng, depth - 1) for _ in range(2))
        return f"({rng.choice(['and', 'or'])} {parts})"
    sense = rng.choice(["<=", ">=", "<", ">", "==", "!="])
    return f"({sense} {_term(rng, 2)} {rng.choice([_term(rng, 1), f'{rng.integers(-3, 4)}.5'])})"


def _term(rng: np.random.Generator, depth: int) -> str:
    entry = f"{rng.choice(['X', 'X', 'Y'])}[{rng.integers(2)}]"
    if not depth or rng.random() < 0.5:
        return entry
    other = rng.choice([_term(rng, depth - 1), f"{rng.integers(-3, 4)}.0"])
    return f"({rng.choice(['+', '-', '*'])} {entry} {other})"


def test_polynomials_are_multiplied_out_exactly() -> None:
    spec = parse_specification(query("(<= (* (+ X[0] 1.0) (- X[0] 1.0)) 0.0)", element="real"))
    (comparison,) = spec.assertions
    found = polynomial_of(comparison.left, ARITHMETICS["real"])  # type: ignore[union-attr]
    assert found == {(("X", 0), ("X", 0)): 1, (): -1}


def test_the_version_tells_the_format(tmp_path: object) -> None:
    path = tmp_path / "p.vnnlib"  # type: ignore[operator]
    for text, answer in (
        ("; a comment\n(vnnlib-version <2.0>)", True),
        ("(vnnlib-version <1.0>)", False),
        ("(declare-const X_0 Real)", False),
    ):
        path.write_text(text)
        assert is_version_2(path) is answer
    assert not is_version_2(path.parent / "nothing")
