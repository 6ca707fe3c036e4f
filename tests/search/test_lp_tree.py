"""The tree of LPs: exact on all activation patterns, proved without the solver, for loops and without them."""

from __future__ import annotations

import copy
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import idl_audit
from idl_audit.decide.ladder import Options, decide_sample
from idl_audit.implicit.elimination import without_self_feedback
from idl_audit.proof.bounds import Interval
from idl_audit.proof.linear_bounds import backward_state_bounds
from idl_audit.proof.lp_chain import LpChain, prove_leaves, widened
from idl_audit.search.attacks import AttackOptions, Target, run_attack
from idl_audit.search.linprog import LinearProgram, Outcome, Solution
from idl_audit.search.lp_tree.tree import LpTree
from idl_audit.values.box import Box
from idl_audit.values.margins import margin_functionals
from idl_audit.values.query import Conjunction, Query
from idl_audit.values.verdicts import Reason, Verdict
from tests.shared.budgets import enough
from tests.shared.cyclic_models import least_over_patterns, monotone_loop, plain, random_loop
from tests.shared.format_1 import grown_programs
from tests.shared.format_1 import refused as refused_record
from tests.shared.small_networks import minimum_by_patterns, random_box, random_network

DATA = os.environ.get("IDL_AUDIT_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="IDL_AUDIT_DATA is unset")


def never(_):
    return False


def random_arrays(rng, n, p=3):
    while True:
        A = monotone_loop(rng, n, float(rng.choice([0.1, 1.0, 10.0]))) if rng.random() < 0.6 else random_loop(rng, n)
        arrays = {"A": A, "B": rng.normal(size=(n, p)), "C": rng.normal(size=(1, n)), "b": rng.normal(size=n)}
        model = plain(A, arrays["B"], arrays["C"], b=arrays["b"])
        if model.is_well_posed and np.abs(A).max() < 1e3:
            return arrays, model


def grown_tree(model, box, functional, candidate=never):
    there, inputs = without_self_feedback(model), Interval.of_boxes(box)
    bounds = widened(backward_state_bounds(there, inputs))
    grown = LpTree(there, inputs, bounds, enough()).grow(functional, candidate)
    return grown, there, inputs, bounds


def agrees(model, box, functional, truth):
    """Shift the output so that the truth lies a little on either side of 0: the tree must see it."""
    seen = set()
    for shift in (0.02, -0.02):
        gap = shift * (1 + abs(truth))
        moved = plain_shifted(model, gap - truth)
        grown, there, inputs, bounds = grown_tree(moved, box, functional)
        assert (grown.lower > 0) == (gap > 0)
        seen.add(gap > 0)
        if gap > 0:
            assert grown.lower <= gap + 1e-6 * (1 + abs(truth))
            leaves = grown.leaves
            assert prove_leaves(there, inputs, bounds, functional, leaves).min() == pytest.approx(grown.lower, rel=1e-9)
    assert seen == {True, False}
    return grown


def plain_shifted(model, shift):
    return replace(model, output=replace(model.output, constant=model.output.constant + shift))


@pytest.mark.parametrize("seed", range(12))
def test_loops_are_decided_as_by_all_activation_patterns(seed):
    rng = np.random.default_rng(seed)
    arrays, model = random_arrays(rng, int(rng.integers(1, 7)))
    centre, radius = rng.normal(size=3), rng.uniform(0.1, 1.5)
    box = Box.between(centre - radius, centre + radius)
    truth = least_over_patterns(arrays, np.ones(1), box.lo, box.hi)
    agrees(model, box, np.ones(1), truth)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12, 22))
def test_larger_loops_are_decided_as_by_all_activation_patterns(seed):
    rng = np.random.default_rng(seed)
    arrays, model = random_arrays(rng, 8)
    centre, radius = rng.normal(size=3), rng.uniform(0.3, 2.0)
    box = Box.between(centre - radius, centre + radius)
    truth = least_over_patterns(arrays, np.ones(1), box.lo, box.hi)
    agrees(model, box, np.ones(1), truth)


