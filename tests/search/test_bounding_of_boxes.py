"""How a tree of boxes is bounded: forms or lines by what pays, and a search that ended with its budget goes on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval
from idl_audit.proof.box_bounds import bounded
from idl_audit.proof.check import check
from idl_audit.proof.convert import of_splits
from idl_audit.proof.split_tree import SplitTree
from idl_audit.search.splitting.bounding import Bounding
from idl_audit.search.splitting.boxes import Splitting, split_inputs
from idl_audit.search.splitting.growth import grown
from idl_audit.values.box import Box
from idl_audit.values.query import Conjunction, Query
from tests.shared.budgets import enough, few
from tests.shared.implicit_models import Network
from tests.shared.lattices import Lattice
from tests.shared.small_networks import layered, minimum_by_patterns, random_network

SQUARE = Box.between(-np.ones(2), np.ones(2))


def above(threshold: float) -> Query:
    """Return the query for y <= threshold on the square."""
    return Query(SQUARE, (Conjunction(np.ones((1, 1)), np.array([-threshold])),))


def small(seed: int = 0) -> tuple[ImplicitModel, float]:
    """Return a model of two inputs and its least output on the square."""
    model = random_network(np.random.default_rng(seed), p=2, widths=(4, 4), q=1, activations=["relu", "abs"])
    return model, minimum_by_patterns(model, np.ones(1), SQUARE)


@pytest.mark.parametrize("by_lines", [False, True])
@pytest.mark.parametrize("gap", [-0.02, 0.02])
def test_either_kind_of_bounds_comes_to_the_exact_answer(
    by_lines: bool, gap: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Bounding, "to_try", lambda *_: 0)
    for seed in range(6):
        model, truth = small(seed)
        splitting = Splitting(model, above(truth - gap))
        splitting.bounding.by_lines = by_lines
        outcome = splitting.run(enough())
        assert outcome.proved == (gap > 0)
        assert (outcome.point is not None) == (gap < 0)


def test_lines_are_chosen_where_many_boxes_are_worse_than_their_cost() -> None:
    model = Network(Lattice(np.random.default_rng(0), 8, 8).model).implicit
    bounding = Bounding(model, np.arange(2))
    inputs = Interval.of_boxes(SQUARE)
    forms, lines = (bounded(model, inputs, np.arange(2), by_lines=kind) for kind in (False, True))
    nothing, some = np.array([0.0]), np.array([100.0])
    bounding.choose(forms, lines, np.array([-1e6]), np.array([-1.0]), some)  # lines refute it with much to spare,
    assert bounding.by_lines
    bounding.choose(lines, forms, np.array([-1.0]), np.array([-1.0 - 1e-9]), nothing)
    assert not bounding.by_lines
    bounding.choose(forms, lines, np.array([-200.0]), np.array([99.0]), some)  # and here one more split would do
    assert not bounding.by_lines
    with np.errstate(invalid="ignore"):
        bounding.choose(forms, lines, np.array([-np.inf]), np.array([-np.inf]), some)  # no number chooses nothing
    assert not bounding.by_lines


def test_a_trial_waits_until_forms_have_cost_as_much() -> None:
    model = Network(Lattice(np.random.default_rng(0), 8, 8).model).implicit
    bounding = Bounding(model, np.arange(2))
    states = bounded(model, Interval.of_boxes(SQUARE), np.arange(2), by_lines=False).states
    assert bounding.to_try(1, states) == 0
    tried = [n for n in range(2, 400) if bounding.to_try(n, states)]
    assert tried
    assert tried[0] > 4
    assert all(later >= 4 * earlier for earlier, later in itertools.pairwise(tried))


def test_what_a_budget_ended_goes_on_and_comes_to_the_same() -> None:
    model, truth = small(3)
    query = above(truth - 1e-3)
    whole = split_inputs(model, query, budget=enough())
    splitting, boxes = Splitting(model, query), []
    for _ in range(1000):
        outcome = splitting.run(few(3))
        boxes.append(outcome.boxes)
        if outcome.proved:
            break
        assert outcome.reason == "no more boxes are allowed"
    assert outcome.proved
    assert len(boxes) > 2
    assert boxes == sorted(boxes)
    assert whole.proved
    tree = grown(model, query, splitting.tree, enough())
    assert tree is not None
    assert check(model, query, of_splits(tree)) == []


def test_growth_makes_no_more_boxes_than_it_may() -> None:
    model, truth = small(3)
    tree = SplitTree()
    assert grown(model, above(truth + 1e-3), tree, few(20)) is None
    assert 20 <= len(tree.inputs) <= 23


def test_the_score_of_an_input_is_what_its_width_loses() -> None:
    """y = relu(u_0) - relu(u_1): the lower line of the first meets the graph, the chord of the second does not."""
    model = layered([(np.eye(2), np.zeros(2))], ([[0.0, -1.0]], [0.0]), ACTIVATIONS["relu"]())
    found = bounded(model, Interval.of_boxes(SQUARE), np.arange(2), by_lines=False).outputs(np.ones((1, 1)))
    # -relu(u_1) >= -(u_1 + 1) / 2: a slope of 1/2, and 1/2 lost in the middle
    np.testing.assert_allclose(found.rates[0, 0], [0.0, -1.0], atol=1e-9)


def test_a_lattice_is_proved_checked_and_met() -> None:
    rng = np.random.default_rng(4)
    lattice = Lattice(rng, 12, 12)
    network = Network(lattice.model)
    model = network.check()
    points = rng.uniform(-2, 2, (500, 2))
    np.testing.assert_allclose(model(points)[:, 0], lattice(points), atol=1e-9)
    least = lattice.least(rng)
    box = Box.between(np.full(2, -2.0), np.full(2, 2.0))
    proved = Query(box, (Conjunction(np.ones((1, 1)), np.array([0.05 - least])),))
    splitting = Splitting(model, proved, cut_slabs=False)
    outcome = splitting.run(enough())
    assert outcome.proved
    assert outcome.boxes > 20
    tree = grown(model, proved, splitting.tree, enough())
    assert tree is not None
    assert check(model, proved, of_splits(tree)) == []
    tighter = Query(box, (Conjunction(np.ones((1, 1)), np.array([-0.05 - least])),))
    assert check(model, tighter, of_splits(tree)) != []
    met = split_inputs(model, tighter, budget=enough())
    assert met.point is not None
    assert lattice(met.point[None].astype(np.float64))[0] <= least + 0.05
