"""Properties whose rows cannot hold all together: known from every activation pattern, or every assignment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from idl_audit.commands.shared.questions import to_query
from idl_audit.data.vnnlib import read_vnnlib
from idl_audit.decide.ladder import Options, climbed, decide_query
from idl_audit.decide.proofs import proof_of
from idl_audit.decide.rungs import RUNGS
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval
from idl_audit.proof.check import check
from idl_audit.proof.intervals import interval_bounds
from idl_audit.search.linprog import Outcome
from idl_audit.search.rows_together import RowsTogether
from idl_audit.search.splitting.together import raised
from idl_audit.values.box import Box
from idl_audit.values.budget import UNLIMITED
from idl_audit.values.query import Conjunction, Query
from idl_audit.values.verdicts import Verdict
from tests import independent_checker
from tests.independent_files import Refused
from tests.shared.command_line import run
from tests.shared.implicit_models import Network
from tests.shared.joint_properties import (
    JointProperty,
    assignments,
    formula,
    least_by_patterns,
    least_by_program,
    of_formula,
    of_network,
    satisfied,
)

ANSWERS = {"sat": Verdict.FALSIFIED, "unsat": Verdict.CERTIFIED}


def asked(own: JointProperty, folder: Path) -> tuple[Network, Query]:
    own.write(folder)
    box = read_vnnlib(folder / f"{own.name}.vnnlib").boxes[0]
    return Network(own.model), to_query(box, own.limits.size, "test")


def small(seed: int, truth: str) -> JointProperty:
    rng = np.random.default_rng(seed)
    hidden = [(4,), (2, 2), (3, 2)][int(rng.integers(3))]
    sizes = (int(rng.integers(2, 4)), *hidden, int(rng.integers(2, 5)))
    return of_network(rng, sizes, truth, name="small", exact=True)


@pytest.mark.parametrize("method", ["joint", "branch", "split"])
@settings(max_examples=6, deadline=None)
@example(seed=2616, truth="unsat")  # refuted by a sum that is above the greatest of its rows
@example(seed=2339486, truth="unsat")
@given(seed=st.integers(0, 2**32 - 1), truth=st.sampled_from(["sat", "unsat"]))
def test_small_networks_are_decided_as_every_activation_pattern_says(tmp_path_factory, method, seed, truth):
    network, query = asked(small(seed, truth), tmp_path_factory.mktemp("small"))
    model = network.implicit
    found = decide_query(
        model, network.original, query, Options(methods=("linear", method), record=True, max_nodes=4000)
    )
    assert found.verdict in (ANSWERS[truth], Verdict.UNKNOWN)
    if method == "joint":
        assert found.verdict is ANSWERS[truth]
    if found.verdict is Verdict.CERTIFIED:
        proof = proof_of(model, network.original, query, found.recorded, budget=UNLIMITED)
        assert proof is not None
        assert check(model, query, proof) == []
        assert min(found.lowers) > 0
        u = np.random.default_rng(0).uniform(-1, 1, (500, model.n_inputs))
        assert (query.distance(model(u)) >= min(found.lowers) - 1e-9).all()


@pytest.mark.parametrize("steep", [False, True])
@pytest.mark.parametrize("truth", ["sat", "unsat"])
def test_formulas_are_decided_as_every_assignment_says(tmp_path, truth, steep):
    clauses = formula(np.random.default_rng(6), 6, truth)
    values = assignments(6)
    left = np.logical_and.reduce([satisfied(clause, values) for clause in clauses])
    assert left.any() == (truth == "sat")
    own = of_formula(clauses, truth, name="formula", steep=steep)
    assert ((own(values.astype(float)) <= own.limits).all(axis=1) == left).all()
    network, query = asked(own, tmp_path)
    found = decide_query(network.implicit, network.original, query, Options(methods=("joint",), record=True))
    assert found.verdict is ANSWERS[truth]
    if truth == "unsat":
        proof = proof_of(network.implicit, network.original, query, found.recorded, budget=UNLIMITED)
        assert proof is not None
        assert check(network.implicit, query, proof) == []
        goals = proof.goals[0]
        assert goals.own is not None
        bare = replace(proof, goals=(replace(goals, own=None, weights=np.ones_like(goals.weights)), *proof.goals[1:]))
        assert check(network.implicit, query, bare)


def test_a_certificate_is_verified_by_both_checkers(tmp_path):
    own = of_formula(formula(np.random.default_rng(5), 5, "unsat"), "unsat", name="formula")
    network, question = own.write(tmp_path)
    told = run("certify", str(network), str(question), "--certificates", str(tmp_path / "proofs"), "-f", "json")
    assert told.report.properties[0].result == "unsat"
    certificate = tmp_path / "proofs" / "formula.npz"
    assert run("verify", str(certificate), str(network), str(question)).code == 0
    assert independent_checker.check(network, certificate)
    with np.load(certificate) as file:
        arrays = {name: file[name] for name in file.files}
    name = "part.0.goals.0.own.weights"
    for forged in (arrays[name][::-1], np.zeros_like(arrays[name]), -arrays[name]):
        np.savez(certificate, **{**arrays, name: np.ascontiguousarray(forged)})
        assert run("verify", str(certificate), str(network), str(question)).code == 1 + (forged.min() < 0)
        with pytest.raises(Refused):
            independent_checker.check(network, certificate)


def test_two_ways_to_know_the_truth_agree():
    for seed in range(3):
        own = small(seed, "unsat")
        assert least_by_patterns(own) == pytest.approx(least_by_program(own), abs=1e-5)
        assert least_by_patterns(own) > 0


def test_single_rows_have_no_rung_for_several():
    model: ImplicitModel = Network(of_network(np.random.default_rng(0), (3, 4, 2), "sat", name="x").model).implicit
    own = np.eye(2)
    box = Interval(np.full((1, 3), -1.0), np.full((1, 3), 1.0))
    inputs = Box.between(box.lo[0], box.hi[0])
    single = Query(inputs, tuple(Conjunction(row[None], np.zeros(1)) for row in own))
    several = Query(inputs, (Conjunction(own, np.zeros(2)),))
    joint = {name for name in RUNGS if "joint" in name or name in ("long split", "late attack")}
    assert joint.isdisjoint(climbed(model, single))
    assert joint & set(climbed(model, several))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_weights_of_boxes_come_near_the_best(seed):
    rng = np.random.default_rng(seed)
    m, count, p = 5, int(rng.integers(2, 6)), int(rng.integers(1, 5))
    slopes = rng.normal(size=(m, count, p))
    lower = rng.normal(size=(m, count)) - np.abs(slopes).sum(axis=2)
    weights, value = raised(lower, slopes)
    middle = lower + np.abs(slopes).sum(axis=2)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    exact = (weights * middle).sum(axis=1) - np.abs(np.einsum("mr,mrp->mp", weights, slopes)).sum(axis=1)
    np.testing.assert_allclose(value, exact, atol=1e-5)
    for i in range(m):
        tau = np.eye(p + 1)[-1]
        rows = np.hstack([slopes[i], -np.ones((count, 1))])
        best = linprog(tau, rows, -middle[i], bounds=[(-1, 1)] * p + [(None, None)]).fun
        assert lower[i].max() - 1e-9 <= value[i] <= best + 1e-6


def test_the_program_finds_where_the_greatest_row_is_least():
    """y = (u, -u) with the rows u + .5 and -u + .25 on [-1, 1]: at u = -.125 both are .375, each half."""
    own = JointProperty("line", (np.array([[1.0, -1.0]]),), (np.zeros(2),), -1.0, 1.0, np.array([-0.5, -0.25]), "unsat")
    model = build_implicit(Network(own.model).graph)
    inputs = Interval(np.full((1, 1), -1.0), np.full((1, 1), 1.0))
    rows = Conjunction(np.eye(2), np.array([0.5, 0.25]))
    program = RowsTogether(model, inputs, interval_bounds(model, inputs), rows)
    found, weights = program.solve_together()
    assert found.outcome is Outcome.OPTIMAL
    assert found.objective > 0
    np.testing.assert_allclose(weights, [0.5, 0.5])
