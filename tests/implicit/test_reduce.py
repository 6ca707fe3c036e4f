"""Exact reduction: what is planted is found, and no output changes."""

from __future__ import annotations

import numpy as np
import pytest

from idl_audit.implicit.plain import DeclaredBlock, plain_model
from idl_audit.implicit.reduce import reduce_model
from tests.shared.cyclic_models import plain


def planted(rng, *, cyclic):
    """A model of 14 states, 6 of them alive; returns it with what should be found."""
    n = 14
    a = rng.normal(size=(n, n))
    a = 0.7 * a / np.abs(a).sum(axis=1).max() if cyclic else np.triu(a, 1)
    b_matrix, c = rng.normal(size=(n, 3)), rng.normal(size=(2, n))
    a[:2], b_matrix[:2] = 0.0, 0.0  # 0 and 1 read at most each other: constant
    if cyclic:
        a[0, 1], a[1, 0] = 0.3, -0.4
    a[:, 2:4], c[:, 2:4] = 0.0, 0.0  # 2 and 3: nothing reads them
    a[2, 3] = 0.5
    a[4], b_matrix[4] = 0.0, 0.0  # 4 is relu(-x_5 - x_6 - .5): dead
    a[:, 6], c[:, 6] = 0.0, 0.0  # 6 is read by 4 alone
    a[4, 5], a[4, 6] = -1.0, -0.3
    a[7], b_matrix[7] = 0.0, 0.0  # 7 reads 4 alone: constant once 4 is gone
    a[7, 4] = 2.0
    a[13] = 0.0  # whether cyclic or not, 13 reads the input alone
    b = rng.normal(size=n)
    b[4] = -0.5
    b_matrix[:, 1] = 0.0  # input 1 is read by no state
    return plain(a, b_matrix, c, "relu", b=b), {"constant": 3, "dead": 1, "unobserved": 3}


@pytest.mark.parametrize("cyclic", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_everything_that_was_planted_is_found(seed, cyclic):
    rng = np.random.default_rng(seed)
    model, wanted = planted(rng, cyclic=cyclic)
    found = reduce_model(model)
    assert found.removed == sum(wanted.values())
    assert sum(found.constant.values()) == wanted["constant"]
    assert sum(found.dead.values()) == wanted["dead"]
    assert sum(found.unobserved.values()) == wanted["unobserved"]
    assert found.unused_inputs.tolist() == [1]
    assert found.model.n_states == 14 - 7
    u = 5 * rng.normal(size=(100, 3))
    y = model(u)
    assert np.abs(found.model(u) - y).max() <= 1e-12 * (1 + np.abs(y).max())
    assert reduce_model(found.model).removed == 0


def test_the_error_of_a_constant_is_paid_for():
    model = plain([[0.0, 0.0], [0.0, 0.0]], [[0.0], [1.0]], [[1.0, 1.0]], "tanh", b=[0.1, 0.0])
    found = reduce_model(model).model
    assert found.n_states == 1
    assert 0 < found.output.constant_error < 1e-12
    assert abs(found.output.constant[0] - np.tanh(0.1)) <= found.output.constant_error


def test_a_model_whose_states_all_go_is_its_constants():
    model = plain([[0.0]], [[0.0]], [[2.0]], "relu", b=[3.0], d=[1.0], D=[[4.0]])
    found = reduce_model(model).model
    assert found.n_states == 0
    assert found(np.array([[1.0], [2.0]])).tolist() == [[11.0], [15.0]]


def test_a_softmax_group_goes_as_a_whole_or_not_at_all():
    blocks = [DeclaredBlock("softmax", 4, {"width": 2.0})]
    zero, c = np.zeros((4, 4)), np.array([[1.0, 0.0, 0.0, 0.0]])
    model = plain_model(
        zero, np.ones((4, 1)) * [[1], [2], [3], [4]], c, np.zeros((1, 1)), np.zeros(4), np.zeros(1), blocks
    )
    found = reduce_model(model)
    assert found.model.n_states == 2  # the second group is unobserved; of the first, x_1 is in the denominator of x_0
    u = np.array([[0.3], [-1.0]])
    np.testing.assert_allclose(found.model(u), model(u), rtol=1e-15)


def test_a_sign_that_may_change_is_no_proof():
    a = [[0.0, -1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    c, b_matrix = [[1.0, 1.0, 1.0]], [[0.0], [1.0], [1.0]]
    assert reduce_model(plain(a, b_matrix, c, "relu")).removed == 1
    assert reduce_model(plain(a, b_matrix, c, "relu", b=[1e-300, 0.0, 0.0])).removed == 0
    assert reduce_model(plain(a, b_matrix, c, [("relu", 1), ("tanh", 2)])).removed == 0
    assert reduce_model(plain(a, [[1e-90], [1.0], [1.0]], c, "relu")).removed == 0
