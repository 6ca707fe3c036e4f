"""Proofs as arrays with names, and back: the table of everything that a proof file may hold."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.exact.refutation import Refutation
from idl_audit.proof.files.door import Arrays, Header, Name, Spec
from idl_audit.proof.files.strict_json import Damaged
from idl_audit.proof.forest import Choices, Forest, Shares
from idl_audit.proof.proof import Goals, LeafWeights, Lemma, Proof
from idl_audit.proof.sensitivity_witness import ProofWitness
from idl_audit.values.arrays import AnyArray

WHOLE, REAL, SINGLE, SIGN, BYTE = "<i8", "<f8", "<f4", "|i1", "|u1"

LOOP: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "alpha": ("loop",),
        "Y": ("loop", "loop"),
        "v": ("loop",),
        "middle": ("one",),
        "m": ("one",),
        "factor": ("loop", "loop"),
        "weights": ("loop",),
        "norm": ("one",),
    }
)
"""Arrays of a proof that a loop, or a whole model, is well-posed: a contraction's (of norms, too), a monotone one's."""
CONTRACTION: Final = frozenset({"alpha", "Y", "v", "middle"})
MONOTONE: Final = frozenset({"m", "factor"})
WEIGHTED: Final = MONOTONE | {"weights"}
NORMED: Final = frozenset({"norm", "v"})


def tree_of(prefix: str) -> dict[str, Spec]:
    """Return the entries of the nodes of trees; sizes are shared below their prefix."""
    depth = prefix.count(".") + 1
    trees, nodes = f"trees/{depth}", f"nodes/{depth}"
    return {
        "roots": Spec(WHOLE, (trees,), 0),
        "variable": Spec(WHOLE, (nodes,), -1),
        "cut": Spec(REAL, (nodes,)),
        "child": Spec(WHOLE, (nodes,), 0),
    }


def _forest(prefix: str) -> Iterator[tuple[str, Spec]]:
    """Yield the entries of a forest; sizes are shared below its prefix."""
    depth = prefix.count(".") + 1
    yield from ((f"{prefix}.{name}", spec) for name, spec in tree_of(prefix).items())
    for kind in ("slopes", "multipliers", "duals"):
        leaves = f"leaves/{depth + 2}"
        yield f"{prefix}.{kind}.*.leaves", Spec(WHOLE, (leaves,), 0, ascending=True)
        yield f"{prefix}.{kind}.*.values", Spec(SINGLE, (leaves, "states"))
    leaves, planes = f"leaves/{depth + 2}", f"planes/{depth + 2}"
    yield f"{prefix}.planes.*.leaves", Spec(WHOLE, (leaves,), 0, ascending=True)
    yield f"{prefix}.planes.*.states", Spec(WHOLE, (planes,), 0, ascending=True)
    yield f"{prefix}.planes.*.shares", Spec(BYTE, (leaves, planes, f"reads/{depth + 2}"))


LEMMA: Final = "part.*.stage.*.lemma.*"
GOALS: Final = "part.*.goals.*"
EXACT: Final = "part.*.exact.*"

PROOF: Final[Mapping[str, Spec]] = MappingProxyType(
    {
        **{f"part.*.loop.*.{name}": Spec(REAL, shape) for name, shape in LOOP.items()},
        "part.*.kept.*": Spec(WHOLE, ("kept/4",), 0, ascending=True),
        "part.*.stage.*.blocks": Spec(WHOLE, ("lemmas/4",), 0),
        f"{LEMMA}.states": Spec(WHOLE, ("trees/6",), 0),
        f"{LEMMA}.signs": Spec(SIGN, ("trees/6",), -1, 1),
        **dict(_forest(LEMMA)),
        f"{GOALS}.stage": Spec(WHOLE, ("one",), 0),
        f"{GOALS}.alternatives": Spec(WHOLE, ("trees/4",), -1),
        f"{GOALS}.weights": Spec(REAL, ("trees/4", "rows/4"), 0),
        "part.*.delta.*": Spec(REAL, ("rows/4",), 0),
        f"{GOALS}.own.leaves": Spec(WHOLE, ("weighed/5",), 0, ascending=True),
        f"{GOALS}.own.weights": Spec(SINGLE, ("weighed/5", "weights/5"), 0),
        **dict(_forest(GOALS)),
        f"{EXACT}.alternative": Spec(WHOLE, ("one",), 0),
        f"{EXACT}.states": Spec(WHOLE, ("variables/4",), 0),
        f"{EXACT}.lo": Spec(REAL, ("variables/4",)),
        f"{EXACT}.hi": Spec(REAL, ("variables/4",)),
        **{f"{EXACT}.{name}": spec for name, spec in tree_of(EXACT).items()},
        f"{EXACT}.leaves": Spec(WHOLE, ("used/4",), 0),
        f"{EXACT}.rows": Spec(WHOLE, ("used/4",), 0),
        f"{EXACT}.multipliers": Spec(BYTE, ("digits/4",)),
    }
)
"""Pattern of a name -> what arrays of that name are; `part.K` is the proof for the query with number K."""


def packed(proof: Proof, part: int, arrays: dict[str, AnyArray]) -> None:
    """Put the arrays of a proof among others."""
    prefix = f"part.{part}"
    for k, witness in proof.loops.items():
        pack_loop(witness, f"{prefix}.loop.{k}", arrays)
    for k, states in proof.kept.items():
        arrays[f"{prefix}.kept.{k}"] = _whole(states)
    for s, lemmas in enumerate(proof.stages):
        arrays[f"{prefix}.stage.{s}.blocks"] = _whole([lemma.block for lemma in lemmas])
        for j, lemma in enumerate(lemmas):
            key = f"{prefix}.stage.{s}.lemma.{j}"
            arrays[f"{key}.states"], arrays[f"{key}.signs"] = _whole(lemma.states), np.asarray(lemma.signs, np.int8)
            pack_forest(lemma.forest, key, arrays)
    for a, slack in enumerate(proof.slack):
        arrays[f"{prefix}.delta.{a}"] = np.asarray(slack, np.float64)
    for g, goals in enumerate(proof.goals):
        key = f"{prefix}.goals.{g}"
        arrays[f"{key}.stage"], arrays[f"{key}.alternatives"] = _whole([goals.stage]), _whole(goals.alternatives)
        arrays[f"{key}.weights"] = np.asarray(goals.weights, np.float64)
        if goals.own is not None:
            arrays[f"{key}.own.leaves"] = _whole(goals.own.leaves)
            arrays[f"{key}.own.weights"] = np.asarray(goals.own.values, np.float32)
        pack_forest(goals.forest, key, arrays)
    for e, refutation in enumerate(proof.exact):
        _pack_refutation(refutation, f"{prefix}.exact.{e}", arrays)


def _pack_refutation(found: Refutation, key: str, arrays: dict[str, AnyArray]) -> None:
    arrays[f"{key}.alternative"] = _whole([found.alternative])
    for name in ("states", "leaves", "rows"):
        arrays[f"{key}.{name}"] = _whole(getattr(found, name))
    arrays[f"{key}.lo"], arrays[f"{key}.hi"] = np.asarray(found.lo, np.float64), np.asarray(found.hi, np.float64)
    text = " ".join(f"{value:x}" for value in found.multipliers)
    arrays[f"{key}.multipliers"] = np.frombuffer(text.encode("ascii"), np.uint8)
    pack_forest(found.forest, key, arrays)


def pack_loop(witness: ProofWitness, key: str, arrays: dict[str, AnyArray]) -> None:
    """Put the arrays of a proof that a loop, or a whole model, is well-posed among others."""
    for name, array in witness.arrays.items():
        arrays[f"{key}.{name}"] = np.asarray(array, np.float64)
    if witness.kind == "contraction":
        arrays[f"{key}.middle"] = np.asarray([float(witness.middle)])


def pack_forest(forest: Forest, key: str, arrays: dict[str, AnyArray]) -> None:
    """Put a forest among other arrays, below a key."""
    for name in ("roots", "variable", "child"):
        arrays[f"{key}.{name}"] = _whole(getattr(forest, name))
    arrays[f"{key}.cut"] = np.asarray(forest.cut, np.float64)
    for kind in ("slopes", "multipliers", "duals"):
        for k, own in getattr(forest, kind).items():
            arrays[f"{key}.{kind}.{k}.leaves"] = _whole(own.leaves)
            arrays[f"{key}.{kind}.{k}.values"] = np.asarray(own.values, np.float32)
    for k, shares in forest.planes.items():
        arrays[f"{key}.planes.{k}.states"], arrays[f"{key}.planes.{k}.leaves"] = (
            _whole(shares.states),
            _whole(shares.leaves),
        )
        arrays[f"{key}.planes.{k}.shares"] = np.asarray(shares.values, np.uint8)


def _whole(values: object) -> AnyArray:
    return np.asarray(values, np.int64)


def sizes(model: ImplicitModel, headers: Mapping[str, Header], name: Name, size: str) -> int | None:
    """Return what a model says of a size in the table; None where it has no such thing.

    Args:
        model: the model in the form that proofs are about.
        headers: of the file, for the numbers of states that stay after the first stage.
        name: of the array.
        size: "one", "inputs", "outputs"; "pair outputs": those of either of two models; "all" states; "loop": the
            states of the loop that is named; "states": those of the block that is named, of all states in a lemma of
            the first stage and of those that stay elsewhere.
    """
    fixed = {
        "one": 1,
        "inputs": model.n_inputs,
        "outputs": model.n_outputs,
        "pair outputs": model.n_outputs // 3,
        "all": model.n_states,
    }
    if size in fixed:
        return fixed[size]
    k = name.numbers[-1]
    if not k < len(model.blocks) or (size == "loop" and k not in model.loops):
        return None
    kept = headers.get(f"part.{name.numbers[0]}.kept.{k}") if name.text.startswith("part.") else None
    first = name.pattern.startswith("part.*.stage") and name.numbers[1] == 0
    if kept is None or size == "loop" or first:
        return model.blocks[k].size
    return math.prod(kept.shape)  # one that is no vector is refused by its own entry of the table


def opened(arrays: Arrays, part: int) -> Proof:
    """Return the proof of a part from arrays that fit the table. Raises Damaged where arrays of it are missing."""
    prefix = f"part.{part}"
    stages = tuple(
        _opened_stage(arrays, f"{prefix}.stage.{s}") for s in range(arrays.counted(f"{prefix}.stage", "stages"))
    )
    if not stages:
        raise Damaged("it has no stage")
    return Proof(
        stages,
        tuple(_opened_goals(arrays, f"{prefix}.goals.{g}") for g in range(arrays.counted(f"{prefix}.goals", "goals"))),
        {k: arrays[f"{prefix}.kept.{k}"] for k in arrays.numbers(f"{prefix}.kept")},
        opened_loops(arrays, f"{prefix}.loop"),
        tuple(arrays[f"{prefix}.delta.{a}"] for a in range(arrays.counted(f"{prefix}.delta", "roundings"))),
        tuple(
            _opened_refutation(arrays, f"{prefix}.exact.{e}")
            for e in range(arrays.counted(f"{prefix}.exact", "refutations"))
        ),
    )


def opened_loops(arrays: Arrays, prefix: str) -> dict[int, ProofWitness]:
    """Return the proofs that loops are well-posed, by the numbers of their blocks."""
    return {k: opened_loop(arrays, f"{prefix}.{k}") for k in arrays.numbers(prefix)}


def opened_loop(arrays: Arrays, key: str) -> ProofWitness:
    """Return the proof that a loop is well-posed. Raises Damaged where its arrays are those of no proof."""
    names = arrays.words(key) - {"r"}
    if names not in (CONTRACTION, MONOTONE, WEIGHTED, NORMED):
        raise Damaged(f"the arrays of '{key}' are those of no proof")
    own = {name: arrays[f"{key}.{name}"] for name in names - {"middle"}}
    if names != CONTRACTION:
        return ProofWitness("norms" if names == NORMED else "monotone", own)
    middle = float(arrays[f"{key}.middle"][0])
    if middle not in (0.0, 1.0):
        raise Damaged(f"'{key}.middle' is neither 0 nor 1")
    return ProofWitness("contraction", own, bool(middle))


def _opened_stage(arrays: Arrays, key: str) -> tuple[Lemma, ...]:
    blocks = arrays[f"{key}.blocks"]
    if arrays.counted(f"{key}.lemma", "lemmas") != blocks.size:
        raise Damaged(f"'{key}.blocks' names {blocks.size} lemmas, and there are others")
    return tuple(
        Lemma(
            int(block),
            arrays[f"{key}.lemma.{j}.states"],
            arrays[f"{key}.lemma.{j}.signs"].astype(np.int64),
            opened_forest(arrays, f"{key}.lemma.{j}"),
        )
        for j, block in enumerate(blocks)
    )


def _opened_goals(arrays: Arrays, key: str) -> Goals:
    has_own = bool(arrays.words(f"{key}.own"))
    return Goals(
        int(arrays[f"{key}.stage"][0]),
        arrays[f"{key}.alternatives"],
        arrays[f"{key}.weights"],
        opened_forest(arrays, key),
        LeafWeights(arrays[f"{key}.own.leaves"], arrays[f"{key}.own.weights"]) if has_own else None,
    )


def _opened_refutation(arrays: Arrays, key: str) -> Refutation:
    return Refutation(
        int(arrays[f"{key}.alternative"][0]),
        arrays[f"{key}.states"],
        arrays[f"{key}.lo"],
        arrays[f"{key}.hi"],
        opened_forest(arrays, key),
        arrays[f"{key}.leaves"],
        arrays[f"{key}.rows"],
        _hexadecimal(arrays[f"{key}.multipliers"], f"{key}.multipliers"),
    )


def _hexadecimal(digits: AnyArray, name: str) -> tuple[int, ...]:
    """Return whole numbers that are written one behind the other, a space between. Raises Damaged."""
    text = digits.tobytes()
    if not _NUMBERS.fullmatch(text):
        raise Damaged(f"'{name}' is no list of hexadecimal numbers")
    return tuple(int(part, 16) for part in text.split(b" ") if part)


_NUMBERS: Final = re.compile(rb"([0-9a-f]+( [0-9a-f]+)*)?")


def opened_forest(arrays: Arrays, key: str) -> Forest:
    """Return the forest below a key. Raises Damaged where something is missing."""

    def choices(kind: str) -> dict[int, Choices]:
        at = f"{key}.{kind}"
        return {k: Choices(arrays[f"{at}.{k}.leaves"], arrays[f"{at}.{k}.values"]) for k in arrays.numbers(at)}

    planes = {
        k: Shares(*(arrays[f"{key}.planes.{k}.{name}"] for name in ("states", "leaves", "shares")))
        for k in arrays.numbers(f"{key}.planes")
    }
    roots, variable, cut, child = (arrays[f"{key}.{name}"] for name in ("roots", "variable", "cut", "child"))
    return Forest(roots, variable, cut, child, choices("slopes"), choices("multipliers"), choices("duals"), planes)
