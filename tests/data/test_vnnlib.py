"""VNN-LIB: the boxes and alternatives say what the formulas say; hostile files end in one clear sentence, soon."""

from __future__ import annotations

import contextlib
import gzip
import os
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.data import vnnlib
from idl_audit.data.vnnlib import OutputRow, Property, parse_vnnlib, read_vnnlib
from idl_audit.values.errors import DataError

BOUNDS = "(assert (>= X_0 -1)) (assert (<= X_0 1)) (assert (>= X_1 0.1)) (assert (<= X_1 0.25))"


def declared(n_inputs: int = 2, n_outputs: int = 2) -> str:
    names = [*(f"X_{i}" for i in range(n_inputs)), *(f"Y_{j}" for j in range(n_outputs))]
    return "\n".join(f"(declare-const {name} Real)" for name in names)


def parsed(*assertions: str, bounds: str = BOUNDS, n_outputs: int = 2) -> Property:
    return parse_vnnlib(f"{declared(2, n_outputs)}\n{bounds}\n" + "\n".join(f"(assert {a})" for a in assertions))


def row(offset: str | int, *coefficients: int | str) -> OutputRow:
    """Return the row with these coefficients of Y_0, Y_1, ..."""
    return OutputRow(tuple((j, Fraction(c)) for j, c in enumerate(coefficients) if Fraction(c)), Fraction(offset))


# ---- what is read ----------------------------------------------------------------------------------------------------


def test_numbers_are_exact() -> None:
    (box,) = parsed("(<= Y_0 3.991125645861615)").boxes
    assert box.lo == (-1, Fraction(1, 10))
    assert box.hi == (1, Fraction(1, 4))
    assert box.alternatives == ((row("-3.991125645861615", 1),),)


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("(<= Y_0 Y_1)", row(0, 1, -1)),
        ("(>= Y_0 Y_1)", row(0, -1, 1)),
        ("(>= Y_0 -0.0)", row(0, -1)),
        ("(<= 3 Y_1)", row(3, 0, -1)),
        ("(<= (+ Y_0 Y_1) 1e-2)", row("-0.01", 1, 1)),
        ("(<= (* 0.5 Y_0) (- Y_1 1))", row(1, "0.5", -1)),
        ("(<= (* Y_0 (- 2)) (/ 1 4))", row("-0.25", -2)),
        ("(<= (- (+ Y_0 Y_0 1) (* 2 (+ Y_1 3)) 4) 0)", row(-9, 2, -2)),
        ("(<= (/ Y_0 4) .5)", row("-0.5", "0.25")),
        ("(and (and (<= Y_0 Y_1)))", row(0, 1, -1)),
    ],
)
def test_linear_constraints_become_rows(formula: str, expected: OutputRow) -> None:
    (box,) = parsed(formula).boxes
    assert box.alternatives == ((expected,),)


def test_an_equation_is_two_rows() -> None:
    (box,) = parsed("(= Y_0 2)").boxes
    assert box.alternatives == ((row(-2, 1), row(2, -1)),)


def test_assertions_on_outputs_are_one_alternative() -> None:
    (box,) = parsed("(<= Y_0 1)", "(>= Y_1 2)").boxes
    assert box.alternatives == ((row(-1, 1), row(2, 0, -1)),)


def test_an_or_over_outputs_gives_alternatives_of_one_box() -> None:
    (box,) = parsed("(or (and (<= Y_0 Y_1)) (and (<= Y_0 1) (<= Y_1 1)))").boxes
    assert box.alternatives == ((row(0, 1, -1),), (row(-1, 1), row(-1, 0, 1)))


def test_an_or_over_inputs_gives_boxes_with_the_same_alternatives() -> None:
    """As in ACAS Xu's property 6."""
    found = parsed("(or (and (<= X_0 0)) (and (>= X_0 0.5) (<= X_1 0.2)))", "(or (<= Y_0 1) (<= Y_1 1))")
    first, second = found.boxes
    assert (first.lo, first.hi) == ((-1, Fraction("0.1")), (0, Fraction("0.25")))
    assert (second.lo, second.hi) == ((Fraction("0.5"), Fraction("0.1")), (1, Fraction("0.2")))
    assert first.alternatives == second.alternatives == ((row(-1, 1),), (row(-1, 0, 1),))


def test_mixed_constraints_keep_inputs_and_outputs_together() -> None:
    """As in nn4sys: each case has its own box and its own outputs."""
    bounds = "(assert (or (and (>= X_0 0) (<= X_0 1) (>= X_1 0) (<= X_1 1) (<= Y_0 1))\
      (and (>= X_0 2) (<= X_0 3) (>= X_1 2) (<= X_1 3) (>= Y_0 5))))"
    first, second = parsed(bounds=bounds).boxes
    assert (first.lo, first.hi, first.alternatives) == ((0, 0), (1, 1), ((row(-1, 1),),))
    assert (second.lo, second.hi, second.alternatives) == ((2, 2), (3, 3), ((row(5, -1),),))


