"""Upper planes: below exact minima for any shares, as tight as the hull, and refused where they are no planes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from idl_audit.implicit.activations import ACTIVATIONS, Activation
from idl_audit.implicit.affine import INPUT
from idl_audit.implicit.build import build_implicit
from idl_audit.implicit.linear_maps import Reindexed, Selection
from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.chain import Chain, Leaves, with_phases
from idl_audit.proof.dual_bound import Functionals, _Tally, lower_bound
from idl_audit.proof.files.strict_json import Damaged, Entry, Misfit
from idl_audit.proof.format_1.arrays import ProofArrays, Sizes
from idl_audit.proof.format_1.chains import CHAIN_KEYS, opened_chain
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.leaves import prove_leaves
from idl_audit.proof.linear_bounds import backward_state_bounds, line_multipliers
from idl_audit.proof.planes import (
    AllPlanes,
    Planes,
    PlaneSupport,
    Reads,
    can_have_planes,
    slopes_of,
    why_no_planes,
)
from idl_audit.proof.restriction import restricted, restricted_bounds
from idl_audit.search.branching import tree as tree_module
from idl_audit.search.branching.network import SearchNet
from idl_audit.search.branching.tree import Tree
from idl_audit.values.arrays import AnyArray, FloatArray
from idl_audit.values.box import Box
from idl_audit.values.errors import ModelFileError
from idl_audit.values.npz import NpzFile
from idl_audit.values.query import Conjunction, Query
from tests.shared.budgets import enough
from tests.shared.format_1 import packed_chain
from tests.shared.format_1 import refused as refused_chain
from tests.shared.small_networks import (
    KINKED,
    ExactModel,
    all_corners,
    as_some_map,
    dense,
    exact,
    graph,
    layered,
    leaky_relu,
    long_double,
    random_box,
    random_network,
    some_points,
    two_slopes,
)

seeds = st.integers(0, 2**32 - 1)
CONVEX: Mapping[str, Callable[[np.random.Generator, int], Activation]] = {
    **{name: KINKED[name] for name in ("relu", "leaky", "negative", "abs", "identity")},
    "prelu": lambda rng, n: leaky_relu(1 - rng.exponential(size=n)),
}
SQUARE = Box.between(-np.ones(2), np.ones(2))


def one_layer(rng: np.random.Generator, p: int, n: int, phi: str, *, size: float = 1.0) -> ImplicitModel:
    """Return y = c.phi(W u + b) + d.u of one output."""
    weights = rng.normal(size=(n, p)) * (rng.random((n, p)) < 0.8) * size
    block = StateBlock("b", "Relu", CONVEX[phi](rng, n), (n,))
    rows = (Affine({}, as_some_map(weights, rng), rng.normal(size=n) * 0.3 * size),)
    return ImplicitModel(
        (block,),
        rows,
        Affine({0: dense(rng.normal(size=(1, n)))}, dense(rng.normal(size=(1, p))), np.zeros(1)),
        (p,),
        (1,),
    )


def some_planes(
    model: ImplicitModel, inputs: Interval, rng: np.random.Generator, m: int = 1, share: float = 0.7
) -> dict[int, Planes]:
    """Return random planes for some states of every block that can have them."""
    found = {}
    for k, block in enumerate(model.blocks):
        if can_have_planes(model, k):
            states = np.flatnonzero(rng.random(block.size) < share)
            q = Reads.of(model, k, states, inputs).index.shape[1]
            found[k] = Planes(states, rng.choice(256, (m, states.size, q)).astype(np.uint8))
    return found


def noise(rng: np.random.Generator, size: float) -> Callable[[int, FloatArray], FloatArray]:
    return lambda k, v: rng.normal(size=v.shape) * size


def below(rows: Any, offset: float) -> Conjunction:
    return Conjunction(np.atleast_2d(np.asarray(rows, np.float64)), np.array([offset]))


# ---------------------------------------------------------------------------------------------- one state


def exact_least(model: ImplicitModel, i: int, v: Fraction, g: Any, box: Box) -> Fraction:
    """Return the minimum of v phi(w.u + b) - g.u over a box, v <= 0: it is concave, so least at a corner."""
    rational = ExactModel(model)
    corners = itertools.product(*zip(exact(box.lo), exact(box.hi), strict=True))
    values = []
    for corner in corners:
        u = np.array(corner, object)
        x = rational.phi(0, rational.rows[0]({}, u))[i]
        values.append(v * x - g @ u)
    return min(values)


def supports(
    model: ImplicitModel, box: Box, i: int, shares: Any, v: FloatArray, v_error: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return what the plane of one state proves in each of m boxes, and the coefficients g: (m, R), (m, R, p) twice."""
    inputs = Interval.of_boxes(box).repeated(len(v))
    z = interval_bounds(model, inputs).z[0]
    support = PlaneSupport(model, 0, inputs, Planes(np.array([i]), shares))
    on = np.ones((*v.shape, 1), np.bool_)
    least, total, error = support.lower(v[..., None], v_error[..., None], on, z.largest[:, None, [i]])
    return least[..., 0], total, error


