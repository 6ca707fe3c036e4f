"""Composition: the laws of cascade, sum, concatenation and feedback, and loops that are refused."""

from __future__ import annotations

import numpy as np
import pytest

from idl_audit.implicit.compose import cascade, concat, feedback, total
from idl_audit.implicit.plain import plain_model
from idl_audit.implicit.storage import load_model, save_model
from idl_audit.measure.sensitivity import sensitivity_matrix
from idl_audit.values.errors import OptionError, UnsupportedModelError
from tests.shared.cyclic_models import plain, relu_solutions

KINDS = ("relu", "tanh", "leaky_relu", "abs", "sigmoid", "identity", "softmax", "elu")


def random_model(rng, n_inputs, n_outputs, *, gain=None):
    """A model with states of two activations, cyclic or not, with D and biases; `gain` bounds |C||B| + |D|."""
    n = int(rng.integers(1, 7))
    a = rng.normal(size=(n, n))
    a = np.triu(a, 1) if rng.random() < 0.5 else 0.7 * a / np.abs(a).sum(axis=1).max()
    first = int(rng.integers(0, n + 1))
    kinds = [(str(rng.choice(KINDS)), size) for size in (first, n - first) if size]
    if any(kind == "softmax" for kind, _ in kinds):
        a *= 0.3
    b, c, d = rng.normal(size=(n, n_inputs)), rng.normal(size=(n_outputs, n)), rng.normal(size=(n_outputs, n_inputs))
    if gain is not None:
        c, d = (matrix * gain / max(np.abs(matrix).sum(axis=1).max(), 1e-9) for matrix in (c, d))
        b /= max(np.abs(b).sum(axis=1).max(), 1e-9)
    return plain(a, b, c, kinds, D=d, b=rng.normal(size=n), d=rng.normal(size=n_outputs))


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * (1 + np.abs(expected).max()))


@pytest.mark.slow
def test_laws_on_100_random_models():
    rng = np.random.default_rng(0)
    loops = solved = 0
    for _ in range(100):
        p, r, q = (int(k) for k in rng.integers(1, 5, 3))
        f, g, h, k = (random_model(rng, *sizes) for sizes in ((p, r), (r, q), (p, r), (p, q)))
        u = 2 * rng.normal(size=(4, p))
        close(cascade(f, g)(u), g(f(u)))
        close(total(f, h)(u), f(u) + h(u))
        close(concat(f, k)(u), np.hstack([f(u), k(u)]))
        whole = cascade(f, g)
        if whole.is_feed_forward:
            bound = sensitivity_matrix(g) @ sensitivity_matrix(f)
            assert (sensitivity_matrix(whole) <= bound * (1 + 1e-9) + 1e-300).all()
        plant, controller = random_model(rng, p, r), random_model(rng, r, p, gain=0.05)
        try:
            closed = feedback(plant, controller)
        except UnsupportedModelError:
            continue
        loops += 1
        y = np.zeros((4, r))
        for _ in range(12):  # a direct fixed-point solve, apart from the loop's own
            y = plant(u + controller(y))
        if np.abs(y - plant(u + controller(y))).max() < 1e-9:
            solved += 1
            np.testing.assert_allclose(closed(u), y, rtol=1e-6, atol=1e-6 * (1 + np.abs(y).max()))
        close(closed(u), plant(u + controller(closed(u))))
    assert loops >= 50
    assert solved >= 50


def test_a_cascade_is_never_more_sensitive_than_the_product():
    rng = np.random.default_rng(3)
    for _ in range(20):
        first, second = rng.normal(size=(2, 4, 3)), rng.normal(size=(2, 2, 4))
        f = plain(np.zeros((4, 4)), first[0], np.eye(4), "relu", D=first[1])
        g = plain(np.zeros((2, 2)), second[0], np.eye(2), "abs", D=second[1])
        assert (sensitivity_matrix(cascade(f, g)) <= sensitivity_matrix(g) @ sensitivity_matrix(f) * (1 + 1e-12)).all()


