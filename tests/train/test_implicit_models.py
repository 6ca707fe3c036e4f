"""Training implicit models: projections are nearest, gradients are those of the equilibrium, intervals enclose."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from idl_audit.implicit.plain import DeclaredBlock, plain_model
from idl_audit.measure.sensitivity import sensitivity_matrix
from idl_audit.training.blocks import descend_by_blocks
from idl_audit.training.descent import Selection, descend, steps_within
from idl_audit.training.equilibrium import (
    PHI,
    equilibrium,
    interval_matrix,
    monotone_equilibrium,
    monotone_matrix,
)
from idl_audit.training.fit import Moves, Task, outputs_of, train
from idl_audit.training.implicit import NAMES, Form, ImplicitNet
from idl_audit.training.output_step import fit_output
from idl_audit.training.projection import column_norms, project_rows, shrunk, shrunk_columns, vertex
from idl_audit.training.recipe import Examples, Penalties, Recipe, shifted
from idl_audit.training.spans import Span
from idl_audit.training.units import Units, outside

SEEDS = st.integers(0, 2**32 - 1)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def net_of(seed: int, form: Form, *, tolerance: float = 1e-13) -> ImplicitNet:
    """Return a random model in float64, its A as long as allowed."""
    made = ImplicitNet.random(form, normal(seed, 30, form.inputs), torch.Generator().manual_seed(seed))
    weights = {name: made.weights[name].detach() for name in NAMES}
    weights["A"] = form.feasible(10 * weights["A"], made.mask)
    weights["D"] = normal(seed + 1, form.outputs, form.inputs)
    return ImplicitNet(form, weights, tolerance=tolerance)


# --- nearest points ---------------------------------------------------------------------------------------------------


@given(SEEDS, st.integers(1, 12), st.floats(0.05, 3.0))
def test_the_projection_is_the_nearest_matrix(seed: int, k: int, kappa: float) -> None:
    """P is nearest to a in a convex set where <a - P, v - P> <= 0 for all of its vertices: here +-kappa e_j."""
    A = normal(seed, 6, k) * normal(seed + 1, 6, 1)
    P = project_rows(A, kappa)
    assert float(P.abs().sum(1).max()) <= kappa * (1 + 1e-12)
    left = A - P
    to_vertices = kappa * left.abs().amax(1)
    assert bool((to_vertices - (left * P).sum(1) <= 1e-9 * (1 + A.square().sum(1))).all())


def test_rows_that_are_short_enough_stay_as_they_are() -> None:
    A = normal(0, 200, 5) / 4
    short = A.abs().sum(1) <= 0.95
    assert 0 < int(short.sum()) < 200
    P = project_rows(A, 0.95)
    assert torch.equal(P[short], A[short])
    assert not bool((P[~short] == A[~short]).all(1).any())
    assert project_rows(A[short], 0.95) is not None
    assert torch.equal(project_rows(P, 0.9500001), P)


def test_the_projection_is_what_bisection_finds() -> None:
    """The paper's (6.7): lambda with sum_i max(|a_i| - lambda, 0) = kappa."""
    A = 2 * normal(3, 100, 8)
    for row, found in zip(A.numpy(), project_rows(A, 0.95).numpy(), strict=True):
        low, high = 0.0, float(np.square(row).sum() / (2 * 0.95)) + float(np.abs(row).max())
        for _ in range(200):
            middle = (low + high) / 2
            above = np.maximum(np.abs(row) - middle, 0).sum() > 0.95
            low, high = (middle, high) if above else (low, middle)
        assert np.abs(found - np.sign(row) * np.maximum(np.abs(row) - high, 0)).max() < 1e-12


@given(SEEDS, st.integers(2, 6), st.floats(0.1, 2.0))
@settings(max_examples=10, deadline=None)
def test_no_solver_of_quadratic_programs_finds_a_nearer_matrix(seed: int, k: int, kappa: float) -> None:
    """min |p - q - a|^2 for p, q >= 0 with sum(p + q) <= kappa, by scipy."""
    (row,) = (2 * normal(seed, 1, k)).numpy()

    def distance(parts: np.ndarray) -> float:
        return float(np.square(parts[:k] - parts[k:] - row).sum())

    asked = {"type": "ineq", "fun": lambda parts: kappa - parts.sum()}
    solved = minimize(
        distance, np.zeros(2 * k), bounds=[(0, None)] * (2 * k), constraints=[asked], options={"ftol": 1e-14}
    )
    found = project_rows(torch.from_numpy(row[None]), kappa).numpy()[0]
    assert np.square(found - row).sum() <= solved.fun + 1e-9
    if solved.fun > np.square(found - row).sum() + 1e-9:
        return  # scipy has stopped before
    assert found == pytest.approx(solved.x[:k] - solved.x[k:], abs=1e-4)


