"""VNN-LIB 2: the package vnnlib 1.0.2 reads what we read, as we read it, but for what the tables below say."""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.data.vnnlib2.reader import parse_specification
from idl_audit.data.vnnlib2.syntax import Specification
from idl_audit.data.vnnlib2.writer import written
from idl_audit.values.errors import DataError
from tests.shared.vnnlib2_queries import drawn

vnnlib = pytest.importorskip("vnnlib")

INPUT, OUTPUT = "(declare-input X float32 [2])", "(declare-output Y float32 [])"


def query(body: str = INPUT + OUTPUT, assertion: str = "(<= Y 1.0)", *, more: str = "", version: str = "2.0") -> str:
    return f"(vnnlib-version <{version}>)(declare-network N {body}){more}(assert {assertion})"


def second(relation: str, own: str) -> str:
    return f"(declare-network M ({relation} N) {own})"


@dataclass(frozen=True)
class Difference:
    """What one of the two refuses and the other does not."""

    text: str
    refusal: str
    """Pattern of the message that refuses."""


ONLY_THEIRS = {
    "any word is an element type": Difference(query("(declare-input X Real [2])" + OUTPUT), "is no element type"),
    "real beside float32": Difference(query("(declare-input X real [2])" + OUTPUT), "as real, or none"),
    "a dimension with decimals": Difference(query("(declare-input X float32 [2.0])" + OUTPUT), "is no shape"),
    "a negative index": Difference(query(assertion="(<= X[-1] 1.0)"), "has no whole numbers with commas"),
    "an index with decimals": Difference(query(assertion="(<= X[1.0] 1.0)"), "has no whole numbers with commas"),
    "numbers compared with numbers": Difference(query(assertion="(<= 0.0 1.0)"), "no type without a variable"),
    "an integer out of range": Difference(
        query("(declare-input X uint8 [2])" + OUTPUT, "(<= X[0] 300)"), "constants of this type are from"
    ),
    "a number as a string": Difference(
        query("(declare-input X string [2])" + OUTPUT, "(== X[0] 1)"), "no numbers of this type"
    ),
    "a network named as a variable": Difference(query("(declare-input N float32 [2])" + OUTPUT), "already declared"),
    "two relations": Difference(
        query(more=second("equal-to", "(equal-to N)(declare-input A float32 [2])(declare-output B float32 [])")),
        "already has one",
    ),
    "equal networks with different hidden tensors": Difference(
        query(
            f'{INPUT}(declare-hidden H int8 [1] "h"){OUTPUT}',
            more=second(
                "equal-to",
                '(declare-input A float32 [2])(declare-hidden G int8 [2] "h")(declare-output B float32 [])',
            ),
        ),
        "asks for the same element types and shapes",
    ),
    "version 2.7": Difference(query(version="2.7"), "read are 2.0 and 2.1"),
    "commands without a space behind": Difference(query().replace("declare-network N", "declare-networkN"), "stands"),
    "deep nesting": Difference(query(assertion=f"(<= {'(- ' * 200}Y{')' * 200} 1.0)"), "nested deeper"),
}
"""What vnnlib reads and we refuse, as the standard says (or, of nesting and versions, to be safe)."""

ONLY_OURS = {
    "a whole number as float32": Difference(query(assertion="(<= Y 1)"), "IntConstant"),
    "a whole number as real": Difference(
        query("(declare-input X real [2])(declare-output Y real [])", "(<= Y -1)"), "IntConstant"
    ),
    "a number as bool": Difference(query("(declare-input X bool [2])" + OUTPUT, "(== X[0] 1)"), "IntConstant"),
    "isomorphic networks of other types": Difference(
        query(more=second("isomorphic-to", "(declare-input A float16 [2])(declare-output B float64 [])")),
        "to be of type",
    ),
    "initialized inputs": Difference(
        query(f"(declare-input X float32 [2] initialized){OUTPUT}", version="2.1"), "syntax error .* 'initialized'"
    ),
    "a space before a command": Difference(query().replace("(assert", "( assert"), r"syntax error .* '\('"),
    "types newer than it": Difference(query("(declare-input X uint4 [2])" + OUTPUT, "(== X[0] 1)"), ""),
}
"""What we read, as the standard says, and vnnlib refuses."""


