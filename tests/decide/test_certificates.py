"""Certificates: checked as they were made, and refused once they no longer prove their claim."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from idl_audit.commands.shared.subject import open_subject
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide.ladder import Options, decide_sample
from idl_audit.proof.cover import LeafPhases
from idl_audit.proof.files.claims import Ball
from idl_audit.proof.files.file import read_meta
from idl_audit.proof.format_1.reading import opened
from idl_audit.values.box import Box
from idl_audit.values.npz import NpzFile
from idl_audit.values.verdicts import Verdict
from tests.shared.format_1 import (
    Certificate,
    complete,
    trivial_chain,
    write_certificate,
)

ROOT = Path(__file__).resolve().parents[2]
EPS = 0.12


@pytest.fixture(scope="module")
def subject():
    return open_subject(ROOT / "sample_models/digits_mlp.onnx")


@pytest.fixture(scope="module")
def shares():
    """What was told of the share of a tree that is proved, while the sample was certified."""
    return []


@pytest.fixture(scope="module")
def certified(subject, shares):
    """A sample that is certified by a tree with many leaves for some rival."""
    with np.load(ROOT / "sample_models/digits_mlp.npz") as file:
        inputs, labels = file["inputs"].reshape(len(file["inputs"]), -1).astype(float), file["labels"]
    i = 15
    box = Box.around(inputs[i], EPS, valid_lo=0.0, valid_hi=1.0)
    options = Options(methods=("branch",), record=True)
    found = decide_sample(subject.model, subject.original, inputs[i], int(labels[i]), box, options, shares.append)
    assert found.verdict is Verdict.CERTIFIED
    chain = found.recorded.chain
    assert max(sum(tree.sizes) for tree in chain.trees.values()) > 3
    complete(chain, 9)
    return Certificate(Ball(inputs[i], EPS, clip=(0.0, 1.0)), int(labels[i]), chain, i)


def test_a_chain_is_accepted(subject, certified):
    assert certified.refused(subject.model) == []


def test_the_proved_share_of_a_tree_grows_to_one(certified, shares):
    assert certified.chain.trees
    assert all(0 <= share <= 1 for share in shares)
    assert any(0 < share < 1 for share in shares)
    assert shares[-1] == 1
    falls = sum(later < earlier for earlier, later in itertools.pairwise(shares))
    assert falls < shares.count(1.0)  # only a new tree begins again


def widest(found):
    return max(found.chain.trees, key=lambda a: sum(found.chain.trees[a].sizes))


def changed(found, change):
    other = replace(found, chain=copy.deepcopy(found.chain))
    change(other.chain.trees[widest(found)])
    return other


def test_a_missing_leaf_is_noticed(subject, certified):
    def drop(leaves):
        for values in (leaves.phases, leaves.slopes, leaves.multipliers):
            values[-1] = {k: array[1:] for k, array in values[-1].items()}
        leaves.sizes[-1] -= 1

    assert any("do not cover" in why for why in changed(certified, drop).refused(subject.model))


def test_a_missing_rival_is_noticed(subject, certified):
    other = replace(certified, chain=copy.deepcopy(certified.chain))
    del other.chain.trees[3]
    assert any("lower bound" in why for why in other.refused(subject.model))


def test_a_leaf_without_its_phases_proves_less(subject, certified):
    def forget(leaves):
        leaves.phases = [{} for _ in leaves.phases]

    assert any("a leaf has the lower bound" in why for why in changed(certified, forget).refused(subject.model))


def test_slopes_that_are_no_numbers_are_the_usual_lines_and_prove_less(subject, certified):
    def with_slopes(of):
        other = replace(certified, chain=copy.deepcopy(certified.chain))
        for leaves in other.chain.trees.values():
            leaves.slopes = [{k: of(array) for k, array in part.items()} for part in leaves.slopes]
        return other.refused(subject.model)

    refused = with_slopes(lambda slopes: np.full_like(slopes, np.nan))
    assert any("a leaf has the lower bound" in why for why in refused)
    usual = replace(certified, chain=copy.deepcopy(certified.chain))
    for leaves in usual.chain.trees.values():
        leaves.slopes = [{} for _ in leaves.slopes]
    assert refused == usual.refused(subject.model)


def test_another_class_or_a_larger_box_is_refused(subject, certified):
    wrong = replace(certified, label=(certified.label + 1) % 10)
    assert wrong.refused(subject.model)
    everything = replace(certified.ball, eps=1.0)
    assert replace(certified, ball=everything).refused(subject.model)


def test_the_usual_lines_do_not_prove_what_needs_a_tree(subject, certified):
    plain = replace(certified, chain=trivial_chain(subject.model))
    assert plain.refused(subject.model)


@pytest.mark.parametrize("seed", range(40))
def test_no_mutation_proves_what_is_false(subject, certified, seed):
    """The box of a class that is not the sample's own: whatever the chain says, nothing proves it."""
    rng = np.random.default_rng(seed)
    other = replace(certified, label=(certified.label + 1 + seed % 9) % 10, chain=copy.deepcopy(certified.chain))
    for leaves in other.chain.trees.values():
        for values in (leaves.slopes, leaves.multipliers):
            for batch in values:
                for k in batch:
                    batch[k] = (batch[k] * 10 ** rng.uniform(-3, 3) * rng.choice([-1, 1])).astype(np.float32)
    for step in other.chain.steps:
        step.sign *= rng.choice([-1.0, 1.0])
        step.states = rng.permutation(step.states)
    assert other.refused(subject.model)


def test_what_is_written_comes_back(tmp_path, subject, certified):
    path = tmp_path / "c.npz"
    write_certificate(path, certified, sha256="0" * 64, output_name=None, preprocessing=Preprocessing(), force=False)
    with NpzFile(path) as file:
        back = opened(file, read_meta(file), subject.model)
    assert back.checked(subject.model).refused == ()
    assert (back.claim.index, back.claim.label, back.claim.ball.eps) == (certified.index, certified.label, EPS)
    np.testing.assert_array_equal(back.claim.ball.inputs.lo, certified.ball.inputs.lo)


@pytest.mark.parametrize(
    ("phases", "expected"),
    [
        ([[0, 0]], True),
        ([[1, 0], [-1, 0]], True),
        ([[1, 0]], False),
        ([[1, 0], [-1, 1]], False),
        ([[1, 0], [-1, 1], [-1, -1]], True),
        ([[1, 1], [-1, -1]], False),
        ([[0, 1], [0, -1], [1, 0]], False),
        ([[1, 0], [0, 0]], True),
        ([], False),
    ],
)
def test_what_covers(phases, expected):
    leaves = LeafPhases.of([(0, 0, np.array(phases, np.int8).reshape(len(phases), 2))], len(phases))
    assert leaves is not None
    assert (leaves.covering(np.arange(len(phases))) is not None) is expected
