"""Samples of a network without an implicit form: attacks may falsify them, and nothing certifies any.

The original network is asked about every point and has the only word, as it runs: without an implicit form there is no
exact arithmetic that could confirm it, and no bound.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from idl_audit.decide.ladder import Options, Result
from idl_audit.search.attacks import Target, run_attack
from idl_audit.search.judge import Judge
from idl_audit.search.opaque import BATCH, Opaque
from idl_audit.values.arrays import FloatArray
from idl_audit.values.budget import Budget
from idl_audit.values.input_sets import InputSet
from idl_audit.values.margins import predictions
from idl_audit.values.query import Query
from idl_audit.values.verdicts import Reason, Verdict

ATTACKS: Final = ("sign", "random", "pgd")
"""The attacks that need the network alone, cheap ones first."""


def decide_opaque(
    model: Opaque,
    sample: FloatArray,
    label: int,
    inputs: InputSet,
    options: Options,
    budget: Budget,
) -> Result:
    """Return falsified, with a point that the network itself misclassifies, clean_wrong or unknown; never certified.

    Args:
        model: the network in data units.
        sample: shape (p,), inside the set.
        label: the right class.
        inputs: the input set.
        options: the attacks in their order, and what they may cost; `methods` None stands for all of `ATTACKS`.
        budget: what all of them may cost.

    Raises:
        OptionError: where the target is no other class.
    """
    start = budget.clock()
    outputs = model.network(sample[None].astype(np.float32))
    predicted = int(predictions(outputs)[0])
    if predicted != label:
        return Result(Verdict.CLEAN_WRONG, predicted, seconds=budget.clock() - start)
    query = Query.misclassification(inputs, model.n_outputs, label, options.attack.target)
    judge = Judge(model.network, query, BATCH, budget)
    target, rng = Target(model, sample, query, judge), np.random.default_rng(options.seed)
    reason = Reason.NO_IMPLICIT_FORM
    for name in ATTACKS if options.methods is None else options.methods:
        if run_attack(name, target, options.attack, rng):
            spent, found = budget.clock() - start, judge.best
            return Result(Verdict.FALSIFIED, predicted, name, found=found, seconds=spent, queries=judge.queries)
        if budget.out_of_time:
            reason = Reason.TIME_LIMIT
            break
    spent = budget.clock() - start
    return Result(Verdict.UNKNOWN, predicted, found=judge.best, reason=reason, seconds=spent, queries=judge.queries)
