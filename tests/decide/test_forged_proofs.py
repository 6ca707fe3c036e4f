"""What an attacker would try: false claims that `verify` must not accept, one idea a line."""

from __future__ import annotations

import copy
import json
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from idl_audit.cli.app import app
from tests.shared import forgeries as forge

GREATEST = np.finfo(float).max
SINGLE, SIGN = np.float32, np.int8


def verified(*files: Path) -> tuple[int, str]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = CliRunner().invoke(app, ["verify", *map(str, files)])
    return found.exit_code, " ".join(found.output.split())


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {"absolute": forge.absolute(folder), "diagonal": forge.diagonal(folder)}


TRUE = {
    "a class": lambda m: forge.certificate(m, 0.7),
    "a property": lambda m: forge.property_certificate(m, 0.7),
    "a property by boxes": lambda m: forge.property_certificate(m, 0.7, {}),
    "a witness": lambda m: forge.witness(m, [[21.1, 0], [0, 10.1]], [[7.01, 0], [0, 2.01]]),
    "a flat witness": lambda m: forge.flat_witness(m, [[22, 1e-6], [1e-6, 11]]),
}


def of(models, name):
    return models["diagonal" if "witness" in name else "absolute"]


@pytest.mark.parametrize("name", TRUE)
def test_the_same_file_with_a_true_claim_is_accepted(tmp_path, models, name):
    model = of(models, name)
    code, text = verified(forge.written(tmp_path / "proof.npz", *TRUE[name](model)), model)
    assert code == 0, text


def edited(name, arrays=None, **meta):
    """Return a forgery: a false claim with other arrays and entries; None leaves an array out."""

    def make(model):
        made, entries = FALSE[name](model)
        made |= {} if arrays is None else arrays
        return {key: array for key, array in made.items() if array is not None}, {**entries, **meta}

    return name, make


FALSE = {
    "a class": lambda m: forge.certificate(m, 1.0),
    "a property": lambda m: forge.property_certificate(m, 1.0),
    "a property by boxes": lambda m: forge.property_certificate(m, 1.0, {}),
    "a witness": lambda m: forge.witness(m, np.full((2, 2), 1e-9), [[7.01, 0], [0, 2.01]]),
    "a flat witness": lambda m: forge.flat_witness(m, np.full((2, 2), 1e-9)),
}


def leaves(*batches, arrays, name="a class", **more):
    prefix = "0." if name == "a property" else ""
    made = {f"{prefix}{key}": array for key, array in arrays.items()}
    proof = forge.chain(*batches, **more)
    if name == "a property":
        return edited(name, made, parts=[{"alternatives": 1, "chain": proof}])
    return edited(name, made, **proof)


def trees_of_states(**choices):
    """A round for the only state of block 0: -z is bounded by one leaf, with phases that are none of block 1's."""
    entry = {"block": 0, "phases": [], "slopes": [], "multipliers": [], "planes": [], **choices}
    return [[entry]]


STATES = {
    "round.0.0.states": np.array([0]),
    "round.0.0.signs": np.array([-1.0]),
    "round.0.0.owner": np.array([0, 0]),
}
BOTH = np.array([[1], [-1]], SIGN)
ONE = np.array([[-1, -1]], SIGN)

