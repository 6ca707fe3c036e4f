"""The one Adam of all searches, against its formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from idl_audit.search.adam import Adam


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.9, 0.99)])
def test_steps_are_those_of_the_formula(betas: tuple[float, float]) -> None:
    rng = np.random.default_rng(3)
    values, still = rng.normal(size=(3, 4)), np.ones(2)
    adam = Adam([([values], 0.1), ([still], 0.3)], betas=betas)
    expected, mean, square = values.copy(), np.zeros((3, 4)), np.zeros((3, 4))
    for t in range(1, 20):
        gradient = rng.normal(size=(3, 4)) * 10.0 ** rng.integers(-3, 4)
        adam.step([gradient, None], 0.5)
        mean = betas[0] * mean + (1 - betas[0]) * gradient
        square = betas[1] * square + (1 - betas[1]) * gradient**2
        expected -= 0.05 * (mean / (1 - betas[0] ** t)) / (np.sqrt(square / (1 - betas[1] ** t)) + 1e-8)
        np.testing.assert_allclose(values, expected, rtol=1e-9)
    assert (still == 1).all()


def test_steps_are_those_of_torch_and_change_its_tensors() -> None:
    ours = torch.linspace(-1, 1, 12).reshape(3, 4).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    adam, other = Adam([([ours.detach().numpy()], 0.25)]), torch.optim.Adam([theirs], lr=0.25)
    for _ in range(10):
        (gradient,) = torch.autograd.grad((ours**4 - ours).sum(), ours)
        adam.step([gradient.numpy()])
        other.zero_grad()
        (theirs**4 - theirs).sum().backward()
        other.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e30, np.inf, np.nan])
def test_gradients_of_any_size_warn_nobody(size: float) -> None:
    value = np.ones(3, np.float32)
    adam = Adam([([value], 0.1)])
    for _ in range(3):
        adam.step([np.full(3, size, np.float32)])
    assert np.isfinite(value).all() == (size < np.inf)