@given(SEEDS, st.integers(1, 6))
def test_the_vertex_is_the_least_of_all(seed: int, k: int) -> None:
    G = normal(seed, 4, k)
    V = vertex(G, 0.7)
    assert V.abs().sum(1) == pytest.approx(np.full(4, 0.7))
    assert (G * V).sum(1) == pytest.approx(-0.7 * G.abs().amax(1))


@given(SEEDS, st.floats(0, 3.0))
def test_what_shrinks_is_exactly_zero_within_the_step(seed: int, by: float) -> None:
    B, D = normal(seed, 3, 7), normal(seed + 1, 2, 7)
    found = column_norms(*shrunk_columns(B, D, by))
    assert found == pytest.approx((column_norms(B, D) - by).clamp(min=0), abs=1e-12)
    assert bool(((found == 0) == (column_norms(B, D) <= by)).all())
    assert bool((shrunk(B, by)[B.abs() <= by] == 0).all())


# --- equilibria -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PHI)
@pytest.mark.parametrize("norm", [0.95, 0.99])
def test_gradients_are_those_of_central_differences(name: str, norm: float) -> None:
    A, drive, weight = normal(0, 6, 6), normal(1, 4, 6), normal(2, 4, 6)
    A = A / A.abs().sum(1, keepdim=True) * norm

    def value(A: torch.Tensor, drive: torch.Tensor) -> torch.Tensor:
        return (equilibrium(A, drive, PHI[name], tolerance=1e-14) * weight).sin().sum()

    for place, what in enumerate((A, drive)):
        given_ = [A, drive]
        given_[place] = what.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(value(*given_), given_[place])
        for k in range(what.numel()):
            step = torch.zeros(what.numel(), dtype=torch.float64)
            step[k] = 1e-5
            ends = []
            for sign in (1, -1):
                given_[place] = what + sign * step.view_as(what)
                ends.append(float(value(*given_)))
            assert float(gradient.view(-1)[k]) == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-6)


@given(SEEDS, st.sampled_from([(), (3, 4)]))
@settings(deadline=None)
def test_intervals_enclose_the_states_and_the_margins(seed: int, layers: tuple[int, ...]) -> None:
    net = net_of(seed, Form(7, 3, 4, 0.9, layers))
    centre, radius = normal(seed + 2, 5, 3), normal(seed + 3, 5, 3).abs()
    box = Span(centre, radius)
    labels = torch.tensor([0, 1, 2, 3, 1])
    with torch.no_grad():
        states, outputs, worst = net.states_of(box), net.outputs_of(box), net.worst(box, labels)
        for sign in (-1, -0.5, 0, 1):
            u = centre + sign * radius * normal(seed + 4, 5, 3).sign()
            x, y = net.state(u), net(u)
            assert bool((states.lo <= x + 1e-9).all() and (x <= states.hi + 1e-9).all())
            assert bool((outputs.lo <= y + 1e-9).all() and (y <= outputs.hi + 1e-9).all())
            assert bool((y - y.gather(1, labels[:, None]) <= worst + 1e-9).all())
        assert bool((worst.gather(1, labels[:, None]) == 0).all())
        exact = net.worst(Span(centre, 0 * radius), labels)
        y = net(centre)
    assert (y - y.gather(1, labels[:, None])).numpy() == pytest.approx(exact.numpy(), abs=1e-8)


def test_the_matrix_of_intervals_is_as_long_as_A() -> None:
    A = normal(5, 4, 4)
    assert interval_matrix(A).abs().sum(1).numpy() == pytest.approx(np.tile(A.abs().sum(1), 2))


@given(SEEDS, st.sampled_from([(), (4, 3)]))
@settings(deadline=None)
def test_the_penalty_is_the_norm_of_the_sensitivity_matrix(seed: int, layers: tuple[int, ...]) -> None:
    net = net_of(seed, Form(7, 3, 2, 0.8, layers))
    w = net.arrays()
    model = plain_model(*(w[name] for name in NAMES), [DeclaredBlock("relu", 7, {})])
    S = sensitivity_matrix(model, "paper")
    assert float(net.norm_of_S().detach()) == pytest.approx(float(S.sum(axis=1).max()), rel=1e-9)
    assert layers or float(net.rho().detach()) >= float(S.sum(axis=1).max()) * (1 - 1e-9)


