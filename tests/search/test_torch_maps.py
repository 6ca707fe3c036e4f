"""Maps on torch: forwards and backwards they are the maps of the model, and their gradients each other's."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from idl_audit.search.device import tensor
from idl_audit.search.torch_maps import Function, applied, pulled, sparse_product
from tests.shared.map_examples import KINDS, matrix

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def gradient(function: Function, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(function(x), x, v)
    return slope


@pytest.mark.parametrize("largest", [0, 10**6])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_both_ways_are_those_of_the_matrix(kind: str, seed: int, largest: int) -> None:
    rng = np.random.default_rng(seed)
    linear_map = KINDS[kind](rng)
    w = tensor(matrix(linear_map))
    x, v = tensor(rng.normal(size=(3, linear_map.n_in))), tensor(rng.normal(size=(3, linear_map.n_out)))
    forwards, backwards = applied(linear_map), pulled(linear_map, largest)
    torch.testing.assert_close(forwards(x), x @ w.T, **CLOSE)
    torch.testing.assert_close(backwards(v), v @ w, **CLOSE)
    if linear_map.n_in and linear_map.n_out:
        torch.testing.assert_close(gradient(backwards, v, x), x @ w.T, **CLOSE)
        torch.testing.assert_close(gradient(forwards, x, v), v @ w, **CLOSE)


def test_a_sparse_product_and_its_gradient_are_those_of_the_matrix() -> None:
    rng = np.random.default_rng(5)
    w = sp.random_array((30, 20), density=0.1, rng=rng, format="csr")
    x, v = tensor(rng.normal(size=(4, 20))), tensor(rng.normal(size=(4, 30)))
    torch.testing.assert_close(sparse_product(w)(x), x @ tensor(w.toarray()).T, **CLOSE)
    torch.testing.assert_close(gradient(sparse_product(w), x, v), v @ tensor(w.toarray()), **CLOSE)
