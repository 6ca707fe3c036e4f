"""Faults of the solver: the sample is unknown with its reason, the run goes on, the report is valid."""

from __future__ import annotations

from types import SimpleNamespace

import highspy
import numpy as np
import pytest

from idl_audit.decide import case
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.linear_bounds import backward_state_bounds
from idl_audit.report.json_text import from_json, to_json
from idl_audit.report.schema import Reason, Verdict
from tests.commands.test_robustness import audit

BROKEN, OTHERS = 0, (1, 2)
INDEX = (BROKEN, *OTHERS)


class Faulty(highspy.Highs):
    """HiGHS with one fault, in the first program that is made."""

    made = 0
    fault = ""

    def __init__(self):
        super().__init__()
        Faulty.made += 1
        self.is_broken = Faulty.made == 1

    def getModelStatus(self):
        told = {"time": "kTimeLimit", "memory": "kMemoryLimit", "strange": "kFromTheFuture", "solve": "kSolveError"}
        if self.is_broken and self.fault in told:
            return SimpleNamespace(name=told[self.fault])
        return super().getModelStatus()

    def getSolution(self):
        given = super().getSolution()
        if not self.is_broken or self.fault not in ("nan duals", "infinite point"):
            return given
        point, duals = list(given.col_value), list(given.row_dual)
        (duals if self.fault == "nan duals" else point)[0] = np.nan if self.fault == "nan duals" else np.inf
        return SimpleNamespace(col_value=point, row_dual=duals)

    def run(self):
        if self.is_broken and self.fault == "no memory":
            raise MemoryError
        return super().run()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("time", Reason.TIME_LIMIT),
        ("memory", Reason.MEMORY_LIMIT),
        ("no memory", Reason.MEMORY_LIMIT),
        ("strange", Reason.SOLVER_FAILED),
        ("solve", Reason.SOLVER_FAILED),
        ("nan duals", Reason.SOLVER_FAILED),
        ("infinite point", Reason.SOLVER_FAILED),
    ],
)
def test_one_broken_solve_costs_one_sample(fault, reason, monkeypatch):
    monkeypatch.setattr(Faulty, "made", 0)
    monkeypatch.setattr(Faulty, "fault", fault)
    monkeypatch.setattr(highspy, "Highs", Faulty)
    report = audit(eps="0.01", index=INDEX, methods=("lp",))
    results = {sample.index: sample.results[0] for sample in report.samples}
    assert (results[BROKEN].verdict, results[BROKEN].reason) == (Verdict.UNKNOWN, reason)
    assert [results[i].verdict for i in OTHERS] == [Verdict.CERTIFIED] * 2
    assert report.status == "complete"
    assert from_json(to_json(report)) == report


def test_bounds_that_contradict_each_other_make_the_program_infeasible_and_the_sample_unknown(monkeypatch):
    """A crafted empty set: every state of the first block must lie above what the inputs allow."""
    asked = []

    def crafted(model, inputs, **limits):
        bounds = backward_state_bounds(model, inputs, **limits)
        asked.append(1)
        if len(asked) > 1:
            return bounds
        k = len(model.blocks) - 1
        z = bounds.z[k]
        return StateBounds(bounds.z, bounds.x).with_block(k, model.blocks[k], Interval(z.hi + 1.0, z.hi + 2.0))

    monkeypatch.setattr(case, "backward_state_bounds", crafted)
    report = audit(eps="0.01", index=INDEX, methods=("lp",))
    results = {sample.index: sample.results[0] for sample in report.samples}
    assert (results[BROKEN].verdict, results[BROKEN].reason) == (Verdict.UNKNOWN, Reason.SOLVER_FAILED)
    assert [results[i].verdict for i in OTHERS] == [Verdict.CERTIFIED] * 2


class Liar(highspy.Highs):
    """A solver that lies in status, point, duals, rays, objective and bound, each as it pleases."""

    rng = np.random.default_rng(0)

    def getModelStatus(self):
        status = highspy.HighsModelStatus
        return (status.kOptimal, status.kInfeasible, status.kInterrupt)[self.rng.choice(3, p=(0.8, 0.1, 0.1))]

    def getSolution(self):
        lp, scale = self.getLp(), 10.0 ** self.rng.integers(-3, 9)
        return SimpleNamespace(
            col_value=self.rng.normal(size=lp.num_col_) * scale, row_dual=self.rng.normal(size=lp.num_row_) * scale
        )

    def getInfo(self):
        return SimpleNamespace(simplex_iteration_count=1, mip_dual_bound=1e9, objective_function_value=1e9)

    def getDualRay(self):
        return highspy.HighsStatus.kOk, True, self.rng.normal(size=self.getLp().num_row_) * 1e3


@pytest.mark.slow
@pytest.mark.parametrize("eps", ["0.02", "0.1"])
def test_a_lying_solver_changes_no_verdict_for_the_worse(eps, monkeypatch):
    """At .1 every sample here can be attacked: nothing may be certified; at .02 nothing may be falsified."""
    truth = audit(eps=eps, index=INDEX, methods=("sign", "pgd", "linear", "branch"))
    known = {sample.index: sample.results[0].verdict for sample in truth.samples}
    assert set(known.values()) <= {Verdict.CERTIFIED, Verdict.FALSIFIED}
    monkeypatch.setattr(highspy, "Highs", Liar)
    with np.errstate(all="ignore"):
        report = audit(eps=eps, index=INDEX, methods=("lp", "mip"), time_limit=20.0)
    for sample in report.samples:
        assert sample.results[0].verdict in (known[sample.index], Verdict.UNKNOWN)
    assert from_json(to_json(report)) == report
