"""VNN-LIB 2: every production of the grammar, every rule of the standard, and files that mean harm."""

from __future__ import annotations

import contextlib
import gc
import gzip
import os
import random
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.data.vnnlib2 import reader
from idl_audit.data.vnnlib2.reader import parse_specification, read_specification
from idl_audit.data.vnnlib2.syntax import (
    NOWHERE,
    Access,
    Comparison,
    Constant,
    Formula,
    Junction,
    Operation,
    Place,
    Specification,
    Term,
    Variable,
)
from idl_audit.data.vnnlib2.types import ELEMENT_TYPES
from idl_audit.data.vnnlib2.writer import constant, decimal, whole_multiple, written
from idl_audit.values.errors import DataError
from tests.shared.vnnlib2_queries import specifications

VERSION = "(vnnlib-version <2.0>)"
INPUT, OUTPUT = "(declare-input X float32 [2,3])", "(declare-output Y float32 [])"
NETWORK = f"(declare-network N {INPUT} {OUTPUT})"
HEAD = f"{VERSION}\n{NETWORK}\n"
GOOD = f"{HEAD}(assert (<= Y 1.0))\n"


def network(body: str, version: str = "2.0", assertion: str = "(== Y Y)") -> str:
    """Return a file with one network."""
    return f"(vnnlib-version <{version}>)(declare-network N {body})(assert {assertion})"


def two(relation: str, *, own: str = "", first: str = "") -> str:
    """Return a file with two networks, the second of which has a relation and further or other declarations."""
    first = first or f"{INPUT} {OUTPUT}"
    own = own or "(declare-input A float32 [2,3]) (declare-output B float32 [])"
    return f"{VERSION}(declare-network N {first})(declare-network M {relation} {own})(assert (== B B))"


def number(text: str) -> Constant:
    return Constant(Fraction(text), text, NOWHERE)


def entry(variable: str, *index: int, flat: int = 0) -> Access:
    return Access(variable, index, flat, NOWHERE)


Y, X = entry("Y"), entry("X", 1, 2, flat=5)


# ---- what is read ----------------------------------------------------------------------------------------------------

FORMULAS: dict[str, Formula] = {
    "(<= Y 1.0)": Comparison("<=", Y, number("1.0"), NOWHERE),
    "(>= Y -1.50)": Comparison(">=", Y, number("-1.50"), NOWHERE),
    "(< 1 Y)": Comparison("<", number("1"), Y, NOWHERE),
    "(> Y 007.0)": Comparison(">", Y, number("007.0"), NOWHERE),
    "(== Y X[1,2])": Comparison("==", Y, X, NOWHERE),
    "(!= X[1,2] Y)": Comparison("!=", X, Y, NOWHERE),
    "(<=Y-1.0)": Comparison("<=", Y, number("-1.0"), NOWHERE),
    "(<= X [ 1 , 02 ] Y)": Comparison("<=", X, Y, NOWHERE),
    "( ;one\n <= ;two\nX;three\n[;4\n1,;5\n2];6\n\tY\r\f)": Comparison("<=", X, Y, NOWHERE),
    "(and (<= Y Y))": Junction("and", (Comparison("<=", Y, Y, NOWHERE),), NOWHERE),
    "(or(< Y Y)(and(> Y Y)(> Y X[1,2])))": Junction(
        "or",
        (
            Comparison("<", Y, Y, NOWHERE),
            Junction("and", (Comparison(">", Y, Y, NOWHERE), Comparison(">", Y, X, NOWHERE)), NOWHERE),
        ),
        NOWHERE,
    ),
}

TERMS: dict[str, Term] = {
    "Y": Y,
    "(- Y)": Operation("-", (Y,), NOWHERE),
    "(-Y)": Operation("-", (Y,), NOWHERE),
    "(- 1.0 Y -2.0)": Operation("-", (number("1.0"), Y, number("-2.0")), NOWHERE),
    "(+ Y)": Operation("+", (Y,), NOWHERE),
    "(+1.0X[1,2])": Operation("+", (number("1.0"), X), NOWHERE),
    "(* X[1,2] Y 0.5)": Operation("*", (X, Y, number("0.5")), NOWHERE),
    "(* (+ 1.0 2.0) (- Y))": Operation(
        "*",
        (Operation("+", (number("1.0"), number("2.0")), NOWHERE), Operation("-", (Y,), NOWHERE)),
        NOWHERE,
    ),
}


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_are_as_they_are_written(text: str) -> None:
    assert parse_specification(f"{HEAD}(assert {text})").assertions == (FORMULAS[text],)