def test_layers_read_only_those_before_them() -> None:
    form = Form(9, 2, 1, layers=(4, 3, 2))
    mask = form.allowed(torch.float64)
    assert mask is not None
    ends = np.cumsum((0, 2, 3, 4))
    for start, end in pairwise(ends):
        assert not bool(mask[start:end, :end].any())
        assert bool(mask[start:end, end:].all())


# --- units, least squares ---------------------------------------------------------------------------------------------


@given(SEEDS)
@settings(deadline=None)
def test_turning_units_back_changes_no_output(seed: int) -> None:
    form = Form(5, 4, 2, 0.9)
    net = net_of(seed, form)
    with torch.no_grad():
        for name in "BD":
            net.weights[name][:, 1] = 0
    rows = 100 + 30 * normal(seed + 1, 20, 4).numpy()
    rows[:, 3] = 7.0
    targets = normal(seed + 2, 20, 2).numpy() * 1e3
    inputs, outputs = Units.of(rows, each=True), Units.of(targets, each=True)
    assert inputs.scale[3] == 1
    found = outside(net.arrays(), inputs, outputs)
    with torch.no_grad():
        wanted = net(torch.from_numpy(inputs.inside(rows))).numpy() * outputs.scale + outputs.shift
    assert outputs_of(found, form, rows) == pytest.approx(wanted, rel=1e-6, abs=1e-6 * np.abs(wanted).max())
    assert not found["B"][:, 1].any()
    assert not found["D"][:, 1].any()


def test_the_last_block_is_a_ridge_regression() -> None:
    net, u = net_of(0, Form(6, 3, 2, 0.5)), normal(1, 80, 3)
    with torch.no_grad():
        y = net(u) + 0.1 * normal(2, 80, 2)
        x = net.state(u)
    ridge = fit_output(net, u, y, torch.tensor([1.0, 0.0, 1.0]))
    F, Y = torch.cat([x, u[:, [0, 2]]], 1), y
    F, Y = F - F.mean(0), Y - Y.mean(0)
    wanted = torch.linalg.solve(F.T @ F + ridge * torch.eye(8, dtype=torch.float64), F.T @ Y).T
    w = net.weights
    assert torch.cat([w["C"], w["D"][:, [0, 2]]], 1).detach().numpy() == pytest.approx(wanted.numpy(), abs=1e-6)
    assert not bool(w["D"][:, 1].any())
    with torch.no_grad():
        assert (net(u) - y).mean(0).numpy() == pytest.approx(np.zeros(2), abs=1e-9)


# --- training ---------------------------------------------------------------------------------------------------------


def planted(seed: int, m: int = 240, p: int = 12, acting: int = 4) -> tuple[np.ndarray, np.ndarray, set[int]]:
    """Return inputs, targets of a ReLU loop that reads few of them, and which."""
    rng = np.random.default_rng(seed)
    A, B = rng.standard_normal((8, 8)), np.zeros((8, p))
    A *= 0.6 / np.abs(A).sum(1, keepdims=True)
    chosen = rng.choice(p, acting, replace=False)
    B[:, chosen] = rng.standard_normal((8, acting))
    u, x = rng.standard_normal((m, p)), np.zeros((m, 8))
    for _ in range(100):
        x = np.maximum(x @ A.T + u @ B.T, 0)
    return u, x @ rng.standard_normal((8, 3)), {int(k) for k in chosen}


@pytest.mark.parametrize("solver", ["bcd", "gradient"])
def test_the_inputs_that_act_are_found_and_the_others_are_exactly_zero(solver: str) -> None:
    u, y, acting = planted(1)
    found = train(Task(u, y, Form(5, 12, 3, 0.9), Recipe("squared", solver=solver, select=4, batch=60), 0.6))
    columns = np.abs(np.vstack([found.weights["B"], found.weights["D"]])).sum(axis=0)
    assert set(np.flatnonzero(columns)) == acting
    assert set(np.flatnonzero(found.column_norms)) == acting


def test_columns_vanish_by_their_penalty_alone() -> None:
    u, y, acting = planted(2)
    recipe = Recipe("squared", solver="bcd", penalties=Penalties(columns=0.15))
    found = train(Task(u, y, Form(5, 12, 3, 0.9), recipe, 1.0))
    assert 0 < len(set(np.flatnonzero(found.column_norms))) < 12
    assert set(np.flatnonzero(found.column_norms)) <= acting


