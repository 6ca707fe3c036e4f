"""False claims in files of format 2.0: for every array that a file may hold, a lie in it and why it is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from idl_audit.cli.app import app
from idl_audit.commands.shared.subject import open_subject
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.proof.bounds import Interval
from idl_audit.proof.exact.phases import Decider, program_of
from idl_audit.proof.exact.refutation import refutation_of
from idl_audit.proof.files.claims import About, Ball, PropertyClaim, SampleClaim, SensitivityClaim
from idl_audit.proof.files.door import Name
from idl_audit.proof.files.file import PROPERTY, SAMPLE, SENSITIVITY, ProofFile
from idl_audit.proof.linear_bounds import backward_state_bounds
from idl_audit.proof.proof import Proof, trivial
from idl_audit.proof.sensitivity_witness import loop_witnesses, make_witness
from idl_audit.values.box import Box
from idl_audit.values.query import Conjunction, Query
from tests.shared import forgeries as forge
from tests.shared.forgeries import whole
from tests.shared.proof_sources import coupled, layered, monotone, written

Base = tuple[Path, dict[str, np.ndarray], dict[str, Any]]
Change = Callable[[np.ndarray], np.ndarray]


def verified(path: Path, model: Path) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["verify", str(path), str(model)])
    return found.exit_code, " ".join(found.output.split())


def of_a_loop(model: Path, eps: float) -> Base:
    """A sample of a model with a loop, by the usual lines: true within a little of the sample."""
    subject = open_subject(model)
    label = int(subject.model(np.zeros((1, 2)))[0].argmax())
    proof = replace(trivial(2), loops=loop_witnesses(subject.model))
    found = ProofFile(About(subject.info.sha256), SampleClaim(Ball(np.zeros(2), eps), label, 0), (proof,))
    source = written("loop", model, found, None)
    return model, source.arrays, source.meta


def of_bounds(model: Path, share: float) -> Base:
    """S, or less than that."""
    subject = open_subject(model)
    witness = make_witness(subject.model)
    witness = replace(witness, S=witness.S * share)
    source = written("S", model, ProofFile(About(subject.info.sha256), SensitivityClaim(witness.S), (), witness), None)
    return model, source.arrays, source.meta


def of_border(model: Path, strict: bool) -> Base:
    """y_0 < y_1 nowhere in [-0.75, 0.75]^2 of `forge.absolute`, where y_0 <= y_1 at a face; in rational numbers."""
    subject = open_subject(model)
    own, box = subject.exact(Preprocessing()).own, Box.between(np.full(2, -0.75), np.full(2, 0.75))
    assert own is not None
    query = Query(box, (Conjunction(np.array([[1.0, -1.0]]), np.zeros(1), (), np.ones(1, np.bool_)),))
    bounds = backward_state_bounds(own, Interval.of_boxes(box))
    program = program_of(own, box, bounds)
    assert program is not None
    tree = Decider(own, query, program).decide(query.alternatives[0]).tree
    assert tree is not None
    proof = Proof(exact=(refutation_of(0, program, bounds, own, tree),))
    claim = PropertyClaim("p.vnnlib", "0" * 64, (query,))
    source = written("border", model, ProofFile(About(subject.info.sha256), claim, (proof,)), None)
    if not strict:
        del source.arrays["part.0.alternative.0.strict"]
    return model, source.arrays, source.meta


def of_rows(model: Path, share: float) -> Base:
    """S of `forge.diagonal` by rows of its only block."""
    arrays = {"S": np.array([[21.1, 0], [0, 10.1]]) * share, "adjoint.0": np.array([[7.01, 0], [0, 2.01]])}
    return model, arrays, forge.today(model, {"kind": "sensitivity"})


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Name -> (a file with a true claim, the same with a false one)."""
    folder = tmp_path_factory.mktemp("models")
    absolute, diagonal = forge.absolute(folder), forge.diagonal(folder)
    loop, turning = layered(folder / "loop.npz", (3,), 4, loop=0.6), monotone(folder / "turning.npz")
    normed, weighing = coupled(folder / "normed.npz", weighs=False), coupled(folder / "weighing.npz", weighs=True)
    return {
        "sample": [(absolute, *forge.sample_file(absolute, eps)) for eps in (0.7, 1.0)],
        "weighed": [(absolute, *weighed(*forge.sample_file(absolute, eps))) for eps in (0.7, 1.0)],
        "computed": [(absolute, *forge.computed_file(absolute, eps)) for eps in (0.7, 1.0)],
        "property": [(absolute, *strictly(*forge.property_file(absolute, half))) for half in (0.7, 1.0)],
        "loop": [of_a_loop(loop, eps) for eps in (1e-3, 30.0)],
        "turning loop": [of_a_loop(turning, eps) for eps in (1e-3, 30.0)],
        "normed loop": [of_a_loop(normed, eps) for eps in (1e-3, 30.0)],
        "weighing loop": [of_a_loop(weighing, eps) for eps in (1e-5, 30.0)],
        "bounds": [of_bounds(loop, share) for share in (1.0, 0.1)],
        "normed bounds": [of_bounds(normed, share) for share in (1.0, 0.1)],
        "weighing bounds": [of_bounds(weighing, share) for share in (1.0, 0.1)],
        "turning bounds": [of_bounds(turning, share) for share in (1.0, 0.1)],
        "border": [of_border(absolute, strict) for strict in (True, False)],
        "rows": [of_rows(diagonal, share) for share in (1.0, 0.1)],
    }