@pytest.mark.parametrize("text", TERMS)
def test_terms_are_as_they_are_written(text: str) -> None:
    (found,) = parse_specification(f"{HEAD}(assert (<= {text} X[1,2]))").assertions
    assert found == Comparison("<=", TERMS[text], X, NOWHERE)


def test_numbers_are_exact() -> None:
    digits = "0.1000000000000000055511151231257827021181583404541015625"
    (found,) = parse_specification(f"{HEAD}(assert (<= Y {digits}))").assertions
    assert isinstance(found, Comparison)
    assert isinstance(found.right, Constant)
    assert found.right.value == Fraction(0.1)
    assert found.right.text == digits


def test_every_entry_has_its_row_major_number() -> None:
    text = "".join(f"(assert (<= X[{i},{j}] Y))" for i in range(2) for j in range(3))
    found = parse_specification(HEAD + text).assertions
    assert [part.left.flat for part in found if isinstance(part, Comparison) and isinstance(part.left, Access)] == [
        *range(6)
    ]


def test_networks_keep_their_variables_in_order() -> None:
    text = network(
        '(declare-input X real [1,3])(declare-input Z real [])(declare-hidden H real [2] "a/b:0")'
        '(declare-hidden G real [1] "say \\"x\\\\y\\" \\n\\t;(")'
        "(declare-output Y real [2])(declare-output V real [4,1])",
        assertion="(< V[3,0] H[1])",
    )
    found = parse_specification(text)
    (only,) = found.networks
    assert [variable.name for variable in only.variables] == ["X", "Z", "H", "G", "Y", "V"]
    assert only.inputs == (Variable("X", "input", "real", (1, 3), NOWHERE), Variable("Z", "input", "real", (), NOWHERE))
    assert [variable.onnx_name for variable in only.hidden] == ["a/b:0", 'say "x\\y" \n\t;(']
    assert [variable.shape for variable in only.outputs] == [(2,), (4, 1)]
    assert found.is_real
    assert not parse_specification(GOOD).is_real


def test_relations_name_the_network_above() -> None:
    first, second = parse_specification(two("(equal-to N)")).networks
    assert (first.relation, second.relation, second.other) == (None, "equal-to", "N")
    _, second = parse_specification(two("(isomorphic-to N)")).networks
    assert (second.relation, second.other) == ("isomorphic-to", "N")


def test_isomorphic_networks_may_differ_in_types_and_in_hidden_tensors() -> None:
    own = '(declare-input A float64 [2,3])(declare-hidden K float16 [7] "h")(declare-output B int8 [])'
    first = f'{INPUT}(declare-hidden H float16 [6] "h"){OUTPUT}'
    assert len(parse_specification(two("(isomorphic-to N)", own=own, first=first)).networks) == 2


def test_equal_networks_may_name_other_hidden_tensors() -> None:
    own = '(declare-input A float32 [2,3])(declare-hidden K float16 [7] "k")(declare-output B float32 [])'
    first = f'{INPUT}(declare-hidden H float16 [6] "h"){OUTPUT}'
    assert len(parse_specification(two("(equal-to N)", own=own, first=first)).networks) == 2


def test_inputs_of_version_2_1_may_be_initialized() -> None:
    found = parse_specification(
        network(f"(declare-input X float32 [1] initialized)(declare-input Z int8 [2]){OUTPUT}", "2.1")
    )
    assert [variable.initialized for variable in found.networks[0].inputs] == [True, False]


@pytest.mark.parametrize("element", ELEMENT_TYPES)
def test_every_element_type_is_known(element: str) -> None:
    found = parse_specification(
        network(f"(declare-input X {element} [1]) (declare-output Y {element} [1])", assertion="(== X[0] Y[0])")
    )
    assert {variable.element for variable in found.variables} == {element}


