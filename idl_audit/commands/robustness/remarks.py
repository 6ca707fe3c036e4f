"""What an audit says beside its verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from idl_audit.commands.options.robustness import RobustnessOptions
from idl_audit.commands.shared.audited import Audited
from idl_audit.commands.shared.float_margins import float_margins
from idl_audit.commands.shared.frame import without_last_operator
from idl_audit.commands.shared.measured_kernels import told_versions
from idl_audit.commands.shared.sample_tasks import Decided
from idl_audit.commands.shared.subject import Subject
from idl_audit.commands.shared.tallies import tally, told
from idl_audit.proof.float_margins import Unbounded
from idl_audit.report.schema import (
    AgreementCheck,
    Diagnostic,
    WhyIncomplete,
)
from idl_audit.values.arrays import FloatArray
from idl_audit.values.verdicts import Reason, Verdict

FAULTS = frozenset({Reason.WORKER_FAILED.value, Reason.MEMORY_LIMIT.value})
"""Why a sample that was lost has no verdict; the time limit is an answer."""


_NOT_FLIPPED = (Verdict.CERTIFIED, Verdict.UNKNOWN)


def told_shard(found: Audited, among: range, options: RobustnessOptions) -> Iterator[Diagnostic]:
    """Say which samples a report is of."""
    if options.shard is not None:
        yield Diagnostic(
            code="IDL219",
            level="info",
            message=f"this is shard {options.shard.number} of {options.shard.of}: {len(among)} of {found.samples.n} "
            f"samples, from place {among.start} on",
            hint="`idl-audit merge` makes one report of all shards",
        )


def not_judged(decided: Sequence[Decided]) -> WhyIncomplete | None:
    """Return that some samples were not judged; None where all were.

    That a sample took too long is an answer, as the user set the limit; that the process died on it is none.
    """
    lost = [result for sample in decided if sample.lost is not None for result in sample.results.values()]
    return "not_judged" if any(result.reason is not None and result.reason.value in FAULTS for result in lost) else None


def told_faults(decided: Sequence[Decided], options: RobustnessOptions) -> Iterator[Diagnostic]:
    """Name the samples that could not be decided, and where they may have no outputs, and those without certificate."""
    for sample in decided:
        if sample.lost is not None:
            yield Diagnostic(
                code="IDL206",
                level="error",
                message=f"sample {sample.index} could not be decided: {sample.lost}",
                hint="run it again alone with --index, with fewer --jobs" if options.jobs > 1 else None,
                where=f"samples {sample.index}",
            )
        for eps, result in sample.results.items():
            if result.reason is Reason.OUTSIDE_DOMAIN:
                message = f"sample {sample.index} at eps {eps:g}: {result.detail}"
                yield Diagnostic(code="IDL212", level="warning", message=message, where=f"samples {sample.index}")
    yield from _without_bound(decided)
    yield from _out_of_time(decided, options)
    missing = [(f"{sample.index} (eps {eps:g})", 1) for sample in decided for eps in sample.uncertified]
    if missing:
        yield told(tally("verdicts without a certificate", missing))


def _out_of_time(decided: Sequence[Decided], options: RobustnessOptions) -> Iterator[Diagnostic]:
    """Say that the time limit ended verdicts for which nodes were counted: they depend on the machine after all."""
    most = options.verdicts.max_nodes
    rows = ((str(sample.index), result) for sample in decided for result in sample.results.values())
    ended = [(name, 1) for name, one in rows if one.reason is Reason.TIME_LIMIT]
    if most is not None and ended:
        about = f"the time limit of {options.verdicts.time_limit:g} s before {most:,} nodes were used"
        yield told(tally("verdicts out of time", ended, about=about))


def _without_bound(decided: Sequence[Decided]) -> Iterator[Diagnostic]:
    """Say, once, why nothing can be proved for the arithmetic that is asked about."""
    rows = [(str(sample.index), result) for sample in decided for result in sample.results.values()]
    why = [(name, one.detail) for name, one in rows if one.reason is Reason.NO_ROUNDING_BOUND and one.detail]
    for detail in dict.fromkeys(detail for _, detail in why):
        counted = [(name, 1) for name, other in why if other == detail]
        yield told(tally("verdicts without a rounding bound", counted, about=detail))


def told_ranking(options: RobustnessOptions) -> Iterator[Diagnostic]:
    """Say by whose S inputs are ranked, where it is not the network's own."""
    ranking = options.verdicts.attack.ranking
    if ranking is not None:
        message = f"sensitivity ranks inputs by S of {options.matrix} (sha256 {ranking.sha256[:12]})"
        yield Diagnostic(code="IDL218", level="info", message=message)


