"""Small queries in rational arithmetic, against an enumeration of all phases that shares no code with it."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.exact import phases
from idl_audit.proof.exact.phases import Answer, Decider, fits, is_small, program_of
from idl_audit.proof.exact.point import exact_outputs
from idl_audit.proof.linear_bounds import backward_state_bounds
from idl_audit.values.box import Box
from idl_audit.values.query import Conjunction, Query
from tests.shared.small_networks import ExactModel, layered, two_slopes

seeds = st.integers(0, 2**32 - 1)
Form = list[Fraction]
"""Coefficients of the inputs, and a constant."""


def rows(matrix: object, offsets: list[Fraction | int], strict: list[bool] | None = None) -> Conjunction:
    exact = tuple(Fraction(c) for c in offsets)
    rounded = np.array([float(c) if Fraction(float(c)) <= c else np.nextafter(float(c), -np.inf) for c in exact])
    flags = np.array(strict if strict is not None else [False] * len(exact))
    return Conjunction(np.atleast_2d(np.asarray(matrix, np.float64)), rounded, exact, flags)


def exact_box(lo: list[Fraction], hi: list[Fraction]) -> Box:
    """Return a box with the ends that are given, rounded outward and inward as a property's are."""

    def floats(values: list[Fraction], direction: float) -> np.ndarray:
        near = [float(v) for v in values]
        wrong = [Fraction(n) > v if direction < 0 else Fraction(n) < v for n, v in zip(near, values, strict=True)]
        return np.array([np.nextafter(n, direction) if bad else n for n, bad in zip(near, wrong, strict=True)])

    inner = floats(lo, np.inf), floats(hi, -np.inf)
    return Box(floats(lo, -np.inf), floats(hi, np.inf), *inner, ends=(tuple(lo), tuple(hi)))


def bounds_of(model: ImplicitModel, box: Box) -> StateBounds:
    return backward_state_bounds(model, Interval.of_boxes(box))


def decide(model: ImplicitModel, query: Query) -> list[Answer]:
    bounds = bounds_of(model, query.box)
    program = program_of(model, query.box, bounds)
    assert program is not None
    decider = Decider(model, query, program)
    return [decider.decide(alternative) for alternative in query.alternatives]


# --- the enumeration -------------------------------------------------------------------------------------------------


def is_satisfiable(model: ImplicitModel, box: Box, alternative: Conjunction) -> bool:
    """Try every pattern of phases: the polytope of each is empty, or its vertices' middle is inside strict rows."""
    lo, hi = box.exact_ends or ((), ())
    p = len(lo)
    reference = ExactModel(model)
    sizes = [block.size for block in model.blocks]
    for pattern in product((False, True), repeat=sum(sizes)):
        limits: list[tuple[Form, bool]] = []
        for i in range(p):
            limits += [(_unit(p, i, 1, -hi[i]), False), (_unit(p, i, -1, lo[i]), False)]
        x: dict[int, list[Form]] = {}
        at = 0
        for k in model.evaluation_order:
            below, above = two_slopes(model.blocks[k])
            z = _forms(reference.rows[k], x, p)
            x[k] = []
            for i, form in enumerate(z):
                active = pattern[at]
                at += 1
                slope = Fraction(float((above if active else below)[i]))
                limits.append(([-v for v in form] if active else form, False))
                x[k].append([slope * v for v in form])
        outputs = _forms(reference.output, x, p)
        for row, offset, strict in zip(alternative.rows, alternative.exactly, alternative.strict, strict=True):
            form = [Fraction(0)] * p + [offset]
            for g, own in zip(row, outputs, strict=True):
                form = [a + Fraction(float(g)) * b for a, b in zip(form, own, strict=True)]
            limits.append((form, bool(strict)))
        if _has_point(limits, p):
            return True
    return False


def _unit(p: int, i: int, factor: int, constant: Fraction) -> Form:
    return [Fraction(factor if j == i else 0) for j in range(p)] + [constant]