@pytest.mark.parametrize("seed", range(8))
def test_feed_forward_models_are_decided_as_by_all_activation_patterns(seed):
    rng = np.random.default_rng(seed)
    A = np.triu(rng.normal(size=(6, 6)), 3)  # two layers of three
    B = np.vstack([np.zeros((3, 2)), rng.normal(size=(3, 2))])
    b, C = rng.normal(size=6) * 0.3, rng.normal(size=(1, 6))
    model = plain(A, B, C, b=b)
    assert model.is_feed_forward
    box = Box.between(np.full(2, -1.0), np.full(2, 1.0))
    truth = minimum_by_patterns(model, np.ones(1), box)
    assert truth == pytest.approx(least_over_patterns({"A": A, "B": B, "C": C, "b": b}, np.ones(1), box.lo, box.hi))
    agrees(model, box, np.ones(1), truth)


def gap_model():
    """x = relu(u1 + u2), y = -x + 3 u2 - 3 u1 + 6.5 over [-1, 1]^2: the LP's minimum is -.5, the true one .5."""
    return plain([[0.0]], [[1.0, 1.0]], [[-1.0]], D=[[-3.0, 3.0]], d=[6.5])


def test_a_branch_decides_what_one_lp_does_not():
    box = Box.between(-np.ones(2), np.ones(2))
    model, inputs = gap_model(), Interval.of_boxes(box)
    bounds = widened(backward_state_bounds(model, inputs))
    tree = LpTree(model, inputs, bounds)
    alone = tree.grow(np.ones(1), never, most_nodes=1)
    assert alone.lower == -np.inf
    grown = tree.grow(np.ones(1), never)
    assert grown.lower == pytest.approx(0.5, abs=1e-6)
    assert grown.nodes == 3
    assert sorted(grown.leaves.phases[:, 0]) == [-1, 1]


@pytest.mark.parametrize("kind", ["leaky_relu", "abs"])
def test_states_of_other_kinds_lie_on_their_lines(kind):
    """Over [1, 2] phi(u) = u, so that x - u + 0.5 is 0.5: a line of slope 1 binds the LP, ReLU or not."""
    model = plain([[0.0]], [[1.0]], [[1.0]], kind, D=[[-1.0]], d=[0.5])
    grown, *_ = grown_tree(model, Box.between(np.ones(1), np.full(1, 2.0)), np.ones(1))
    assert grown.nodes == 1
    assert grown.lower == pytest.approx(0.5, abs=1e-6)


def test_an_empty_leaf_is_proved_by_a_ray():
    """x2 = relu(x1 - .1) and x3 = relu(.1 - x1): no input makes both positive, and y is negative only there."""
    A = [[0, 0, 1.0], [0, 0, -1.0], [0, 0, 0]]
    model = plain(A, [[0.0], [0.0], [1.0]], [[-1.0, -1.0, 0.0]], b=[-0.5, 0.5, 0.0], d=[0.9])
    box = Box.between(np.array([-1.0]), np.array([1.0]))
    assert minimum_by_patterns(model, np.ones(1), box) == pytest.approx(0.4)
    grown, there, inputs, bounds = grown_tree(model, box, np.ones(1))
    assert grown.lower > 0
    # every leaf holds on its own: those with both states active are empty
    assert (prove_leaves(there, inputs, bounds, np.ones(1), grown.leaves) > 0).all()


def test_a_lying_solver_certifies_nothing(monkeypatch):
    """Objective, status, points, duals, rays: whatever the solver says, the certificate evaluates."""
    rng = np.random.default_rng(3)
    arrays, model = random_arrays(rng, 4)
    box = Box.between(-np.ones(3), np.ones(3))
    truth = least_over_patterns(arrays, np.ones(1), box.lo, box.hi)
    false = plain_shifted(model, -truth - 0.05)  # its minimum is -.05
    sizes = {}

    real = LinearProgram.__init__

    def noted(self, matrix, **rest):
        sizes["rows"], sizes["columns"] = matrix.shape
        real(self, matrix, **rest)

    def lies(self, cost, *, time_limit=None):
        kind = rng.integers(0, 3)
        if kind == 0:
            return Solution(Outcome.INFEASIBLE)
        scale = 10.0 ** rng.uniform(-3, 3)
        point = 1e9 * np.sign(cost) + rng.normal(size=cost.size)
        return Solution(Outcome.OPTIMAL, point, scale * rng.normal(size=sizes["rows"]))

    monkeypatch.setattr(LinearProgram, "__init__", noted)
    monkeypatch.setattr(LinearProgram, "minimise", lies)
    monkeypatch.setattr(LinearProgram, "dual_ray", lambda self: 1e3 * rng.normal(size=sizes["rows"]))
    for _ in range(30):
        grown, *_ = grown_tree(false, box, np.ones(1))
        assert not grown.lower > 0