@settings(deadline=None, max_examples=60)
@given(
    seed=seeds,
    p=st.integers(1, 4),
    phi=st.sampled_from(sorted(CONVEX)),
    doubt=st.sampled_from([0.0, 1e-12, 0.2, 3.0]),
    size=st.sampled_from([1e-150, 1e-8, 1.0, 1e8, 1e150]),
)
def test_one_plane_proves_the_minimum_at_a_corner(seed: int, p: int, phi: str, doubt: float, size: float) -> None:
    rng = np.random.default_rng(seed)
    model = one_layer(rng, p, 2, phi, size=size)
    box = random_box(rng, p)
    m, n_rows = 2, 3
    reads = Reads.of(model, 0, np.array([1]), Interval.of_boxes(box))
    shares = rng.integers(0, 256, (m, *reads.index.shape)).astype(np.uint8)
    v = -rng.exponential(size=(m, n_rows)) / size
    v_error = np.abs(v) * doubt
    least, total, error = supports(model, box, 1, shares, v, v_error)
    rows = model.rows[0].input
    assert rows is not None
    w = rows.to_sparse().toarray()[1]
    low, high = (side[1] for side in two_slopes(model.blocks[0]))
    for row, r in itertools.product(range(m), range(n_rows)):
        g = exact(total[row, r])
        for sign in (-1, 0, 1) if doubt < 1 else (-1,):
            least_v = exact(v[row, r]).item() + sign * exact(v_error[row, r]).item()
            truth = exact_least(model, 1, least_v, g, box)
            assert least[row, r] <= truth
            if doubt == 0.0 or (sign == -1 and doubt <= 1e-12):
                assert truth - Fraction(float(least[row, r])) < Fraction(1, 10**9) * (1 + abs(truth))
        slope = np.zeros(p)
        np.add.at(slope, reads.index[0], (low + shares[row, 0] / 255 * (high - low)) * (reads.weights[0] != 0))
        np.testing.assert_allclose(total[row, r], v[row, r] * slope * w * (box.lo < box.hi), rtol=1e-9)
        assert (error[row, r] <= 1e-12 * (1 + np.abs(total[row, r]))).all()


def test_states_that_take_no_part_give_nothing() -> None:
    rng = np.random.default_rng(0)
    model = one_layer(rng, 3, 4, "relu")
    inputs = Interval.of_boxes(random_box(rng, 3, radius=1.0))
    planes = some_planes(model, inputs, rng, share=1.1)[0]
    support = PlaneSupport(model, 0, inputs, planes)
    v, on = np.array([[[-1.0, -np.inf, np.nan, 2.0]]]), np.array([[[True, False, False, False]]])
    least, total, _ = support.lower(v, np.ones_like(v), on, np.ones_like(v))
    assert np.isfinite(total).all()
    assert (least[0, 0, 1:] == 0).all()
    z = Interval(np.array([[-1.0, -1.0, 0.0, np.nan]]), np.array([[1.0, 0.0, 1.0, 1.0]]))
    lam, on = support.without(np.full((1, 1, 4), 7.0), np.full((1, 1, 4), -1.0), z)
    assert (on[0, 0] == [True, False, False, False]).all()
    assert (lam[0, 0] == [0.0, 7.0, 7.0, 7.0]).all()
    assert not support.without(lam, np.array([[[0.0, 1.0, np.nan, 0.0]]]), Interval(-np.ones((1, 4)), np.ones((1, 4))))[
        1
    ].any()


def test_the_sum_of_all_coefficients_is_within_its_error() -> None:
    rng = np.random.default_rng(1)
    p, n = 3, 40
    model = one_layer(rng, p, n, "leaky")
    inputs = Interval.of_boxes(random_box(rng, p, radius=1.0))
    planes = some_planes(model, inputs, rng, share=1.1)[0]
    v = -np.exp(rng.normal(size=(1, 2, n)) * 20)
    on = rng.random(v.shape) < 0.8
    _, total, error = PlaneSupport(model, 0, inputs, planes).lower(v, np.zeros_like(v), on, np.ones((1, 1, n)))
    parts = np.zeros((2, p), object) + Fraction(0)
    for i in range(n):
        one = PlaneSupport(model, 0, inputs, Planes(planes.states[[i]], _shares_of(model, inputs, planes, i)))
        own = one.lower(v[..., [i]], np.zeros((1, 2, 1)), on[..., [i]], np.ones((1, 1, 1)))[1]
        parts = parts + exact(own[0])
    assert (np.abs(parts - exact(total[0])) <= exact(error[0])).all()
    assert (error <= 1e-12 * np.abs(total)).all()


def _shares_of(model: ImplicitModel, inputs: Interval, planes: Planes, i: int) -> Any:
    q = Reads.of(model, 0, planes.states[[i]], inputs).index.shape[1]
    return planes.shares[:, [i], :q]


