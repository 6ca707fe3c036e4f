"""Groups in the checker of curves: exact bounds below all points, those of the tool below these, and proofs of models.

Models are written as `convert` writes them, so that no operator stands between a group and its proof. A changed proof
that is accepted must still be true at thousands of points of its box.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from idl_audit.implicit.activations import ACTIVATIONS
from tests import independent_curves
from tests.independent_calculus import CURVES
from tests.independent_checker import GRID, Exact
from tests.independent_files import Refused
from tests.independent_groups import Group, Norms
from tests.independent_models import group_of
from tests.shared import group_proofs, mutated_proofs
from tests.shared.group_proofs import GROUPS, PROVED, function, is_false, size
from tests.shared.proof_sources import Source

QUICK = ("contraction", "softmax")


def group(name: str, n: int) -> Group:
    kind, given = GROUPS[name]
    return group_of(kind, {what: Fraction(value) for what, value in given.items()}, n)


def boxes(name: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """v, lam (3, n) and a box."""
    n = size(name)
    lo, hi = np.sort(rng.normal(size=(2, n)) * rng.choice([0.01, 1.0, 5.0]) + rng.normal(size=n), axis=0)
    v, lam = rng.normal(size=(2, 3, n)) * rng.choice([0.0, 1.0, 1.0], size=(2, 1, n))
    return v, lam, lo, hi


def on_grid(lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
    """Bounds of z and of -z as the checker holds them."""
    return np.array([[int(Fraction(x) * (1 << GRID)) for x in end.tolist()] for end in (lo, -hi)], object)


@pytest.mark.parametrize("name", GROUPS)
def test_the_least_value_is_below_all_points_and_that_of_the_tool_below_it(name: str) -> None:
    """For any multipliers; those of the format as well, which the tool's are within rounding."""
    rng, phi = np.random.default_rng(5), group(name, size(name))
    tool = ACTIVATIONS[GROUPS[name][0]](**GROUPS[name][1])
    for k in range(8):
        v, lam, lo, hi = boxes(name, rng)
        bounds, zero = on_grid(lo, hi), np.zeros(v.shape)
        own = phi.multipliers(Exact.of(v), np.full(v.shape, np.nan), bounds)
        ends = lo[None, None], hi[None, None]
        np.testing.assert_allclose(
            tool.multipliers(v[None], *ends)[0], own, rtol=1e-9, atol=1e-9 * (1 + abs(own).max())
        )
        lam = lam if k % 2 else own
        z = np.vstack([rng.uniform(lo, hi, (2000, lo.size)), rng.choice([0, 1], (2000, lo.size)) * (hi - lo) + lo])
        values = phi(z) @ v.T - z @ lam.T
        found = phi.least(Exact.of(v), Exact.of(lam), bounds)
        exact = np.array([float(Fraction(x, 1 << GRID)) if x > -np.inf else x for x in found.tolist()])
        scale = 1e-12 * (1 + abs(values).max())
        assert (exact <= values.min(axis=0) + scale).all()
        bound = tool.lower_support(v[None], zero[None], lam[None], *ends)[0].sum(axis=-1)
        assert (bound <= exact + scale).all()
        np.testing.assert_allclose(bound, exact, rtol=1e-9, atol=1e3 * scale)


def test_groups_that_may_be_divided_by_0_prove_nothing_and_an_aided_factor_bounds_them() -> None:
    one, zero = Exact.of(np.array([[1.0, 0.0, 0.0]])), Exact.of(np.zeros((1, 3)))
    bounds = on_grid(np.array([-1.0, -1.0, 0.5]), np.array([1.0, 1.0, 2.0]))
    given = 3, Fraction(1), Fraction(0), Fraction(0), Fraction(0), False
    assert Norms(*given).least(one, zero, bounds)[0] == -np.inf
    assert Norms(*given, aided=True).least(one, zero, bounds)[0] == -(1 << GRID)


@pytest.fixture(scope="module")
def proofs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Source]:
    """Proofs that choose and split, about a model for each kind of group; made when they are asked for."""
    folder = tmp_path_factory.mktemp("groups")

    @functools.cache
    def made(name: str) -> Source:
        found = group_proofs.source(folder, name)
        assert any(".slopes." in key for key in found.arrays)
        return found

    return made


def checked(source: Source, arrays: Any = None, meta: Any = None) -> str:
    text = json.dumps(source.meta if meta is None else meta)
    return independent_curves.check(source.model, {**(arrays or source.arrays), "meta": np.asarray(text)})


EACH = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in PROVED]
)


@EACH
def test_accepts_what_the_tool_writes_and_no_changed_proof_of_a_false_claim(proofs: Any, name: str) -> None:
    source = proofs(name)
    assert checked(source)
    assert not is_false(source.arrays, source.meta, function(source))
    offsets = {key: array for key, array in source.arrays.items() if key.endswith(".offsets")}
    for key, array in offsets.items():
        for step in (1.0, 0.3, 0.1):
            changed = {**source.arrays, key: array - step * abs(sum(offsets.values()))}
            if is_false(changed, source.meta, function(source)):
                with pytest.raises(Refused):
                    checked(source, changed)
    tried(source, 12)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROVED)
def test_no_changed_proof_of_many_is_accepted_where_it_is_false(proofs: Any, name: str) -> None:
    tried(proofs(name), 30)


def tried(source: Source, count: int) -> None:
    """Show so many changed proofs to the checker."""
    rng, refused, network = np.random.default_rng(count), 0, function(source)
    for _ in range(count):
        found = mutated_proofs.changed(source, rng)
        if found is None:
            continue
        try:
            checked(source, found[2].arrays, found[2].meta)
        except Refused:
            refused += 1
            continue
        assert not is_false(found[2].arrays, found[2].meta, network), found[0]
    assert refused


CURVED = [name for name in CURVES if name not in ("power", "reciprocal")]


@pytest.mark.parametrize("name", CURVED)
def test_the_least_value_of_a_curve_is_below_all_points_and_that_of_the_tool_below_it(name: str) -> None:
    rng, phi, tool = np.random.default_rng(3), CURVES[name](), ACTIVATIONS[name]()
    least, most = DOMAINS.get(name, (-4.0, 4.0))
    for _ in range(2):
        lo, hi = np.sort(rng.uniform(least, most, 2))
        for v, lam in rng.normal(size=(3, 2)):
            z = np.linspace(lo, hi, 2001)
            values = v * tool(z) - lam * z
            exact = phi.least(Fraction(v), Fraction(lam), Fraction(lo), Fraction(hi)) / (1 << GRID)
            given = (np.array([x]) for x in (v, 0.0, lam, lo, hi))
            assert values.min() - 1e-5 <= exact <= values.min() + 1e-12
            assert tool.lower_support(*given)[0] <= exact + 1e-15


DOMAINS = dict.fromkeys(("acos", "asin", "atanh"), (-0.99, 0.99)) | {"acosh": (1.01, 5.0), "tan": (-1.5, 1.5)}
DOMAINS |= dict.fromkeys(("log", "rsqrt", "sqrt"), (0.01, 5.0))