@pytest.mark.parametrize("solver", ["gradient", "frank-wolfe", "bcd"])
def test_every_solver_learns_and_stays_well_posed(solver: str) -> None:
    rng = np.random.default_rng(0)
    u = rng.uniform(-1, 1, (200, 2))
    labels = (np.abs(u).sum(axis=1) > 0.8).astype(np.int64)
    form = Form(12, 2, 2, 0.7)
    found = train(Task(u, labels, form, Recipe("cross-entropy", solver=solver), 1.0))
    assert (outputs_of(found.weights, form, u).argmax(axis=1) == labels).mean() > 0.9
    assert np.abs(found.weights["A"]).sum(axis=1).max() <= 0.7


def test_the_same_seed_gives_the_same_weights() -> None:
    u, y, _ = planted(3)
    task = Task(u, y, Form(4, 12, 3), Recipe("squared", batch=50), 0.2)
    first, second = train(task), train(task)
    for name in NAMES:
        assert np.array_equal(first.weights[name], second.weights[name])


def test_boxes_make_intervals_narrow() -> None:
    rng = np.random.default_rng(1)
    u = rng.uniform(0, 1, (200, 3))
    labels = (u[:, 0] > 0.5).astype(np.int64)
    form = Form(8, 3, 2, 0.7)
    widths = []
    for moves in (None, Moves(np.full(3, 0.1), (np.zeros(3), np.ones(3)))):
        found = train(Task(u, labels, form, Recipe("cross-entropy"), 0.5, False, moves))
        net = ImplicitNet(form, {name: torch.from_numpy(found.weights[name]) for name in NAMES}, tolerance=1e-9)
        box = Span(torch.from_numpy(u), torch.full((200, 3), 0.1, dtype=torch.float64))
        with torch.no_grad():
            worst = net.worst(box, torch.from_numpy(labels))
        worst[torch.arange(200), torch.from_numpy(labels)] = -torch.inf
        widths.append(float((worst.amax(1) < 0).double().mean()))
    assert widths[1] > widths[0] + 0.1
    assert widths[1] > 0.5


