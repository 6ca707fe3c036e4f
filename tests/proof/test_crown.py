"""Backward linear bounds by patches: as tight as the dual bound with the same lines, and never above the truth."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.activations import ACTIVATIONS
from idl_audit.implicit.affine import INPUT
from idl_audit.implicit.convolution import Convolution
from idl_audit.implicit.linear_maps import Dense, LinearMap, Selection
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.proof import crown, patches
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.crown import Crown, Targets
from idl_audit.proof.dual_bound import Functionals, lower_bound
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.linear_bounds import backward_state_bounds, line_multipliers, output_lower_bounds
from idl_audit.proof.patches import Gathered, Geometry, Where, as_image, images_of, plan, summed
from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.errors import BudgetError
from idl_audit.values.rounding import gamma
from tests.shared.small_networks import layered, random_box, some_points

seeds = st.integers(0, 2**32 - 1)
PHIS = ("relu", "leaky_relu", "abs", "tanh", "identity")


def random_convolution(rng: np.random.Generator, image: tuple[int, ...]) -> Convolution:
    """Return a convolution of an image with random taps, strides, pads on both sides, dilations and groups."""
    channels, *spatial = image
    rank = len(spatial)
    groups = channels if rng.random() < 0.25 else 1
    taps = tuple(int(rng.integers(1, 4)) for _ in spatial)
    dilations = tuple(int(rng.integers(1, 3)) for _ in spatial)
    reach = [d * (t - 1) + 1 for d, t in zip(dilations, taps, strict=True)]
    pads = tuple(int(rng.integers(0, 2)) for _ in range(rank))
    short = [max(0, r - n - p) for r, n, p in zip(reach, spatial, pads, strict=True)]
    return Convolution(
        kernel=rng.normal(size=(groups * int(rng.integers(1, 3)), channels // groups, *taps)),
        spatial_in=tuple(spatial),
        strides=tuple(int(rng.integers(1, 3)) for _ in spatial),
        pads=(*pads, *(s + int(rng.integers(0, 2)) for s in short)),
        dilations=dilations,
        groups=groups,
    )


def random_images(rng: np.random.Generator, rank: int, depth: int) -> ImplicitModel:
    """Return a random network of convolutions with skips, a dense block and two outputs."""
    image = (int(rng.integers(1, 4)), *(int(rng.integers(3, 9)) for _ in range(rank)))
    p = int(np.prod(image))
    made: list[tuple[tuple[int, ...], Mapping[int, LinearMap], LinearMap | None]] = []
    for k in range(depth):
        convolution = random_convolution(rng, image)
        states: dict[int, LinearMap] = {k - 1: convolution} if k else {}
        shape = (convolution.channels_out, *convolution.spatial_out)
        if k and shape == image and rng.random() < 0.7:  # a skip: the block before, as it is or weighted
            weights = rng.normal(size=int(np.prod(image))) if rng.random() < 0.5 else None
            states[k - 1] = Selection(
                index=np.arange(int(np.prod(image))), size_in=int(np.prod(image)), weights=weights
            )
            if k > 1 and made[k - 1][0] == made[k - 2][0]:
                states[k - 2] = random_same(rng, image)
        made.append((shape, states, None if k else convolution))
        image = shape
    return assembled(rng, made, p)


def square(
    rng: np.random.Generator, channels: int, side: int, *, stride: int = 1, pad: int = 0, dilation: int = 1
) -> Convolution:
    """Return a 3 x 3 convolution to two channels."""
    kernel = rng.normal(size=(2, channels, 3, 3))
    two = (stride,) * 2, (pad,) * 4, (dilation,) * 2
    return Convolution(kernel=kernel, spatial_in=(side,) * 2, strides=two[0], pads=two[1], dilations=two[2])


def random_same(rng: np.random.Generator, image: tuple[int, ...]) -> Convolution:
    """Return a convolution that keeps an image's shape."""
    rank = len(image) - 1
    kernel = rng.normal(size=(image[0], image[0], *(3,) * rank))
    ones = (1,) * rank
    return Convolution(kernel=kernel, spatial_in=image[1:], strides=ones, pads=(1,) * 2 * rank, dilations=ones)


