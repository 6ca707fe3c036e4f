"""certify with a property, and the rows of bench: one network against one VNN-LIB file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np

from idl_audit.commands.certify_query import audit_query
from idl_audit.commands.options.robustness import PropertyOptions
from idl_audit.commands.shared.bench_resume import row_sha256
from idl_audit.commands.shared.float_margins import (
    check_arithmetic,
    errors_of_alike,
    float_margins,
    told_denied,
    told_unknown,
    without_bound,
)
from idl_audit.commands.shared.frame import Clock, framed_report, without_last_operator
from idl_audit.commands.shared.measured_kernels import told_versions
from idl_audit.commands.shared.proof_files import about, write_certificate
from idl_audit.commands.shared.questions import AskedProperty, read_property
from idl_audit.commands.shared.subject import Subject, check_agreement, describe_conversion, open_subject
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.data.vnnlib2.reader import is_version_2
from idl_audit.decide.ladder import Options, Result, decide_query
from idl_audit.decide.many import decided_together
from idl_audit.decide.proofs import Recorded, proof_of
from idl_audit.decide.rungs import RUNGS
from idl_audit.implicit.scaling import rescale
from idl_audit.proof.files.claims import PropertyClaim
from idl_audit.proof.files.file import ProofFile
from idl_audit.proof.float_margins import Arithmetic, Unbounded
from idl_audit.report.schema import AgreementCheck, Diagnostic, PropertyReport, PropertyResult, Report
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import is_whole
from idl_audit.values.budget import Budget
from idl_audit.values.query import alike, plain
from idl_audit.values.verdicts import Reason, Verdict

CHECKED_POINTS: Final = 20
"""Implicit model and network are compared on so many points of the property's first box."""

_EXACT: Final = Context(prec=400, traps=[Inexact])

OUT_OF_MEMORY: Final = "it ran out of memory"
"""Why a property was not judged; that the time ran out is an answer."""


@dataclass(frozen=True, eq=False)
class Decision:
    """What is known of one property."""

    result: PropertyResult
    method: str | None = None
    witness: str | None = None
    """For sat: the counterexample in the competition's format."""
    confirmed_by: tuple[str, ...] = ()
    """For sat: who was asked about it alone."""
    reason: Reason | None = None
    diagnostics: tuple[Diagnostic, ...] = ()
    recorded: tuple[Recorded | None, ...] = ()
    """For unsat: what was recorded, one entry a query."""


def audit_property(path: Path, vnnlib: Path, options: PropertyOptions) -> Report:
    """Decide one property of one network and report on it.

    Raises:
        InvalidInputError: where the model or the property is refused.
        AgreementError: where the implicit model is not the network.
    """
    if is_version_2(vnnlib):
        return audit_query(path, vnnlib, options)
    clock = Clock()
    budget = options.budget
    with clock.step("read and convert"):
        subject = open_subject(path, options.model)
        asked = read_property(subject, vnnlib)
    with clock.step("check"):
        check = check_on_box(subject, asked, options.seed)
    with clock.step("verdict"):
        decision = decide_property(subject, asked, options, budget)
    subject.check_unchanged()
    seconds = options.time_limit - budget.left
    lost = decision.reason is Reason.MEMORY_LIMIT and options.model.max_bytes is None  # a limit is an answer
    with clock.step("certificates"):
        artifacts, uncertified = _certificate(subject, asked, decision, vnnlib, options)
    return framed_report(
        "certify",
        clock,
        seed=options.seed,
        why_incomplete="not_judged" if lost else None,
        model=subject.info,
        conversion=describe_conversion(subject.model, rescale(subject.model), check, subject.seconds),
        properties=(
            PropertyReport(
                onnx=str(path),
                vnnlib=str(vnnlib),
                result=decision.result,
                method=decision.method,
                seconds=seconds,
                time_limit=options.time_limit if math.isfinite(options.time_limit) else None,
                witness=decision.witness,
                confirmed_by=decision.confirmed_by,
                problem=OUT_OF_MEMORY if lost else None,
                sha256=row_sha256(subject.info.sha256, asked.sha256),
                external_files=subject.info.external_files,
                arithmetic=options.arithmetic,
            ),
        ),
        diagnostics=(*decision.diagnostics, *uncertified),
        artifacts=artifacts,
    )