def test_contradictory_cases_are_left_out() -> None:
    found = parsed("(or (and (>= X_0 5) (<= Y_0 1)) (<= Y_0 2) (and (<= 2 1) (<= Y_0 3)))")
    (box,) = found.boxes
    assert box.alternatives == ((row(-2, 1),),)


def test_the_tighter_of_two_bounds_holds() -> None:
    (box,) = parsed("(<= X_0 0.5)", "(<= X_0 0.75)", "(<= (* -2 X_1) -0.3)", "(<= Y_0 1)").boxes
    assert box.hi[0] == Fraction(1, 2)
    assert box.lo[1] == Fraction("0.15")


def test_comments_and_questions_to_solvers_are_skipped() -> None:
    text = f"; (assert\n(set-logic QF_LRA){declared()};x\n{BOUNDS}(assert(<= Y_0 1)); )\n(check-sat)(get-model)(exit)"
    assert len(parse_vnnlib(text).boxes) == 1


def test_a_version_line_of_version_1_says_nothing_new() -> None:
    text = "(vnnlib-version <1.0>)" + declared() + BOUNDS + "(assert (<= Y_0 1))"
    assert parse_vnnlib(text).boxes == parse_vnnlib(text.partition(")")[2]).boxes


def test_functions_without_arguments_are_constants() -> None:
    text = "(declare-fun X_0 () Real)(declare-fun Y_0 () Real)(assert (= X_0 1))(assert (<= Y_0 1))"
    found = parse_vnnlib(text)
    assert (found.n_inputs, found.n_outputs) == (1, 1)
    assert found.boxes[0].lo == found.boxes[0].hi == (1,)


# ---- a law: the disjunctive form has the meaning of the formula ------------------------------------------------------

numbers = st.integers(-3, 3)
literals = st.tuples(
    st.sampled_from(["<=", ">=", "="]), st.sampled_from(["X_0", "X_1", "Y_0", "Y_1"]), numbers
) | st.tuples(st.sampled_from(["<=", ">="]), st.just("Y_0"), st.just("Y_1"))
formulas = st.recursive(
    literals,
    lambda inner: st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=3)),
    max_leaves=12,
)


def written(formula: Any) -> str:
    if isinstance(formula[1], list):
        return f"({formula[0]} {' '.join(map(written, formula[1]))})"
    return f"({formula[0]} {formula[1]} {formula[2]})"


def holds(formula: Any, at: dict[str, int]) -> bool:
    name = formula[0]
    if isinstance(formula[1], list):
        return (all if name == "and" else any)(holds(part, at) for part in formula[1])
    left, right = (at.get(part, part) for part in formula[1:])
    return bool(left <= right if name == "<=" else left >= right if name == ">=" else left == right)


def is_counterexample(found: Property, x: tuple[int, int], y: tuple[int, int]) -> bool:
    return any(
        all(lo <= value <= hi for lo, value, hi in zip(box.lo, x, box.hi, strict=True))
        and any(
            all(sum(c * y[j] for j, c in own.coefficients) + own.offset <= 0 for own in alternative)
            for alternative in box.alternatives
        )
        for box in found.boxes
    )


def parsed_or_none(text: str) -> Property | None:
    """Return the property, or None where nothing can satisfy it."""
    try:
        return parse_vnnlib(text)
    except DataError as refusal:
        if "nothing can satisfy it" not in str(refusal):
            raise
        return None


@settings(max_examples=60)
@given(st.lists(formulas, min_size=1, max_size=3), st.lists(st.tuples(*[numbers] * 4), min_size=20, max_size=20))
def test_the_disjunctive_form_means_what_the_formulas_say(given_: list[Any], points: list[tuple[int, ...]]) -> None:
    bounds = "".join(f"(assert (>= X_{i} -2))(assert (<= X_{i} 2))" for i in range(2))
    asked = [("<=", "Y_0", 3), *given_]  # so that no alternative is without outputs
    text = declared() + bounds + "".join(f"(assert {written(f)})" for f in asked)
    found = parsed_or_none(text)
    for x0, x1, y0, y1 in points:
        at = {"X_0": x0, "X_1": x1, "Y_0": y0, "Y_1": y1}
        expected = max(abs(x0), abs(x1)) <= 2 and all(holds(f, at) for f in asked)
        assert expected == (found is not None and is_counterexample(found, (x0, x1), (y0, y1)))


# ---- what is refused -------------------------------------------------------------------------------------------------

