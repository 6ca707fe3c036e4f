"""Networks of stairs and steps: every bound against sampled points, trees that end, proofs that are accepted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from idl_audit.implicit.activations import ACTIVATIONS, JUMPS
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.scaling import rescale
from idl_audit.proof.bounds import Interval
from idl_audit.proof.chain import Chain, with_phases
from idl_audit.proof.check import check
from idl_audit.proof.convert import of_chain
from idl_audit.proof.forms import Forms
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.leaves import prove_leaves
from idl_audit.proof.linear_bounds import backward_state_bounds, output_lower_bounds
from idl_audit.search.branching import branch
from idl_audit.search.branching.network import SearchNet
from idl_audit.search.branching.phased import PhasedSearch
from idl_audit.search.branching.root import root_bounds
from idl_audit.search.judge import Judge
from idl_audit.values.box import Box
from idl_audit.values.query import Conjunction, Query
from tests.shared.budgets import enough, few
from tests.shared.implicit_models import Network, built, node, proto
from tests.shared.small_networks import layered

Array = np.ndarray[Any, Any]
SEEDS = st.integers(0, 2**32 - 1)
PHIS = {
    "quantised": lambda: JUMPS["round"](-4.0, 5.0),
    "floor": JUMPS["floor"],
    "ceil": JUMPS["ceil"],
    "a fall": lambda: JUMPS["step"](jump=-2.0, share=1.0),
    "jumping relu": lambda: JUMPS["step"](above=1.0, jump=0.5),
    "relu": ACTIVATIONS["relu"],
}


def network(rng: np.random.Generator, names: list[str], widths: tuple[int, ...] = (4, 4), p: int = 2) -> ImplicitModel:
    """Return a layered network whose weights are short fractions, so that many points lie at thresholds exactly."""
    sizes = (p, *widths)
    layers = [
        (rng.integers(-8, 9, size=(n, m)) / 8.0, rng.integers(-4, 5, size=n) / 4.0)
        for m, n in zip(sizes, widths, strict=False)
    ]
    phis = [PHIS[name]() for name in rng.choice(names, size=len(widths))]
    return layered(layers, (rng.normal(size=(2, widths[-1])), rng.normal(size=2)), phis)


def points(rng: np.random.Generator, box: Box, n: int = 2000) -> Array:
    """Return points of a box, half of them on a grid of halves where it holds some, and its corners."""
    free = rng.uniform(box.lo, box.hi, size=(n, box.lo.size))
    grid = np.clip(np.rint(free * 4) / 4, box.lo, box.hi)
    corners = np.where(rng.random((50, box.lo.size)) < 0.5, box.lo, box.hi)
    return np.concatenate([free, grid, corners])


def case(seed: int, names: list[str]) -> tuple[np.random.Generator, ImplicitModel, Box]:
    rng = np.random.default_rng(seed)
    model = network(rng, names)
    centre = rng.integers(-4, 5, size=2) / 2.0
    return rng, model, Box.around(centre, float(rng.choice([0.25, 1.0, 3.0])))


@given(seed=SEEDS)
@settings(deadline=None, max_examples=25)
def test_bounds_of_states_and_outputs_hold_at_every_point(seed: int) -> None:
    rng, model, box = case(seed, [*PHIS])
    u, inputs = points(rng, box), Interval.of_boxes(box)
    z, y = model.pre_activations(u), model(u)
    seeds = rng.normal(size=(3, 2))
    for bounds in (
        interval_bounds(model, inputs),
        backward_state_bounds(model, inputs),
        root_bounds(SearchNet(model, box), inputs, budget=enough(), steps=4),
    ):
        for k in model.evaluation_order:
            assert (z[k] >= bounds.z[k].lo - 1e-9).all()
            assert (z[k] <= bounds.z[k].hi + 1e-9).all()
        assert (y @ seeds.T >= output_lower_bounds(model, inputs, bounds, seeds) - 1e-9).all()
    bounds = interval_bounds(model, inputs)
    forms = Forms.over(inputs, np.arange(2))
    for k in model.evaluation_order:
        form = forms.of_block(model, k)
        assert form is not None
        assert (z[k] >= form.interval.lo - 1e-9).all()
        assert (z[k] <= form.interval.hi + 1e-9).all()
        forms = forms.with_block(k, model.blocks[k], form, bounds.z[k], bounds.x[k])


@given(seed=SEEDS)
@settings(deadline=None, max_examples=20)
def test_leaves_hold_at_the_points_that_have_their_phases(seed: int) -> None:
    """A point at a threshold has the phase of its value: the sides share the graph there."""
    rng, model, box = case(seed, ["quantised", "a fall", "floor"])
    inputs = Interval.of_boxes(box)
    bounds = backward_state_bounds(model, inputs)
    searcher = PhasedSearch(SearchNet(model, box), SearchNet(model, box).output, 0, bounds)
    phases = rng.integers(-1, 2, size=(6, searcher.n_phases)).astype(np.int8)
    leaves = with_phases(model, bounds, searcher.by_block(phases), 6)
    seeds = rng.normal(size=(6, 2))
    slopes = {k: rng.random((6, block.size)).astype(np.float32) for k, block in enumerate(model.blocks)}
    proved = prove_leaves(model, inputs.repeated(6), leaves, seeds, slopes, {})
    u = points(rng, box)
    z, x, y = model.pre_activations(u), model.state(u), model(u)
    for i in range(6):
        inside = np.ones(len(u), np.bool_)
        for k, block in enumerate(model.blocks):
            low, high = block.interval(leaves.z[k].lo[i], leaves.z[k].hi[i])
            near = (z[k] >= leaves.z[k].lo[i] - 1e-12) & (z[k] <= leaves.z[k].hi[i] + 1e-12)
            inside &= (near & (x[k] >= low) & (x[k] <= high)).all(axis=1)
        assert (y[inside] @ seeds[i] >= proved[i] - 1e-9).all()


@given(seed=SEEDS, names=st.sampled_from([["a fall"], ["quantised"], [*PHIS]]), scaled=st.booleans())
@settings(deadline=None, max_examples=10)
def test_what_a_tree_proves_is_true_and_its_proof_is_accepted(seed: int, names: list[str], scaled: bool) -> None:
    rng, model, box = case(seed, names)
    model = rescale(model) if scaled else model
    u = points(rng, box)
    functional = rng.normal(size=2)
    least = float((model(u) @ functional).min())
    gap = float(rng.choice([0.05, 0.3]))
    query = Query(box, (Conjunction(functional[None], np.array([gap - least])),))
    chain = Chain()
    outcome = branch(model, query, budget=few(200), judge=Judge.of_model(model, query), record=chain)
    if outcome.proved:
        assert check(model, query, of_chain(model, query, chain)) == []
        false = Query(box, (Conjunction(functional[None], np.array([-1e-9 - least])),))
        assert check(model, false, of_chain(model, false, chain)) != []


def test_a_tree_of_signs_ends() -> None:
    """y = |s1 + s2 + s3| of steps from -1 to 1 of three lines: 1 at least, which no line around the steps says."""
    layers = [([[1.0, 0.25], [-0.5, 1.0], [0.25, -1.0]], [0.1, -0.2, 0.3]), ([[1.0, 1.0, 1.0]], [-3.0])]
    step, absolute = JUMPS["step"](jump=2.0), ACTIVATIONS["abs"]()
    model = layered(layers, ([[1.0]], [0.0]), [step, absolute])
    box = Box.around(np.zeros(2), 2.0)
    query = Query(box, (Conjunction(np.ones((1, 1)), np.array([-0.5])),))
    chain = Chain()
    outcome = branch(model, query, budget=enough(), judge=Judge.of_model(model, query), record=chain)
    assert outcome.proved
    assert sum(chain.trees[0].sizes) > 2
    assert check(model, query, of_chain(model, query, chain)) == []


def test_the_sign_of_0_is_on_a_side_of_every_cut() -> None:
    """y = |sign(x)| is 0 at 0 alone, and y = |s1 + s2 + s3| of three signs is 0 where one of them is."""
    sign = built([node("Sign", "x", "s"), node("Abs", "s")], (1, 1), {})
    weights = {"w": np.float32([[1.0, -0.5, 0.25], [0.25, 1.0, -1.0]]), "b": np.float32([0.1, -0.2, 0.3])}
    ones = {**weights, "o": np.ones((3, 1), np.float32)}
    layers = [node("MatMul", "x w", "h"), node("Add", "h b", "z"), node("Sign", "z", "s"), node("MatMul", "s o", "t")]
    three = built([*layers, node("Abs", "t")], (1, 2), ones)
    assert sign(np.zeros((1, 1)))[0, 0] == 0
    for model, box in ((sign, Box.between([-1.0], [1.5])), (three, Box.around(np.zeros(2), 2.0))):
        query = Query(box, (Conjunction(np.ones((1, 1)), np.array([-0.5])),))
        assert not branch(model, query, budget=few(100), judge=Judge.of_model(model, query)).proved


def test_states_whose_stairs_a_cut_does_not_narrow_are_not_split() -> None:
    model = layered([([[1.0]], [0.0]), ([[1.0]], [0.0])], ([[1.0]], [0.0]), [JUMPS["round"](), JUMPS["step"]()])
    box = Box.around(np.zeros(1), 20.0)
    bounds = interval_bounds(model, Interval.of_boxes(box))
    searcher = PhasedSearch(SearchNet(model, box), SearchNet(model, box).output, 0, bounds)
    gains = {k: float(searcher._gain(k).max()) for k in (0, 1)}
    assert gains[1] == pytest.approx(0.0, abs=1e-3)
    assert gains[0] > 0.4
    seeds = torch.ones((1, 1))
    _, split = searcher(seeds, np.zeros((1, searcher.n_phases), np.int8), None, steps=2, enough=0.0)
    assert split.tolist() == [0]


def test_a_comparison_of_a_cast_is_not_one_of_what_was_cast() -> None:
    """Cast(x) > t for t a little below 1 differs from x > t in (t, 1) alone, where the truncated x is 0."""
    t, steep = 1 - 2.0**-14, 2.0**13
    nodes = [
        node("Cast", "x", "whole", to=TensorProto.INT32),
        node("Cast", "whole", "f", to=TensorProto.FLOAT),
        node("Greater", "f t", "c"),
        node("Mul", "x k", "u"),
        node("Sub", "u kt", "v"),
        node("Where", "c v z", "w"),
        node("Sub", "w v"),
    ]
    constants = {"t": t, "z": 0.0, "k": steep, "kt": steep * t}
    network = Network(proto(nodes, (1, 1), {name: np.float32(value) for name, value in constants.items()}))
    x = np.array([[0.99999], [1.5], [0.2], [-1.3]], np.float32)
    found, expected = network.implicit(x.astype(float)), network.original(x)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert expected[0, 0] < -0.4


def test_a_jump_is_not_lost_where_its_height_underflows() -> None:
    """x + (1e-162 where 1e-162 x > 0), times 1e162: a height whose products with slopes are 0 in float64."""
    nodes = [
        node("Mul", "x k", "a"),
        node("Mul", "a k", "b"),
        node("Greater", "b z", "c"),
        node("Add", "x e", "p"),
        node("Where", "c p x", "w"),
    ]
    constants = {"k": np.float64(1e-81), "z": np.float64(0), "e": np.float64(1e-162)}
    model = built([*nodes, node("Identity", "w")], (1, 1), constants, dtype=TensorProto.DOUBLE)
    inputs = Interval(np.array([[1e-161]]), np.array([[1e-161]]))
    most = -output_lower_bounds(model, inputs, backward_state_bounds(model, inputs), np.array([[-1.0]]))[0, 0]
    assert not most < 1.1e-161