def _certificate(
    subject: Subject, asked: AskedProperty, decision: Decision, vnnlib: Path, options: PropertyOptions
) -> tuple[tuple[str, ...], tuple[Diagnostic, ...]]:
    """Write the certificate of a property that is unsat; return the file, or say that there is none."""
    if options.certificates is None or decision.result != "unsat":
        return (), ()
    proofs = []
    arithmetic, exact = _arithmetic(subject, options), subject.exact(Preprocessing())
    budget = options.budget  # of its own: as much as the answer had
    for query, recorded in zip(asked.queries, decision.recorded, strict=True):
        proof = proof_of(
            subject.model, subject.original, query, recorded, budget=budget, arithmetic=arithmetic, exact=exact
        )
        if proof is None:
            message = f"unsat, but no certificate that stands alone was found within {options.time_limit:g} s"
            return (), (Diagnostic(code="IDL505", level="warning", message=message, where=asked.source),)
        proofs.append(proof)
    claim = PropertyClaim(vnnlib.name, asked.sha256, tuple(map(plain, asked.queries)))
    of = about(subject, options.model, Preprocessing(), options.arithmetic)
    found = ProofFile(of, claim, tuple(proofs))
    return (write_certificate(options.certificates, vnnlib, found, force=options.force),), ()


def check_on_box(subject: Subject, asked: AskedProperty, seed: int) -> AgreementCheck:
    """Compare the implicit model with the original network on points of the property's first box.

    Raises:
        AgreementError: where they differ.
    """
    box = asked.queries[0].box
    points = box.lo + np.random.default_rng(seed).random((CHECKED_POINTS, box.size)) * (box.hi - box.lo)
    return check_agreement(subject, box.project(points).astype(np.float64) if is_whole(box.point_type) else points)


def decide_property(subject: Subject, asked: AskedProperty, options: PropertyOptions, budget: Budget) -> Decision:
    """Decide the queries of a property, many alike together, the others one by one until one is sat or all time is up.

    Each of the latter gets an equal part of what is left. unsat: all of them are.
    """
    check_arithmetic(subject, options.arithmetic)
    diagnostics = tuple(_diagnostics(asked))
    model, original, arithmetic = subject.model, subject.original, _arithmetic(subject, options)
    if isinstance(arithmetic, Unbounded):
        why = without_bound("the property", arithmetic.told, where=asked.source)
        return Decision("unknown", reason=Reason.NO_ROUNDING_BOUND, diagnostics=(*diagnostics, why))
    confirm = subject.exact(Preprocessing()) if arithmetic is None else None  # else the runtime has the last word
    chosen = Options(
        seed=options.seed,
        record=options.certificates is not None,
        confirm=confirm,
        arithmetic=options.arithmetic,
    )
    known = dict(decided_together(model, original, asked.queries, chosen, budget, arithmetic=arithmetic))
    for found in known.values():
        if found.verdict is Verdict.FALSIFIED:
            return _sat(subject, found, diagnostics)
    left = [number for number in range(len(asked.queries)) if number not in known]
    for turn, number in enumerate(left):
        if budget.out_of_time:
            return Decision("timeout", reason=Reason.TIME_LIMIT, diagnostics=diagnostics)
        part = budget.part(1 / (len(left) - turn))
        known[number] = decide_query(model, original, asked.queries[number], chosen, budget=part, arithmetic=arithmetic)
        if known[number].verdict is Verdict.FALSIFIED:
            return _sat(subject, known[number], diagnostics)
    diagnostics = (*diagnostics, *_denied(asked, known.values()))
    results = [known[number] for number in range(len(asked.queries))]
    undecided = [found for found in results if found.verdict is not Verdict.CERTIFIED]
    if undecided:
        reason = next((found.reason for found in undecided if found.reason is not Reason.TIME_LIMIT), Reason.TIME_LIMIT)
        answer: PropertyResult = "timeout" if reason is Reason.TIME_LIMIT else "unknown"
        told = (*diagnostics, *_outside(asked, undecided))
        return Decision(answer, reason=reason, diagnostics=told)
    hardest = max((found.method for found in results if found.method is not None), key=list(RUNGS).index)
    rests_on = told_versions(subject) if arithmetic is not None else _in_float32(subject, asked, results, budget)
    told = (*diagnostics, *rests_on)
    return Decision("unsat", hardest, diagnostics=told, recorded=tuple(found.recorded for found in results))