def told_margins(
    decided: Sequence[Decided],
    check: AgreementCheck | None,
    first: FloatArray,
    subject: Subject,
    options: RobustnessOptions,
) -> Iterator[Diagnostic]:
    """Say how outputs are read, which margins rounding may turn, and which points exact arithmetic denies."""
    yield from _left_out_at_the_end(subject)
    if check is not None:
        yield from _close_calls(decided, check, first, subject, options)
    yield from _denied(decided)


def _denied(decided: Sequence[Decided]) -> Iterator[Diagnostic]:
    """Name samples that the network misclassifies somewhere as it runs, and not in exact arithmetic."""
    rows = [(str(sample.index), result) for sample in decided for result in sample.results.values()]
    some = [(name, result.denied) for name, result in rows if result.denied and result.verdict in _NOT_FLIPPED]
    if some:
        yield told(tally("denied points", some))


def _left_out_at_the_end(subject: Subject) -> Iterator[Diagnostic]:
    """Say how the outputs are read, where that is not as they are."""
    operator, threshold = subject.info.stripped_output, subject.threshold
    if threshold is not None:
        yield Diagnostic(
            code="IDL210",
            level="info",
            message=f"the network has one output: class 1 is where it is above {threshold.value!r}, class 0 elsewhere",
            hint="another number is given with --threshold",
        )
    why = "it changes no ranking of outputs"
    if threshold is not None:
        why = "it rises with its input, and proved margins are differences of that input"
    yield from without_last_operator(operator, why)


def _close_calls(
    decided: Sequence[Decided], check: AgreementCheck, first: FloatArray, subject: Subject, options: RobustnessOptions
) -> Iterator[Diagnostic]:
    """Name certified samples whose margin is not above what floating-point arithmetic may change in it."""
    certified = [
        (sample.index, -math.inf if result.lower is None else result.lower, _or_infinite(result.float_error))
        for sample in decided
        for result in sample.results.values()
        if result.verdict is Verdict.CERTIFIED
    ]
    if not certified or options.verdicts.arithmetic != "real":
        return
    known = float_margins(subject, options.data.preprocessing)
    if isinstance(known, Unbounded):
        counted = [(str(index), 1) for index, *_ in certified]
        yield told(tally("verdicts in exact arithmetic", counted, about=known.told))
        return
    itself = subject.network_itself or subject
    network = itself.network(options.data.preprocessing)
    outputs = network(first.astype(np.float32))
    seen = 2 * check.max_rel_error * float(np.abs(outputs).max())  # more than what is proved would refute the proof
    if subject.threshold is not None:
        seen = subject.threshold.margin(seen)
    close = [(index, error) for index, lower, error in certified if not lower > max(seen, error)]
    if close:
        largest = max(error for _, error in close)
        kind = "float32" if subject.graph is None else subject.graph.arithmetic
        counted = [(str(index), 1) for index, _ in close]
        limit = largest if largest < math.inf else None
        yield told(tally("close margins", counted, about=kind, largest=limit))


def told_kernels(decided: Sequence[Decided], subject: Subject) -> Iterator[Diagnostic]:
    """Say with which versions kernels were measured, where a certified verdict has a bound of what they change."""
    results = (result for sample in decided for result in sample.results.values())
    if any(one.verdict is Verdict.CERTIFIED and one.float_error is not None for one in results):
        yield from told_versions(subject)


def _or_infinite(error: float | None) -> float:
    return math.inf if error is None else error
