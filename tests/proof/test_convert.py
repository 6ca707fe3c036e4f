"""What searches record, as proofs: accepted by the one checker, before and after they were arrays of a file."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.chain import Chain
from idl_audit.proof.check import check
from idl_audit.proof.convert import of_chain, of_splits
from idl_audit.proof.files.arrays import PROOF, opened, packed, sizes
from idl_audit.proof.files.door import check_values, fit
from idl_audit.proof.files.strict_json import Damaged, Misfit
from idl_audit.proof.proof import Proof
from idl_audit.proof.split_tree import SplitTree
from idl_audit.search import branching
from idl_audit.search.judge import Judge
from idl_audit.search.splitting.boxes import split_inputs
from idl_audit.search.splitting.growth import grown
from idl_audit.values.arrays import AnyArray
from idl_audit.values.box import Box
from idl_audit.values.budget import Budget
from idl_audit.values.query import Conjunction, Query
from tests.shared.small_networks import minimum_by_patterns, random_network


def true_query(seed: int, *, share: float = 0.02) -> tuple[ImplicitModel, Query]:
    """Return a network and a query without counterexamples that bounds without splits hardly prove."""
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=2, widths=(6, 6), q=2, activations=("relu", "leaky_relu"))
    box, row = Box.between(np.full(2, -1.0), np.ones(2)), rng.normal(size=2)
    least = minimum_by_patterns(model, row, box)
    return model, Query(box, (Conjunction(row[None], np.array([-least + share * (1 + abs(least))])),))


def budget() -> Budget:
    return Budget.of(nodes=20_000)


def reread(model: ImplicitModel, proof: Proof, **changed: AnyArray) -> Proof:
    arrays: dict[str, Any] = {}
    packed(proof, 0, arrays)
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **{**arrays, **changed})
    file.seek(0)
    with np.load(file, allow_pickle=False) as archive:
        back = dict(archive)
    fit(back, PROOF, lambda name, size: sizes(model, back, name, size))
    return opened({name: check_values(name, array, PROOF) for name, array in back.items()}, 0)


@pytest.mark.parametrize("seed", range(8))
def test_what_branching_records_is_a_proof(seed: int) -> None:
    model, query = true_query(seed)
    chain = Chain()
    found = branching.branch(model, query, budget=budget(), judge=Judge.of_model(model, query), record=chain)
    assert found.proved
    proof = of_chain(model, query, chain)
    assert check(model, query, proof) == []
    assert check(model, query, reread(model, proof)) == []
    worse = Query(query.box, (Conjunction(query.alternatives[0].rows, query.alternatives[0].offsets - 1.0),))
    assert check(model, worse, proof) != []


@pytest.mark.parametrize("seed", range(8))
def test_what_splitting_of_inputs_records_is_a_proof(seed: int) -> None:
    model, query = true_query(seed)
    tree = SplitTree()
    assert split_inputs(model, query, budget=budget(), record=tree).proved
    assert grown(model, query, tree, budget()) is not None  # the search knows bounds that a leaf alone has not
    proof = of_splits(tree)
    assert check(model, query, proof) == []
    assert check(model, query, reread(model, proof)) == []


FOREIGN = {
    "an unknown array": {"part.0.goals.0.secret": np.zeros(1)},
    "a negative number": {"part.0.goals.-1.roots": np.zeros(1, np.int64)},
    "a number with zeros before it": {"part.0.goals.00.roots": np.zeros(1, np.int64)},
    "another type": {"part.0.goals.0.roots": np.zeros(1, np.int32)},
    "floating-point indices": {"part.0.goals.0.variable": np.full(1, -1.0)},
    "another number of axes": {"part.0.goals.0.roots": np.zeros((1, 1), np.int64)},
    "no number": {"part.0.goals.0.weights": np.full((1, 1), np.nan)},
    "infinity": {"part.0.goals.0.cut": np.full(1, np.inf)},
    "a negative weight": {"part.0.goals.0.weights": np.full((1, 1), -1.0)},
    "nodes of another length": {"part.0.goals.0.cut": np.zeros(2)},
    "a block that the model does not have": {
        "part.0.goals.0.slopes.7.leaves": np.zeros(1, np.int64),
        "part.0.goals.0.slopes.7.values": np.zeros((1, 6), np.float32),
    },
    "another width": {
        "part.0.goals.0.slopes.0.leaves": np.zeros(1, np.int64),
        "part.0.goals.0.slopes.0.values": np.zeros((1, 5), np.float32),
    },
    "rows of another number": {
        "part.0.goals.0.slopes.0.leaves": np.zeros(1, np.int64),
        "part.0.goals.0.slopes.0.values": np.zeros((2, 6), np.float32),
    },
    "a stage that is left out": {"part.0.stage.2.blocks": np.zeros(0, np.int64)},
    "half of what choices need": {"part.0.goals.0.duals.0.leaves": np.zeros(1, np.int64)},
}


@pytest.mark.parametrize("name", FOREIGN)
def test_the_door_lets_nothing_else_in(name: str) -> None:
    model, query = true_query(0, share=50.0)
    proof = of_chain(model, query, Chain())
    assert check(model, query, reread(model, proof)) == []
    with pytest.raises((Damaged, Misfit)):
        reread(model, proof, **FOREIGN[name])