def assembled(
    rng: np.random.Generator,
    made: list[tuple[tuple[int, ...], Mapping[int, LinearMap], LinearMap | None]],
    p: int,
) -> ImplicitModel:
    """Return the model of blocks given oldest first; blocks stand newest first, a dense block and the outputs last."""
    depth = len(made)
    number = {k: depth - k for k in range(depth)}
    blocks, rows = [], []
    for k in reversed(range(depth)):
        shape, states, inputs = made[k]
        phi = ACTIVATIONS[str(rng.choice(PHIS))]()
        blocks.append(StateBlock(f"b{k}", "Conv", phi, shape))
        maps = {number[j]: linear_map for j, linear_map in states.items()}
        rows.append(Affine(maps, inputs, 0.3 * rng.normal(size=int(np.prod(shape)))))
    newest = Dense(matrix=rng.normal(size=(4, blocks[0].size)) / np.sqrt(blocks[0].size))
    blocks.insert(0, StateBlock("dense", "Gemm", ACTIVATIONS["relu"](), (4,)))
    rows.insert(0, Affine({1: newest}, None, rng.normal(size=4)))
    output = Affine(
        {0: Dense(matrix=rng.normal(size=(2, 4)))}, Dense(matrix=rng.normal(size=(2, p))), rng.normal(size=2)
    )
    return ImplicitModel(tuple(blocks), tuple(rows), output, (p,), (2,))


def by_vertices(model: ImplicitModel, inputs: Interval, bounds: StateBounds, functionals: Functionals) -> FloatArray:
    """Return what the dual bound makes of the same lines."""
    return lower_bound(model, inputs, bounds, functionals, line_multipliers(model, bounds))


def both_sides(model: ImplicitModel, k: int) -> tuple[IntArray, FloatArray]:
    """Return all states of a block twice, with their signs."""
    n = model.blocks[k].size
    return np.tile(np.arange(n), 2), np.repeat([1.0, -1.0], n)


@settings(deadline=None, max_examples=60)
@given(seed=seeds, rank=st.integers(1, 3), depth=st.integers(1, 5), m=st.integers(1, 3))
def test_it_is_as_tight_as_the_dual_bound_with_the_same_lines_and_sound(
    seed: int, rank: int, depth: int, m: int
) -> None:
    rng = np.random.default_rng(seed)
    model = random_images(rng, min(rank, 2) if depth > 3 else rank, depth)
    boxes = [random_box(rng, model.n_inputs, radius=0.2) for _ in range(m)]
    inputs = Interval.of_boxes(boxes)
    bounds = backward_state_bounds(model, inputs)
    solutions = [model.solve(some_points(rng, box, 12)) for box in boxes]
    for k in range(len(model.blocks)):
        states, signs = both_sides(model, k)
        found = Crown(model, inputs).lower_bound(bounds, Targets.of_states(model, k, states, signs))
        other = by_vertices(model, inputs, bounds, Functionals.of_pre_activations(model, k, states, signs))
        scale = 1 + np.abs(other)
        assert (np.abs(found - other) <= 1e-9 * scale).all()
        for j, solution in enumerate(solutions):
            z = solution.pre_activations[k][:, states] * signs
            assert (found[j] <= z.min(axis=0) + 1e-12 * scale[j]).all()
    rows = rng.normal(size=(3, 2))
    found = Crown(model, inputs).lower_bound(bounds, Targets.of_outputs(model, rows))
    other = by_vertices(model, inputs, bounds, Functionals.of_outputs(model, rows))
    assert (np.abs(found - other) <= 1e-9 * (1 + np.abs(other))).all()


