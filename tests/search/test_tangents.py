"""Lines of any slope around the states of curved blocks: what the search raises, records and proves."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from idl_audit.commands.shared.questions import read_property
from idl_audit.commands.shared.subject import open_subject
from idl_audit.decide.ladder import Options, decide_query
from idl_audit.implicit.activations import ACTIVATIONS, COUPLED
from idl_audit.implicit.activations.analytic import Circular
from idl_audit.implicit.activations.curve import Curve
from idl_audit.implicit.model import ImplicitModel, StateBlock
from idl_audit.proof.bounds import Interval
from idl_audit.proof.chain import Chain, with_phases
from idl_audit.proof.leaves import prove_leaves, prove_states
from idl_audit.proof.linear_bounds import backward_state_bounds, output_lower_bounds
from idl_audit.search.branching import branch
from idl_audit.search.branching.ascent import Found, ascend
from idl_audit.search.branching.network import SearchNet, state_tensors
from idl_audit.search.branching.phased import PhasedSearch
from idl_audit.search.branching.root import root_bounds
from idl_audit.search.branching.tangents import Tangents
from idl_audit.search.judge import Judge
from idl_audit.values.box import Box
from idl_audit.values.query import Conjunction, Query
from idl_audit.values.verdicts import Verdict
from tests.shared.budgets import enough
from tests.shared.format_1 import refused
from tests.shared.small_networks import layered, random_box, random_network, some_points

Array = np.ndarray[Any, Any]
SEEDS = st.integers(0, 2**32 - 1)
CURVES = [name for name, make in ACTIVATIONS.items() if name not in COUPLED and isinstance(make(), (Curve, Circular))]
EVERY = pytest.mark.parametrize("name", CURVES)
ERAN = Path(os.environ.get("IDL_AUDIT_DATA", ".")) / "vnncomp/eran"


@EVERY
@pytest.mark.parametrize("exponent", [0, 3])
def test_lines_of_any_slope_touch_the_graph_on_the_side_that_is_asked_for(name: str, exponent: int) -> None:
    rng = np.random.default_rng(0)
    block = StateBlock("b", "Op", ACTIVATIONS[name](), (30,), exponent=exponent)
    lo, hi = np.sort(rng.normal(size=(2, 30)) * 3, axis=0)
    tangents = Tangents.of(block, lo, hi)
    shares = torch.from_numpy(rng.random((5, 30)).astype(np.float32))
    v = torch.from_numpy(rng.normal(size=(5, 30)).astype(np.float32))
    slopes = tangents.slopes(shares).requires_grad_()
    heights = tangents.heights(slopes, v)
    (gradient,) = torch.autograd.grad(heights.sum(), slopes)
    z = lo + (hi - lo) * np.linspace(0, 1, 4001)[:, None, None]
    above = (block(z) - slopes.detach().double().numpy() * z - heights.detach().numpy()) * np.sign(v.numpy())
    assert above.min() >= -1e-5
    assert above.min(axis=0).max() <= 1e-4
    places = -gradient.numpy()
    assert ((places >= lo - 1e-5) & (places <= hi + 1e-5)).all()
    wide = (tangents.span > 0.1).numpy()
    np.testing.assert_allclose(tangents.shares(slopes.detach())[:, wide], shares[:, wide], atol=1e-4)


@EVERY
def test_ascent_finds_the_slope_at_which_one_state_is_bounded_exactly(name: str) -> None:
    """phi(u) - k u over [-1.5, 2.5] is bounded by its true minimum where lam is k."""
    phi = ACTIVATIONS[name]()
    box = Box.around(np.array([0.5]), 2.0)
    for k in (0.3, -0.05):
        model = layered([([[1.0]], [0.0])], ([[1.0]], [0.0]), phi, skip=[[-k]])
        net, inputs = SearchNet(model, box), Interval.of_boxes(box)
        bounds = backward_state_bounds(model, inputs)
        lines = {j: net.lines(j, *ends) for j, ends in state_tensors(bounds).items()}
        for sign in (1.0, -1.0):
            seeds = torch.full((1, 1), sign)
            found = ascend(net, net.output, 0, seeds, lines, steps=60, enough=1e9)
            slopes = {j: own.numpy() for j, own in found.slopes.items()}
            proved = prove_leaves(model, inputs, bounds, seeds.double().numpy(), slopes, {})[0]
            usual = output_lower_bounds(model, inputs, bounds, seeds.double().numpy())[0, 0]
            grid = np.linspace(-1.5, 2.5, 4001)
            near = grid[np.argmin(sign * (phi(grid) - k * grid))]
            ends = max(near - 1e-3, -1.5), min(near + 1e-3, 2.5)
            true = minimize_scalar(lambda u, sign=sign, k=k: sign * float(phi(np.array(u)) - k * u), bounds=ends).fun
            assert usual - 1e-6 <= proved <= true + 1e-9
            assert found.bound[0] == pytest.approx(proved, abs=1e-4)
            assert proved >= true - 0.02


def raised(seed: int, names: list[str]) -> tuple[np.random.Generator, ImplicitModel, Box, Any, Found, Array]:
    """Return a random network over a box, its bounds, and what ascent found for some functionals."""
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(5, 4, 5), activations=names)
    box = random_box(rng, 3)
    bounds = backward_state_bounds(model, Interval.of_boxes(box))
    net = SearchNet(model, box)
    lines = {k: net.lines(k, *ends) for k, ends in state_tensors(bounds).items()}
    seeds = rng.normal(size=(6, model.n_outputs)).astype(np.float32)
    found = ascend(net, net.output, 0, torch.from_numpy(seeds), lines, steps=12, enough=1e9)
    return rng, model, box, bounds, found, seeds.astype(np.float64)


@given(seed=SEEDS)
@settings(deadline=None, max_examples=20)
def test_what_ascent_chose_is_proved_and_true(seed: int) -> None:
    rng, model, box, bounds, found, seeds = raised(seed, [*CURVES, "relu"])
    m, inputs = len(seeds), Interval.of_boxes(box)
    leaves, boxes = with_phases(model, bounds, {}, m), inputs.repeated(m)
    slopes = {k: own.numpy() for k, own in found.slopes.items()}
    proved = prove_leaves(model, boxes, leaves, seeds, slopes, {})
    usual = output_lower_bounds(model, inputs, bounds, seeds)[0]
    size = 1 + np.abs(usual)
    assert (proved >= usual - 1e-4 * size).all()  # the first pass is at the usual lines
    np.testing.assert_allclose(found.bound.numpy(), proved, rtol=0, atol=float(1e-3 * size.max()))
    y = model(some_points(rng, box, 3000)) @ seeds.T
    assert (y >= proved - 1e-9 * size).all()


@given(seed=SEEDS)
@settings(deadline=None, max_examples=20)
def test_any_slopes_of_curves_are_sound(seed: int) -> None:
    rng, model, box, bounds, found, seeds = raised(seed, CURVES)
    m, inputs = len(seeds), Interval.of_boxes(box)
    leaves, boxes = with_phases(model, bounds, {}, m), inputs.repeated(m)
    kinds = (np.nan, 0.0, -1.0, 1e3, 0.1)
    wild = {k: rng.choice(kinds, size=own.shape).astype(np.float32) for k, own in found.slopes.items()}
    y = model(some_points(rng, box, 3000))
    assert (y @ seeds.T >= prove_leaves(model, boxes, leaves, seeds, wild, {}) - 1e-9).all()
    k = model.evaluation_order[-1]
    older = {j: own[: model.blocks[k].size] for j, own in wild.items() if j > k}
    states = np.arange(min(m, model.blocks[k].size))
    older = {j: own[: states.size] for j, own in older.items()}
    z = model.pre_activations(some_points(rng, box, 3000))[k][:, states]
    for sign in (1.0, -1.0):
        assert (sign * z >= prove_states(model, inputs, bounds, k, states, sign, older) - 1e-9).all()


@given(seed=SEEDS)
@settings(deadline=None, max_examples=10)
def test_slopes_that_are_left_open_are_the_usual_ones(seed: int) -> None:
    _, model, box, bounds, found, seeds = raised(seed, [*CURVES, "relu"])
    m, inputs = len(seeds), Interval.of_boxes(box)
    leaves, boxes = with_phases(model, bounds, {}, m), inputs.repeated(m)
    nothing = {k: np.full(own.shape, np.nan, np.float32) for k, own in found.slopes.items()}
    bare = prove_leaves(model, boxes, leaves, seeds, {}, {})
    np.testing.assert_array_equal(prove_leaves(model, boxes, leaves, seeds, nothing, {}), bare)
    np.testing.assert_allclose(bare, output_lower_bounds(model, inputs, bounds, seeds)[0], rtol=1e-12, atol=1e-12)


@given(seed=SEEDS)
@settings(deadline=None, max_examples=10)
def test_lines_of_leaves_are_those_of_their_own_bounds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=2, widths=(4, 5), activations=CURVES)
    box = random_box(rng, 2)
    bounds = backward_state_bounds(model, Interval.of_boxes(box))
    net = SearchNet(model, box)
    searcher = PhasedSearch(net, net.output, 0, bounds)
    phases = rng.integers(-1, 2, size=(7, searcher.n_phases)).astype(np.int8)
    by_block = searcher.by_block(phases)
    leaves = with_phases(model, bounds, by_block, 7)
    lines = searcher.lines(phases)
    for k, own in lines.items():
        here = leaves.z[k]
        fresh = net.lines(k, torch.from_numpy(here.lo).float(), torch.from_numpy(here.hi).float())
        for name in ("low", "up", "c_low", "c_up"):
            np.testing.assert_allclose(getattr(own, name).expand(7, -1), getattr(fresh, name), rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "gelu"])
def test_bounds_of_states_with_slopes_of_their_own_are_tighter(name: str) -> None:
    rng = np.random.default_rng(1)
    model = random_network(rng, p=3, widths=(8, 8, 8), activations=[name], skips=False)
    box = Box.around(rng.normal(size=3), 1.5)
    inputs = Interval.of_boxes(box)
    plain, better = backward_state_bounds(model, inputs), root_bounds(SearchNet(model, box), inputs, budget=enough())
    z = model.pre_activations(some_points(rng, box, 5000))
    for k in model.evaluation_order:
        assert (better.z[k].width <= plain.z[k].width + 1e-9).all()
        assert ((z[k] >= better.z[k].lo - 1e-9) & (z[k] <= better.z[k].hi + 1e-9)).all()
    assert better.z[0].width.mean() < 0.97 * plain.z[0].width.mean()


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "gelu", "erf"])
def test_a_proof_that_needs_slopes_of_curves_is_refused_without_them(name: str) -> None:
    """phi(u) - k u over [-1.5, 2.5], a little below its minimum: the usual lines miss it."""
    phi, k = ACTIVATIONS[name](), 0.05
    model, box = layered([([[1.0]], [0.0])], ([[1.0]], [0.0]), phi, skip=[[-k]]), Box.around(np.array([0.5]), 2.0)
    inputs, one = Interval.of_boxes(box), np.ones((1, 1))
    usual = float(output_lower_bounds(model, inputs, backward_state_bounds(model, inputs), one)[0, 0])
    grid = np.linspace(-1.5, 2.5, 4001)
    least = float((phi(grid) - k * grid).min())
    assert usual < least - 1e-3
    query = Query(box, (Conjunction(one, np.array([0.2 * (least - usual) - least])),))
    chain = Chain()
    outcome = branch(model, query, budget=enough(), judge=Judge.of(model, model, query), record=chain)
    assert outcome.proved
    assert refused(model, query, chain) == []
    trees = {a: replace(leaves, slopes=[{} for _ in leaves.slopes]) for a, leaves in chain.trees.items()}
    assert refused(model, query, replace(chain, trees=trees))


SIGMOID = {"5747_eps_0.01200": "linear", "9629_eps_0.01200": "branch", "7259_eps_0.01200": "quick"}
"""Properties of a network of 6 x 200 sigmoids, and what decides each of them; the last one is sat."""


@pytest.mark.slow
@pytest.mark.skipif("IDL_AUDIT_DATA" not in os.environ, reason="needs the environment variable IDL_AUDIT_DATA")
@pytest.mark.parametrize("name", SIGMOID)
def test_properties_of_a_deep_sigmoid_network_are_decided(name: str) -> None:
    subject = open_subject(ERAN / "ffnnSIGMOID__Point_6x200.onnx")
    asked = read_property(subject, ERAN / f"mnist_spec_idx_{name}.vnnlib.gz")
    result = decide_query(subject.model, subject.original, asked.queries[0], Options(time_limit=120))
    assert result.verdict is (Verdict.FALSIFIED if SIGMOID[name] == "quick" else Verdict.CERTIFIED)
    assert result.method == SIGMOID[name]