@pytest.mark.parametrize(
    ("element", "accepted", "refused"),
    [
        ("int8", ("-128", "127", "0", "-0"), ("128", "-129", "0.5", "1.0")),
        ("uint8", ("0", "255"), ("-1", "256")),
        ("int4", ("-8", "7"), ("8",)),
        ("int64", (str(2**63 - 1),), (str(2**63),)),
        ("bool", ("0", "1"), ("2", "-1", "1.0")),
        ("string", (), ("0",)),
        ("float16", ("1", "1.0", "-0.5", "100000.0"), ()),
        ("real", ("1", "0.1"), ()),
        ("complex64", ("1.5",), ()),
    ],
)
def test_constants_take_the_type_of_the_variables(
    element: str, accepted: tuple[str, ...], refused: tuple[str, ...]
) -> None:
    text = network(
        f"(declare-input X {element} [1]) (declare-output Y {element} [1])", assertion="(== (+ X[0] {}) Y[0])"
    )
    for digits in accepted:
        parse_specification(text.replace("{}", digits))
    for digits in refused:
        with pytest.raises(DataError, match=f"'{digits}' is compared with {element}"):
            parse_specification(text.replace("{}", digits))


def test_names_are_what_the_grammar_allows() -> None:
    for name in ("float32", "real", "assert", "x9_", "L" * 2000, "initialized"):
        parse_specification(network(f"(declare-input {name} float32 [1]){OUTPUT}"))


def test_places_are_lines_and_columns() -> None:
    text = f"; a comment\n{VERSION}\n{NETWORK}\n\n  (assert (or\n\t(<= Y 1.0)\n    (>= (+ Y 2.0) X[0,0])))"
    found = parse_specification(text)
    assert found.networks[0].place == Place(3, 1)
    assert found.networks[0].inputs[0].place == Place(3, 20)
    (either,) = found.assertions
    assert isinstance(either, Junction)
    first, second = either.parts
    assert isinstance(first, Comparison)
    assert isinstance(second, Comparison)
    assert (either.place, first.place, second.place) == (Place(5, 11), Place(6, 2), Place(7, 5))
    assert (first.right.place, second.left.place, second.right.place) == (Place(6, 8), Place(7, 9), Place(7, 19))


# ---- round trips -----------------------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(specifications)
def test_what_is_written_is_read_again(specification: Specification) -> None:
    assert parse_specification(written(specification)) == specification


def test_what_is_written_has_every_part() -> None:
    text = (
        "(vnnlib-version <2.1>)\n\n(declare-network N\n  (declare-input X float32 [2,3] initialized)\n"
        '  (declare-hidden H float16 [1] "a \\"b\\"")\n  (declare-output Y float32 [])\n)\n\n(declare-network M\n'
        "  (equal-to N)\n  (declare-input A float32 [2,3])\n  (declare-output B float32 [])\n)\n\n"
        "(assert (or (<= Y 1.0) (and (> (- X[0,1]) (* 2.0 B)))))\n(assert (!= Y B))\n"
    )
    assert written(parse_specification(text)) == text


@given(st.fractions() | st.floats(allow_nan=False, allow_infinity=False).map(Fraction))
def test_decimals_are_exact(value: Fraction) -> None:
    factor = whole_multiple((value,))
    text = decimal(value * factor)
    assert Fraction(text) == value * factor
    assert factor == 1 or value.denominator % factor == 0
    (found,) = parse_specification(f"{HEAD}(assert (<= Y {text}))").assertions
    assert isinstance(found, Comparison)
    assert found.right == constant(value * factor)


def test_decimals_are_short() -> None:
    assert [decimal(Fraction(text)) for text in ("1e-05", "-3", "0", "12.50", "-0.25")] == [
        "0.00001",
        "-3.0",
        "0.0",
        "12.5",
        "-0.25",
    ]
    with pytest.raises(ValueError, match="1/3"):
        decimal(Fraction(1, 3))


# ---- what is refused -------------------------------------------------------------------------------------------------