DEEP = "(" * 100_000
HOSTILE = {
    "nothing": ("", "declares no input"),
    "comment": ("; only", "declares no input"),
    "prose": ("hello", "line 1", "'hello'"),
    "html": ("<html>", "'('"),
    "stray": (declared() + "\n)", "line 5", "')'"),
    "unfinished": (declared() + "\n(assert (<= X_0 1)", "line 5", "truncated"),
    "empty parentheses": ("()", "empty parentheses"),
    "nested empty": ("(assert ())", "empty parentheses"),
    "deep": (f"(assert {DEEP}", "deeper than 50"),
    "deep formula": (declared() + "(assert " + "(and " * 200 + "(<= X_0 1)" + ")" * 200 + ")", "deeper than 50"),
    "quoted": ("(declare-const |X_0| Real)", "quoted name"),
    "command": ("(declare-network N)", "'declare-network'", "declare-const"),
    "version 2": ("(vnnlib-version <2.0>)\n(declare-network f)", "line 1", "VNN-LIB 2.0", "VNN-LIB 1 is expected"),
    "version 2 below comments": ("; a\n;b\n\n(vnnlib-version <2.1>)", "line 4", "VNN-LIB 2.1"),
    "version 2 without brackets": ("( vnnlib-version 2.0 )", "VNN-LIB 2.0"),
    "version 2 in quotes": ('(vnnlib-version "2.0")', "VNN-LIB 2.0"),
    "version 3": ("(vnnlib-version <3.0.1>)", "VNN-LIB 3.0.1"),
    "no version": ("(vnnlib-version)", "VNN-LIB of another version"),
    "network": ("(declare-network f (declare-input X Real [1,2]))", "'declare-network'", "VNN-LIB 2.0"),
    "hidden": ('(declare-network f (declare-hidden H real [1] "a b"))', "VNN-LIB 2.0"),
    "scalar": ("(declare-network f (declare-input X real []) ())", "VNN-LIB 2.0"),
    "input": ("(declare-input X Real [1,2])", "'declare-input'", "VNN-LIB 2.0"),
    "output": ("(declare-output Y Real [1,2])", "'declare-output'", "VNN-LIB 2.0"),
    "brackets": (declared() + "(assert (<= X[0,0] 1))", "'X[0,0]'", "VNN-LIB 2"),
    "list as command": ("((assert))", "no command"),
    "kind": ("(declare-const X_0 Int)", "no real number"),
    "name": ("(declare-const Z_0 Real)", "X_0"),
    "leading zero": ("(declare-const X_01 Real)", "X_0"),
    "index": ("(declare-const X_99999999999999999999 Real)", "names no variable"),
    "large index": ("(declare-const X_1000000 Real)", "names no variable"),
    "gap": ("(declare-const X_5 Real)(declare-const Y_0 Real)", "X_5 but not X_0"),
    "twice": ("(declare-const X_0 Real)(declare-const X_0 Real)", "twice"),
    "no outputs": ("(declare-const X_0 Real)", "no output"),
    "undeclared": (declared() + "(assert (<= X_7 1))", "'X_7'", "not declared"),
    "no formula": (declared() + "(assert)", "one formula"),
    "word": (declared() + "(assert true)", "'true'"),
    "not": (declared() + "(assert (not (<= X_0 1)))", "no formula"),
    "strict": (declared() + "(assert (< X_0 1))", "<=, >=, =, and, or"),
    "three sides": (declared() + "(assert (<= 0 X_0 1))", "two expressions"),
    "empty or": (declared() + "(assert (or))", "'or' stands without"),
    "product": (declared() + "(assert (<= (* Y_0 Y_1) 1))", "multiplies variables"),
    "division": (declared() + "(assert (<= (/ 1 Y_0) 1))", "divides"),
    "zero": (declared() + "(assert (<= (/ Y_0 0) 1))", "divides"),
    "function": (declared() + "(assert (<= (sin Y_0) 1))", "no linear expression"),
    "lonely plus": (declared() + "(assert (<= (+) 1))", "no linear expression"),
    "two inputs": (declared() + "(assert (<= X_0 X_1))", "single inputs"),
    "input and output": (declared() + "(assert (<= X_0 Y_1))", "single inputs"),
    "nan": (declared() + "(assert (<= X_0 nan))", "'nan'"),
    "infinity": (declared() + "(assert (<= X_0 1e999))", "float64"),
    "tiny": (declared() + "(assert (<= X_0 1e-320))", "float64"),
    "long exponent": (declared() + "(assert (<= X_0 1e99999999999))", "no number"),
    "long number": (declared() + f"(assert (<= X_0 {'1' * 10_000_000}))", "100 characters"),
    "not a number": (declared() + f"(assert (<= X_0 {'1' * 90}x))", "no number"),
    "unicode digits": (declared() + "(assert (<= X_0 \u0661))", "no number"),
    "large product": (declared() + f"(assert (<= (* {'9e299 ' * 100} Y_0) 1))", "too many digits"),
    "computed bound": (declared() + "(assert (<= (* 1e-200 X_0) 1e200))", "computed bound"),
    "no lower": (declared() + "(assert (<= X_0 1))(assert (<= Y_0 1))", "X_0 has no lower bound"),
    "no upper": (declared() + "(assert (>= X_0 1))(assert (<= Y_0 1))", "bound"),
    "no question": (declared() + BOUNDS, "says nothing about the outputs"),
    "half a question": (declared() + BOUNDS + "(assert (or (<= Y_0 1) (<= X_0 0)))", "says nothing about the outputs"),
    "empty box": (declared() + BOUNDS + "(assert (>= X_0 2))(assert (<= Y_0 1))", "X_0", "at least 2", "at most 1"),
    "false": (declared() + BOUNDS + "(assert (<= 1 0))(assert (<= Y_0 1))", "contradict"),
    "many cases": (
        declared() + BOUNDS + "".join(f"(assert (or (<= Y_0 {i}) (<= Y_1 {i})))" for i in range(64)),
        "10,000 cases",
    ),
    "nested cases": (
        declared() + "(assert (and " + "".join(f"(or (<= Y_0 {i}) (<= Y_1 {i}))" for i in range(64)) + "))",
        "10,000 cases",
    ),
    "one long or": (declared() + f"(assert (or {'(<= Y_0 1)' * 10_001}))", "10,000 cases"),
    "one long command": ("(assert " + "(a)" * 30_000 + ")", "words"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_wrong_is_said_in_one_sentence_and_soon(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, *words = HOSTILE[name]
    if name == "one long command":
        monkeypatch.setattr(vnnlib, "MAX_TOKENS", 2**16)
    start = time.monotonic()
    with pytest.raises(DataError) as caught:
        parse_vnnlib(text, source="p.vnnlib")
    assert time.monotonic() - start < 10
    message = str(caught.value)
    assert message.startswith("p.vnnlib: ")
    assert len(message) < 400
    assert "\n" not in message
    for word in words:
        assert word in message


@settings(max_examples=300)
@given(st.text(alphabet="()<=>+-*/;XY_01 .e\n|andorsetclr", max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(DataError):
        parse_vnnlib(declared() + BOUNDS + text)


# ---- files -----------------------------------------------------------------------------------------------------------

GOOD = f"{declared()}\n{BOUNDS}\n(assert (<= Y_0 1))\n"


@pytest.mark.parametrize("name", ["p.vnnlib", "p.vnnlib.gz"])
@pytest.mark.parametrize("zipped", [False, True])
def test_gzip_is_told_by_content(tmp_path: Path, name: str, zipped: bool) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(GOOD.encode()) if zipped else GOOD.encode())
    assert read_vnnlib(path).boxes == parse_vnnlib(GOOD).boxes


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (gzip.compress(GOOD.encode())[:-12], "cannot be read"),
        (b"\x1f\x8b" + b"junk" * 20, "cannot be read"),
        (gzip.compress(b"\xff\xfe\xfd"), "UTF-8"),
        (b"\x00\x01" * 50, "text"),
        (b"", "declares no input"),
    ],
    ids=["truncated", "junk", "no text", "binary", "empty"],
)
def test_a_broken_file_is_refused_by_name(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "p.vnnlib.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=word) as caught:
        read_vnnlib(path)
    assert str(path) in str(caught.value)


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vnnlib, "MAX_BYTES", 2**20)
    path = tmp_path / "bomb.vnnlib.gz"
    path.write_bytes(gzip.compress(b" " * (2**20 + 1)))
    assert path.stat().st_size < 10_000
    with pytest.raises(DataError, match="more than 1 MB"):
        read_vnnlib(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_vnnlib(tmp_path / "missing.vnnlib")
    with pytest.raises(DataError, match="not a regular file"):
        read_vnnlib(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="not a regular file"):
        read_vnnlib(tmp_path / "pipe")


@pytest.mark.slow
@pytest.mark.skipif("IDL_AUDIT_DATA" not in os.environ, reason="needs the environment variable IDL_AUDIT_DATA")
def test_all_public_properties_are_read() -> None:
    paths = sorted(Path(os.environ["IDL_AUDIT_DATA"]).glob("vnncomp/*/*.vnnlib.gz"))
    assert paths
    for path in paths:
        found = read_vnnlib(path)
        assert all(len(box.lo) == found.n_inputs for box in found.boxes)
