"""convert-property: what version 2.0 says is what version 1 says, box for box and row for row."""

from __future__ import annotations

import gzip
import itertools
import os
import random
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from idl_audit.commands.convert_property import convert_property
from idl_audit.data.vnnlib import OutputRow, Property, PropertyBox, parse_vnnlib, read_vnnlib
from idl_audit.data.vnnlib2.reader import parse_specification, read_specification
from idl_audit.data.vnnlib2.syntax import (
    Access,
    Comparison,
    Constant,
    Formula,
    Operation,
    Specification,
    Term,
)
from idl_audit.data.vnnlib2.translation import specification_of
from idl_audit.data.vnnlib2.writer import written
from idl_audit.values.errors import DataError
from tests.shared.command_line import run
from tests.shared.graph_models import model

vnnlib = pytest.importorskip("vnnlib")

# ---- a small reading of specifications, to compare with --------------------------------------------------------------

Linear = dict[tuple[str, int] | None, Fraction]
"""Coefficients of entries; of None, the constant."""


def linear(term: Term) -> Linear:
    if isinstance(term, Constant):
        return {None: term.value}
    if isinstance(term, Access):
        return {(term.variable, term.flat): Fraction(1)}
    assert isinstance(term, Operation)
    parts = [linear(part) for part in term.parts]
    if term.operator == "+":
        return added((part, 1) for part in parts)
    assert term.operator == "*"
    (factor, rest) = parts
    assert set(factor) == {None}
    return {key: factor[None] * c for key, c in rest.items()}


def added(parts: Iterable[tuple[Linear, int]]) -> Linear:
    found: Linear = {}
    for part, sign in parts:
        for key, c in part.items():
            value = c if sign > 0 else -c
            found[key] = found[key] + value if key in found else value
    return {key: c for key, c in found.items() if c}


def cases(formula: Formula) -> Iterator[tuple[Linear, ...]]:
    """Yield the cases of a formula: what must be at most 0 in each."""
    if isinstance(formula, Comparison):
        sign = {"<=": 1, ">=": -1}[formula.sense]
        yield (added([(linear(formula.left), sign), (linear(formula.right), -sign)]),)
    elif formula.operator == "or":
        for part in formula.parts:
            yield from cases(part)
    else:
        for several in itertools.product(*map(cases, formula.parts)):
            yield tuple(itertools.chain.from_iterable(several))


def boxes_of(specification: Specification) -> tuple[PropertyBox, ...]:
    """Return the boxes of a specification about X and Y, in the order of its cases."""
    (network,) = specification.networks
    n_inputs = 1
    for size in network.inputs[0].shape:
        n_inputs *= size
    several = [list(cases(formula)) for formula in specification.assertions]
    common = [found[0] for found in several if len(found) == 1]
    grouped: dict[tuple[tuple[Fraction, ...], tuple[Fraction, ...]], list[tuple[OutputRow, ...]]] = {}
    for chosen in itertools.product(*(found for found in several if len(found) > 1)):
        lo: dict[int, Fraction] = {}
        hi: dict[int, Fraction] = {}
        rows: list[OutputRow] = []
        for part in itertools.chain(*common, *chosen):
            offset = part.get(None, Fraction(0))
            entries = sorted((key, c) for key, c in part.items() if key is not None)
            if entries[0][0][0] == "X":
                (((_, i), c),) = entries
                side = hi if c > 0 else lo
                assert i not in side
                side[i] = -offset / c
            else:
                rows.append(OutputRow(tuple((j, c) for (_, j), c in entries), offset))
        box = tuple(lo[i] for i in range(n_inputs)), tuple(hi[i] for i in range(n_inputs))
        grouped.setdefault(box, []).append(tuple(rows))
    return tuple(PropertyBox(*box, tuple(dict.fromkeys(found))) for box, found in grouped.items())


def merged(asked: Property) -> tuple[PropertyBox, ...]:
    """Return the boxes of a property, each once: what differs in bounds that others make no matter stands twice."""
    found: dict[tuple[tuple[Fraction, ...], tuple[Fraction, ...]], list[tuple[OutputRow, ...]]] = {}
    for box in asked.boxes:
        found.setdefault((box.lo, box.hi), []).extend(box.alternatives)
    return tuple(PropertyBox(*box, tuple(dict.fromkeys(rows))) for box, rows in found.items())


def in_whole_numbers(boxes: tuple[PropertyBox, ...]) -> list[object]:
    """Return boxes with each row divided by the size of its first coefficient."""
    return [
        (
            box.lo,
            box.hi,
            [
                [
                    [(j, c / abs(row.coefficients[0][1])) for j, c in (*row.coefficients, (-1, row.offset))]
                    for row in rows
                ]
                for rows in box.alternatives
            ],
        )
        for box in boxes
    ]