def strictly(arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    return {**arrays, "part.0.alternative.0.strict": whole(1)}, meta


def weighed(arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The same with a leaf that has weights of its own: those of its tree."""
    key = "part.0.goals.0.own"
    return {**arrays, f"{key}.leaves": whole(0), f"{key}.weights": np.ones((1, 1), np.float32)}, meta


LOOPS = ("", "turning ", "normed ", "weighing ")
"""Kinds of loops: proved by a contraction, a monotone proof, norms of groups, a monotone proof with weights."""
BASES = (
    *("sample", "weighed", "computed", "property", "border", "rows"),
    *(f"{kind}{claim}" for kind in LOOPS for claim in ("loop", "bounds")),
)


@pytest.mark.parametrize("base", BASES)
def test_the_true_claim_is_accepted_and_the_false_one_refused(tmp_path, bases, base):
    assert set(bases) == set(BASES)
    for (model, arrays, meta), expected in zip(bases[base], (0, 1), strict=True):
        code, text = verified(forge.written(tmp_path / "proof.npz", arrays, meta), model)
        assert code == expected, text


def become(value: Any) -> Change:
    return lambda a: np.full_like(a, value)


def first(value: Any) -> Change:
    def change(a: np.ndarray) -> np.ndarray:
        a.flat[0] = value
        return a

    return change


def forged_forest(key: str, base: str) -> dict[str, tuple[str, Change, str]]:
    """Array -> (base, the lie, why it is refused), for a forest."""
    choices = {
        f"{key}.{kind}.1.{name}": (base, change, why)
        for kind in ("slopes", "multipliers", "duals")
        for name, change, why in (
            ("leaves", become(7), "leaves that it does not have"),
            ("values", lambda a: a[:, :1], "its states are 2"),
        )
    }
    return {
        f"{key}.roots": (base, lambda a: a + 1, "no trees"),
        f"{key}.variable": (base, first(99), "that the model does not have"),
        f"{key}.cut": (base, first(-np.inf), "no finite number"),
        f"{key}.child": (base, first(2**62), "no trees" if key.endswith("goals.0") else "its leaves are split"),
        **choices,
        f"{key}.planes.1.leaves": (base, become(2**62), "leaves that it does not have"),
        f"{key}.planes.1.states": (base, lambda a: a + 1, "states that block 1 does not have"),
        f"{key}.planes.1.shares": (base, lambda a: np.repeat(a, 2, axis=2), "planes of another shape"),
    }


def forged_loop(key: str, bases: Mapping[str, str], why: str) -> dict[str, tuple[str, Change, str]]:
    """The same for a proof that a loop, or a whole model, is well-posed; `bases` are files by kinds of loops."""
    base, turning, normed, weighing = (bases.get(kind, "") for kind in LOOPS)
    return {
        f"{key}.alpha": (base, become(0.0), "do not fit"),
        f"{key}.Y": (base, become(0.0), why),
        f"{key}.v": (base, become(-1.0), why),
        f"{key}.middle": (base, become(0.5), "neither 0 nor 1"),
        f"{key}.m": (turning, become(-1.0), why),
        f"{key}.factor": (turning, become(0.0), why),
        f"{key}.norm": (normed, become(3.0), "do not fit"),
        f"{key}.weights": (weighing, become(1.0), why),
    }


ALL = {claim: {kind: f"{kind}{claim}" for kind in LOOPS} for claim in ("loop", "bounds")}
TURNS = {kind: f"{kind}bounds" for kind in ("turning ", "weighing ")}
NO_CONTRACTION = "prove no contraction"
WHOLE = forged_loop("flat.0", {"": "bounds"}, NO_CONTRACTION) | forged_loop("monotone", TURNS, NO_CONTRACTION)
LIES: dict[str, tuple[str, Change, str]] = {
    **forged_loop("part.0.loop.0", ALL["loop"], "does not hold"),
    "part.0.kept.1": ("sample", lambda a: a[:1], "its states are 1"),
    "part.0.stage.0.blocks": ("sample", become(-1), "outside [0"),
    "part.0.stage.0.lemma.0.states": ("sample", become(1), "states that block 0 does not have"),
    "part.0.stage.0.lemma.0.signs": ("sample", become(0), "from no side"),
    **forged_forest("part.0.stage.0.lemma.0", "sample"),
    "part.0.goals.0.stage": ("sample", become(1), "a stage that it does not have"),
    "part.0.goals.0.alternatives": ("sample", become(1), "alternatives that the query does not have"),
    "part.0.goals.0.weights": ("sample", become(-1.0), "outside [0"),
    **forged_forest("part.0.goals.0", "sample"),
    "part.0.goals.0.own.leaves": ("weighed", become(7), "leaves that it does not have"),
    "part.0.goals.0.own.weights": ("weighed", become(-1.0), "outside [0"),
    "part.0.delta.0": ("computed", become(-1.0), "outside [0"),
    "part.0.exact.0.alternative": ("border", become(1), "that the query does not have"),
    "part.0.exact.0.states": ("border", first(99), "that the network does not have"),
    "part.0.exact.0.lo": ("border", become(0.0), "does not bend"),
    "part.0.exact.0.hi": ("border", lambda a: a / 2, "is not proved"),
    "part.0.exact.0.roots": ("border", become(1), "no trees"),
    "part.0.exact.0.variable": ("border", first(99), "that the model does not have"),
    "part.0.exact.0.cut": ("border", first(0.5), "what is no phase"),
    "part.0.exact.0.child": ("border", first(2**62), "no trees"),
    "part.0.exact.0.leaves": ("border", become(7), "no contradiction"),
    "part.0.exact.0.rows": ("border", become(99), "no contradiction"),
    "part.0.exact.0.multipliers": ("border", become(0x20), "no list of hexadecimal numbers"),
    "centre": ("sample", become(np.nan), "no finite number"),
    "sigma": ("sample", become(-1.0), "outside [0"),
    "part.0.lo": ("property", lambda a: a + 9, "is empty"),
    "part.0.hi": ("property", lambda a: a[:1], "its inputs are 2"),
    "part.0.alternative.0.rows": ("property", lambda a: np.repeat(a, 2, axis=0), "its rows are"),
    "part.0.alternative.0.offsets": ("property", become(np.inf), "no finite number"),
    "part.0.alternative.0.strict": ("property", become(2), "outside [0"),
    "S": ("rows", lambda a: a[:1], "its outputs are 2"),
    "adjoint.0": ("rows", become(-1.0), "outside [0"),
    "flat.0.r": ("bounds", become(0.0), "does not hold"),
    **forged_loop("loop.0", ALL["bounds"], "does not hold"),
    "norms.0.norm": ("normed bounds", become(3.0), "do not fit"),
    "norms.0.v": ("normed bounds", become(-1.0), NO_CONTRACTION),
    **{name: lie for name, lie in WHOLE.items() if lie[0]},
}
"""Array -> (file with a false claim, what is put in its place, why that is refused)."""


def test_there_is_a_lie_for_every_line_of_the_tables():
    assert {Name.of(name).pattern for name in LIES} == set(SAMPLE) | set(PROPERTY) | set(SENSITIVITY)


@pytest.mark.parametrize("name", LIES)
def test_a_false_claim_with_a_lie_is_refused_for_it(tmp_path, bases, name):
    base, change, why = LIES[name]
    model, arrays, meta = bases[base][1]
    with np.errstate(all="ignore"):
        forged = {**arrays, name: change(arrays[name].copy())}
    code, text = verified(forge.written(tmp_path / "proof.npz", forged, meta), model)
    assert (code in (1, 2), why in text, "accepted" in text) == (True, True, False), text


def without(*names: str) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    return lambda arrays: {name: array for name, array in arrays.items() if not name.startswith(names)}


def plus(**more: np.ndarray) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    return lambda arrays: {**arrays, **{name.replace("_", "."): array for name, array in more.items()}}


PARTS = {
    "no stage": (without("part.0.stage"), "has no stage"),
    "no goals": (without("part.0.goals"), "no tree for 1 of 1 alternatives"),
    "half of the choices": (without("part.0.goals.0.duals.1.values"), "lacks the array"),
    "a second part": (plus(part_1_stage_0_blocks=whole()), "2 parts for 1 queries"),
    "a part that is left out": (plus(part_2_stage_0_blocks=whole()), "not numbered"),
    "another lemma": (plus(part_0_stage_0_lemma_1_states=whole(0)), "and there are others"),
    "a loop of a model without loops": (plus(part_0_loop_0_alpha=np.ones(1)), "what the model does not have"),
    "kept states without a shape": (lambda a: {"part.0.kept.1": np.array(0), **without("part.0.kept.1")(a)}, "0 axes"),
    "the same, told last": (
        lambda a: {**without("part.0.kept.1")(a), "part.0.kept.1": np.array(0)},
        "its states are 1",
    ),
    "an array that nobody knows": (plus(part_0_secret=np.zeros(1)), "no array of such a file"),
    "trees of a hundred thousand splits, one below the other": (
        lambda a: {**without("part.0.goals.0.")(a), **chain(100_000)},
        "deeper than anyone looks at",
    ),
}


def chain(count: int) -> dict[str, np.ndarray]:
    """Goals whose tree splits one state again and again."""
    key, inner = "part.0.goals.0", np.arange(2 * count + 1) % 2 == 0
    inner[-1] = False
    arrays = {f"{key}.stage": whole(0), f"{key}.alternatives": whole(0), f"{key}.weights": np.ones((1, 1))}
    arrays |= {f"{key}.roots": whole(0), f"{key}.variable": np.where(inner, 3, -1)}
    return arrays | {
        f"{key}.cut": np.where(inner, np.linspace(-1, 1, inner.size), 0.0),
        f"{key}.child": np.where(inner, np.arange(inner.size) + 1, 0),
    }


@pytest.mark.parametrize("name", PARTS)
def test_a_file_of_other_parts_is_refused(tmp_path, bases, name):
    change, why = PARTS[name]
    model, arrays, meta = bases["sample"][1]
    code, text = verified(forge.written(tmp_path / "proof.npz", change(arrays), meta), model)
    assert (code in (1, 2), why in text, "accepted" in text) == (True, True, False), text


WORDS = {
    "another version": ("sample", ("schema_version",), "2.1", "another kind or version"),
    "an arithmetic of nobody": ("sample", ("arithmetic",), "float8", "arithmetic that is not known"),
    "another arithmetic": ("sample", ("arithmetic",), "float16", "it speaks of float16 arithmetic"),
    "float32 without a word on roundings": ("sample", ("arithmetic",), "float32", "does not say of every row"),
    "real numbers that are rounded": ("computed", ("arithmetic",), "real", "is about real numbers"),
    "slopes in float32": ("rows", ("arithmetic",), "float32", "is about slopes"),
    "another claim": ("sample", ("claim", "kind"), "certificate", "no kind that is known"),
    "a claim that is none": ("sample", ("claim",), [], "no kind that is known"),
    "an entry that nobody knows": ("sample", ("claim", "certified"), True, "not known"),
    "another model": ("sample", ("model", "sha256"), "0" * 64, "another file"),
    "an output that there is not": ("sample", ("model", "output_name"), "z", "there is no output"),
    "no units": ("sample", ("model", "preprocessing", "scale"), 0, "--scale must be"),
    "a negative deviation": ("sample", ("model", "preprocessing", "std"), [-1], "--std must hold"),
    "a mean for each of five inputs": ("sample", ("model", "preprocessing", "mean"), [0] * 5, "--mean has 5 numbers"),
    "a class that is not there": ("sample", ("claim", "label"), 2, "class 2"),
    "a class that is true": ("sample", ("claim", "label"), False, "no whole number"),
    "eps that is no radius": ("sample", ("claim", "eps"), -1.0, "makes no sense"),
    "a clip beside the centre": ("sample", ("claim", "clip"), [1, 2], "makes no sense"),
    "no input that changes": ("sample", ("claim", "cardinality"), 0, "makes no sense"),
    "half an input that changes": ("sample", ("claim", "cardinality"), 0.5, "no whole number"),
    "two inputs that change": ("sample", ("claim", "cardinality"), 2, "lower bound"),
    "a threshold of two outputs": ("sample", ("model", "threshold"), 0.5, "a threshold that the model does not have"),
    "a threshold of a property": ("property", ("model", "threshold"), 0.5, "is about none"),
    "a threshold of S": ("rows", ("model", "threshold"), 0.5, "is about none"),
    "an output of S that there is not": ("bounds", ("model", "output_name"), "y", "output has no name"),
    "eps that no float64 is": ("sample", ("claim", "eps"), 2**53 + 1, "no number of float64"),
    "a property of no hash": ("property", ("claim", "sha256"), "0", "no sha256"),
}


@pytest.mark.parametrize("name", WORDS)
def test_meta_that_lies_is_refused(tmp_path, bases, name):
    base, route, value, why = WORDS[name]
    model, arrays, meta = bases[base][1]
    forged = copy.deepcopy(meta)
    where = forged
    for step in route[:-1]:
        where = where[step]
    where[route[-1]] = value
    code, text = verified(forge.written(tmp_path / "proof.npz", arrays, json.dumps(forged)), model)
    assert (code in (1, 2), why in text, "accepted" in text) == (True, True, False), text


ROWS = {
    "no row at all": (np.zeros((0, 2)), np.zeros(0), np.zeros((1, 0)), "has no row"),
    "weights beyond float64": (np.full((1, 2), 1e308), np.zeros(1), np.full((1, 1), 1e308), "more than float64 holds"),
    "weights of nothing": (np.array([[1.0, -1.0]]), np.zeros(1), np.zeros((1, 1)), "lower bound"),
    "weights of the least number": (np.array([[1.0, -1.0]]), np.zeros(1), np.full((1, 1), 5e-324), "lower bound"),
    "a row that the alternative does not have": (np.array([[1.0, -1.0]]), np.zeros(1), np.ones((1, 2)), "weighs rows"),
    "a row of zeros": (np.zeros((1, 2)), np.zeros(1), np.ones((1, 1)), "lower bound"),
}


@pytest.mark.parametrize("number", [0, -1])
@pytest.mark.parametrize("name", ROWS)
def test_no_weights_of_rows_make_a_false_property_true(tmp_path, bases, name, number):
    rows, offsets, weights, why = ROWS[name]
    model, arrays, meta = bases["property"][1]
    goals = {f"part.0.goals.0.{key}": array for key, array in (("weights", weights), ("alternatives", whole(number)))}
    claim = {"part.0.alternative.0.rows": rows, "part.0.alternative.0.offsets": offsets}
    forged = {name: array for name, array in arrays.items() if number == 0 or ".1." not in name}
    del forged["part.0.alternative.0.strict"]
    code, text = verified(forge.written(tmp_path / "proof.npz", forged | claim | goals, meta), model)
    assert (code in (1, 2), "accepted" in text) == (True, False), text
    assert number == -1 or why in text


ROUNDINGS = {
    "less than there is": (np.full(1, 1e-9), "which is more than it says"),
    "nothing": (np.zeros(1), "which is more than it says"),
    "minus 0": (np.full(1, -0.0), "which is more than it says"),
    "below 0": (np.full(1, -1e-5), "outside [0"),
    "no number": (np.full(1, np.nan), "no finite number"),
    "everything": (np.full(1, np.inf), "no finite number"),
    "more than the margin": (np.ones(1), "lower bound"),
    "of another row": (np.full(2, 1e-5), "does not say of every row"),
    "of no row": (np.zeros(0), "does not say of every row"),
    "a table": (np.full((1, 1), 1e-5), "2 axes"),
    "half as wide": (np.full(1, 1e-5, np.float32), "type <f4"),
}


@pytest.mark.parametrize("name", ROUNDINGS)
def test_what_a_file_says_of_roundings_is_not_believed(tmp_path, bases, name):
    """The claim is true; bounds of roundings that are none are refused all the same."""
    value, why = ROUNDINGS[name]
    model, arrays, meta = bases["computed"][0]
    code, text = verified(forge.written(tmp_path / "proof.npz", arrays | {"part.0.delta.0": value}, meta), model)
    assert (code in (1, 2), why in text, "accepted" in text) == (True, True, False), text


def test_a_bound_of_roundings_is_there_for_each_alternative(tmp_path, bases):
    model, arrays, meta = bases["computed"][0]
    for change, why in (
        ({"part.0.delta.1": np.full(1, 1e-5)}, "does not say of every row"),
        ({"part.0.delta.2": np.full(1, 1e-5)}, "not numbered"),
        ({"part.1.delta.0": np.full(1, 1e-5)}, "2 parts for 1 queries"),
    ):
        code, text = verified(forge.written(tmp_path / "proof.npz", arrays | change, meta), model)
        assert (code in (1, 2), why in text) == (True, True), text


def test_a_name_that_ends_in_two_ways_is_refused(tmp_path, bases):
    model, arrays, meta = bases["sample"][0]
    path = forge.written(tmp_path / "proof.npz", arrays, meta)
    path.write_bytes(path.read_bytes().replace(b"centre.npy", b"centre.n\0y"))
    code, text = verified(path, model)
    assert (code, "in different ways" in text) == (2, True), text


def test_the_words_for_a_proof_of_S_are_those_of_what_it_is(tmp_path, bases):
    """A contraction in the place of a monotone proof would be told as one."""
    model, arrays, meta = bases["bounds"][0]
    moved = {name.replace("flat.0", "monotone"): array for name, array in arrays.items() if name != "flat.0.r"}
    code, text = verified(forge.written(tmp_path / "proof.npz", moved, meta), model)
    assert (code, "no array of such a file" in text) == (2, True)
