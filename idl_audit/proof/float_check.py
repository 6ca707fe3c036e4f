"""The checker of proofs for floating-point arithmetic: bounds of roundings of its own, and the query lowered by theirs.

A proof says for every row what roundings may change in it, at most. It is believed where bounds that are made anew,
from the network as its file has it and from states whose bounds the proof's own stages prove, are not above; the rest
is a proof in exact arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from idl_audit.implicit.elimination import without_self_feedback
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.check import check, proved_stage, proved_stages
from idl_audit.proof.float_margins import FloatMargins, Slack, lowered, parted, unknown_slack
from idl_audit.proof.float_parts import FloatParts
from idl_audit.proof.proof import Proof, Refused
from idl_audit.values.errors import UnsupportedModelError
from idl_audit.values.query import Misclassification, Query


def check_computed(model: ImplicitModel, query: Query, proof: Proof, arithmetic: FloatMargins) -> list[str]:
    """Return why a proof does not show that no computed point satisfies an alternative; empty where it does."""
    why = _misfit(query, proof)
    if why:
        return [why]
    refused = check(model, lowered(query, proof.slack), proof, FloatParts(arithmetic, query))
    if refused:
        return refused
    try:
        own = slack_over(model, query, proof, arithmetic, enough=proof.slack)
    except Refused as error:
        return [str(error)]
    except UnsupportedModelError as error:
        return list(error.problems)
    if not _suffices(own, proof.slack):
        return [f"roundings may change its rows by {_largest_beyond(own, proof.slack):.3g}, which is more than it says"]
    return []


def _misfit(query: Query, proof: Proof) -> str:
    """Return why the numbers in a proof are no bounds for a query's rows; empty where they may be."""
    if proof.exact:
        return "it refutes in rational numbers, which says nothing of floating-point arithmetic"
    wanted = [(len(one.rows),) for one in query.alternatives]
    if [own.shape for own in proof.slack] != wanted:
        return "it does not say of every row what roundings may change in it"
    if not all((np.isfinite(own) & (own >= 0)).all() for own in proof.slack):
        return "what it says of roundings is no bound"
    return ""


def slack_over(
    model: ImplicitModel, query: Query, proof: Proof, arithmetic: FloatMargins, *, enough: Slack | None = None
) -> Slack:
    """Return what roundings may change in the rows of every alternative, by what the stages of a proof say of states.

    Coarse bounds first; finer ones as long as they are above what would be `enough`.

    Raises:
        Refused: where a stage does not hold.
    """
    found = unknown_slack(query)
    if not query.alternatives:
        return found
    inputs = Interval.of_set(query.inputs)
    box = Interval.of_boxes(query.box)
    rows = np.concatenate([one.rows for one in query.alternatives])
    ranked = isinstance(query, Misclassification)
    with np.errstate(all="ignore"):
        for states in _known_states(without_self_feedback(model), inputs, proof):
            for sharp in (False, True) if arithmetic.can_be_sharp else (False,):
                errors = arithmetic.over(box, states, sharp=sharp).of(rows, ranked=ranked)[0]
                own = parted(query.alternatives, errors)
                found = tuple(np.fmin(old, new) for old, new in zip(found, own, strict=True))
                if enough is not None and _suffices(found, enough):
                    return found
    return found


def _known_states(model: ImplicitModel, inputs: Interval, proof: Proof) -> Iterator[StateBounds]:
    """Yield the bounds of all states that the first stage of a proof proves, and those of its last one."""
    first = proved_stage(model, inputs, None, proof.stages[0])
    yield first
    if len(proof.stages) > 1:
        _, stages = proved_stages(model, inputs, proof)
        yield StateBounds({k: _whole(first.z[k], z, proof.kept.get(k)) for k, z in stages[-1].z.items()})


def _whole(first: Interval, last: Interval, kept: np.ndarray | None) -> Interval:
    """Return the bounds of a block: the last ones of the states that stay, the first ones of the others."""
    if kept is None:
        return last
    lo, hi = first.lo.copy(), first.hi.copy()
    lo[:, kept], hi[:, kept] = last.lo, last.hi
    return Interval(lo, hi)


def _suffices(own: Slack, said: Slack) -> bool:
    return all((mine <= theirs).all() for mine, theirs in zip(own, said, strict=True))  # NaN is no bound


def _largest_beyond(own: Slack, said: Slack) -> float:
    beyond = np.concatenate([mine[~(mine <= theirs)] for mine, theirs in zip(own, said, strict=True)])
    return float(beyond.max(initial=0.0))