# ---- the law ---------------------------------------------------------------------------------------------------------


def drawn_property(seed: int, *, numbers: tuple[str, ...]) -> Property | None:
    """Return a property of version 1 with two inputs and three outputs; None where nothing satisfies what was drawn."""
    rng = random.Random(seed)

    def number() -> str:
        return rng.choice(numbers)

    def bound(i: int) -> str:
        return f"({rng.choice(['<=', '>='])} X_{i} {number()})"

    def row() -> str:
        terms = " ".join(f"(* {number()} Y_{rng.randrange(3)})" for _ in range(rng.randint(1, 3)))
        return f"({rng.choice(['<=', '>=', '='])} (+ {terms} Y_{rng.randrange(3)}) {rng.choice([number(), 'Y_1'])})"

    def alternative() -> str:
        parts = [row() for _ in range(rng.randint(1, 2))] + [bound(rng.randrange(2))] * rng.randint(0, 1)
        return f"(and {' '.join(parts)})"

    asked = [f"({sense} X_{i} {end})" for i in range(2) for sense, end in ((">=", "-9"), ("<=", "9"))]
    asked += [row() for _ in range(rng.randint(0, 2))]
    asked += [f"(or {' '.join(alternative() for _ in range(rng.randint(1, 3)))})" for _ in range(rng.randint(1, 2))]
    asked += [f"(or {bound(0)} (and {bound(0)} {bound(1)}))"] * rng.randint(0, 1)
    names = [*(f"X_{i}" for i in range(2)), *(f"Y_{j}" for j in range(3))]
    text = "".join(f"(declare-const {name} Real)" for name in names) + "".join(f"(assert {a})" for a in asked)
    try:
        return parse_vnnlib(text)
    except DataError:
        return None


@settings(max_examples=120)
@given(st.integers(0, 2**64))
def test_decimals_give_the_same_boxes_and_rows(seed: int) -> None:
    asked = drawn_property(seed, numbers=("1", "-1", "0.25", "-2", "1e-05", "-3.5e2", "7"))
    if asked is not None:
        assert boxes_of(parse_specification(written(specification_of(asked)))) == merged(asked)


@settings(max_examples=120)
@given(st.integers(0, 2**64))
def test_fractions_give_the_same_boxes_and_multiples_of_the_rows(seed: int) -> None:
    asked = drawn_property(seed, numbers=("(/ 1 3)", "(/ -2 7)", "0.5", "-4", "(/ 5 12)"))
    if asked is not None:
        found = boxes_of(parse_specification(written(specification_of(asked))))
        assert in_whole_numbers(found) == in_whole_numbers(merged(asked))


def test_a_box_that_is_there_twice_is_there_once() -> None:
    asked = drawn_property(219, numbers=("(/ 1 3)", "(/ -2 7)", "0.5", "-4", "(/ 5 12)"))
    assert asked is not None
    assert len(asked.boxes) == 2
    text = written(specification_of(asked))
    assert "(or" not in text
    assert in_whole_numbers(boxes_of(parse_specification(text))) == in_whole_numbers(merged(asked))


FOLDER = Path(os.environ.get("IDL_AUDIT_DATA", "nowhere")) / "vnncomp"
PATHS = sorted(FOLDER.glob("*/*.vnnlib.gz"))
FEW = [
    path
    for _, group in itertools.groupby(PATHS, lambda path: path.parent)
    for n, path in enumerate(sorted(group, key=lambda path: path.stat().st_size))
    if n < (2 if path.stat().st_size < 10_000 else 1)
]
"""Some of each family; one where they are large."""


def check_public(path: Path) -> None:
    text = convert_property(path)
    assert len(vnnlib.parse_query_string(text).assertions) == text.count("(assert")
    found = parse_specification(text)
    assert boxes_of(found) == read_vnnlib(path).boxes


@pytest.mark.skipif(not PATHS, reason="needs the environment variable IDL_AUDIT_DATA, a folder with vnncomp in it")
def test_public_properties_keep_their_boxes_and_rows() -> None:
    assert {path.parent for path in FEW} == {path.parent for path in PATHS}
    for path in FEW:
        check_public(path)


@pytest.mark.slow
@pytest.mark.skipif(not PATHS, reason="needs the environment variable IDL_AUDIT_DATA, a folder with vnncomp in it")
def test_many_public_properties_keep_their_boxes_and_rows() -> None:
    for path in PATHS[::11]:  # all of them are a minute and a half
        check_public(path)


# ---- as it is written ------------------------------------------------------------------------------------------------

