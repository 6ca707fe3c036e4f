"""A family in front of a model is the model at the family's members: in value, in bounds, and to the checker."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from idl_audit.commands.shared.subject import open_subject
from idl_audit.implicit.front import SATURATION, with_family
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval
from idl_audit.proof.exact.point import enclosed_outputs
from idl_audit.proof.linear_bounds import backward_state_bounds, output_lower_bounds
from idl_audit.values.box import Box
from idl_audit.values.errors import UnsupportedModelError
from idl_audit.values.families import Family
from tests.shared import cyclic_models
from tests.shared.small_networks import random_network

ROOT = Path(__file__).resolve().parents[2]
KINDS = list(itertools.product((False, True), (False, True)))


def drawn(rng: np.random.Generator, p: int, *, clip: bool, spread: bool) -> Family:
    k = 2
    reach = np.r_[rng.random(k), np.ones(p if spread else 0)]
    return Family(
        rng.normal(size=p) * 0.3,
        rng.normal(size=(p, k)),
        Box.between(-reach, reach),
        (-0.4, 0.5) if clip else None,
        rng.random(p) * 0.1 if spread else None,
    )


def members(family: Family, t: np.ndarray) -> np.ndarray:
    u = family.offset + t[:, : family.k] @ family.matrix.T
    u = u if family.spread is None else u + t[:, family.k :] * family.spread
    return u if family.clip is None else np.clip(u, *family.clip)


@pytest.mark.parametrize(("clip", "spread"), KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_it_is_the_model_at_the_members(seed: int, clip: bool, spread: bool) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(4, 3), activations=("relu", "leaky", "tanh"))
    family = drawn(rng, 3, clip=clip, spread=spread)
    front = with_family(model, family)
    box = family.parameters
    t = box.lo + rng.random((200, box.size)) * (box.hi - box.lo)
    np.testing.assert_allclose(front(t), model(members(family, t)), rtol=1e-12, atol=1e-12)
    assert front.n_inputs == box.size
    assert front.n_outputs == model.n_outputs
    assert [block.name for block in front.blocks[: len(model.blocks)]] == [block.name for block in model.blocks]
    assert sum(SATURATION in block.name for block in front.blocks) == 2 * clip


@pytest.mark.parametrize(("clip", "spread"), KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_bounds_hold_at_exact_members(seed: int, clip: bool, spread: bool) -> None:
    """The true outputs at a member that is no float64 vector lie where the front's bounds say."""
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=2, widths=(3, 3))
    family = drawn(rng, 2, clip=clip, spread=spread)
    front, box = with_family(model, family), family.parameters
    seeds = np.vstack([np.eye(model.n_outputs), -np.eye(model.n_outputs)])
    inputs = Interval.of_boxes(box)
    least = output_lower_bounds(front, inputs, backward_state_bounds(front, inputs), seeds)[0]
    for corner in itertools.islice(itertools.product((0, 1, 3, 7), repeat=box.size), 0, None, 5):
        t = [
            Fraction(a) + Fraction(c, 7) * (Fraction(b) - Fraction(a))
            for a, b, c in zip(box.lo, box.hi, corner, strict=True)
        ]
        lo, hi = enclosed_outputs(model, exact_member(family, t))
        assert (np.r_[hi, -lo] >= least).all()
        there = enclosed_outputs(front, t)
        assert (np.r_[there[0], -there[1]] <= np.r_[hi, -lo]).all(), "the two enclose one point"


def exact_member(family: Family, t: list[Fraction]) -> list[Fraction]:
    found = []
    for i in range(family.size):
        value = Fraction(family.offset[i]) + sum(
            Fraction(m) * x for m, x in zip(family.matrix[i].tolist(), t, strict=False)
        )
        value += 0 if family.spread is None else Fraction(family.spread[i]) * t[family.k + i]
        found.append(
            value if family.clip is None else min(max(value, Fraction(family.clip[0])), Fraction(family.clip[1]))
        )
    return found


@pytest.mark.parametrize("name", ["digits_conv.onnx", "digits_resnet.onnx"])
@pytest.mark.parametrize("clip", [False, True])
def test_convolutions_have_families_in_front(name: str, clip: bool) -> None:
    model = open_subject(ROOT / "sample_models" / name).model
    rng = np.random.default_rng(1)
    p = model.n_inputs
    family = Family(
        rng.random(p), rng.normal(size=(p, 2)), Box.between(-np.ones(2), np.ones(2)), (0, 1) if clip else None
    )
    t = rng.uniform(-1, 1, size=(20, 2))
    np.testing.assert_allclose(with_family(model, family)(t), model(members(family, t)), rtol=1e-9, atol=1e-9)


def test_loops_are_refused_by_name() -> None:
    model: ImplicitModel = cyclic_models.plain([[0.1]], np.eye(1), np.eye(1))
    with pytest.raises(UnsupportedModelError, match="without loops"):
        with_family(model, Family(np.zeros(1), np.ones((1, 1)), Box.between(-np.ones(1), np.ones(1))))