def test_feedback_has_the_matrices_of_the_formula():
    rng = np.random.default_rng(5)
    f = plain(np.zeros((2, 2)), rng.normal(size=(2, 3)), rng.normal(size=(2, 2)), "identity", D=rng.normal(size=(2, 3)))
    g = plain(np.zeros((2, 2)), rng.normal(size=(2, 2)), rng.normal(size=(3, 2)), "identity", D=rng.normal(size=(3, 2)))
    # identity activations: f = F u, g = G y, and y = (I - F G)^-1 F u
    whole = [m.output.input.to_sparse().toarray() + m.matrices.C.toarray() @ m.matrices.B.toarray() for m in (f, g)]
    wanted = np.linalg.solve(np.eye(2) - whole[0] @ whole[1], whole[0])
    small = 0.1 / np.abs(wanted).max()
    g = plain(np.zeros((2, 2)), g.matrices.B.toarray(), small * g.matrices.C.toarray(), "identity",
              D=small * g.matrices.D.toarray())  # fmt: skip
    back = small * whole[1]
    wanted = np.linalg.solve(np.eye(2) - whole[0] @ back, whole[0])
    u = rng.normal(size=(5, 3))
    close(feedback(f, g)(u), u @ wanted.T)


def test_scalars_with_loop_gain_above_one_are_refused_although_each_is_well_posed():
    one = plain([[0.0]], [[1.0]], [[1.1]], "relu")
    other = plain([[0.0]], [[1.0]], [[1.0]], "relu")
    assert one.is_well_posed
    assert other.is_well_posed
    # with a drive of -0.05 on both there are two states: it is truly ill-posed
    assert len(relu_solutions(np.array([[0.0, 1.0], [1.1, 0.0]]), np.array([-0.05, 0.0]))) != 1
    with pytest.raises(UnsupportedModelError, match=r"lambda_PF\(Gamma \|A\|\) = 1\.049 is not below 1"):
        feedback(one, other)


def test_an_algebraic_loop_without_solution_is_refused():
    gain = plain(np.zeros((0, 0)), np.zeros((0, 2)), np.zeros((2, 0)), [], D=np.eye(2))
    with pytest.raises(UnsupportedModelError, match="direct terms"):
        feedback(gain, gain)


def test_a_linear_plant_with_a_relu_controller(tmp_path):
    plant = plain([[0.5, 0.1], [0.0, 0.3]], [[1.0], [0.5]], [[1.0, 1.0]], "identity")
    controller = plain(np.zeros((3, 3)), [[1.0], [-1.0], [0.5]], [[-0.1, 0.1, -0.05]], "relu", b=[0.0, 0.0, -1.0])
    closed = feedback(plant, controller)
    assert closed.is_well_posed
    assert {part.name for part in closed.blocks[0].activation.parts} == {"identity", "relu"}
    u = np.linspace(-3, 3, 50)[:, None]
    close(closed(u), plant(u + controller(closed(u))))
    S = sensitivity_matrix(closed, "best")
    assert (np.abs(np.diff(closed(u), axis=0)) <= np.abs(np.diff(u, axis=0)) @ S.T * (1 + 1e-9)).all()
    save_model(tmp_path / "closed.npz", closed, origin={})
    assert np.array_equal(load_model(tmp_path / "closed.npz").model(u), closed(u))


def test_states_outside_the_circle_stay_outside():
    plant = plain([[0.5]], [[1.0]], [[1.0]], "relu")
    # the controller's second state reads y, and nothing reads it
    controller = plain(np.zeros((2, 2)), [[0.3], [1.0]], [[0.5, 0.0]], "tanh")
    closed = feedback(plant, controller)
    assert sorted(block.size for block in closed.blocks) == [1, 2]
    assert [closed.blocks[k].size for k in closed.loops] == [2]


def test_sizes_that_do_not_fit_are_told():
    two, three = (plain(np.zeros((1, 1)), np.ones((1, k)), np.ones((k, 1)), "relu") for k in (2, 3))
    for compose, words in ((cascade, "2 outputs do not fit 3"), (total, "as many inputs"), (concat, "as many inputs")):
        with pytest.raises(OptionError, match=words):
            compose(two, three)
    with pytest.raises(OptionError, match="plant's 2 outputs"):
        feedback(two, three)


def test_a_wide_cascade_is_cut_by_an_identity_block():
    rng = np.random.default_rng(1)
    f = plain(np.zeros((30, 30)), rng.normal(size=(30, 2)), rng.normal(size=(1, 30)), "relu")
    g = plain(np.zeros((40, 40)), rng.normal(size=(40, 1)), rng.normal(size=(2, 40)), "relu")
    whole = cascade(f, g)
    assert [block.activation.name for block in whole.blocks] == ["relu", "identity", "relu"]
    u = rng.normal(size=(5, 2))
    close(whole(u), g(f(u)))


def test_models_without_states_compose():
    gain = plain_model(np.zeros((0, 0)), np.zeros((0, 2)), np.zeros((2, 0)), 2 * np.eye(2), np.zeros(0), np.ones(2), [])
    u = np.array([[1.0, -1.0]])
    close(cascade(gain, gain)(u), 4 * u + 3)