@pytest.mark.parametrize(
    ("phi", "w", "lo", "hi", "v"),
    [
        (ACTIVATIONS["relu"](), 1e-200, -1e300, 1e300, -1e-200),  # v w = 1e-400 is 0 in float64, times 1e300 it is not
        (leaky_relu(-1e-30), -1e300, 0.5, 1.0, -1e-300),  # v alpha = 1e-330 likewise, times z = 1e300
    ],
)
def test_products_below_the_range_of_numbers_are_paid_for(
    phi: Activation, w: float, lo: float, hi: float, v: float
) -> None:
    model = layered([([[w]], [0.0])], ([[-1.0]], [0.0]), phi)
    box = Box.between(np.array([lo]), np.array([hi]))
    for share in (0, 100, 255):
        shares = np.full((1, 1, 1), share, np.uint8)
        least, total, _ = supports(model, box, 0, shares, np.array([[v]]), np.zeros((1, 1)))
        assert least[0, 0] <= exact_least(model, 0, Fraction(v), exact(total[0, 0]), box)


def test_weights_that_underflow_as_products_have_no_planes() -> None:
    """1e-170 * 1e-170 is 0 as a weight and 1e-40 times an input of 1e300."""
    tiny = Selection.diagonal(np.full(1, 1e-170))
    model = layered([([[1.0]], [0.0])], ([[-1.0]], [0.0]))
    for core, allowed in ((dense([[1.0]]), True), (dense([[1e-170]]), False)):
        row = replace(model.rows[0], input=Reindexed(left=tiny, core=core, right=Selection.identity(1)))
        assert can_have_planes(replace(model, rows=(row,)), 0) is allowed


# ---------------------------------------------------------------------------------------------- whole networks


