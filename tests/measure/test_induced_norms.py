"""||S||_(p->p) bounds how far all outputs move together: against sampling, exact column sums and long double."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from idl_audit.measure.induced_norms import induced_norm
from idl_audit.measure.sensitivity import sensitivity_matrix
from tests.shared.command_line import MODEL, run
from tests.shared.pairs import layered


@pytest.mark.parametrize("seed", range(8))
def test_no_pair_of_inputs_moves_outputs_by_more(seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = layered(rng, (4, 6, 5, 3), ("relu", "tanh"))
    matrix = sensitivity_matrix(model, "best")
    u, v = rng.normal(size=(2, 4000, 4))
    v[2000:] = u[2000:] + 1e-3 * v[2000:]
    for norm, order in (("l2", 2), ("l1", 1)):
        bound = induced_norm(matrix, norm)
        moved = np.linalg.norm(model(u) - model(v), ord=order, axis=1)
        assert bound is not None
        assert (moved <= bound * np.linalg.norm(u - v, ord=order, axis=1) * (1 + 1e-12)).all()


@pytest.mark.parametrize("seed", range(5))
def test_bounds_are_tight_and_not_below(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = rng.random((5, 7)) * 10.0 ** rng.integers(-3, 4)
    sums = [sum((Fraction(value) for value in column), Fraction(0)) for column in matrix.T.tolist()]
    by_column, by_singular = induced_norm(matrix, "l1"), induced_norm(matrix, "l2")
    assert by_column is not None
    assert max(sums) <= Fraction(by_column) <= max(sums) * (1 + Fraction(1, 10**12))
    exact = np.linalg.svd(matrix, compute_uv=False)[0]
    assert by_singular is not None
    assert exact * (1 - 1e-14) <= by_singular <= exact * (1 + 1e-7)


def test_what_float64_does_not_hold_has_no_bound() -> None:
    huge = np.full((3, 3), 1e308)
    assert induced_norm(huge, "l1") is None
    assert induced_norm(huge, "l2") is None
    assert induced_norm(np.zeros((2, 3)), "l2") == 0.0


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_the_command_tells_it_by_name(norm: str) -> None:
    report = run("sensitivity", MODEL, "--norm", norm, "-q", "-f", "json").report
    found = report.sensitivity.induced
    assert (found.norm, found.value > 0) == (norm, True)
    assert found.by == ("spectral norms" if norm == "l2" else "S")
    assert run("sensitivity", MODEL, "-q", "-f", "json").report.sensitivity.induced is None
    assert f"in {norm}" in run("sensitivity", MODEL, "--norm", norm).out