def _arithmetic(subject: Subject, options: PropertyOptions) -> Arithmetic:
    return None if options.arithmetic == "real" else float_margins(subject, Preprocessing())


def _outside(asked: AskedProperty, undecided: Sequence[Result]) -> Iterator[Diagnostic]:
    """Say which operators may have no value in the boxes that are undecided."""
    for detail in dict.fromkeys(found.detail for found in undecided if found.detail):
        yield Diagnostic(code="IDL212", level="warning", message=detail, where=asked.source)


def _denied(asked: AskedProperty, results: Iterable[Result]) -> Iterator[Diagnostic]:
    """Say that the network as it runs has counterexamples, and exact arithmetic none of them."""
    count = sum(found.denied for found in results)
    if count:
        yield told_denied(count, "property", where=asked.source)


def _sat(subject: Subject, found: Result, diagnostics: tuple[Diagnostic, ...]) -> Decision:
    assert found.found is not None  # a falsified query has its point
    point = found.found
    witness = witness_text(point.pinned or point.point.tolist(), point.outputs)
    confirmed = tuple(filter(None, (subject.original.name if point.replays else "", point.confirmed_by)))
    return Decision("sat", found.method, witness, confirmed, diagnostics=diagnostics)


def _in_float32(
    subject: Subject, asked: AskedProperty, results: Sequence[Result], budget: Budget
) -> Iterator[Diagnostic]:
    """Say where what is proved is not above what floating-point arithmetic may change."""
    margins = float_margins(subject, Preprocessing())
    if isinstance(margins, Unbounded):
        yield told_unknown(margins, "unsat", where=asked.source)
        return
    yield from told_versions(subject)
    close, largest = 0, 0.0
    for numbers in alike(asked.queries):
        queries, found = [asked.queries[i] for i in numbers], [results[i] for i in numbers]
        proved = np.array([one.lowers for one in found], np.float64)
        every = errors_of_alike(margins, queries, proved, [one.states for one in found], check=budget.check)
        for own, errors in zip(proved, every, strict=True):
            if not (own > errors).all():
                close, largest = close + 1, max(largest, float(errors[~(own > errors)].max()))
    if close:
        size = f": up to {largest:.1e}, as far as is proved" if largest < np.inf else ", as far as is proved"
        yield Diagnostic(
            code="IDL202",
            level="warning",
            message=f"unsat, by a margin that is not known to be above what float32 arithmetic may change in it{size}",
            hint="the proof holds in exact arithmetic for the weights in the file",
            where=asked.source,
        )


def witness_text(point: Sequence[float | Fraction], outputs: FloatArray) -> str:
    """Return a counterexample as the competition writes it: ((X_0 value) ... (Y_0 value) ...), one number a line.

    Exact numbers are written exactly: as decimals, or as quotients where they are none.
    """
    named = [*((f"X_{i}", _written(value)) for i, value in enumerate(point))]
    named += [(f"Y_{j}", _written(value)) for j, value in enumerate(outputs.tolist())]
    return "(" + "\n".join(f"({name} {value})" for name, value in named) + ")"


def _written(value: float | Fraction) -> str:
    if not isinstance(value, Fraction):
        return repr(float(value))
    if Fraction(float(value)) == value:
        return repr(float(value))
    try:
        return f"{_EXACT.divide(Decimal(value.numerator), Decimal(value.denominator)):f}"
    except Inexact:
        quotient = f"(/ {abs(value.numerator)} {value.denominator})"
        return f"(- {quotient})" if value < 0 else quotient


def _diagnostics(asked: AskedProperty) -> Iterator[Diagnostic]:
    yield from without_last_operator(asked.stripped, "it changes no comparison of outputs")
    for query in asked.queries:
        lo, hi = query.box.float32_bounds()
        if (lo > hi).any():
            yield Diagnostic(
                code="IDL501",
                level="warning",
                message=f"no {query.box.point_type.name} number lies between the bounds of "
                f"X_{int(np.argmax(lo > hi))}, so no counterexample can be handed to the network and sat cannot be "
                "found",
                hint=f"widen the bounds to numbers that {query.box.point_type.name} holds",
                where=asked.source,
            )
            return