@settings(deadline=None, max_examples=60)
@given(seed=seeds, size=st.sampled_from([0.0, 1e-8, 1.0, 1e8]), cancelling=st.booleans(), depth=st.integers(1, 3))
def test_any_shares_give_a_bound_below_the_exact_minimum(seed: int, size: float, cancelling: bool, depth: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(
        rng, p=int(rng.integers(1, 3)), widths=(3,) * depth, activations=list(CONVEX), cancelling=cancelling
    )
    box = random_box(rng, model.n_inputs)
    inputs = Interval.of_boxes(box)
    bounds = backward_state_bounds(model, inputs)
    planes = some_planes(model, inputs, rng)
    assert why_no_planes(model, inputs, 1, planes) == ""
    functional = rng.normal(size=3)
    truth = ExactModel(model).minimum(functional, box)
    seeds_of = Functionals.of_outputs(model, functional[None])
    y = long_double(model, some_points(rng, box, 200))[2]
    for choose in (noise(rng, size), line_multipliers(model, bounds)):
        value = lower_bound(model, inputs, bounds, seeds_of, choose, planes)[0, 0]
        assert np.isfinite(value)
        assert not value > truth
        assert not (value > y @ functional.astype(np.longdouble)).any()


@settings(deadline=None, max_examples=12)
@given(seed=seeds)
def test_leaves_with_phases_are_below_sampled_values_in_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = random_network(rng, p=3, widths=(5, 4), q=2, activations=list(CONVEX))
    box = random_box(rng, 3, radius=float(rng.choice([0.1, 1.0, 5.0])))
    inputs = Interval.of_boxes(box)
    known = interval_bounds(model, inputs)
    m = 12
    phases = {k: rng.choice(np.array([-1, 0, 0, 1], np.int8), (m, b.size)) for k, b in enumerate(model.blocks)}
    leaves = with_phases(model, known, phases, m)
    slopes, splits = ({k: rng.normal(size=own.shape) for k, own in phases.items()} for _ in range(2))
    seeds_of = rng.normal(size=(m, 2))
    planes = some_planes(model, inputs, rng, m)
    with np.errstate(all="ignore"):  # phases that bounds exclude
        proved = prove_leaves(model, inputs.repeated(m), leaves, seeds_of, slopes, splits, planes=planes)
    z, _, y = long_double(model, some_points(rng, box, 500))
    for i in range(m):
        inside = np.logical_and.reduce([(z[k] * phases[k][i] >= 0).all(axis=1) for k in phases])
        if not inside.any():
            continue
        assert proved[i] <= (y[inside] @ seeds_of[i].astype(np.longdouble)).min()
        alone = prove_leaves(
            model,
            inputs,
            StateBounds({k: Interval(b.lo[[i]], b.hi[[i]]) for k, b in leaves.z.items()}),
            seeds_of[[i]],
            *({k: own[[i]] for k, own in values.items()} for values in (slopes, splits)),
            planes={k: own.rows(slice(i, i + 1)) for k, own in planes.items()},
        )
        assert alone[0] == pytest.approx(proved[i], rel=1e-9)  # a leaf's planes are its own


def conv_network(rng: np.random.Generator, scale: Any) -> ImplicitModel:
    """Return dense(relu(conv(scale u))) of 3 x 3 inputs."""
    nodes = [
        ("Mul", ("u", "s"), "m", {}),
        ("Conv", ("m", "k", "b"), "h", {"kernel_shape": (2, 2), "pads": (1, 0, 0, 1)}),
        ("Relu", ("h",), "r", {}),
        ("Flatten", ("r",), "f", {}),
        ("Gemm", ("f", "w", "c"), "y", {}),
    ]
    constants = {
        "s": np.asarray(scale, np.float64),
        "k": rng.normal(size=(2, 1, 2, 2)),
        "b": rng.normal(size=2) * 0.1,
        "w": rng.normal(size=(18, 2)),
        "c": rng.normal(size=2),
    }
    return build_implicit(graph(nodes, constants, (1, 1, 3, 3)))


@pytest.mark.parametrize("scaled", [False, True])
def test_planes_of_convolutions_are_below_sampled_values(scaled: bool) -> None:
    rng = np.random.default_rng(3)
    model = conv_network(rng, rng.normal(size=(1, 1, 3, 3)) if scaled else 1.0)
    assert isinstance(model.rows[0].input, Reindexed) == scaled
    box = random_box(rng, 9)
    for lo, hi in ((box.lo, box.hi), (box.centre - 1, box.centre + 1)):
        box = Box.between(lo, hi)
        inputs = Interval.of_boxes(box)
        bounds = interval_bounds(model, inputs)
        y = long_double(model, np.vstack([all_corners(box), some_points(rng, box, 1000)]))[2]
        for _ in range(10):
            planes = some_planes(model, inputs, rng)
            functionals = rng.normal(size=(4, 2))
            choose = line_multipliers(model, bounds)
            seeds_of = Functionals.of_outputs(model, functionals)
            value = lower_bound(model, inputs, bounds, seeds_of, choose, planes)[0]
            assert np.isfinite(value).all()
            assert (value <= (y @ functionals.T.astype(np.longdouble)).min(axis=0)).all()


def test_scaled_blocks_and_restricted_models_have_the_same_planes() -> None:
    rng = np.random.default_rng(5)
    model = one_layer(rng, 2, 5, "relu")
    box = random_box(rng, 2, radius=1.0)
    inputs = Interval.of_boxes(box)
    dead = replace(model.rows[0], constant=model.rows[0].constant - np.array([0, 99.0, 0, 0, 99.0]))
    model = replace(model, rows=(dead,))
    bounds = interval_bounds(model, inputs)
    planes = some_planes(model, inputs, rng, share=1.1)
    seeds_of = Functionals.of_outputs(model, np.ones((1, 1)))
    value = lower_bound(model, inputs, bounds, seeds_of, line_multipliers(model, bounds), planes)[0, 0]
    assert value <= ExactModel(model).minimum([1.0], box)
    scaled = replace(model, blocks=(replace(model.blocks[0], exponent=np.array([3, -4, 0, 9, 1])),))
    again = lower_bound(scaled, inputs, bounds, seeds_of, line_multipliers(scaled, bounds), planes)[0, 0]
    assert again == pytest.approx(value, rel=1e-12)
    kept = {0: np.array([0, 2, 3])}
    less, own = restricted(model, kept), restricted_bounds(bounds, kept)
    assert why_no_planes(less, inputs, 1, planes) != ""
    fewer = {0: Planes(np.arange(3), planes[0].shares[:, kept[0]])}
    assert why_no_planes(less, inputs, 1, fewer) == ""
    seeds_of = Functionals.of_outputs(less, np.ones((1, 1)))
    again = lower_bound(less, inputs, own, seeds_of, line_multipliers(less, own), fewer)[0, 0]
    assert again == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("huge", [1e150, 1e200, 1e300, 1e308])
def test_overflow_proves_nothing_false(huge: float) -> None:
    rng = np.random.default_rng(0)
    for scale in ((huge, 1.0, 1.0), (1.0, huge, 1.0), (1.0, 1.0, huge), (huge, huge, 1.0), (1 / huge, 1.0, huge)):
        model = layered(
            [(rng.normal(size=(2, 2)) * scale[0], rng.normal(size=2) * scale[0])],
            (rng.normal(size=(1, 2)) * scale[1], [0.0]),
            skip=rng.normal(size=(1, 2)) * scale[1],
        )
        box = Box.between(-np.full(2, scale[2]), np.full(2, scale[2]) * 0.7)
        inputs = Interval.of_boxes(box)
        truth = ExactModel(model).minimum([1.0], box)
        with np.errstate(all="ignore"):
            bounds = interval_bounds(model, inputs)
            for _ in range(10):
                planes = some_planes(model, inputs, rng)
                seeds_of = Functionals.of_outputs(model, np.ones((1, 1)))
                value = lower_bound(model, inputs, bounds, seeds_of, line_multipliers(model, bounds), planes)[0, 0]
                assert not value > truth


# ---------------------------------------------------------------------------------------------- uncertain weights


@settings(deadline=None, max_examples=40)
@given(seed=seeds, phi=st.sampled_from(sorted(CONVEX)), p=st.integers(1, 3), moving=st.booleans())
def test_uncertain_weights_and_constants_are_within_the_bound(seed: int, phi: str, p: int, moving: bool) -> None:
    """Of all models within the errors, those at the ends of each entry's interval are tried, with signs chosen ill."""
    rng = np.random.default_rng(seed)
    n = 3
    model = one_layer(rng, p, n, phi)
    w = model.rows[0].input
    c = model.output.states[0].to_sparse().toarray()[0]
    assert w is not None
    relative, constant_error = rng.choice([0.0, 1e-3, 0.2]), rng.choice([0.0, 0.1])
    slack = rng.exponential(size=(n, p)) * rng.choice([0.0, 0.1])
    row = Affine({}, w.uncertain(relative, dense(slack)), model.rows[0].constant, constant_error)
    model = replace(model, rows=(row,))
    box = random_box(rng, p, radius=1.0 if moving else None)
    inputs = Interval.of_boxes(box)
    bounds = interval_bounds(model, inputs)
    planes = some_planes(model, inputs, rng)
    matrix, d = w.to_sparse().toarray(), dict(enumerate(model.output.maps))[1].to_sparse().toarray()[0]
    low, high = two_slopes(model.blocks[0])
    points = all_corners(box)
    wrong = np.abs(points) @ (relative * np.abs(matrix) + slack).T + constant_error
    z = points @ matrix.T + row.constant
    ends = np.stack([z - wrong, z, z + wrong])
    least = (c * np.where(ends >= 0, high * ends, low * ends)).min(axis=0).sum(axis=1) + points @ d
    seeds_of = Functionals.of_outputs(model, np.ones((1, 1)))
    value = lower_bound(model, inputs, bounds, seeds_of, line_multipliers(model, bounds), planes)[0, 0]
    assert value <= least.min() + 1e-12 * (1 + abs(least.min()))


@pytest.mark.parametrize("kind", ["exact", "relative", "slack", "constant"])
def test_each_declared_error_lowers_the_bound_by_itself(kind: str) -> None:
    """-relu(u) on [-1, 1] is least -1; a weight of 1 +- 1/8 or a constant of +-1/8 makes it -9/8."""
    model, box = layered([([[1.0]], [0.0])], ([[-1.0]], [0.0])), Box.between(-np.ones(1), np.ones(1))
    weight = dense([[1.0]]).uncertain(0.125 * (kind == "relative"), dense([[0.125]]) if kind == "slack" else None)
    row = Affine({}, weight, np.zeros(1), 0.125 * (kind == "constant"))
    model, inputs = replace(model, rows=(row,)), Interval.of_boxes(box)
    planes = {0: Planes(np.zeros(1, np.int64), np.full((1, 1, 1), 128, np.uint8))}
    seeds_of = Functionals.of_outputs(model, np.ones((1, 1)))
    value = lower_bound(model, inputs, interval_bounds(model, inputs), seeds_of, noise_free, planes)[0, 0]
    truth = -1.0 - 0.125 * (kind != "exact")
    assert truth - 0.01 <= value <= truth


def noise_free(k: int, v: FloatArray) -> FloatArray:
    return np.zeros_like(v)


def test_what_inputs_at_rest_add_is_rounded_outward() -> None:
    """z = u + 1e16 + 1 - 1e16 is at most 2 on [-1, 1], whatever float64 makes of the sum."""
    for weights in ([1.0, 1e16, 1.0, -1e16], [1.0, 1.0, 1e16, -1e16], [1.0, -1e16, 1.0, 1e16]):
        model = layered([([weights], [0.0])], ([[-1.0]], [0.0]))
        inputs = Interval(np.array([[-1.0, 1.0, 1.0, 1.0]]), np.ones((1, 4)))
        planes = {0: Planes(np.zeros(1, np.int64), np.full((1, 1, 1), 128, np.uint8))}
        seeds_of = Functionals.of_outputs(model, np.ones((1, 1)))
        bounds = interval_bounds(model, inputs)
        value = lower_bound(model, inputs, bounds, seeds_of, noise_free, planes)[0, 0]
        assert -1000 < value <= -2
        reads = Reads.of(model, 0, np.zeros(1, np.int64), inputs)
        assert abs(reads.at_rest[0] - 1.0) <= reads.error[0] < 1000


@settings(deadline=None, max_examples=30)
@given(seed=seeds)
def test_the_coefficients_of_inputs_are_within_their_error(seed: int) -> None:
    """Pushed by rows and added by planes in turn, with cancellation, against exact sums."""
    rng = np.random.default_rng(seed)
    p, count = 3, int(rng.integers(1, 4))
    matrices = [rng.normal(size=(2, p)) * 10.0 ** rng.choice([-8, 0, 8]) for _ in range(count + 1)]
    rows = [Affine({}, dense(matrix), np.zeros(2)) for matrix in matrices]
    block = StateBlock("b", "Relu", ACTIVATIONS["relu"](), (2,))
    model = ImplicitModel((block,) * count, tuple(rows[1:]), rows[0], (p,), (2,))
    tally = _Tally(model, 1, 1)
    exact_sum: Any = np.zeros(p, object) + Fraction(0)
    last = np.zeros((1, 1, p))
    order = [*range(count + 1)] if rng.random() < 0.8 else []
    for k in order or [None, *range(1, count + 1)]:
        if k is not None:
            lam = rng.normal(size=(1, 1, 2)) * 10.0 ** rng.choice([0, 12])
            tally.push(rows[k], lam)
            exact_sum = exact_sum + exact(lam[0, 0]) @ exact(matrices[k])
        if k != 0:
            last = np.where(rng.random(p) < 0.5, -last, rng.normal(size=p) * 10.0 ** rng.choice([0, 16], size=p))
            tally.add_to_input(last, np.zeros_like(last))
            exact_sum = exact_sum + exact(last[0, 0])
        off = np.abs(exact_sum - exact(tally.sums[INPUT][0, 0]))
        assert (off <= exact(tally.errors[INPUT][0, 0])).all()


# ---------------------------------------------------------------------------------------------- how tight


def hull_program(model: ImplicitModel, box: Box) -> tuple[float, FloatArray, FloatArray]:
    """Return the least of y over the hulls of {(u, x_i)}, where each state is a mean of its own values at the corners.

    Returns:
        The minimum; the planes' coefficients g_i, the multipliers of "the mean of the corners is u", (n, p); and the
        multipliers of x_i >= slope z_i for both slopes, (n, 2).
    """
    w, d, c = (m.to_sparse().toarray() for m in (*model.rows[0].maps, model.output.input, model.output.states[0]))
    corners = all_corners(box)
    x = model.state(corners)[0]
    (n, p), many = w.shape, len(corners)
    sides = two_slopes(model.blocks[0])
    total = p + n + n * many  # u, x, then the weights of the corners, state by state
    equal, right, most, limit = [], [], [], []
    for i in range(n):
        own = slice(p + n + i * many, p + n + (i + 1) * many)
        rows = np.zeros((p + 1, total))
        rows[:p, own], rows[:p, :p], rows[p, own] = corners.T, -np.eye(p), 1
        equal.append(rows)
        right += [0.0] * p + [1.0]
        rows, limits = np.zeros((2, total)), np.zeros(2)
        if c[0, i] < 0:  # only the upper side matters
            rows[0, own], rows[0, p + i] = -x[:, i], 1
        else:
            slopes = np.array([side[i] for side in sides])
            rows[:, :p], rows[:, p + i] = np.outer(slopes, w[i]), -1
            limits = -slopes * model.rows[0].constant[i]
        most.append(rows)
        limit += limits.tolist()
    cost = np.concatenate([d[0], c[0], np.zeros(n * many)])
    free = [*zip(box.lo, box.hi, strict=True), *[(None, None)] * n, *[(0, None)] * (n * many)]
    answer = linprog(cost, A_ub=np.vstack(most), b_ub=limit, A_eq=np.vstack(equal), b_eq=right, bounds=free)
    assert answer.status == 0
    coefficients = answer.eqlin.marginals.reshape(n, p + 1)[:, :p]
    return float(answer.fun), coefficients, -answer.ineqlin.marginals.reshape(n, 2)


def bent_case(phi: str, seed: int) -> tuple[ImplicitModel, Box, Interval, StateBounds]:
    rng = np.random.default_rng(seed)
    p = 2 + seed % 3
    model, box = one_layer(rng, p, 6, phi), random_box(rng, p, radius=1.0)
    inputs = Interval.of_boxes(box)
    return model, box, inputs, interval_bounds(model, inputs)


@pytest.mark.parametrize("phi", ["relu", "abs", "negative", "prelu"])
def test_the_best_planes_prove_the_minimum_over_the_hulls(phi: str) -> None:
    """The shares come from the duals of a linear program: all that is lost is what rounding them to a byte loses."""
    used = 0
    for seed in range(9):
        model, box, inputs, bounds = bent_case(phi, seed)
        hull, g, multipliers = hull_program(model, box)
        c = model.output.states[0].to_sparse().toarray()
        low, high = two_slopes(model.blocks[0])
        states = np.flatnonzero((c[0] < 0) & (bounds.z[0].lo[0] < 0) & (bounds.z[0].hi[0] > 0))
        reads = Reads.of(model, 0, states, inputs)
        wanted = np.where(reads.weights != 0, np.take_along_axis(g[states], reads.index, axis=1), 0.0)
        gap, v = (high - low)[states, None], c[0][states, None]
        shares = wanted / np.where(reads.weights != 0, v * reads.weights, 1.0) - low[states, None]
        shares = np.where(reads.weights != 0, shares / gap, 0.0)  # outside [0, 1] they are no better than at its ends
        planes = {0: Planes(states, np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)[None])}
        lam = (multipliers * np.stack([low, high], axis=1)).sum(axis=1)
        stable = (bounds.z[0].lo[0] >= 0) | (bounds.z[0].hi[0] <= 0)
        lam = np.where(stable, c[0] * np.where(bounds.z[0].lo[0] >= 0, high, low), lam)
        seeds_of = Functionals.of_outputs(model, np.ones((1, 1)))
        value = lower_bound(model, inputs, bounds, seeds_of, lambda k, v, m=lam: m + 0 * v, planes)[0, 0]
        lost = (np.abs(v) * gap * np.abs(reads.weights) * (box.hi - box.lo)[reads.index]).sum() / 255
        assert hull - lost - 1e-7 <= value <= hull + 1e-9
        chords = lower_bound(model, inputs, bounds, seeds_of, line_multipliers(model, bounds))[0, 0]
        assert chords <= hull + 1e-9
        used += value > chords + 0.05
    assert used > 3


