"""Memory: what is estimated before it is made, what is made in parts, what is refused with the figure."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from idl_audit.implicit.model import ImplicitModel
from idl_audit.measure import centre_radius, sensitivity
from idl_audit.measure.centre_radius import METHODS, applicable_methods, centre_radius_bytes, global_slopes
from idl_audit.measure.sensitivity import COPIES, sensitivity_matrix
from idl_audit.measure.sign_paths import sign_path_matrix
from idl_audit.proof.bounds import Interval
from idl_audit.proof.intervals import interval_bounds
from idl_audit.proof.sensitivity_witness import make_witness
from idl_audit.search.mixed_integer import BigMProgram
from idl_audit.search.relaxation import TriangleRelaxation, program_bytes
from idl_audit.values.box import Box
from idl_audit.values.budget import Budget
from idl_audit.values.errors import MemoryLimitError
from tests.shared.small_networks import random_network


def wide(seed: int = 0, widths: tuple[int, ...] = (700, 500, 300), p: int = 400) -> ImplicitModel:
    return random_network(np.random.default_rng(seed), p=p, widths=widths, activations=["relu"], skips=False)


def peak(work: Callable[[], object]) -> int:
    """Return the most bytes that arrays took while something worked."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_the_estimate_of_centre_and_radius_is_no_less_than_what_it_takes() -> None:
    for model in (wide(), wide(1, (90,) * 6, 30), wide(2, (1200,), 20)):
        assert peak(lambda model=model: METHODS["centre-radius"](model, None, 10**12)) <= centre_radius_bytes(model)


def test_best_takes_what_fits() -> None:
    model = wide()
    needed = centre_radius_bytes(model)
    assert applicable_methods(model, needed) == ("paper", "centre-radius")
    assert applicable_methods(model, needed - 1) == ("paper", "half-step")
    limit = needed // 2
    assert peak(lambda: sensitivity_matrix(model, "best", max_bytes=limit)) <= limit
    with pytest.raises(MemoryLimitError, match=r"centre-radius would take [0-9,]+ MB, above the limit of"):
        sensitivity_matrix(model, "centre-radius", max_bytes=limit)


@pytest.mark.parametrize("method", ["paper", "half-step", "best"])
def test_an_s_that_does_not_fit_is_refused_with_the_figure(method: str) -> None:
    model = wide(3, (8,), 400)
    needed = COPIES * 8 * model.n_outputs * 400
    sensitivity_matrix(model, method, max_bytes=max(needed, centre_radius_bytes(model)))
    with pytest.raises(MemoryLimitError, match=f"S has {model.n_outputs} x 400 entries"):
        sensitivity_matrix(model, method, max_bytes=needed - 1)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_parts_give_what_the_whole_gives(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_network(np.random.default_rng(1), p=6, widths=(7, 5, 6))
    functionals = np.random.default_rng(2).normal(size=(5, 3))
    kinds: tuple[Callable[[np.ndarray | None], np.ndarray], ...] = (
        *(lambda f, name=name: METHODS[name](model, f, 10**9) for name in ("paper", "centre-radius")),
        lambda f: sign_path_matrix(model, global_slopes(model), f),
    )
    whole = [kind(f) for kind in kinds for f in (None, functionals)]
    monkeypatch.setattr(sensitivity, "ROWS_AT_ONCE", 7 * rows)
    monkeypatch.setattr(centre_radius, "NUMBERS_AT_ONCE", 7 * rows)
    parts = [kind(f) for kind in kinds for f in (None, functionals)]
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_programs_and_witnesses_that_do_not_fit_are_refused_before_they_are_made() -> None:
    model = wide()
    inputs = Interval.of_boxes(Box.around(np.zeros(400), 0.1))
    bounds = interval_bounds(model, inputs)
    small = Budget(max_bytes=program_bytes(model) - 1)

    def all_refused() -> None:
        for made in (TriangleRelaxation, BigMProgram):
            with pytest.raises(MemoryLimitError, match=r"program over 1,500 states would take .*; raise --max-memory"):
                made(model, inputs, bounds, budget=small)
        with pytest.raises(MemoryLimitError, match="a witness of S would take"):
            make_witness(model, 10_000)

    assert peak(all_refused) < 1_000_000
    TriangleRelaxation(model, inputs, bounds, budget=Budget(max_bytes=program_bytes(model)))


def test_a_model_is_evaluated_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    from idl_audit.implicit import model as module

    model = wide(4, (600, 600), 10)
    u = np.random.default_rng(0).normal(size=(2000, 10))
    whole = model(u)
    monkeypatch.setattr(module, "NUMBERS_AT_ONCE", 2**16)
    np.testing.assert_allclose(model(u), whole, rtol=1e-12, atol=1e-12)
    assert peak(lambda: model(u)) < 4_000_000 < 8 * u.shape[0] * model.n_states
    assert model(u[:0]).shape == (0, model.n_outputs)