def test_images_move_as_a_whole_and_their_edges_repeat() -> None:
    """Channel, row and column are written into each pixel, so that it says where it came from."""
    shape = (2, 6, 5)
    image = sum(100**k * np.arange(size).reshape(-1, *[1] * k) for k, size in enumerate(reversed(shape)))
    u = torch.from_numpy(np.tile(np.asarray(image, np.float64).reshape(1, -1), (200, 1)))
    chance = torch.Generator().manual_seed(0)
    found = shifted(u, shape, 2, chance).numpy().reshape(200, *shape).astype(int)
    seen = set()
    for one in found:
        by = (one[0, 2, 2] // 100 - 2, one[0, 2, 2] % 100 - 2)
        rows, columns = (np.clip(np.arange(size) + move, 0, size - 1) for size, move in zip((6, 5), by, strict=True))
        assert np.array_equal(one, image[:, rows][:, :, columns])
        seen.add(by)
    assert seen == {(i, j) for i in range(-2, 3) for j in range(-2, 3)}
    examples = Examples(u, torch.zeros(200, dtype=torch.int64), image=shape)
    places = torch.arange(3)
    assert torch.equal(examples.inputs(places, 0, chance), u[:3])


def test_penalties_make_small_what_they_charge() -> None:
    u, y, _ = planted(4)
    form = Form(6, 12, 3)
    sizes = {}
    for name, penalties in {"": Penalties(), "S": Penalties(S=0.1), "l1": Penalties(l1=0.05)}.items():
        w = train(Task(u, y, form, Recipe("squared", penalties=penalties, batch=60), 0.3)).weights
        net = ImplicitNet(form, {key: torch.from_numpy(w[key]) for key in NAMES})
        sizes[name] = (float(net.norm_of_S().detach()), sum(int(np.count_nonzero(w[key])) for key in "ABCD"))
    assert sizes["S"][0] < 0.6 * sizes[""][0]
    assert sizes["l1"][1] < 0.9 * sizes[""][1]


def test_batches_that_have_no_finite_gradient_change_nothing() -> None:
    net = net_of(0, Form(4, 2, 1))
    before = net.arrays()
    examples = Examples(torch.full((3, 2), 1e200, dtype=torch.float64), torch.zeros((3, 1), dtype=torch.float64))
    descend(net, examples, Recipe("squared"), 2)
    after = net.arrays()
    assert all(np.array_equal(before[name], after[name]) for name in NAMES)


def test_a_selection_keeps_the_longest_columns_at_the_end() -> None:
    net = net_of(0, Form(3, 5, 1))
    gradients = {name: torch.ones_like(net.weights[name]) for name in "BD"}
    selection = Selection(2, 2.0)
    selection.look(net, gradients, last=False)
    assert selection.kept is None
    assert selection.weight > 0
    selection.look(net, gradients, last=True)
    assert selection.kept is not None
    assert set(torch.argsort(net.column_norms())[-2:].tolist()) == set(torch.nonzero(selection.kept).flatten().tolist())
    assert selection.weight == 0


def test_blocks_never_leave_the_ball_and_make_the_objective_small() -> None:
    u, y, _ = planted(5)
    units = Units.of(y, each=True)
    examples = Examples(torch.from_numpy(u), torch.from_numpy(units.inside(y)))
    net = ImplicitNet.random(Form(6, 12, 3, 0.5), examples.u, torch.Generator().manual_seed(0))
    values: list[float] = []
    descend_by_blocks(net, examples, Recipe("squared", solver="bcd"), 30, heard=lambda step: values.append(step.loss))
    assert values[-1] < 0.7 * values[0]
    assert float(net.weights["A"].detach().abs().sum(1).max()) <= 0.5 * (1 + 1e-12)


def test_more_minutes_are_more_steps() -> None:
    form, recipe = Form(100, 784, 10), Recipe("cross-entropy")
    counts = [steps_within(seconds, form, 60_000, recipe, False) for seconds in (0.01, 40, 80)]
    assert counts[0] == 300
    assert counts[2] == pytest.approx(2 * counts[1], rel=0.01)


# --- monotone models --------------------------------------------------------------------------------------------------


@given(SEEDS, st.floats(0.02, 1.0), st.floats(0.1, 5.0))
@settings(max_examples=25, deadline=None)
def test_monotone_matrices_are_monotone_and_have_one_state(seed: int, m: float, size: float) -> None:
    P, Q, drive = size * normal(seed, 5, 5), size * normal(seed + 1, 5, 5), normal(seed + 2, 6, 5)
    A = monotone_matrix(P, Q, m)
    least = float(torch.linalg.eigvalsh(torch.eye(5, dtype=A.dtype) - (A + A.T) / 2)[0])
    assert least >= m - 1e-9 * (1 + float(A.abs().max()))
    x = monotone_equilibrium(A, drive, tolerance=1e-12)
    size_of = 1 + float(x.abs().max()) * (1 + float(A.abs().sum(1).max()))
    assert float((x - (x @ A.T + drive).clamp(min=0)).abs().max()) <= 1e-7 * size_of


def test_gradients_of_monotone_models_are_slopes() -> None:
    form = Form(5, 3, 2, monotone=0.1)
    net = ImplicitNet.random(form, normal(0, 30, 3), torch.Generator().manual_seed(0))
    net = ImplicitNet(form, {name: 1.5 * weight for name, weight in net.weights.items()}, tolerance=1e-13)
    u, to = normal(1, 4, 3), normal(2, 4, 2)

    def value() -> torch.Tensor:
        return (net(u) * to).sum()

    value().backward()  # type: ignore[no-untyped-call]
    assert set(net.weights) == {"P", "Q", "B", "C", "D", "b", "d"}
    for weight in net.weights.values():
        assert weight.grad is not None
        flat, slopes = weight.data.reshape(-1), weight.grad.reshape(-1)
        for k in range(flat.numel()):
            kept, values = float(flat[k]), []
            for step in (1e-6, -1e-6):
                flat[k] = kept + step
                values.append(float(value().detach()))
            flat[k] = kept
            assert (values[0] - values[1]) / 2e-6 == pytest.approx(float(slopes[k]), abs=1e-6)


def test_a_monotone_model_learns_and_its_loop_is_proved() -> None:
    """Its norm may be above 1: that is what it is for."""
    rng = np.random.default_rng(0)
    u = rng.uniform(-3, 3, (150, 1))
    form = Form(20, 1, 1, kappa=0.9, monotone=0.1)
    found = train(Task(u, np.sin(2 * u), form, Recipe("squared"), 1.5))
    w = found.weights
    left = outputs_of(w, form, u) - np.sin(2 * u)
    assert np.sqrt(np.square(left).mean()) < 0.2
    model = plain_model(*(w[name] for name in NAMES), [DeclaredBlock("relu", 20, {})])
    assert model.is_well_posed
    np.testing.assert_allclose(model(u), outputs_of(w, form, u), atol=1e-6)