@pytest.mark.parametrize("seed", [1, 4, 10])
@pytest.mark.parametrize("phi", ["relu", "abs", "negative"])
def test_the_root_with_planes_comes_near_the_hull(phi: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_module, "PLANE_STEPS", 100)
    model, box, inputs, bounds = bent_case(phi, seed)
    hull = hull_program(model, box)[0]
    gap = 0.01 * (1 + abs(hull))
    record = Leaves(0)
    row = Conjunction(np.ones((1, 1)), np.array([gap - hull]))
    tree = Tree(SearchNet(model, box), inputs, bounds, row, 0, lambda points: False, record)
    outcome = tree.grow(enough(), most_open=0)
    assert outcome.proved
    assert outcome.leaves == 1
    assert 0 < outcome.lower <= gap + 1e-9
    assert record.planes[0]
    query = Query(box, (below([[1.0]], gap - hull),))
    assert refused_chain(model, query, Chain(trees={0: record})) == []
    assert refused_chain(model, query, Chain(trees={0: replace(record, planes=[{}])}))  # chords are not enough
    false = Query(box, (below([[1.0]], -hull - 1e-9),))
    assert refused_chain(model, false, Chain(trees={0: record}))


# ---------------------------------------------------------------------------------------------- forged chains


def crossed() -> tuple[ImplicitModel, Query, Planes]:
    """Return y = -relu(u0 + u1) + relu(w.u) on [-1, 1]^2, least -2, a query with y <= -2.05, and planes for state 0."""
    weights = [[1.0, 1.0], [0.5, -1.0]]
    model = layered([(weights, [0.0, -0.25]), (np.eye(2), np.zeros(2))], ([[-1.0, 1.0]], [0.0]))
    return model, Query(SQUARE, (below([[1.0]], 2.05),)), Planes(np.array([0]), np.full((1, 1, 2), 128, np.uint8))