HIDDEN = '(declare-hidden H float32 [1] "h")'
WRONG: dict[str, tuple[str, ...]] = {
    # the file
    "nothing": ("", "line 1, column 1", "(vnnlib-version <2.0>)"),
    "only a comment": ("; hello", "(vnnlib-version <2.0>)"),
    "prose": ("hello", "'hello'"),
    "html": ("<html>", "'<'"),
    "no version": (NETWORK, "line 1, column 1", "(vnnlib-version <2.0>)"),
    "version 1": ("(declare-const X_0 Real)", "VNN-LIB 1"),
    "version 1.0": ("(vnnlib-version <1.0>)", "<1.0>", "2.0 and 2.1", "convert-property"),
    "version 2.2": ("(vnnlib-version <2.2>)", "<2.2>", "2.0 and 2.1"),
    "version 3": ("(vnnlib-version <3.0>)", "<3.0>"),
    "long version": (f"(vnnlib-version <2.{'1' * 10**6}>)", "2.0 and 2.1"),
    "version without brackets": ("(vnnlib-version 2.0)", "'2.0'", "<2.0>"),
    "version with spaces": ("(vnnlib-version < 2.0 >)", "'<'"),
    "version with more": ("(vnnlib-version <2.0> QF_LRA)", "')'"),
    "two versions": (VERSION + GOOD, "'(vnnlib-version'", "a network"),
    "no network": (VERSION + "(assert (<= 1.0 X))", "a network"),
    "no assertion": (HEAD, "ends without an assertion"),
    "network behind an assertion": (GOOD + "(declare-network M)", "line 4, column 1", "declare all networks first"),
    "something behind": (GOOD + "hello", "line 4", "'hello'"),
    "a parenthesis too many": (GOOD + ")", "line 4", "')'"),
    "declare-const": (HEAD + "(declare-const Z Real)", "line 3", "'declare-const'", "(declare-network ...)"),
    "check-sat": (GOOD + "(check-sat)", "'(check-sat'", "an assertion"),
    "glued": (VERSION + "(declare-networkN", "'(declare-networkN'"),
    # networks
    "network without name": (VERSION + f"(declare-network {INPUT}{OUTPUT})", "the network's name"),
    "network with a hyphen": (VERSION + "(declare-network f-copy)", "'-'"),
    "network with indices": (VERSION + "(declare-network N[1])", "'N[1]'", "without indices"),
    "empty network": (VERSION + "(declare-network N)", "no input", "declare-input"),
    "no inputs": (network(OUTPUT), "no input"),
    "no outputs": (network(INPUT), "no output"),
    "only hidden": (network(HIDDEN), "no input"),
    "output before input": (network(OUTPUT + INPUT), "input tensor is behind output", "inputs, hidden, outputs"),
    "hidden before input": (network(HIDDEN + INPUT + OUTPUT), "input tensor is behind hidden"),
    "output before hidden": (network(INPUT + OUTPUT + HIDDEN), "hidden tensor is behind output"),
    "assert inside": (VERSION + f"(declare-network N {INPUT}{OUTPUT}(assert (<= Y 1.0)))", "'(assert'"),
    "word inside": (network(INPUT + OUTPUT + "x"), "'x'", "the ')' of network N"),
    "unfinished network": (VERSION + f"(declare-network N {INPUT}", "line 1", "the file ends"),
    "unfinished declaration": (VERSION + "(declare-network N (declare-input X", "the file ends"),
    # variables
    "input without name": (network("(declare-input float32 [1])" + OUTPUT), "'float32 [1]'", "without indices"),
    "number as name": (network("(declare-input 3 float32 [1])" + OUTPUT), "'3'", "the name of the input"),
    "underscore first": (network("(declare-input _X float32 [1])" + OUTPUT), "'_'"),
    "letters of others": (network("(declare-input \u00c4 float32 [1])" + OUTPUT), "'\u00c4'"),
    "and as name": (network("(declare-input and float32 [1])" + OUTPUT), "word of the language"),
    "or as name": (VERSION + "(declare-network or", "word of the language"),
    "initialized as name": (network("(declare-input initialized float32 [1])" + OUTPUT, "2.1"), "word of the language"),
    "long name": (network(f"(declare-input {'X' * 10**6} float32 [1])" + OUTPUT), "2,000 characters"),
    "long name in the model": (network(f'{INPUT}(declare-hidden H int8 [] "{"x" * 10**6}"){OUTPUT}'), "2,000"),
    "name of the network": (network("(declare-input N float32 [1])" + OUTPUT), "'N'", "line 1"),
    "name of a variable": (network(INPUT + "(declare-output X float32 [1])"), "'X'", "already declared in line 1"),
    "name of another network's": (two("", own="(declare-input X int8 [])(declare-output B int8 [])"), "'X'"),
    "network named as a variable": (HEAD + "(declare-network X", "'X' is already declared in line 2"),
    "Real": (network("(declare-input X Real [1])" + OUTPUT), "'Real' is no element type", "write real"),
    "float": (network("(declare-input X float [1])" + OUTPUT), "'float'", "write float32"),
    "Double": (network("(declare-input X Double [1])" + OUTPUT), "'Double'", "write float64"),
    "other type": (network("(declare-input X tensor [1])" + OUTPUT), "'tensor'", "float32", "real"),
    "real and float32": (network("(declare-input X real [1])" + OUTPUT), "Y is float32 and X is real"),
    "float32 and real": (network(INPUT + "(declare-output Y real [])"), "Y is real and X is float32"),
    "no shape": (network("(declare-input X float32)" + OUTPUT), "')'", "a shape"),
    "zero": (network("(declare-input X float32 [1,0])" + OUTPUT), "dimension is 0"),
    "negative dimension": (network("(declare-input X float32 [-1])" + OUTPUT), "'[-1]'", "whole numbers"),
    "decimal dimension": (network("(declare-input X float32 [1.0])" + OUTPUT), "'[1.0]'"),
    "no comma": (network("(declare-input X float32 [1 4])" + OUTPUT), "'[1 4]'", "commas"),
    "named dimension": (network("(declare-input X float32 [batch,4])" + OUTPUT), "'[batch,4]'"),
    "trailing comma": (network("(declare-input X float32 [1,])" + OUTPUT), "'[1,]'"),
    "open bracket": (VERSION + "(declare-network N (declare-input X float32 [1", "'[1'"),
    "round brackets": (network("(declare-input X float32 (1))" + OUTPUT), "'('", "a shape"),
    "many entries": (network("(declare-input X float32 [10000001])" + OUTPUT), "10,000,000 entries"),
    "many together": (network("(declare-input X int8 [9999999])(declare-output Y int8 [2])"), "10,000,000 entries"),
    "huge dimension": (network(f"(declare-input X int8 [{'9' * 10**5}])" + OUTPUT), "10,000,000 entries"),
    "many dimensions": (network(f"(declare-input X int8 [1{',1' * 10**5}])" + OUTPUT), "32 dimensions"),
    "name at an input": (network('(declare-input X float32 [1] "x")' + OUTPUT), "'\"x\"'", "')'"),
    "hidden without name": (network(f"{INPUT}(declare-hidden H float32 [1]){OUTPUT}"), "quotation marks"),
    "hidden with a bare name": (network(f"{INPUT}(declare-hidden H float32 [1] h){OUTPUT}"), "quotation marks"),
    "hidden with a wrong escape": (network(f'{INPUT}(declare-hidden H float32 [1] "\\q"){OUTPUT}'), "quotation marks"),
    "open quotation": (VERSION + f'(declare-network N {INPUT}(declare-hidden H int8 [1] "a', "quotation marks"),
    "initialized in 2.0": (network("(declare-input X float32 [1] initialized)" + OUTPUT), "version 2.1"),
    "initialized output": (network(INPUT + "(declare-output Y float32 [] initialized)", "2.1"), "'initialized'"),
    "initialized twice": (network("(declare-input X int8 [] initialized initialized)", "2.1"), "'initialized'"),
    # relations
    "equal to itself": (network("(equal-to N)" + INPUT + OUTPUT), "equal-to itself"),
    "equal to a later one": (network("(equal-to M)" + INPUT + OUTPUT), "'M' is not declared before this"),
    "equal to a variable": (two("(equal-to X)"), "'X' is a variable"),
    "equal to nothing": (two("(equal-to)"), "')'", "the name of a network"),
    "equal to two": (two("(equal-to N N)"), "'N'", "')'"),
    "two relations": (two("(equal-to N)(isomorphic-to N)"), "already has one"),
    "relation behind": (network(INPUT + "(equal-to N)" + OUTPUT), "it comes first"),
    "chain": (
        two("(equal-to N)") .replace("(assert", "(declare-network L (isomorphic-to M)(assert"),
        "network M is itself equal-to N", "write (isomorphic-to N)",
    ),
    "equal with other types": (
        two("(equal-to N)", own="(declare-input A float64 [2,3])(declare-output B float32 [])"),
        "A is float64 [2, 3] and X is float32 [2, 3]", "element types and shapes",
    ),
    "equal with other shapes": (
        two("(equal-to N)", own="(declare-input A float32 [2,3])(declare-output B float32 [1])"),
        "B is float32 [1] and Y is float32 []",
    ),
    "equal with more inputs": (
        two("(equal-to N)", own=f"{INPUT.replace('X', 'A')}(declare-input C int8 [])(declare-output B float32 [])"),
        "M has 2 inputs and N has 1",
    ),
    "isomorphic with other shapes": (
        two("(isomorphic-to N)", own="(declare-input A float64 [6])(declare-output B float32 [])"),
        "A is float64 [6] and X is float32 [2, 3]", "the same shapes",
    ),
    "isomorphic with more outputs": (
        two("(isomorphic-to N)", own=f"{INPUT.replace('X', 'A')}(declare-output B bool [])(declare-output C int8 [])"),
        "M has 2 outputs and N has 1",
    ),
    "equal with another hidden tensor": (
        two(
            "(equal-to N)",
            own='(declare-input A float32 [2,3])(declare-hidden G float32 [2] "h")(declare-output B float32 [])',
            first=INPUT + HIDDEN + OUTPUT,
        ),
        "G is float32 [2] and H is float32 [1]",
    ),
    # formulas
    "no formula": (HEAD + "(assert)", "'assert' stands alone"),
    "two formulas": (HEAD + "(assert (<= Y 1.0) (<= Y 2.0))", "one formula", "column 20"),
    "word as formula": (HEAD + "(assert true)", "'true'", "a comparison"),
    "entry as formula": (HEAD + "(assert Y)", "'Y'", "a comparison"),
    "number as formula": (HEAD + "(assert (and 1.0))", "'1.0'", "a comparison"),
    "sum as formula": (HEAD + "(assert (+ Y 1.0))", "'(+'", "a comparison"),
    "empty and": (HEAD + "(assert (and))", "'and' stands alone"),
    "empty or": (HEAD + "(assert (or (and)))", "'and' stands alone"),
    "empty parentheses": (HEAD + "(assert ())", "'('"),
    "not": (HEAD + "(assert (not (<= Y 1.0)))", "'not'", "opposite comparison"),
    "implication": (HEAD + "(assert (=> (<= Y 1.0) (<= Y 2.0)))", "'='"),
    "let": (HEAD + "(assert (let ((a 1)) (<= Y a)))", "'let'"),
    "equation with one sign": (HEAD + "(assert (= Y 1.0))", "'='", "(== X[0] 1.0)"),
    "quotient": (HEAD + "(assert (<= (/ Y 2.0) 1.0))", "'/'", "(* 0.5 X[0])"),
    "function": (HEAD + "(assert (<= (sin Y) 1.0))", "'(sin'", "a sum or product"),
    "one side": (HEAD + "(assert (<= Y))", "two terms and has 1"),
    "three sides": (HEAD + "(assert (<= 0.0 Y 1.0))", "two terms and has 3"),
    "no side": (HEAD + "(assert (<=))", "has 0"),
    "comparison in a comparison": (HEAD + "(assert (<= (<= Y 1.0) 1.0))", "'(<='", "a number, an entry"),
    "and in a comparison": (HEAD + "(assert (<= (and (<= Y 1.0)) 1.0))", "'(and'", "a number, an entry"),
    "empty sum": (HEAD + "(assert (<= (+) Y))", "'+' stands alone"),
    "empty difference": (HEAD + "(assert (<= (-) Y))", "'-' stands alone"),
    "number in parentheses": (HEAD + "(assert (<= (1.0) Y))", "'('"),
    "negative number in parentheses": (HEAD + "(assert (<= (-1.0) Y))", "'('"),
    "quoted name": (HEAD + '(assert (<= "Y" 1.0))', "'\"Y\"'"),
    "unfinished assertion": (HEAD + "(assert (<= Y 1.0)", "line 3", "does not end", "truncated"),
    # entries
    "undeclared": (HEAD + "(assert (<= Z 1.0))", "'Z' is no variable"),
    "other case": (HEAD + "(assert (<= y 1.0))", "'y' is no variable"),
    "name of a network as entry": (HEAD + "(assert (<= N 1.0))", "'N' is no variable"),
    "no index": (HEAD + "(assert (<= X 1.0))", "'X' has 0 of the 2 indices", "write X[0,0]"),
    "few indices": (HEAD + "(assert (<= X[1] 1.0))", "'X[1]' has 1 of the 2 indices"),
    "many indices": (HEAD + "(assert (<= X[1,1,1] 1.0))", "has 3 of the 2"),
    "scalar with an index": (HEAD + "(assert (<= Y[0] 1.0))", "write Y"),
    "millions of indices": (HEAD + f"(assert (<= X[0{',0' * 10**6}] 1.0))", "33 of the 2 indices"),
    "large index": (HEAD + "(assert (<= X[0,3] 1.0))", "'X[0,3]' is not in X", "[2, 3]", "from 0"),
    "huge index": (HEAD + f"(assert (<= X[0,{'9' * 10**5}] 1.0))", "is not in X"),
    "negative index": (HEAD + "(assert (<= X[-1,0] 1.0))", "'X[-1,0]'", "write X[0,0]"),
    "decimal index": (HEAD + "(assert (<= X[0,0.0] 1.0))", "'X[0,0.0]'"),
    "index without comma": (HEAD + "(assert (<= X[0 0] 1.0))", "'X[0 0]'"),
    "index of letters": (HEAD + "(assert (<= X[i,j] 1.0))", "'X[i,j]'"),
    "empty index": (HEAD + "(assert (<= X[] 1.0))", "'X[]'"),
    "empty index of a scalar": (HEAD + "(assert (<= Y[] 1.0))", "'['", "a scalar its name alone"),
    # numbers and types
    "exponent": (HEAD + "(assert (<= Y 1e-05))", "exponent", "0.00001"),
    "capital exponent": (HEAD + "(assert (<= Y 1.5E10))", "exponent"),
    "no digit before the point": (HEAD + "(assert (<= Y .5))", "'.'", "0.5"),
    "no digit behind the point": (HEAD + "(assert (<= Y 5.))", "'.'", "5.0"),
    "plus sign": (HEAD + "(assert (<= Y +1.0))", "'+'", "no plus sign"),
    "two signs": (HEAD + "(assert (<= Y --1.0))", "'-'"),
    "infinity": (HEAD + "(assert (<= Y inf))", "'inf' is no variable"),
    "hexadecimal": (HEAD + "(assert (<= Y 0x1))", "'x1' is no variable"),
    "digits of others": (HEAD + "(assert (<= Y \u0661))", "'\u0661'"),
    "fraction": (HEAD + "(assert (<= Y 1/3))", "'/'"),
    "long number": (HEAD + f"(assert (<= Y {'1' * 10**7}))", "2,000 digits"),
    "only numbers": (HEAD + "(assert (<= 0.0 (+ 1.0 2.0)))", "no type without a variable"),
    "two types": (network("(declare-input X float64 [1])" + OUTPUT, assertion="(<= X[0] Y)"), "'Y' is float32"),
    "two types in a sum": (
        network("(declare-input X float64 [1])" + OUTPUT, assertion="(<= 1.0 (* 2.0 (+ Y 1.0 X[0])))"),
        "'X[0]' is float64", "nothing is converted",
    ),
    "half an integer": (
        network("(declare-input X int32 [1])" + OUTPUT, assertion="(<= X[0] 0.5)"), "'0.5' is compared with int32",
    ),
    # harm
    "deep": (f"{HEAD}(assert {'(and ' * 10**6}", "deeper than 100"),
    "deep term": (f"{HEAD}(assert (<= {'(- ' * 10**6}", "deeper than 100"),
    "deep network": (VERSION + "(declare-network N " * 10**5, "'(declare-network'" ),
    "parentheses": ("(" * 10**6, "'('"),
    "brackets": (HEAD + "(assert (<= X" + "[" * 10**6, "'X["),
    "quotation marks": (f'{VERSION}(declare-network N {INPUT}(declare-hidden H int8 [] {"[" * 10**6}', "'['"),
    "nul": (HEAD + "(assert (<= Y \0 1.0))", "'\\x00'"),
    "many names": (
        VERSION + "(declare-network N " + "".join(f"(declare-input X{i} int8 [])" for i in range(10**5)),
        "10,000 variables",
    ),
    "one name, long ago": (VERSION + "(declare-network N (declare-input X int8" + " ;\n" * 10**6, "line 1000001"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_one_sentence_and_soon(name: str) -> None:
    text, *words = WRONG[name]
    start = time.process_time()
    with pytest.raises(DataError) as caught:
        parse_specification(text, source="q.vnnlib")
    assert time.process_time() - start < 5
    message = str(caught.value)
    assert message.startswith("q.vnnlib: line ")
    assert ", column " in message
    assert len(message) < 300
    assert "\n" not in message
    for word in words:
        assert word in message, message


@settings(max_examples=300)
@given(st.text(alphabet='()<=>+-*/;XYN_01 .e\n[,]"\\!andorsetclr\0', max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(DataError):
        parse_specification(GOOD + text)
    with contextlib.suppress(DataError):
        parse_specification(f"{HEAD}(assert {text}")


def test_too_many_words_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("idl_audit.data.vnnlib2.assertions.MAX_TERMS", 1000)
    parse_specification(HEAD + "(assert (<= Y 1.0))" * 333)
    with pytest.raises(DataError, match="more than 1,000 words"):
        parse_specification(HEAD + "(assert (<= Y 1.0))" * 334)


def test_formulas_may_be_nested_a_hundred_deep() -> None:
    text = f"{HEAD}(assert {'(and ' * 50}(<= {'(- ' * 49}Y{')' * 49} 1.0){')' * 50})"
    found = parse_specification(text)
    assert parse_specification(written(found)) == found
    with pytest.raises(DataError, match="deeper"):
        parse_specification(text.replace("(- Y)", "(- (- Y))"))


def test_megabytes_are_read_in_a_second() -> None:
    """20,000 assertions take 0.2 s where nothing else runs; the machine may be busy."""
    draw = random.Random(0)
    lines = [f"(assert ({'<=' if i % 2 else '>='} X[0,{i // 2}] {draw.random():.9f}))\n" for i in range(20_000)]
    text = f"{VERSION}(declare-network N (declare-input X real [1,10000]) (declare-output Y real []))" + "".join(lines)
    start = time.process_time()
    found = parse_specification(text)
    seconds = time.process_time() - start
    assert len(found.assertions) == 20_000
    assert seconds < 1.5


def test_the_collector_of_cycles_works_on_afterwards() -> None:
    for asked in (True, False):
        (gc.enable if asked else gc.disable)()
        try:
            with contextlib.suppress(DataError):
                parse_specification("(")
            parse_specification(GOOD)
            assert gc.isenabled() == asked
        finally:
            gc.enable()


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["p.vnnlib", "p.vnnlib.gz"])
@pytest.mark.parametrize("zipped", [False, True])
def test_gzip_is_told_by_content(tmp_path: Path, name: str, zipped: bool) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(GOOD.encode()) if zipped else GOOD.encode())
    assert read_specification(path) == parse_specification(GOOD)
    assert read_specification(path).source == str(path)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (gzip.compress(GOOD.encode())[:-12], "cannot be read"),
        (b"\x1f\x8b" + b"junk" * 20, "cannot be read"),
        (gzip.compress(b"\xff\xfe\xfd"), "UTF-8"),
        (b"\x00\x01" * 50, "text"),
        (GOOD.encode().replace(b"1.0", b"\0"), "no text file"),
        (b"", "line 1, column 1"),
    ],
    ids=["truncated", "junk", "no text", "binary", "nul", "empty"],
)
def test_a_broken_file_is_refused_by_name(tmp_path: Path, content: bytes, word: str) -> None:
    path = tmp_path / "p.vnnlib.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=word) as caught:
        read_specification(path)
    assert str(path) in str(caught.value)


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_BYTES", 2**20)
    path = tmp_path / "bomb.vnnlib.gz"
    path.write_bytes(gzip.compress(b" " * (2**20 + 1)))
    with pytest.raises(DataError, match="more than 1 MB"):
        read_specification(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_specification(tmp_path / "missing.vnnlib")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="not a regular file"):
        read_specification(tmp_path / "pipe")