def classifier(rng, n=6, p=4, q=3):
    A = monotone_loop(rng, n, 0.5)
    return plain(A, rng.normal(size=(n, p)), rng.normal(size=(q, n)), b=rng.normal(size=n), d=rng.normal(size=q))


def decided(model, x, label, eps, **options):
    network = lambda points: model(points.astype(np.float64))  # noqa: E731
    box = Box.around(x, eps)
    query = Query.misclassification(box, model.n_outputs, label)
    return decide_sample(model, network, x, label, box, Options(**options)), Target.of(model, network, x, query)


def cases(seeds, eps, *, n=6, p=4):
    for seed in seeds:
        rng = np.random.default_rng(seed)
        model = classifier(rng, n, p)
        x = rng.normal(size=p).astype(np.float32).astype(float)
        yield seed, rng, model, x, int(model(x[None]).argmax()), eps


def test_every_sample_of_a_relu_loop_is_decided():
    found = []
    for _, _, model, x, label, eps in cases(range(20), 0.2):
        result, target = decided(model, x, label, eps)
        found.append(result.verdict)
        assert result.verdict in (Verdict.CERTIFIED, Verdict.FALSIFIED)
        if result.verdict is Verdict.FALSIFIED:
            assert result.found.predicted != label
            assert target.inputs.contains(result.found.point)
    assert found.count(Verdict.CERTIFIED) >= 3
    assert found.count(Verdict.FALSIFIED) >= 3


@pytest.mark.slow
def test_no_certified_sample_is_attacked_in_100000_trials():
    trials = 0
    for seed, rng, model, x, label, eps in cases(range(100, 130), 0.15):
        result, target = decided(model, x, label, eps)
        if result.verdict is not Verdict.CERTIFIED:
            continue
        margins = margin_functionals(3, label)
        points = np.vstack([x + eps * rng.uniform(-1, 1, (5000, 4)), x + eps * rng.choice([-1.0, 1.0], (3000, 4))])
        trials += len(points)
        least = (model(points) @ margins.T).min()
        assert least >= result.lower - 1e-9, seed
        for name in ("pgd", "sign"):
            assert not run_attack(name, target, AttackOptions(restarts=2), rng)
            best = target.judge.best
            assert best is None or (best.predicted == label and best.margin >= result.lower - 1e-5)
    assert trials >= 100_000


def test_without_a_proof_of_uniqueness_everything_is_unknown():
    model = plain([[2.0]], [[1.0]], [[1.0], [-1.0]])
    x = np.array([-1.0])
    result, _ = decided(model, x, int(model(x[None]).argmax()), 0.01, methods=("exact",))
    assert (result.verdict, result.reason) == (Verdict.UNKNOWN, Reason.NO_UNIQUENESS_PROOF)


def test_a_loop_of_another_activation_is_bounded_but_not_split():
    rng = np.random.default_rng(0)
    verdicts = set()
    for _ in range(12):
        A = monotone_loop(rng, 4, 1.0)
        kinds = [("tanh", 2), ("relu", 2)]
        model = plain(A, rng.normal(size=(4, 3)), rng.normal(size=(3, 4)), kinds)
        x = rng.normal(size=3).astype(np.float32).astype(float)
        result, _ = decided(model, x, int(model(x[None]).argmax()), 0.1, methods=("exact",), time_limit=5.0)
        verdicts.add(result.verdict)
        if result.verdict is Verdict.UNKNOWN:
            assert result.reason is Reason.RELAXATION_GAP
        elif result.verdict is Verdict.CERTIFIED:
            points = x + 0.1 * rng.uniform(-1, 1, (2000, 3))
            assert (model(points).argmax(axis=1) == model(x[None]).argmax()).all()
    assert Verdict.CERTIFIED in verdicts


# ---------------------------------------------------------------------------------------------- chains