def _forms(affine: object, x: dict[int, list[Form]], p: int) -> list[Form]:
    result = []
    for i in range(len(affine.constant)):  # type: ignore[attr-defined]
        form = [Fraction(0)] * p + [affine.constant[i]]  # type: ignore[attr-defined]
        for k, weights in affine.states.items():  # type: ignore[attr-defined]
            for w, own in zip(weights[i], x[k], strict=True):
                form = [a + w * b for a, b in zip(form, own, strict=True)]
        if affine.input is not None:  # type: ignore[attr-defined]
            for j, w in enumerate(affine.input[i]):  # type: ignore[attr-defined]
                form[j] += w
        result.append(form)
    return result


def _at(form: Form, u: Form) -> Fraction:
    return sum((a * v for a, v in zip(form, u, strict=False)), form[-1])


def _has_point(limits: list[tuple[Form, bool]], p: int) -> bool:
    """Whether a bounded polytope has a point strictly inside its strict sides: the middle of its vertices is."""
    vertices = []
    for chosen in combinations(limits, p):
        u = _meeting([form for form, _ in chosen], p)
        if u is not None and all(_at(form, u) <= 0 for form, _ in limits):
            vertices.append(u)
    if not vertices:
        return False
    middle = [sum((v[i] for v in vertices), Fraction(0)) / len(vertices) for i in range(p)]
    return all(_at(form, middle) < 0 for form, strict in limits if strict)


def _meeting(forms: list[Form], p: int) -> Form | None:
    if p == 1:
        return None if not forms[0][0] else [-forms[0][1] / forms[0][0]]
    (a, b, c), (d, e, f) = forms
    determinant = a * e - b * d
    return None if not determinant else [(b * f - c * e) / determinant, (c * d - a * f) / determinant]


# --- against it ------------------------------------------------------------------------------------------------------


def small_network(rng: np.random.Generator, p: int) -> ImplicitModel:
    """Return a network of few states whose weights are small whole numbers: kinks, ties and equal outputs abound."""
    kind = str(rng.choice(["relu", "abs", "leaky_relu"], p=[0.6, 0.2, 0.2]))
    from idl_audit.implicit.activations import ACTIVATIONS

    phi = ACTIVATIONS[kind]() if kind != "leaky_relu" else ACTIVATIONS[kind](alpha=float(rng.choice([0.25, 2.0, 0.1])))
    widths = [int(rng.integers(1, 4)) for _ in range(int(rng.integers(1, 3)))]
    layers, before = [], p
    for width in widths:
        layers.append((rng.integers(-2, 3, (width, before)) / rng.choice([1, 2, 10]), rng.integers(-2, 3, width) / 2))
        before = width
    q = int(rng.integers(1, 3))
    output = rng.integers(-2, 3, (q, before)).astype(float), rng.integers(-2, 3, q) / 2
    return layered(layers, output, phi)


def attained(model: ImplicitModel, rng: np.random.Generator, lo: list[Fraction], hi: list[Fraction]) -> list[Fraction]:
    """Return outputs at a corner of the box or between its corners: limits there are met exactly, or just not."""
    share = [Fraction(int(rng.choice([0, 0, 1, 2, 2])), 2) for _ in lo]
    return list(exact_outputs(model, [a + s * (b - a) for s, a, b in zip(share, lo, hi, strict=True)]))


