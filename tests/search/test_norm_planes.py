"""Planes around norms in the search: those that the proof finds for the same multipliers, whatever the shares."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from idl_audit.implicit.activations.normalised import Normalised
from idl_audit.implicit.model import StateBlock
from idl_audit.search.branching.groups import groups_of


@pytest.mark.parametrize("reach", [0.1, 2.0])
@pytest.mark.parametrize("exponent", [0, 2])
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("aided", [True, False])
def test_constants_are_what_the_proof_finds(aided: bool, centred: bool, exponent: int, reach: float) -> None:
    rng = np.random.default_rng(0)
    phi = Normalised(5, 4.0, 1e-3, centred=centred, aided=aided)
    block = StateBlock("norm", "Norm", phi, (10,), exponent=exponent)
    points = rng.normal(size=(2, 4)) + reach * rng.uniform(-1, 1, (2000, 2, 4))
    means = points.mean(axis=-1, keepdims=True)
    d = points - means if centred else points
    factors = 1 / np.sqrt((d * d).sum(axis=-1, keepdims=True) / 4 + 1e-3)
    entries = d if aided else points
    z = np.concatenate([entries, factors], axis=-1).reshape(2000, 10) / 2.0**exponent
    lo, hi = z.min(axis=0), z.max(axis=0)
    planes = groups_of(block, lo, hi)
    v = rng.normal(size=(6, 10)).astype(np.float32)
    for shares in (None, torch.rand(6, 10)):
        lam, constants = (part.double().numpy() for part in planes.over_states(torch.tensor(v), shares))
        proved = block.lower_support(v.astype(float), np.zeros((6, 10)), lam, lo[None], hi[None]).sum(axis=-1)
        np.testing.assert_allclose(constants, proved, atol=1e-4 * np.abs(v).max() * np.abs(z).max())
        values = (v[:, None] * block(z) - lam[:, None] * z).sum(axis=-1)
        assert (values.min(axis=1) >= proved - 1e-9).all()
    assert (planes.losses(torch.tensor(v)) >= 0).all()