FORGERIES = {
    # numbers of blocks and states that the model does not have
    "phases under a negative number overwrite a block's": (
        leaves(
            forge.batch(phases=[1, -2]), arrays={"tree.0.0.phases.1": ONE, "tree.0.0.phases.-2": np.zeros((1, 2), SIGN)}
        ),
        "no whole number",
    ),
    "the same in a property": (
        leaves(
            forge.batch(phases=[1, -2]),
            arrays={"tree.0.0.phases.1": ONE, "tree.0.0.phases.-2": np.zeros((1, 2), SIGN)},
            name="a property",
        ),
        "no whole number",
    ),
    "phases of a block beyond the model": (
        leaves(forge.batch(2, phases=[7]), arrays={"tree.0.0.phases.7": BOTH}),
        "block 7",
    ),
    "one block twice": (
        leaves(forge.batch(phases=[1, 1]), arrays={"tree.0.0.phases.1": ONE}),
        "a number twice",
    ),
    "phases that no entry names": (leaves(forge.batch(), arrays={"tree.0.0.phases.1": ONE}), "nothing in it speaks of"),
    "phases that are not there": (leaves(forge.batch(phases=[1]), arrays={}), "is missing"),
    "slopes for a negative block": (
        leaves(forge.batch(slopes=[-1]), arrays={"tree.0.0.slopes.-1": np.zeros((1, 1), SINGLE)}),
        "no whole number",
    ),
    "a step of a negative block": (
        leaves(
            arrays={"step.0.states": np.array([0])},
            steps=[{"block": -2, "sign": -1.0, "slopes": []}],
        ),
        "no whole number",
    ),
    "a step of a negative state": (
        leaves(arrays={"step.0.states": np.array([-1])}, steps=[{"block": 0, "sign": -1.0, "slopes": []}]),
        "outside 0 to 0",
    ),
    "living states left out": (leaves(arrays={"kept.1": np.array([0])}, kept=[1]), "not proved dead"),
    "a negative state kept": (leaves(arrays={"kept.1": np.array([-1])}, kept=[1]), "outside 0 to 1"),
    "a row from the end": (
        edited("a class", trees={"0": {"row": -1, "after": 0, "batches": [forge.batch()]}}),
        "no whole number",
    ),
    "a round from the end": (
        edited("a class", trees={"0": {"row": 0, "after": -1, "batches": [forge.batch()]}}),
        "no whole number",
    ),
    "a round that is not there": (
        edited("a class", trees={"0": {"row": 0, "after": 1, "batches": [forge.batch()]}}),
        "does not have",
    ),
    "a class from the end": (edited("a class", label=-2), "no whole number"),
    "a class that is not there": (edited("a class", label=2), "class 2"),
    "a class that is true": (edited("a class", label=False), "no whole number"),
    "no tree for the rival": (edited("a class", trees={}), "lower bound"),
    "a tree by another name": (
        edited("a class", trees={"00": {"row": 0, "after": 0, "batches": [forge.batch()]}}),
        "whole numbers as keys",
    ),
    # shapes
    "phases of one column, spread over all states": (
        leaves(forge.batch(2, phases=[1]), arrays={"tree.0.0.phases.1": BOTH}),
        "states should be 2",
    ),
    "phases of a hidden tree, spread over all states": (
        leaves(arrays={**STATES, "round.0.0.phases.1": BOTH}, rounds=trees_of_states(phases=[1])),
        "states should be 2",
    ),
    "phases of a hidden tree under a negative number": (
        leaves(
            arrays={
                **STATES,
                "round.0.0.phases.1": np.zeros((2, 2), SIGN),
                "round.0.0.phases.-1": np.array([[1, 0], [-1, 0]], SIGN),
            },
            rounds=trees_of_states(phases=[1, -1]),
        ),
        "no whole number",
    ),
    "half of a hidden tree": (
        leaves(
            arrays={
                **STATES,
                "round.0.0.owner": np.array([0]),
                "round.0.0.phases.1": np.array([[-1, -1]], SIGN),
            },
            rounds=trees_of_states(phases=[1]),
        ),
        "do not cover",
    ),
    "a hidden tree of its own block": (
        leaves(arrays={**STATES, "round.0.0.phases.0": BOTH}, rounds=trees_of_states(phases=[0])),
        "only later ones",
    ),
    "a bound twice from one side": (
        leaves(
            arrays={
                **STATES,
                "round.0.0.states": np.array([0, 0]),
                "round.0.0.signs": np.array([-1.0, -1.0]),
                "round.0.0.owner": np.array([0, 1]),
            },
            rounds=trees_of_states(),
        ),
        "twice from one side",
    ),
    "a sign that is no sign": (
        leaves(arrays={**STATES, "round.0.0.signs": np.array([-1e-9])}, rounds=trees_of_states()),
        "signs other than",
    ),
    "a leaf of no tree": (
        leaves(arrays={**STATES, "round.0.0.owner": np.array([-1, 0])}, rounds=trees_of_states()),
        "outside 0 to 0",
    ),
    "half of a tree": (leaves(forge.batch(phases=[1]), arrays={"tree.0.0.phases.1": ONE}), "do not cover"),
    "a tree of twins": (
        leaves(forge.batch(2, phases=[1]), arrays={"tree.0.0.phases.1": np.array([[1, 1], [-1, -1]], SIGN)}),
        "do not cover",
    ),
    "phases that are larger than signs": (
        leaves(forge.batch(2, phases=[1]), arrays={"tree.0.0.phases.1": np.array([[2, 0], [-128, 0]], SIGN)}),
        "phases other than",
    ),
    "phases of halves": (
        leaves(forge.batch(2, phases=[1]), arrays={"tree.0.0.phases.1": np.array([[0.5, 0], [-0.5, 0]])}),
        "which it never is",
    ),
    "no leaf at all": (
        leaves(forge.batch(0, phases=[1]), arrays={"tree.0.0.phases.1": np.zeros((0, 2), SIGN)}),
        "is empty",
    ),
    "more leaves than there are": (leaves(forge.batch(10**9), arrays={}), "is said to have"),
    "leaves without bytes": (
        leaves(
            forge.batch(10**9, planes=[1]),
            arrays={
                "tree.0.0.planes.1.states": np.zeros(0, np.int64),
                "tree.0.0.planes.1.shares": np.zeros((10**9, 0, 0), np.uint8),
            },
        ),
        "should be 1 or more",
    ),
    "a centre of another shape": (edited("a class", {"centre": np.zeros((1, 2))}), "which it never is"),
    "a centre of one number": (edited("a class", {"centre": np.zeros(1)}), "inputs should be 2"),
    "a centre without a shape": (edited("a class", {"centre": np.zeros(())}), "which it never is"),
    "a complex centre": (edited("a class", {"centre": np.zeros(2, complex)}), "which it never is"),
    "a centre of texts": (edited("a class", {"centre": np.array(["0", "0"])}), "which it never is"),
    "a centre of objects": (edited("a class", {"centre": np.array([0, 0], object)}), "not what its header says"),
    "a centre of another machine": (edited("a class", {"centre": np.zeros(2, ">f8")}), "which it never is"),
    # numbers that are none
    "slopes that are no numbers": (
        leaves(forge.batch(slopes=[1]), arrays={"tree.0.0.slopes.1": np.full((1, 2), np.nan, SINGLE)}),
        "no finite number",
    ),
    "endless multipliers": (
        leaves(forge.batch(multipliers=[1]), arrays={"tree.0.0.multipliers.1": np.full((1, 2), np.inf, SINGLE)}),
        "no finite number",
    ),
    "the greatest multipliers": (
        leaves(
            forge.batch(multipliers=[0, 1]),
            arrays={
                "tree.0.0.multipliers.0": np.full((1, 1), np.finfo(SINGLE).max, SINGLE),
                "tree.0.0.multipliers.1": np.full((1, 2), -np.finfo(SINGLE).max, SINGLE),
            },
        ),
        "lower bound",
    ),
    "a centre that is no number": (edited("a class", {"centre": np.array([0, np.nan])}), "no finite number"),
    "a radius that is no number": (edited("a class", {"sigma": np.array([1, np.nan])}), "no finite number"),
    "a negative radius": (edited("a class", {"sigma": np.array([1.0, -1.0])}), "negative"),
    "a negative eps": (edited("a class", eps=-1.0), "makes no sense"),
    "eps as a text": (edited("a class", eps="1.0"), "no finite number"),
    "eps beyond float64": (edited("a class", eps=10**400), "no finite number"),
    "eps that is true": (edited("a class", eps=True), "no finite number"),
    "a clip of three": (edited("a class", clip=[-1, 1, 0]), "no pair"),
    "a clip turned round": (edited("a class", clip=[1, -1]), "makes no sense"),
    "units that are none": (
        edited("a class", preprocessing={"scale": 0, "mean": [], "std": []}),
        "--scale must be",
    ),
    "units as texts": (edited("a class", preprocessing={"scale": "1", "mean": [], "std": []}), "no finite number"),
    "a mean for each of five inputs": (
        edited("a class", preprocessing={"scale": 1, "mean": [0] * 5, "std": []}),
        "--mean has 5 numbers",
    ),
    # boxes and trees of boxes
    "a tree of boxes whose child is itself": (
        edited("a property by boxes", forge.splits([0, -1, -1], [0.0] * 3, [0, 0, 0])),
        "no tree",
    ),
    "a child far away": (
        edited("a property by boxes", forge.splits([0, -1, -1], [0.0] * 3, [2**63 - 1, 0, 0])),
        "no tree",
    ),
    "an input from the end": (
        edited("a property by boxes", forge.splits([-2, -1, -1], [0.0] * 3, [1, 0, 0])),
        "that the model does not have",
    ),
    "a cut beside the box": (
        edited("a property by boxes", forge.splits([0, -1, -1], [5.0, 0, 0], [1, 0, 0])),
        "outside its box",
    ),
    "a cut that is no number": (
        edited("a property by boxes", forge.splits([0, -1, -1], [np.nan, 0, 0], [1, 0, 0])),
        "no finite number",
    ),
    "lists of different lengths": (
        edited("a property by boxes", {"0.split.cuts": np.zeros(5)}),
        "nodes should be 1",
    ),
    "an empty box": (edited("a property", {"0.lo": np.ones(2), "0.hi": -np.ones(2)}), "is empty"),
    "no alternative": (
        edited(
            "a property", {"0.0.rows": None, "0.0.offsets": None}, parts=[{"alternatives": 0, "chain": forge.chain()}]
        ),
        "alternative",
    ),
    "no box": (
        edited("a property", {f"0.{name}": None for name in ("lo", "hi", "0.rows", "0.offsets")}, parts=[]),
        "no box",
    ),
    "an alternative more than is proved": (
        edited("a property", {"0.1.rows": np.array([[1.0, 0.0]]), "0.1.offsets": np.ones(1)}),
        "is said to have",
    ),
    "an offset that is no number": (edited("a property", {"0.0.offsets": np.array([np.nan])}), "no finite number"),
    "a row that is endless": (edited("a property", {"0.0.rows": np.array([[np.inf, -1]])}), "no finite number"),
    # sensitivity
    "adjoint rows near the largest float": (
        edited("a witness", {"adjoint.0": np.full((2, 2), GREATEST)}),
        "was proved",
    ),
    "adjoint rows that are no numbers": (edited("a witness", {"adjoint.0": np.full((2, 2), np.nan)}), "no finite"),
    "negative adjoint rows": (edited("a witness", {"adjoint.0": np.full((2, 2), -1.0)}), "negative"),
    "adjoint rows of one number": (edited("a witness", {"adjoint.0": np.full((2, 1), 1.0)}), "states should be 2"),
    "adjoint rows of a block that there is not": (
        edited("a witness", {"adjoint.1": np.zeros((2, 2))}, adjoint=[0, 1]),
        "block 1",
    ),
    "no adjoint rows": (edited("a witness", {"adjoint.0": None}, adjoint=[]), "no rows"),
    "no proof": (edited("a witness", {"adjoint.0": None}, adjoint=None), "nothing in the file"),
    "S without a shape": (edited("a witness", {"S": np.array(1.0)}), "which it never is"),
    "S of one row": (edited("a witness", {"S": np.full((1, 2), 100.0)}), "outputs should be 2"),
    "S that is no number": (edited("a witness", {"S": np.full((2, 2), np.nan)}), "no finite number"),
    "a loop of a model without loops": (
        edited(
            "a witness",
            {"loop.0.alpha": np.ones(2), "loop.0.Y": np.eye(2), "loop.0.v": np.ones(2)},
            loops={"0": {"kind": "contraction", "middle": False, "arrays": ["Y", "alpha", "v"]}},
        ),
        "does not have",
    ),
    "contraction by rows near the largest float": (
        edited("a flat witness", {"flat.0.r": np.full((2, 2), GREATEST)}),
        "was proved",
    ),
    "contraction with weights of nothing": (edited("a flat witness", {"flat.0.v": np.full(2, 5e-324)}), "prove no"),
    "contraction with the greatest weights": (
        edited("a flat witness", {"flat.0.v": np.full(2, GREATEST)}),
        "was proved",
    ),
    "contraction with the least change of variable": (
        edited("a flat witness", {"flat.0.alpha": np.full(2, 5e-324), "flat.0.Y": np.eye(2) * GREATEST}),
        "do not fit",
    ),
    "contraction with another inverse": (edited("a flat witness", {"flat.0.Y": np.zeros((2, 2))}), "contraction"),
    "contraction that is monotone": (
        edited(
            "a flat witness",
            {
                "flat.0.alpha": None,
                "flat.0.Y": None,
                "flat.0.v": None,
                "flat.0.m": np.ones(1),
                "flat.0.factor": np.eye(2),
            },
            flat=[{"kind": "monotone", "middle": False, "arrays": ["factor", "m"]}],
        ),
        "unknown kind",
    ),
    "a monotone proof of endless m": (
        edited(
            "a flat witness",
            {"flat.0.alpha": None, "flat.0.Y": None, "flat.0.v": None, "flat.0.r": None}
            | {"monotone.m": np.full(1, np.inf), "monotone.factor": np.eye(2)},
            flat=[],
            monotone={"kind": "monotone", "middle": True, "arrays": ["factor", "m"]},
        ),
        "no finite number",
    ),
    "a monotone proof of the greatest m": (
        edited(
            "a flat witness",
            {"flat.0.alpha": None, "flat.0.Y": None, "flat.0.v": None, "flat.0.r": None}
            | {"monotone.m": np.full(1, GREATEST), "monotone.factor": np.eye(2) * 1e154},
            flat=[],
            monotone={"kind": "monotone", "middle": True, "arrays": ["factor", "m"]},
        ),
        "prove no",
    ),
    # what the file says of itself
    "another model": (edited("a class", model_sha256="0" * 64), "another file"),
    "an output that there is not": (edited("a class", output_name="z"), "there is no output"),
    "an output that is no name": (edited("a class", output_name=["y"]), "output_name"),
    "another kind": (edited("a class", kind="witness"), "another kind or version"),
    "an older version": (edited("a class", schema_version="1.0"), "another kind or version"),
    "an entry that nobody knows": (edited("a class", certified=True), "not known"),
    "an index that is none": (edited("a class", index=-1), "no whole number"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_false_claim_is_refused_for_what_is_wrong_with_it(tmp_path, models, name):
    (kind, make), why = FORGERIES[name]
    model = of(models, kind)
    code, text = verified(forge.written(tmp_path / "proof.npz", *make(model)), model)
    assert code in (1, 2), text
    assert why in text
    assert "accepted" not in text


def test_a_key_that_is_there_twice_is_refused(tmp_path, models):
    arrays, meta = forge.certificate(models["absolute"], 0.7)
    text = json.dumps(meta).replace('"label": 0', '"label": 1, "label": 0')
    code, found = verified(forge.written(tmp_path / "proof.npz", arrays, text), models["absolute"])
    assert (code, "twice" in found) == (2, True)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[" * 100_000, "no JSON"),
        ('{"a":' * 50_000, "no JSON"),
        ("NaN", "NaN"),
        ('{"kind": "certificate", "eps": Infinity}', "Infinity"),
        ('{"kind": ["certificate"]}', "another kind"),
        ("[]", "no JSON object"),
        ("9" * 10_000, "no JSON"),
    ],
)
def test_meta_that_is_no_plain_object_is_refused(tmp_path, models, text, why):
    code, found = verified(forge.written(tmp_path / "proof.npz", {}, text), models["absolute"])
    assert (code, why in found) == (2, True), found


MEMBERS = {
    "an array twice": ("centre.npy", np.full(2, 0.5), zipfile.ZIP_DEFLATED, "two arrays are called 'centre'"),
    "an array by its other name": ("centre", np.full(2, 0.5), zipfile.ZIP_DEFLATED, "two arrays are called 'centre'"),
    "a rare compression": ("more.npy", np.zeros(2), zipfile.ZIP_LZMA, "numpy does not write"),
    "an array of no use": ("more.npy", np.zeros(2), zipfile.ZIP_DEFLATED, "nothing in it speaks of"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", MEMBERS)
def test_members_that_could_be_read_in_two_ways_are_refused(tmp_path, models, name):
    member, array, method, why = MEMBERS[name]
    path = forge.written(tmp_path / "proof.npz", *forge.certificate(models["absolute"], 0.7))
    code, found = verified(forge.with_member(path, member, array, method), models["absolute"])
    assert (code, why in found) == (2, True), found


def test_a_small_file_cannot_ask_for_memory(tmp_path, models):
    """Phases of 30 million leaves in some kilobytes: read, looked at, and refused, within half a gigabyte."""
    import resource

    m = 3 * 10**7
    arrays, meta = forge.certificate(models["absolute"], 1.0, forge.chain(forge.batch(m, phases=[0])))
    arrays["tree.0.0.phases.0"] = np.ones((m, 1), SIGN)
    path = forge.written(tmp_path / "proof.npz", arrays, meta)
    assert path.stat().st_size < 10**5
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code, found = verified(path, models["absolute"])
    assert (code, "do not cover" in found) == (1, True)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 5 * 10**5


def test_the_property_must_be_the_one_that_is_asked_about(tmp_path, models):
    """A certificate of a smaller box, and one of another row, beside the property."""
    lines = [f"(declare-const {name} Real)" for name in ("X_0", "X_1", "Y_0", "Y_1")]
    lines += [f"(assert (>= X_{i} -0.5))(assert (<= X_{i} 0.5))" for i in (0, 1)]
    vnnlib = tmp_path / "p.vnnlib"
    vnnlib.write_text("\n".join([*lines, "(assert (<= Y_0 Y_1))"]))
    model = models["absolute"]
    same, smaller = forge.property_certificate(model, 0.5), forge.property_certificate(model, 0.4)
    other = copy.deepcopy(same)
    other[0]["0.0.offsets"] = np.array([0.01])
    codes = [verified(forge.written(tmp_path / "c.npz", *one), model, vnnlib)[0] for one in (same, smaller, other)]
    assert codes == [0, 1, 1]