@settings(max_examples=120, deadline=None)
@given(seeds)
def test_every_verdict_is_that_of_all_phases(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = int(rng.integers(1, 3))
    model = small_network(rng, p)
    lo = [Fraction(int(rng.integers(-10, 5)), 10) for _ in range(p)]
    hi = [low + Fraction(int(rng.integers(0, 15)), 10) for low in lo]
    box = exact_box(lo, hi)
    q = model.n_outputs
    alternatives = []
    for _ in range(int(rng.integers(1, 3))):
        y = attained(model, rng, lo, hi)
        matrix = rng.integers(-1, 2, (int(rng.integers(1, 3)), q)).astype(float)
        offsets = [-sum((int(g) * v for g, v in zip(row, y, strict=True)), Fraction(0)) for row in matrix]
        offsets = [c + Fraction(int(rng.choice([0, 0, 0, -1, 1])), int(rng.choice([10**20, 5]))) for c in offsets]
        strict = (rng.random(len(matrix)) < 0.4).tolist()
        if rng.random() < 0.3:  # an equality
            matrix, offsets = np.vstack([matrix[:1], -matrix[:1]]), [offsets[0], -offsets[0]]
            strict = [False, False]
        alternatives.append(rows(matrix, offsets, strict))
    query = Query(box, tuple(alternatives))
    truth = [is_satisfiable(model, box, alternative) for alternative in alternatives]
    for answer, alternative, expected in zip(decide(model, query), alternatives, truth, strict=True):
        if answer.refuted:
            assert not expected
            continue
        y = exact_outputs(model, answer.point)  # of this alternative, or of another one on the way
        assert query.holds_between(y, y) is True
        assert all(a <= v <= b for a, v, b in zip(lo, answer.point, hi, strict=True))
        assert any(truth)
        assert expected or alternative.holds_between(y, y) is False
    single = [decide(model, Query(box, (alternative,)))[0].refuted for alternative in alternatives]
    assert single == [not expected for expected in truth]


IDENTITY = layered([([[1.0], [-1.0]], [0.0, 0.0])], ([[1.0, -1.0]], [0.0]))
"""y = relu(u) - relu(-u) = u."""


@pytest.mark.parametrize(
    ("matrix", "offsets", "strict", "refuted"),
    [
        ([[-1.0]], [1], [True], True),  # y > 1
        ([[-1.0]], [1], [False], False),  # y >= 1
        ([[1.0]], [0], [True], True),  # y < 0
        ([[1.0]], [0], [False], False),
        ([[1.0], [-1.0]], [Fraction(-1, 3), Fraction(1, 3)], [False, False], False),  # y = 1/3
        ([[1.0], [-1.0]], [Fraction(-1, 3), Fraction(1, 3)], [True, False], True),
        ([[1.0], [-1.0]], [Fraction(-1, 3), Fraction(1, 3) - Fraction(1, 10**30)], [True, True], False),
    ],
)
def test_borders_are_decided(
    matrix: list[list[float]], offsets: list[Fraction], strict: list[bool], refuted: bool
) -> None:
    box = Box.between(np.zeros(1), np.ones(1))
    (answer,) = decide(IDENTITY, Query(box, (rows(matrix, offsets, strict),)))
    assert answer.refuted == refuted


def test_ends_that_no_float_is_are_reached() -> None:
    """u in [0, 1/10]: y >= 1/10 at the end alone."""
    box = exact_box([Fraction(0)], [Fraction(1, 10)])
    (met,) = decide(IDENTITY, Query(box, (rows([[-1.0]], [Fraction(1, 10)]),)))
    assert met.point == (Fraction(1, 10),)
    (above,) = decide(IDENTITY, Query(box, (rows([[-1.0]], [Fraction(1, 10)], [True]),)))
    assert above.refuted


def test_what_is_too_large_or_not_known_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    box = Box.between(-np.ones(1), np.ones(1))
    bounds = bounds_of(IDENTITY, box)
    assert fits(IDENTITY)
    assert is_small(IDENTITY, box, bounds)
    unknown = Box(box.lo, box.hi, box.lo + 0.1, box.hi)
    assert not is_small(IDENTITY, unknown, bounds)
    assert program_of(IDENTITY, unknown, bounds) is None
    endless = StateBounds({0: Interval(np.full((1, 2), -np.inf), np.full((1, 2), np.nan))})
    assert program_of(IDENTITY, box, endless) is None
    monkeypatch.setattr(phases, "MOST_BENDING", 1)
    assert not is_small(IDENTITY, box, bounds)


def test_it_can_be_ended_at_each_pivot() -> None:
    class Over(Exception):
        pass

    def check() -> None:
        raise Over

    box = Box.between(-np.ones(1), np.ones(1))
    query = Query(box, (rows([[-1.0]], [1]),))
    program = program_of(IDENTITY, box, bounds_of(IDENTITY, box))
    assert program is not None
    with pytest.raises(Over):
        Decider(IDENTITY, query, program, check).decide(query.alternatives[0])