def one_leaf(planes: dict[int, Planes], m: int = 1) -> Chain:
    return Chain(trees={0: Leaves(0, [{}], [{}], [{}], [m], [planes])})


def test_planes_of_a_chain_are_used_and_cannot_prove_what_is_false() -> None:
    model, query, planes = crossed()
    assert refused_chain(model, query, one_leaf({1: planes})) == []
    truth = float(ExactModel(model).minimum([1.0], SQUARE))
    false = Query(SQUARE, (below([[1.0]], -truth - 1e-9),))
    for share in itertools.product((0, 64, 128, 192, 255), repeat=2):
        shares = np.array(share, np.uint8).reshape(1, 1, 2)
        (why,) = refused_chain(model, false, one_leaf({1: Planes(planes.states, shares)}))
        assert "lower bound" in why


def of_other_activation(model: ImplicitModel, phi: Activation) -> ImplicitModel:
    newest, oldest = model.blocks
    return replace(model, blocks=(newest, replace(oldest, activation=phi)))


FORGED: Mapping[str, tuple[int, Any, Any]] = {
    "a row too many": (1, [0], np.zeros((2, 1, 2), np.uint8)),
    "no row": (1, [0], np.zeros((0, 1, 2), np.uint8)),
    "an input too few": (1, [0], np.zeros((1, 1, 1), np.uint8)),
    "an input too many": (1, [0], np.zeros((1, 1, 3), np.uint8)),
    "a state too many": (1, [0], np.zeros((1, 2, 2), np.uint8)),
    "a number": (1, [0], np.uint8(3)),
    "flat": (1, [0], np.zeros(2, np.uint8)),
    "a state out of range": (1, [2], np.zeros((1, 1, 2), np.uint8)),
    "a negative state": (1, [-1], np.zeros((1, 1, 2), np.uint8)),
    "descending": (1, [1, 0], np.zeros((1, 2, 2), np.uint8)),
    "twice": (1, [0, 0], np.zeros((1, 2, 2), np.uint8)),
    "states in a table": (1, [[0]], np.zeros((1, 1, 2), np.uint8)),
    "a state as a number": (1, 0, np.zeros((1, 1, 2), np.uint8)),
    "a block that reads states": (0, [0], np.zeros((1, 1, 2), np.uint8)),
    "a block that is none": (2, [0], np.zeros((1, 1, 2), np.uint8)),
    "a negative block": (-1, [0], np.zeros((1, 1, 2), np.uint8)),
}