def ours(text: str) -> Specification | str:
    """Return what we read, or why it is refused."""
    try:
        return parse_specification(text)
    except DataError as error:
        return str(error)


def theirs(text: str) -> Specification | str:
    """Return what vnnlib reads, printed by it and read by us; or why it is refused."""
    try:
        found = vnnlib.parse_query_string(text)
    except (vnnlib.VNNLibException, IndexError) as error:
        message = str(error)
        return json.dumps(json.loads(message)) if message.startswith("{") else message
    read = ours(str(found))
    return read if isinstance(read, Specification) else f"read as {read}"


@pytest.mark.parametrize("name", ONLY_THEIRS)
def test_what_only_vnnlib_reads(name: str) -> None:
    difference = ONLY_THEIRS[name]
    vnnlib.parse_query_string(difference.text)
    found = ours(difference.text)
    assert isinstance(found, str)
    assert re.search(difference.refusal, found)


@pytest.mark.parametrize("name", ONLY_OURS)
def test_what_only_we_read(name: str) -> None:
    difference = ONLY_OURS[name]
    assert isinstance(ours(difference.text), Specification)
    if difference.refusal:
        found = theirs(difference.text)
        assert isinstance(found, str)
        assert re.search(difference.refusal, found)


def test_vnnlib_keeps_the_quotation_marks_of_names() -> None:
    text = query(f'{INPUT}(declare-hidden H float32 [1] "a\\"b"){OUTPUT}')
    assert vnnlib.parse_query_string(text).networks[0].hidden[0].onnx_name == '"a\\"b"'
    assert parse_specification(text).networks[0].hidden[0].onnx_name == 'a"b'


@settings(max_examples=150)
@given(st.integers(0, 2**64))
def test_vnnlib_reads_drawn_queries_as_we_do(seed: int) -> None:
    specification = drawn(seed, letters='ab/:;( \\"\n\t')
    found = theirs(written(specification))
    if isinstance(found, str):
        assert re.search("to be of type", found), found  # isomorphic, of other types
    else:
        assert found == specification


WORDS = re.compile(r'"(?:[^"\\]|\\.)*"|[A-Za-z][A-Za-z0-9_-]*|<[0-9.]+>|-?[0-9]+(?:\.[0-9]+)?|\s+|[<>=!]=?|.')
OTHERS = ["(", ")", "[", "]", ",", "-1", "0", "1", "2.5", " ", "and", "or", "<=", "==", "=", "+", "-", "*", "(assert"]


def mutated(text: str, rng: random.Random) -> str:
    """Return the text with one to three words left out, doubled, exchanged or replaced."""
    words = WORDS.findall(text)
    for _ in range(rng.randint(1, 3)):
        i, j = rng.randrange(len(words)), rng.randrange(len(words))
        change = rng.randrange(5)
        if change == 0:
            words[i] = ""
        elif change == 1:
            words[i] *= 2
        elif change == 2:
            words[i], words[j] = words[j], words[i]
        elif change == 3:
            words[i] = words[j]
        else:
            words[i] = rng.choice(OTHERS)
    return "".join(words)


@settings(max_examples=600)
@given(st.integers(0, 2**64), st.integers(0, 2**64))
def test_what_is_changed_is_read_or_refused_by_both(seed: int, chance: int) -> None:
    text = mutated(written(drawn(seed, letters="ab/")), random.Random(chance))
    mine, other = ours(text), theirs(text)
    if isinstance(mine, Specification) and isinstance(other, Specification):
        assert mine == other
    elif isinstance(mine, Specification):
        assert any(d.refusal and re.search(d.refusal, str(other)) for d in ONLY_OURS.values()), (text, other)
    elif isinstance(other, Specification) or other.startswith("read as"):
        assert any(re.search(d.refusal, mine) for d in ONLY_THEIRS.values()), (text, mine)
