"""The smallest radius at which a counterexample is found: an attack proposes points, the network's own answer bisects.

The nearest points of other classes come from `search.nearest`, in floating point and of the implicit form. On the way
from the sample to each of the best of them, the original network is asked at float32 points: each is a member of the
exact set of the radius that it is told with, and a counterexample there as any other.

Elsewhere: minimal adversarial perturbation, robustness radius from above, robustness curve.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from idl_audit.decide.ladder import Options, Result
from idl_audit.implicit.model import ImplicitModel
from idl_audit.search.attacks import Target
from idl_audit.search.ensemble import towards_rivals
from idl_audit.search.judge import Found, Judge
from idl_audit.search.nearest import nearest_points
from idl_audit.search.pack import Quarry
from idl_audit.values.arrays import Float32Array, FloatArray
from idl_audit.values.box import Box
from idl_audit.values.budget import Budget
from idl_audit.values.errors import BudgetError
from idl_audit.values.input_sets import InputSet, NormBall
from idl_audit.values.margins import predictions
from idl_audit.values.network import Network
from idl_audit.values.query import Misclassification, Query
from idl_audit.values.verdicts import Verdict

METHOD: Final = "fmn"
CANDIDATES: Final = 3
"""Points from which the way to the sample is bisected."""
HALVINGS: Final = 20
ROUNDING: Final = 2.0**-38
"""Balls are told to hold a point next to their surface only a little inside (`NormBall.contains`)."""

Around: TypeAlias = Callable[[float], InputSet]
"""Radius -> the set around the sample."""


def reach(centre: FloatArray, greatest: float, point: Float32Array, around: Around) -> float:
    """Return the least radius, up to the greatest, whose exact set is seen to hold a point."""
    inputs, change = around(greatest), np.abs(point.astype(np.float64) - centre)
    if isinstance(inputs, NormBall):
        size = float(np.linalg.norm(inputs.in_radii(change), 2 if inputs.norm == "l2" else 1))
    elif isinstance(inputs, Box):
        width = np.maximum(inputs.hi - centre, centre - inputs.lo)
        size = greatest * float(np.divide(change, width, out=np.zeros_like(change), where=width > 0).max(initial=0.0))
    else:
        return greatest
    for near in (np.nextafter(size, np.inf), size * (1 + ROUNDING)):
        if 0 < near < greatest and bool(around(float(near)).contains(point)):
            return float(near)
    return greatest


@dataclass(eq=False)
class Nearest:
    """One sample: the nearest counterexample that is known."""

    model: ImplicitModel
    network: Network
    centre: FloatArray
    label: int
    around: Around
    greatest: float
    options: Options
    budget: Budget
    radius: float = np.inf
    """That of `found`."""
    found: Found | None = None
    queries: int = 0

    def look(self) -> Result | None:
        """Return the nearest counterexample that is found as a result at the greatest radius; None without one."""
        start = self.budget.clock()
        if int(predictions(self.network(self.centre[None].astype(np.float32)))[0]) != self.label:
            return None
        with suppress(BudgetError):  # what was found until then counts
            self._look()
        if self.found is None:
            return None
        spent = self.budget.clock() - start
        return Result(Verdict.FALSIFIED, self.label, METHOD, (), self.found, seconds=spent, queries=self.queries)

    def _look(self) -> None:
        judge = self._judge(self.greatest)
        assert isinstance(judge.query, Misclassification)
        target = Target(self.model, self.centre, judge.query, judge)
        quarry = Quarry(target, np.random.default_rng(self.options.seed))
        try:
            pack, steps = towards_rivals([quarry], self.options.attack.max_queries)
            _, points, distance = nearest_points(pack, steps, until_found=False)
        finally:
            self.queries += judge.queries
        for row in np.argsort(distance, kind="stable")[:CANDIDATES]:
            if np.isfinite(distance[row]):
                self._bisect(points[row])

    def _bisect(self, point: FloatArray) -> None:
        """Ask on the way from the sample to a point, as long as the network changes its mind between two places."""
        if not self._errs(point):
            return
        low, high = 0.0, 1.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            if self._errs(self.centre + middle * (point - self.centre)):
                high = middle
            else:
                low = middle

    def _errs(self, point: FloatArray) -> bool:
        """Whether the network errs at the float32 point next to a point; the nearest such point is kept."""
        near = np.clip(point, *self.around(self.greatest).hull.float32_bounds())
        radius = reach(self.centre, self.greatest, near.astype(np.float32), self.around)
        judge = self._judge(radius)
        errs = judge.propose(near)
        self.queries += judge.queries
        if errs and judge.found is not None:
            radius = reach(self.centre, radius, judge.found.point, self.around)
            if radius < self.radius:
                self.radius, self.found = radius, judge.found
        return errs

    def _judge(self, radius: float) -> Judge:
        query = Query.misclassification(
            self.around(radius), self.model.n_outputs, self.label, self.options.attack.target
        )
        return Judge.of(self.model, self.network, query, self.budget, self.options.confirm)