OLD = """(declare-const X_0 Real) (declare-const X_1 Real) (declare-const Y_0 Real) (declare-const Y_1 Real)
(assert (>= X_0 -1e-05)) (assert (<= X_0 0.5)) (assert (<= (* 3 X_1) 1)) (assert (>= X_1 (- 2)))
"""


def converted(*assertions: str) -> list[str]:
    """Return the assertions of version 2 behind the bounds of the two inputs."""
    asked = parse_vnnlib(OLD + "".join(f"(assert {a})" for a in assertions))
    lines = written(specification_of(asked)).splitlines()
    assert lines[:10] == [
        "(vnnlib-version <2.0>)",
        "",
        "(declare-network N",
        "  (declare-input X real [2])",
        "  (declare-output Y real [2])",
        ")",
        "",
        "(assert (>= X[0] -0.00001))",
        "(assert (<= X[0] 0.5))",
        "(assert (>= X[1] -2.0))",
    ]
    assert lines[10] == "(assert (<= (* 3.0 X[1]) 1.0))"
    return [line.removeprefix("(assert ").removesuffix(")") for line in lines[11:]]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(<= Y_0 Y_1)", "(<= Y[0] Y[1])"),
        ("(>= Y_0 1e3)", "(>= Y[0] 1000.0)"),
        ("(<= (* 2 Y_0) 0)", "(<= (* 2.0 Y[0]) 0.0)"),
        ("(<= Y_0 (/ 1 3))", "(<= (* 3.0 Y[0]) 1.0)"),
        ("(<= (+ Y_0 (* -0.5 Y_1)) 2)", "(<= Y[0] (+ (* 0.5 Y[1]) 2.0))"),
        ("(<= (+ Y_0 Y_1 1) 0)", "(<= (+ Y[0] Y[1]) -1.0)"),
        ("(>= (+ Y_0 Y_1) -3)", "(>= (+ Y[0] Y[1]) -3.0)"),
        ("(<= (* -0.25 Y_0) (* 0.25 Y_1))", "(>= (+ (* 0.25 Y[0]) (* 0.25 Y[1])) 0.0)"),
        ("(or (<= Y_0 1) (and (<= Y_0 2) (<= Y_1 3)))", "(or (<= Y[0] 1.0) (and (<= Y[0] 2.0) (<= Y[1] 3.0)))"),
    ],
)
def test_rows_have_positive_coefficients_on_both_sides(old: str, new: str) -> None:
    assert converted(old) == [new]


def test_what_all_alternatives_share_stands_alone() -> None:
    assert converted("(<= Y_0 9)", "(or (<= Y_0 1) (<= Y_1 1))") == [
        "(<= Y[0] 9.0)",
        "(or (<= Y[0] 1.0) (<= Y[1] 1.0))",
    ]
    assert converted("(<= Y_0 9)", "(or (<= Y_0 9) (<= Y_1 1))") == [
        "(or (<= Y[0] 9.0) (and (<= Y[0] 9.0) (<= Y[1] 1.0)))"
    ]


def test_boxes_stand_beside_what_is_asked_of_all_of_them() -> None:
    asked = parse_vnnlib(OLD + "(assert (or (<= X_0 0.1) (>= X_0 0.2)))(assert (or (<= Y_0 1) (<= Y_1 1)))")
    assert written(specification_of(asked)).splitlines()[-4:] == [
        "(assert (>= X[1] -2.0))",
        "(assert (<= (* 3.0 X[1]) 1.0))",
        "(assert (or (and (>= X[0] -0.00001) (<= X[0] 0.1)) (and (>= X[0] 0.2) (<= X[0] 0.5))))",
        "(assert (or (<= Y[0] 1.0) (<= Y[1] 1.0)))",
    ]


def test_boxes_with_questions_of_their_own_stand_with_these() -> None:
    asked = parse_vnnlib(OLD + "(assert (or (and (<= X_0 0.1) (<= Y_0 1)) (and (<= X_0 0.2) (<= Y_1 1))))")
    assert written(specification_of(asked)).splitlines()[-1] == (
        "(assert (or (and (<= X[0] 0.1) (<= Y[0] 1.0)) (and (<= X[0] 0.2) (<= Y[1] 1.0))))"
    )