@pytest.mark.parametrize("name", FORGED)
def test_planes_that_do_not_fit_are_refused_with_a_sentence(name: str) -> None:
    model, query, _ = crossed()
    k, states, shares = FORGED[name]
    forged = one_leaf({k: Planes(np.array(states, np.int64), shares)})
    assert refused_chain(model, query, forged)


@pytest.mark.parametrize(
    "phi",
    [ACTIVATIONS["tanh"](), leaky_relu(2.0), leaky_relu(np.array([0.1, 1.5])), leaky_relu(np.array([0.1, np.nan]))],
)
def test_only_kinks_that_bend_upward_have_planes(phi: Activation) -> None:
    model, query, planes = crossed()
    bent = of_other_activation(model, phi)
    assert not can_have_planes(bent, 1)
    with np.errstate(invalid="ignore"):
        (why,) = refused_chain(bent, query, one_leaf({1: planes}))
    assert "planes for block 1" in why
    fine = of_other_activation(model, leaky_relu(np.array([0.1, 0.2])))
    assert [side.tolist() for side in slopes_of(fine, 1, np.array([1, 0]))] == [[0.2, 0.1], [1.0, 1.0]]


def test_planes_that_only_some_batches_name_and_batches_of_none() -> None:
    model, query, planes = crossed()
    phases = [np.array([[sign, 0]], np.int8) for sign in (1, -1)]
    none = Planes(planes.states, planes.shares[:0])
    batches = [[{1: phase} for phase in phases], [{}, {}], [{}, {}], [1, 1]]
    assert refused_chain(model, query, Chain(trees={0: Leaves(0, *batches, [{1: planes}, {}])})) == []
    batches = [[{1: phases[0]}, {1: phases[1]}, {}], [{}] * 3, [{}] * 3, [1, 1, 0]]
    assert refused_chain(model, query, Chain(trees={0: Leaves(0, *batches, [{}, {}, {1: none}])})) == []
    nothing = Planes(np.zeros(0, np.int64), np.zeros((1, 0, 1), np.uint8))
    assert refused_chain(model, Query(SQUARE, (below([[1.0]], 9.0),)), one_leaf({1: nothing})) == []
    assert refused_chain(model, query, Chain(trees={0: Leaves(0, *batches, [{}, {}])}))