@settings(deadline=None, max_examples=20)
@given(seed=seeds)
def test_any_intervals_that_hold_the_states_give_sound_bounds(seed: int) -> None:
    """Bounds of states wider than they need be, with endless ends among them: nothing is proved from NaN."""
    rng = np.random.default_rng(seed)
    model = random_images(rng, 2, 3)
    box = random_box(rng, model.n_inputs, radius=0.1)
    inputs = Interval.of_boxes(box)
    bounds = interval_bounds(model, inputs)
    for k in model.evaluation_order:
        z = bounds.z[k]
        wider = np.where(rng.random(z.lo.shape) < 0.02, np.inf, rng.exponential(size=z.lo.shape))
        bounds = bounds.with_block(k, model.blocks[k], Interval(z.lo - wider, z.hi + wider))
    found = Crown(model, inputs).lower_bound(bounds, Targets.of_outputs(model, np.vstack([np.eye(2), -np.eye(2)])))[0]
    y = model(some_points(rng, box, 30))
    assert not np.isnan(found).any()
    assert (found <= np.hstack([y, -y]).min(axis=0) + 1e-12).all()


@pytest.mark.parametrize("numbers", [1, 40, 1000])
def test_passes_in_several_parts_give_the_same_bounds(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    model = random_images(rng, 2, 3)
    inputs = Interval.of_boxes([random_box(rng, model.n_inputs, radius=0.2) for _ in range(2)])
    whole = backward_state_bounds(model, inputs)
    monkeypatch.setattr(crown, "NUMBERS_AT_ONCE", numbers)
    parts = backward_state_bounds(model, inputs)
    for k in range(len(model.blocks)):
        np.testing.assert_allclose(parts.z[k].lo, whole.z[k].lo, rtol=1e-11, atol=1e-11)


def test_a_small_case_by_hand() -> None:
    """x = relu(u), u in [-1, 3]; y = x - u lies in [0, 1] and u - x >= 3/4 u - 3/4 + ... gives -1 at u = -1."""
    model = layered([([[1.0]], [0.0])], ([[1.0], [-1.0]], [0.0, 0.0]), skip=[[-1.0], [1.0]])
    inputs = Interval(np.array([[-1.0]]), np.array([[3.0]]))
    bounds = backward_state_bounds(model, inputs)
    found = Crown(model, inputs).lower_bound(bounds, Targets.of_outputs(model, np.eye(2)))[0]
    np.testing.assert_allclose(found, [0.0, -1.0], atol=1e-12)
    assert found[1] <= -1.0  # the minimum itself: rounded downward


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_overflows_proves_nothing() -> None:
    model = layered([([[1e200]], [0.0]), ([[1e200]], [0.0])], ([[1e200]], [0.0]))
    inputs = Interval(np.array([[-1.0]]), np.array([[1.0]]))
    bounds = interval_bounds(model, inputs)
    found = Crown(model, inputs).lower_bound(bounds, Targets.of_outputs(model, np.array([[1.0], [-1.0]])))
    assert (found == -np.inf).all()


# --- windows ---------------------------------------------------------------------------------------------------------


def test_windows_grow_with_taps_strides_and_dilations_and_end_as_the_image() -> None:
    rng = np.random.default_rng(1)
    first = square(rng, 1, 16, stride=2, pad=1)
    second = square(rng, 2, 8, pad=1)
    third = square(rng, 2, 8, pad=3, dilation=3)
    model = assembled(rng, [((2, 8, 8), {}, first), ((2, 8, 8), {0: second}, None), ((2, 8, 8), {1: third}, None)], 256)
    assert images_of(model) == {3: (2, 8, 8), INPUT: (1, 16, 16), 2: (2, 8, 8), 1: (2, 8, 8)}
    assert plan(model, 2) == {3: Geometry((1, 1), (-1, -1), (3, 3)), INPUT: Geometry((2, 2), (-3, -3), (7, 7))}
    assert plan(model, 1) == {
        2: Geometry((1, 1), (-3, -3), (7, 7)),
        3: Geometry.whole((2, 8, 8)),
        INPUT: Geometry.whole((1, 16, 16)),
    }
    assert plan(model, 0)[1] is None


@settings(deadline=None, max_examples=40)
@given(seed=seeds, rank=st.integers(1, 3))
def test_the_adjoint_of_windows_is_that_of_whole_images(seed: int, rank: int) -> None:
    rng = np.random.default_rng(seed)
    image = (int(rng.integers(1, 4)), *(int(rng.integers(3, 7)) for _ in range(rank)))
    convolution = random_convolution(rng, image)
    y = rng.integers(-4, 5, (3, convolution.channels_out, *convolution.spatial_out)).astype(float)
    found = convolution.adjoint_patches(np.moveaxis(y, 1, -1))
    whole = np.zeros((3, *image))
    inside, taken = [], []
    for axis, size in enumerate(image[1:]):
        before = convolution.pads[axis]
        last = min(size, found.shape[1 + axis] - before)
        inside.append(slice(0, max(0, last)))
        taken.append(slice(before, before + max(0, last)))
    whole[(slice(None), slice(None), *inside)] = np.moveaxis(found[(slice(None), *taken)], -1, 1)
    np.testing.assert_allclose(whole.reshape(3, -1), convolution.adjoint(y.reshape(3, -1)), atol=1e-12)


def test_every_kind_of_network_meets_windows_of_every_kind() -> None:
    """What the random networks above are made of does occur: moving windows, whole images and flat vectors."""
    met = set()
    for seed, rank in itertools.product(range(20), (1, 2)):
        model = random_images(np.random.default_rng(seed), rank, 4)
        for k in range(len(model.blocks)):
            met |= {None if g is None else g.is_fixed for g in plan(model, k).values()}
    assert met == {None, True, False}


def test_where_the_time_for_tightening_is_over_blocks_keep_their_intervals() -> None:
    rng = np.random.default_rng(7)
    model = random_images(rng, 2, 4)
    inputs = Interval.of_boxes(random_box(rng, model.n_inputs, radius=0.2))
    turns = itertools.count()

    def tighten() -> None:
        if next(turns) >= 2:
            raise BudgetError("over")

    found, whole = backward_state_bounds(model, inputs, tighten=tighten), backward_state_bounds(model, inputs)
    plain = interval_bounds(model, inputs)
    assert (found.z[0].width >= whole.z[0].width).all()
    assert (found.z[0].width <= plain.z[0].width * (1 + 1e-12)).all()
    assert found.z[0].width.sum() > whole.z[0].width.sum()


def test_of_states_that_keep_their_sign_no_more_than_the_sign_is_sought() -> None:
    """Bounds of states that bend are as tight as those followed to the inputs; the others' signs are the same."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        model = random_images(rng, 1 + seed % 2, 4)
        box = random_box(rng, model.n_inputs, radius=0.05)
        inputs = Interval.of_boxes(box)
        bounds = backward_state_bounds(model, inputs)
        for k, block in enumerate(model.blocks):
            if block.activation.name != "relu":
                continue
            states, signs = both_sides(model, k)
            whole = Crown(model, inputs).lower_bound(bounds, Targets.of_states(model, k, states, signs))[0]
            targets = Targets.of_signs(model, k, np.ones((1, block.size), np.bool_))
            soon = Crown(model, inputs).lower_bound(bounds, targets).reshape(-1, 2)
            low, high = whole[: block.size], -whole[block.size :]
            open_ = (soon < 0).all(axis=1)
            assert (soon[open_, 0] >= low[open_] - 1e-9).all()
            assert (-soon[open_, 1] <= high[open_] + 1e-9).all()
            assert ((low < 0) & (high > 0))[open_].all()
            z = model.solve(some_points(rng, box, 20)).pre_activations[k]
            assert (soon[:, 0] <= z.min(axis=0) + 1e-12).all()
            assert (soon[:, 1] <= -z.max(axis=0) + 1e-12).all()


@settings(deadline=None, max_examples=25)
@given(seed=seeds, numbers=st.sampled_from([1, 300, 2**16]))
def test_a_box_among_others_has_the_bounds_that_it_has_alone(seed: int, numbers: int) -> None:
    """Also of states that keep their sign, which are followed only so far, and of rows that each box has for itself."""
    rng = np.random.default_rng(seed)
    model = random_images(rng, int(rng.integers(1, 3)), int(rng.integers(2, 5)))
    boxes = [random_box(rng, model.n_inputs, radius=float(radius)) for radius in (0.3, 0.02, 0.0, 0.1)]
    rows = rng.normal(size=(len(boxes), 3, 2))
    inputs = Interval.of_boxes(boxes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crown, "BOXES_AT_ONCE", numbers)
        together = backward_state_bounds(model, inputs)
        lower = output_lower_bounds(model, inputs, together, rows)
    for j, box in enumerate(boxes):
        own = Interval.of_boxes(box)
        alone = backward_state_bounds(model, own)
        for k in range(len(model.blocks)):
            np.testing.assert_allclose(together.z[k].lo[j], alone.z[k].lo[0], rtol=1e-11, atol=1e-11)
            np.testing.assert_allclose(together.z[k].hi[j], alone.z[k].hi[0], rtol=1e-11, atol=1e-11)
        np.testing.assert_allclose(lower[j], output_lower_bounds(model, own, alone, rows[j])[0], rtol=1e-11, atol=1e-11)
        y = model(some_points(rng, box, 20)) @ rows[j].T
        assert (lower[j] <= y.min(axis=0) + 1e-12 * (1 + np.abs(y).max())).all()


def test_boxes_fill_a_pass_and_a_large_one_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model = layered([([[1.0], [1.0]], [0.0, 0.0])], ([[1.0, 1.0]], [0.0]))
    monkeypatch.setattr(crown, "NUMBERS_AT_ONCE", 8)
    monkeypatch.setattr(crown, "BOXES_AT_ONCE", 12)  # six rows of two states
    box = np.repeat([0, 2, 3, 4, 5], [2, 4, 2, 10, 1])
    targets = replace(Targets.of_outputs(model, np.ones((box.size, 1))), box=box)
    parts = Crown(model, Interval(np.zeros((6, 1)), np.ones((6, 1))))._parts(targets, plan(model, None))
    assert [(part.start, part.stop) for part in parts] == [(0, 6), (6, 8), (8, 12), (12, 16), (16, 18), (18, 19)]


@settings(deadline=None, max_examples=40)
@given(seed=seeds, rank=st.integers(0, 3), boxes=st.integers(1, 2), large=st.sampled_from([1, 2**12]))
def test_sums_over_windows_are_as_exact_as_is_charged_for(seed: int, rank: int, boxes: int, large: int) -> None:
    """Beside rational arithmetic, with numbers of all sizes that mostly cancel; box after box, too."""
    rng = np.random.default_rng(seed)
    image = (int(rng.integers(1, 4)), *(int(rng.integers(1, 5)) for _ in range(rank)))
    size = int(np.prod(image))
    arrays = rng.normal(size=(1, boxes, size)) * 2.0 ** rng.integers(-30, 30, size)
    where = Where(np.sort(rng.integers(0, boxes, 5)), None)
    windows = Gathered(arrays, image, Geometry.whole(image), where) if rank else Gathered(arrays, None, None, where)
    v = rng.normal(size=(5, size)) * 2.0 ** -rng.integers(-30, 30, size)
    v[:, : size // 2] = -v[:, size // 2 : 2 * (size // 2)]
    own = as_image(v, image) if rank else v
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patches, "LARGE_RUN", large)
        found = windows.dot(own, 0)
    for row, (box, values) in enumerate(zip(where.box, v, strict=True)):
        products = [Fraction(a) * Fraction(b) for a, b in zip(values.tolist(), arrays[0, box].tolist(), strict=True)]
        allowed = Fraction(gamma(summed(own))) * sum(map(abs, products))
        assert abs(Fraction(float(found[row])) - sum(products)) <= allowed