def test_a_number_of_thousands_of_decimals_is_refused() -> None:
    tiny = "(/ 1 (* " + "2.5e299 " * 8 + "))"
    with pytest.raises(DataError, match="hundreds of decimals"):
        specification_of(parse_vnnlib(OLD + f"(assert (<= Y_0 {tiny}))"))


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a property and with models of its size and of others."""
    monkeypatch.chdir(tmp_path)
    Path("old.vnnlib").write_text(OLD + "(assert (<= Y_0 Y_1))")
    Path("old.vnnlib.gz").write_bytes(gzip.compress(Path("old.vnnlib").read_bytes()))
    declared = {
        "right": ([("x", TensorProto.FLOAT, ("batch", None, 2, 1))], [("y", TensorProto.FLOAT, (2,))]),
        "double": ([("x", TensorProto.DOUBLE, (1, 2))], [("y", TensorProto.DOUBLE, (1, 2))]),
        "other": ([("x", TensorProto.FLOAT, (1, 3))], [("y", TensorProto.FLOAT, (1, 2))]),
        "two": ([("x", TensorProto.FLOAT, (1,)), ("z", TensorProto.FLOAT, (1,))], [("y", TensorProto.FLOAT, (2,))]),
        "open": ([("x", TensorProto.FLOAT, (1, 2))], [("y", TensorProto.FLOAT, None)]),
    }
    for name, (inputs, outputs) in declared.items():
        Path(f"{name}.onnx").write_bytes(model(inputs=inputs, outputs=outputs).SerializeToString())
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_it_prints_or_writes_plain_or_gzipped() -> None:
    printed = run("convert-property", "old.vnnlib")
    assert (printed.code, printed.err) == (0, "")
    expected = parse_specification(printed.out)
    assert boxes_of(expected) == read_vnnlib(Path("old.vnnlib")).boxes
    assert run("convert-property", "old.vnnlib.gz", "-o", "-") == printed
    assert not Path("-").exists()
    for name in ("new.vnnlib", "new.vnnlib.gz"):
        found = run("convert-property", "old.vnnlib.gz", "-o", name)
        assert (found.code, found.out, found.err) == (0, f"{name} is written\n", "")
        assert read_specification(Path(name)) == expected
        assert Path(name).read_bytes().startswith(b"\x1f\x8b") == name.endswith(".gz")
    assert run("convert-property", "old.vnnlib", "-o", "quiet.vnnlib", "-q").out == ""


@pytest.mark.usefixtures("folder")
def test_a_model_gives_the_shapes() -> None:
    found = run("convert-property", "old.vnnlib", "--onnx", "right.onnx", "--element", "float32")
    (network,) = parse_specification(found.out).networks
    assert [(v.name, v.shape, v.element) for v in network.variables] == [
        ("X", (1, 1, 2, 1), "float32"),
        ("Y", (2,), "float32"),
    ]
    assert "(<= (* 3.0 X[0,0,1,0]) 1.0)" in found.out
    assert run("convert-property", "old.vnnlib", "--onnx", "double.onnx").code == 0


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("missing.vnnlib", ["missing.vnnlib", "no such file"]),
        ("old.vnnlib -o old.vnnlib --force", ["old.vnnlib", "named twice"]),
        ("old.vnnlib -o right.onnx", ["right.onnx exists already", "--force"]),
        ("old.vnnlib -o nowhere/new.vnnlib", ["nowhere", "does not exist"]),
        ("old.vnnlib --onnx right.onnx -o right.onnx --force", ["named twice"]),
        ("old.vnnlib --onnx missing.onnx", ["missing.onnx"]),
        ("old.vnnlib --onnx old.vnnlib", ["old.vnnlib", "no ONNX file"]),
        ("old.vnnlib --onnx other.onnx", ["other.onnx has 3 inputs", "(1, 3)", "has 2"]),
        ("old.vnnlib --onnx two.onnx", ["two.onnx has 2 inputs", "x, z"]),
        ("old.vnnlib --onnx open.onnx", ["open.onnx declares no shape", "output y"]),
        ("old.vnnlib --onnx double.onnx --element float32", ["double.onnx", "float64, not float32"]),
        ("old.vnnlib --element int8", ["--element", "real", "float32"]),
        ("new.vnnlib", ["line 1", "VNN-LIB 2.0", "VNN-LIB 1 is expected"]),
    ],
)
def test_what_does_not_fit_is_said_and_nothing_is_written(line: str, words: list[str]) -> None:
    Path("new.vnnlib").write_text("(vnnlib-version <2.0>)")
    before = {path.name: path.read_bytes() for path in Path().iterdir()}
    found = run("convert-property", *line.split())
    assert (found.code, found.out, found.err.count("\n")) == (2, "", 1)
    for word in words:
        assert word in found.err
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == before


@pytest.mark.usefixtures("folder")
def test_force_overwrites() -> None:
    Path("new.vnnlib").write_text("precious")
    assert run("convert-property", "old.vnnlib", "-o", "new.vnnlib").code == 2
    assert Path("new.vnnlib").read_text() == "precious"
    assert run("convert-property", "old.vnnlib", "-o", "new.vnnlib", "--force").code == 0
    assert read_specification(Path("new.vnnlib")).version == "2.0"