def test_a_box_that_does_not_move_has_planes_without_inputs() -> None:
    model, _, _ = crossed()
    point = Box.between(np.array([0.3, 0.4]), np.array([0.3, 0.4]))
    planes: AllPlanes = {1: Planes(np.array([0, 1]), np.zeros((1, 2, 1), np.uint8))}
    inputs = Interval.of_boxes(point)
    assert why_no_planes(model, inputs, 1, planes) == ""
    assert Reads.of(model, 1, np.array([0]), inputs).at_rest == pytest.approx(0.7)
    bounds = interval_bounds(model, inputs)
    wide = StateBounds({k: Interval(z.lo - 1, z.hi + 1) for k, z in bounds.z.items()})  # so that the state bends
    seeds_of = Functionals.of_block(model, 0, -np.eye(2))
    value = lower_bound(model, inputs, wide, seeds_of, noise_free, planes)[0]
    assert value[0] == pytest.approx(-0.7, abs=1e-9)
    assert value[0] <= -exact(0.3).item() - exact(0.4).item()


def test_boxes_that_differ_have_no_planes_in_common() -> None:
    model, _, planes = crossed()
    inputs = Interval(np.array([[-1.0, -1.0], [-1.0, -2.0]]), np.ones((2, 2)))
    with pytest.raises(ValueError, match="one box"):
        PlaneSupport(model, 1, inputs, planes)


def stored(chain: Chain) -> tuple[dict[str, Any], dict[str, AnyArray]]:
    arrays: dict[str, AnyArray] = {}
    return packed_chain(chain, "0.", arrays), arrays


def read_again(folder: Path, model: ImplicitModel, meta: dict[str, Any], arrays: dict[str, AnyArray]) -> Chain:
    np.savez(folder / "chain.npz", **arrays)
    with NpzFile(folder / "chain.npz") as file:
        return opened_chain(Entry(meta, "meta", CHAIN_KEYS), "0.", ProofArrays(file, Sizes.of(model)), [1])


def test_planes_are_stored_and_read_again(tmp_path: Path) -> None:
    model, _, planes = crossed()
    meta, arrays = stored(one_leaf({1: planes}))
    again = read_again(tmp_path, model, meta, arrays).trees[0].planes[0][1]
    assert (again.states == planes.states).all()
    assert (again.shares == planes.shares).all()
    assert again.shares.dtype == np.uint8


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.float32, np.float64, np.bool_, object])
def test_shares_of_another_type_are_damage(tmp_path: Path, kind: Any) -> None:
    model, _, planes = crossed()
    meta, arrays = stored(one_leaf({1: planes}))
    key = "0.tree.0.0.planes.1.shares"
    arrays[key] = arrays[key].astype(kind)
    with pytest.raises((Damaged, ModelFileError), match="shares"):
        read_again(tmp_path, model, meta, arrays)


@pytest.mark.parametrize("entry", [None, "1", [1.0], ["1"], [True], [3], [-1], [1, 1], {"1": 1}])
def test_entries_that_name_no_planes_are_damage(tmp_path: Path, entry: Any) -> None:
    model, _, planes = crossed()
    meta, arrays = stored(one_leaf({1: planes}))
    meta["trees"]["0"]["batches"][0]["planes"] = entry
    with pytest.raises((Damaged, Misfit)):
        read_again(tmp_path, model, meta, arrays)
