"""certify with --everywhere: statements over the whole range of the inputs, and what is open of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, TypeAlias

import numpy as np

from idl_audit.commands.certify_monotone import question_of, told_of_features
from idl_audit.commands.options.everywhere import NO_SCORE, NOTHING_ASKED, EverywhereOptions
from idl_audit.commands.options.scores import Direction
from idl_audit.commands.shared.classifier import as_classifier
from idl_audit.commands.shared.frame import Clock, framed_report
from idl_audit.commands.shared.progress import Progress, Watcher
from idl_audit.commands.shared.proof_files import about, write
from idl_audit.commands.shared.ranges import Ranges, range_sha256, refuse_other_size
from idl_audit.commands.shared.subject import Subject, check_agreement, describe_conversion, open_subject
from idl_audit.commands.shared.whole_numbers import refuse_fractions_of, within_range
from idl_audit.data.features import read_features
from idl_audit.data.statements import Never
from idl_audit.decide.everywhere import Everywhere, Part, as_interval, decide_everywhere, decide_rising, drawn
from idl_audit.decide.ladder import Options
from idl_audit.decide.proofs import proof_of
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.scaling import rescale
from idl_audit.proof.files.file import ProofFile
from idl_audit.proof.files.ranges import NeverFalls, NeverPredicted, RangeClaim
from idl_audit.report.pictures import plot_parts
from idl_audit.report.schema import (
    Diagnostic,
    OpenPart,
    PartsMap,
    Report,
    WholeStatement,
    Witness,
)
from idl_audit.report.schema import Everywhere as EverywhereInfo
from idl_audit.values.arrays import FloatArray
from idl_audit.values.budget import Budget
from idl_audit.values.demand import Limits
from idl_audit.values.errors import OptionError, UnsupportedModelError
from idl_audit.values.files import write_whole
from idl_audit.values.mixed import Cell
from idl_audit.values.verdicts import Verdict

MOST_LISTED: Final = 20
"""Open parts that a report lists."""
GRID: Final = 32
"""Cells of the picture along each of its two inputs."""
CHECKED: Final = 20
"""The implicit model is compared with the network at so many points of the range."""

Kind: TypeAlias = Literal["above", "below", "never", "monotone"]


@dataclass(frozen=True, eq=False)
class _Asked:
    """One statement: its words, its range, and how it is decided."""

    text: str
    kind: Kind
    cell: Cell
    decide: Callable[[Budget], Everywhere]
    subject: Subject
    model: ImplicitModel
    """In data units."""
    claim: RangeClaim
    """What is known where it is certified."""
    told: tuple[str, ...] = field(default=())


def audit_everywhere(path: Path, options: EverywhereOptions, *, watch: Watcher = lambda progress: None) -> Report:
    """Decide statements over the whole range of a network's inputs and report on it.

    Ctrl-C leaves a valid, incomplete report.

    Raises:
        InvalidInputError: where the model or an option is refused.
        UnsupportedModelError: where the model is none that such proofs are known of.
        AgreementError: where the implicit model is not the network.
    """
    clock = Clock()
    with clock.step("read and convert"):
        subject = open_subject(path, options.model)
        options = replace(options, preprocessing=within_range(subject, options.preprocessing))
        ranges = _ranges(subject, options)
        asked = tuple(_statements(path, ranges, options))
        if not asked:
            raise OptionError(NOTHING_ASKED)
        if options.label is not None and all(one.kind != "monotone" for one in asked):
            raise OptionError(NO_SCORE)
        axes = None if options.axes is None else tuple(ranges.place(name, "--axes") for name in options.axes)
    with clock.step("check"):
        check = check_agreement(subject, _points(ranges, options))
    found: list[WholeStatement] = []
    files: list[str] = []
    verdicts, why = Counter[str](), False
    if options.certificates is not None:
        options.certificates.mkdir(exist_ok=True)
    with clock.step("verdicts"):
        try:
            for one in asked:
                budget = Budget.of(options.time_limit, nodes=options.max_nodes, max_bytes=options.model.max_bytes)
                result = one.decide(budget)
                proof = _written(one, result, options, len(found))
                files += [] if proof is None else [proof]
                found.append(_told(one, result, ranges, axes, proof))
                verdicts[result.verdict.value] += 1
                watch(Progress(len(found), len(asked), verdicts))
        except KeyboardInterrupt:
            why = True
    subject.check_unchanged()
    info = None if ranges.features is None else ranges.features
    report = framed_report(
        "certify",
        clock,
        seed=options.seed,
        why_incomplete="interrupted" if why else None,
        model=subject.info,
        conversion=describe_conversion(subject.model, rescale(subject.model), check, subject.seconds),
        everywhere=EverywhereInfo(
            bounds=options.preprocessing.bounds,
            features=None if info is None else str(info.path),
            features_sha256=None if info is None else info.sha256,
            ranges=ranges.all_told(ranges.whole),
            statements=tuple(found),
        ),
        artifacts=tuple(files),
        diagnostics=tuple(_diagnostics(subject)),
    )
    return _plotted(report, options)


def _plotted(report: Report, options: EverywhereOptions) -> Report:
    drawn_ = report.everywhere is not None and any(one.map is not None for one in report.everywhere.statements)
    if options.plot is None or not drawn_:
        return report
    write_whole(options.plot, lambda stream: plot_parts(report, stream))
    return report.model_copy(update={"artifacts": (*report.artifacts, str(options.plot))})


def _written(asked: _Asked, found: Everywhere, options: EverywhereOptions, number: int) -> str | None:
    """Write the certificate of a statement, checked anew; return its file, None where there is none."""
    if options.certificates is None or found.verdict is not Verdict.CERTIFIED:
        return None
    of, model = about(asked.subject, options.model, options.preprocessing), asked.model
    proof = ProofFile(of, asked.claim, tree=found.tree)
    if found.tree is None:
        budget = Budget.of(options.time_limit, nodes=options.max_nodes, max_bytes=options.model.max_bytes)
        network, (query,) = asked.subject.network(options.preprocessing), asked.claim.queries(model)
        made = proof_of(model, network, query, found.recorded, budget=budget)
        if made is None:
            return None
        proof = replace(proof, proofs=(made,))
    if not proof.checked(model).accepted:
        return None
    path = options.certificates / f"statement-{number}-{asked.kind}.npz"
    write(path, proof, force=options.force)
    return str(path)


def _ranges(subject: Subject, options: EverywhereOptions) -> Ranges:
    features = None if options.features is None else read_features(options.features)
    if features is not None:
        refuse_other_size(features, subject.model.n_inputs, subject.path)
        refuse_fractions_of(subject, features)
    return Ranges(subject, options.preprocessing, features)


def _points(ranges: Ranges, options: EverywhereOptions) -> FloatArray:
    rows = drawn(ranges.whole, CHECKED, np.random.default_rng(options.seed))
    return options.preprocessing.apply(rows.astype(np.float64), ranges.subject.input_shape).astype(np.float64)


# --- statements ------------------------------------------------------------------------------------------------------


def _statements(path: Path, ranges: Ranges, options: EverywhereOptions) -> Iterator[_Asked]:
    if options.limits.has_limits:
        yield from _limits(path, ranges, options)
    if options.never:
        subject = as_classifier(ranges.subject, options.model.threshold)
        for never in options.never:
            yield _never(never, subject, ranges, options)
    if options.monotone is not None and not options.monotone.of_features:
        yield _monotone(ranges, options, options.monotone)
    else:
        yield from (_monotone(ranges, options, way) for way in told_of_features(ranges.features))


def _limits(path: Path, ranges: Ranges, options: EverywhereOptions) -> Iterator[_Asked]:
    """Yield that outputs stay above or below a number."""
    subject, asked = open_subject(path, options.model, whole=True), options.limits
    if subject.model.stripped_output:
        raise UnsupportedModelError(
            [f"{path} leaves out its last operator, {subject.model.stripped_output}, and values count here"]
        )
    q = subject.model.n_outputs
    outputs = np.arange(q) if asked.of_outputs is None else np.asarray(sorted(set(asked.of_outputs)))
    if outputs.max(initial=0) >= q:
        raise OptionError(f"--of-outputs must list outputs of the network, 0 to {q - 1}")
    who = "every output" if asked.of_outputs is None and q > 1 else f"output {', '.join(map(str, outputs))}"
    kinds: tuple[tuple[Kind, int, float | None], ...] = (("above", 1, asked.above), ("below", -1, asked.below))
    for kind, side, value in kinds:
        if value is not None:
            n = outputs.size
            limits = Limits(outputs, np.full(n, side), np.full(n, value), np.ones(n, np.bool_))
            text = f"{who} stays {kind} {value:.9g}"
            yield _ruled(text, kind, subject, RangeClaim(ranges.whole, limits), options)


def _never(never: Never, subject: Subject, ranges: Ranges, options: EverywhereOptions) -> _Asked:
    """Return that a class is nowhere predicted where conditions hold: y_class >= y_j for all j, ties to the first."""
    q, label = subject.model.n_outputs, never.label
    if not (q > 1 and label < q):
        raise OptionError(f"--never speaks of class {label}, and {subject.path} has classes 0 to {q - 1}")
    cell = ranges.where(ranges.whole, never.conditions, "--never")
    text = f"class {label} is never predicted"
    if never.conditions:
        text += f" where {' and '.join(map(str, never.conditions))}"
    return _ruled(text, "never", subject, RangeClaim(cell, NeverPredicted(label)), options)


def _ruled(text: str, kind: Kind, subject: Subject, claim: RangeClaim, options: EverywhereOptions) -> _Asked:
    units = options.preprocessing
    chosen = Options(
        seed=options.seed,
        time_limit=options.time_limit,
        max_nodes=options.max_nodes,
        max_bytes=options.model.max_bytes,
        confirm=subject.exact(units),
        record=options.certificates is not None,
    )
    model, network = subject.in_data_units(units), subject.network(units)

    def decide(budget: Budget) -> Everywhere:
        (query,) = claim.queries(model)
        return decide_everywhere(model, network, claim.cell, query, chosen, budget)

    return _Asked(text, kind, claim.cell, decide, subject, model, claim)


def _monotone(ranges: Ranges, options: EverywhereOptions, way: Direction) -> _Asked:
    subject, units = ranges.subject, options.preprocessing
    feature = ranges.place(way.name, "--monotone")
    question, score = question_of(subject, feature, way.direction, options.label)
    cell = ranges.whole
    model, network = subject.in_data_units(units), subject.network(units)
    text = f"{score} never {'falls' if way.direction == '+' else 'rises'} while {way.name} rises"

    def decide(budget: Budget) -> Everywhere:
        found = decide_rising(model, network, question, cell, budget, options.seed)
        return found if way.direction == "+" or found.fall is None else _turned(found)

    claim = RangeClaim(as_interval(cell, feature), NeverFalls(feature, options.label or 0, way.direction == "+"))
    return _Asked(text, "monotone", cell, decide, subject, model, claim, (subject.original.name, "the implicit model"))


def _turned(found: Everywhere) -> Everywhere:
    """Return a fall of minus the score as what the score does."""
    assert found.fall is not None
    first, second = found.fall.scores
    return replace(found, fall=replace(found.fall, scores=(-first, -second)))


# --- what a report says ----------------------------------------------------------------------------------------------


def _told(
    asked: _Asked, found: Everywhere, ranges: Ranges, axes: Sequence[int] | None, proof: str | None
) -> WholeStatement:
    listed = tuple(
        OpenPart(share=min(1.0, part.share), limits=ranges.told(asked.cell, part.lo, part.hi, part.choices))
        for part in found.open[:MOST_LISTED]
    )
    holding, failing = found.holding_share, min(1.0, found.failing_share)
    return WholeStatement(
        text=asked.text,
        kind=asked.kind,
        range_sha256=range_sha256(asked.cell),
        verdict=found.verdict,
        reason=found.reason,
        method=found.method,
        holding=holding,
        failing=failing,
        open=max(0.0, 1.0 - holding - failing),
        n_parts=found.n_parts,
        n_open=len(found.open),
        open_parts=listed,
        map=_map(asked.cell, found, ranges, axes),
        witness=_witness(asked, found, ranges) if found.verdict is Verdict.FALSIFIED else None,
        certificate=proof,
        seconds=found.seconds,
    )


def _witness(asked: _Asked, found: Everywhere, ranges: Ranges) -> Witness | None:
    features = ranges.features
    if found.fall is not None:
        low, high = (row.astype(np.float64) for row in (found.fall.low, found.fall.high))
        outputs, who, second = found.fall.scores, asked.told, tuple(high.tolist())
    elif found.found is not None:
        low, second = found.found.point.astype(np.float64), ()
        outputs = tuple(found.found.outputs.tolist())
        confirmed = found.found.confirmed_by
        who = (asked.subject.original.name, *((confirmed,) if confirmed else ()))
    else:
        return None
    told = () if features is None else tuple((one.name, one.told(low)) for one in features.features)
    return Witness(
        point=tuple(low.tolist()),
        second=second,
        told=told,
        outputs=tuple(float(y) if np.isfinite(y) else None for y in outputs),
        confirmed_by=who,
    )


def _map(cell: Cell, found: Everywhere, ranges: Ranges, axes: Sequence[int] | None) -> PartsMap | None:
    """Return shares of what is open and what fails over two inputs; None where nothing is, or only one input moves."""
    if not (found.open or found.failing):
        return None
    box = cell.hull
    x, y = axes or _cut_most(box.hi - box.lo, [*found.open, *found.failing], cell)
    if x == y or not (box.lo[x] < box.hi[x] and box.lo[y] < box.hi[y]):
        return None
    names = {k: name for name, columns in ranges.names() for k in columns}
    ends = [(float(box.lo[k]), float(box.hi[k])) for k in (x, y)]
    open_, failing = (_over(parts, x, y, ends) for parts in (found.open, found.failing))
    return PartsMap(
        x=names[x],
        y=names[y],
        x_place=x,
        y_place=y,
        x_ends=ends[0],
        y_ends=ends[1],
        open=open_,
        failing=failing,
    )


def _cut_most(width: FloatArray, parts: Sequence[Part], cell: Cell) -> tuple[int, int]:
    """Return the two inputs along which parts are narrowest, those of categories last."""
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = [np.where(width > 0, (part.hi - part.lo) / width, 2.0) for part in parts]
    mean = np.mean(shares, axis=0)
    for choice in cell.choices:
        if len(choice.columns) > 1:
            mean[list(choice.columns)] += 2.0
    chosen = sorted(np.argsort(mean, kind="stable")[:2].tolist())
    return int(chosen[0]), int(chosen[-1])


def _over(parts: Sequence[Part], x: int, y: int, ends: Sequence[tuple[float, float]]) -> tuple[tuple[float, ...], ...]:
    """Return which share of the volume above each cell of a grid some parts take, rows from the bottom."""
    total = np.zeros((GRID, GRID))
    for part in parts:
        columns = _overlap(part.lo[x], part.hi[x], *ends[0])
        rows = _overlap(part.lo[y], part.hi[y], *ends[1])
        total += part.share * np.outer(rows, columns)
    return tuple(tuple(row) for row in np.clip(total * GRID**2, 0.0, 1.0).tolist())


def _overlap(lo: float, hi: float, first: float, last: float) -> FloatArray:
    """Return which share of [lo, hi] lies in each cell of the grid over [first, last]; all in one where lo = hi."""
    grid = first + (last - first) * np.arange(GRID + 1) / GRID
    if lo == hi:
        found = np.zeros(GRID)
        found[min(GRID - 1, max(0, int(np.searchsorted(grid, lo, side="right")) - 1))] = 1.0
        return found
    covered = np.minimum(hi, grid[1:]) - np.maximum(lo, grid[:-1])
    return np.asarray(np.maximum(0.0, covered) / (hi - lo))


def _diagnostics(subject: Subject) -> Iterator[Diagnostic]:
    operator = subject.info.stripped_output
    if operator:
        yield Diagnostic(
            code="IDL201",
            level="info",
            message=f"the last operator, {operator}, is left out where classes or the order of scores count, which it "
            "does not change",
        )