@pytest.fixture(scope="module")
def chain():
    for _, _, model, x, label, eps in cases(range(200, 260), 0.3, n=14, p=8):
        result, target = decided(model, x, label, eps, methods=("exact",), record=True)
        if result.verdict is Verdict.CERTIFIED and max(len(t.phases) for t in result.recorded.lp.trees.values()) > 3:
            query = Query.misclassification(target.box, 3, label)
            return model, query, grown_programs(model, query, result.recorded.lp)
    raise AssertionError("no sample needed a tree")


def test_a_chain_is_accepted(chain):
    assert refused_record(*chain) == []


def refused(chain, change):
    model, query, found = chain
    other = copy.deepcopy(found)
    change(other)
    return refused_record(model, query, other)


def largest(found: LpChain):
    return max(found.trees.values(), key=lambda leaves: len(leaves.phases))


def test_what_a_chain_lacks_is_noticed(chain):
    def drop_leaf(found):
        leaves = largest(found)
        leaves.phases, leaves.multipliers = leaves.phases[1:], leaves.multipliers[1:]

    def drop_tree(found):
        del found.trees[next(k for k, leaves in found.trees.items() if leaves is largest(found))]

    def drop_proof(found):
        found.proofs.clear()

    def spoil_proof(found):
        for proof in found.proofs.values():
            for array in proof.arrays.values():
                array *= 0.5

    def forget_phases(found):
        largest(found).phases[:] = 0

    def no_numbers(found):
        largest(found).multipliers[0] = np.nan

    for change, why in (
        (drop_leaf, "do not cover"),
        (drop_tree, "lower bound"),
        (drop_proof, "one state"),
        (spoil_proof, "one state"),
        (forget_phases, "lower bound"),
        (no_numbers, "lower bound"),
    ):
        assert why in "; ".join(refused(chain, change)), change.__name__


@pytest.mark.parametrize("seed", range(20))
def test_no_mutation_proves_what_is_false(chain, seed):
    model, query, found = chain
    rng = np.random.default_rng(seed)
    other = copy.deepcopy(found)
    for leaves in other.trees.values():
        leaves.multipliers *= 10 ** rng.uniform(-3, 3) * rng.choice([-1, 1], leaves.multipliers.shape)
        rng.shuffle(leaves.phases, axis=1)
    opposite = Query(query.box, tuple(Conjunction(-c.rows, c.offsets) for c in query.alternatives))
    assert refused_record(model, opposite, other)


# ---------------------------------------------------------------------------------------------- the published loop


@needs_data
def test_the_published_equilibrium_network_is_decided():
    with np.load(Path(DATA, "mnist.npz")) as file:
        images, labels = file["test_images"][:12].reshape(12, -1) / 255.0, file["test_labels"][:12]
    model = idl_audit.from_mondeq(Path(DATA, "models/mnist_mondeq_m20_h40.pt"), m=20, mean=0.1307, std=0.3081)
    network = lambda points: model(points.astype(np.float64))  # noqa: E731
    found = []
    for image, label in zip(images.astype(np.float32).astype(float), labels, strict=True):
        box = Box.around(image, 0.05, valid_lo=0.0, valid_hi=1.0)
        found.append(decide_sample(model, network, image, int(label), box, Options()).verdict)
    assert found.count(Verdict.CLEAN_WRONG) == 1
    assert found.count(Verdict.CERTIFIED) == 9
    assert found.count(Verdict.FALSIFIED) == 2


def test_random_networks_are_never_certified_against_a_sample():
    """Feed-forward networks of every kind of block by the method exact: what is certified survives all samples."""
    certified = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        model = random_network(rng)
        box = random_box(rng, model.n_inputs)
        functional = rng.normal(size=model.n_outputs)
        points = box.lo + rng.random((2000, box.size)) * (box.hi - box.lo)
        least = float((model(points) @ functional).min())
        inputs = Interval.of_boxes(box)
        tree = LpTree(model, inputs, widened(backward_state_bounds(model, inputs)))
        grown = tree.grow(functional, never, most_nodes=50)
        assert grown.lower == -np.inf or grown.lower <= least + 1e-9 * (1 + abs(least))
        certified += grown.lower > 0
    assert certified >= 1
