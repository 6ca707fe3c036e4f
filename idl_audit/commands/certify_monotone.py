"""certify with --monotone: whether a score never falls, or never rises, while one input rises."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from idl_audit.commands.options.robustness import MonotoneOptions
from idl_audit.commands.options.scores import Direction
from idl_audit.commands.shared.boxes import sample_sets, threat_model
from idl_audit.commands.shared.frame import Clock, framed_report, without_last_operator
from idl_audit.commands.shared.preflight import Teller, preflight, tell_nobody
from idl_audit.commands.shared.progress import Progress, Watcher
from idl_audit.commands.shared.proof_files import about, write
from idl_audit.commands.shared.ranges import Ranges, refuse_other_size
from idl_audit.commands.shared.samples import describe_data, open_samples
from idl_audit.commands.shared.subject import (
    CHECKED_SAMPLES,
    Subject,
    check_agreement,
    describe_conversion,
    open_subject,
)
from idl_audit.commands.shared.whole_numbers import refuse_fractions_of, with_range
from idl_audit.data.features import Features, read_features
from idl_audit.data.numbers import check_eps_units
from idl_audit.data.samples import Samples
from idl_audit.decide.everywhere import Everywhere, as_interval, decide_rising
from idl_audit.decide.monotone import Monotone, Question, decide_monotone
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.scaling import rescale
from idl_audit.proof.files.claims import Ball, MonotoneClaim
from idl_audit.proof.files.file import ProofFile
from idl_audit.proof.files.ranges import NeverFalls, RangeClaim
from idl_audit.proof.forest import Forest
from idl_audit.proof.monotone import RANKING, score_rows
from idl_audit.report.schema import (
    Diagnostic,
    MonotoneCounts,
    MonotoneResult,
    MonotoneSample,
    Monotonicity,
    Report,
    Verdict,
    WrongWay,
)
from idl_audit.values.arrays import FloatArray
from idl_audit.values.box import Box, is_whole
from idl_audit.values.budget import Budget
from idl_audit.values.errors import DataError, OptionError
from idl_audit.values.mixed import Cell


def audit_monotone(
    path: Path,
    options: MonotoneOptions,
    *,
    watch: Watcher = lambda progress: None,
    tell: Teller = tell_nobody,
) -> Report:
    """Decide for every sample and radius; Ctrl-C leaves a valid, incomplete report.

    Raises:
        InvalidInputError: where the model, the data or an option is refused.
        UnsupportedModelError: where the model is none that such proofs are known of.
        AgreementError: where the implicit model is not the network.
    """
    clock = Clock()
    with clock.step("read and convert"):
        subject = open_subject(path, options.model)
        options = replace(options, data=with_range(subject, options.data))
        preprocessing = options.data.preprocessing
        samples = open_samples(subject, options.data, with_labels=False)
        features = None if options.features is None else read_features(options.features)
        if features is None:
            ends = float(samples.inputs.min()), float(samples.inputs.max())
            check_eps_units(options.eps, *ends, preprocessing.bounds, whole=is_whole(subject.point_type))
        else:
            refuse_other_size(features, subject.model.n_inputs, path)
            refuse_fractions_of(subject, features)
        ranges, way = Ranges(subject, preprocessing, features), _way(options, features)
        feature = ranges.place(way.name, "--monotone")
        question, score = question_of(subject, feature, way.direction, options.label)
    with clock.step("check"):
        inputs = preprocessing.apply(samples.inputs[:CHECKED_SAMPLES], subject.input_shape)
        check = check_agreement(subject, inputs.astype(float))
    with clock.step("preflight"):
        noted = preflight(subject, samples, options.data, eps=options.eps if features is None else (), tell=tell)
    sets = list(_sets(ranges, samples, options, feature))
    model, network = subject.in_data_units(preprocessing), subject.network(preprocessing)
    if options.certificates is not None:
        options.certificates.mkdir(exist_ok=True)
    found: list[dict[float, Monotone]] = []
    files: list[str] = []
    total, verdicts, why = samples.n * len(options.eps), Counter[str](), None
    with clock.step("verdicts"):
        try:
            for index, sample, row in zip(samples.indices, samples.inputs, sets, strict=True):
                results = {}
                for radius, around in zip(options.eps, row, strict=True):
                    budget = Budget.of(options.time_limit, nodes=options.max_nodes, max_bytes=options.model.max_bytes)
                    if isinstance(around, Cell):
                        one = _of_rows(decide_rising(model, network, question, around, budget, options.seed))
                    else:
                        one = decide_monotone(model, network, question, sample, around, budget, options.seed)
                    results[radius.value] = one
                    if one.tree is not None and options.certificates is not None:
                        place = options.certificates / f"sample-{int(index)}-eps-{radius.value!r}-monotone.npz"
                        claim: MonotoneClaim | RangeClaim
                        if isinstance(around, Cell):
                            falls = NeverFalls(feature, options.label or 0, way.direction == "+")
                            claim = RangeClaim(as_interval(around, feature), falls)
                        else:
                            claim = _claim(options, feature, sample, radius.value, int(index), way)
                        files.append(_written(options, subject, model, claim, one.tree, place))
                    verdicts[one.verdict.value] += 1
                    watch(Progress(verdicts.total(), total, verdicts))
                found.append(results)
        except KeyboardInterrupt:
            why = "interrupted"
    subject.check_unchanged()
    each = list(zip(samples.indices, samples.inputs, found, strict=False))
    counts = {eps.value: Counter(results[eps.value].verdict for results in found) for eps in options.eps}
    name, rises = subject.original.name, way.direction == "+"
    return framed_report(
        "certify",
        clock,
        seed=options.seed,
        why_incomplete="interrupted" if why else None,
        model=subject.info,
        conversion=describe_conversion(subject.model, rescale(subject.model), check, subject.seconds),
        data=describe_data(samples, options.data),
        threat_model=threat_model(options.eps, preprocessing.bounds, free=(feature,), features=features),
        monotonicity=Monotonicity(
            input=feature,
            name=way.name,
            direction=way.direction,
            score=score,
            label=options.label,
            per_eps=tuple(
                MonotoneCounts(
                    eps=eps.value,
                    n=len(found),
                    certified=counts[eps.value][Verdict.CERTIFIED],
                    falsified=counts[eps.value][Verdict.FALSIFIED],
                    unknown=counts[eps.value][Verdict.UNKNOWN],
                )
                for eps in options.eps
            ),
            samples=tuple(
                MonotoneSample(
                    index=int(index),
                    results=tuple(
                        _result(eps.value, results[eps.value], x, feature, name, rises=rises) for eps in options.eps
                    ),
                )
                for index, x, results in each
            ),
        ),
        artifacts=tuple(files),
        diagnostics=(*noted, *_diagnostics(subject)),
    )


def told_of_features(features: Features | None) -> list[Direction]:
    """Return the ways that a file of features says that a score goes."""
    found = () if features is None else features.features
    return [Direction(one.name, one.monotone) for one in found if one.monotone is not None]


def _way(options: MonotoneOptions, features: Features | None) -> Direction:
    """Return the input that rises. Raises OptionError where the file of features names none, or several."""
    if not options.monotone.of_features:
        return options.monotone
    told = told_of_features(features)
    if len(told) != 1:
        named = " and ".join(map(str, told)) or "no feature"
        raise OptionError(
            f"{options.features} calls {named} monotone, and around samples one input rises: name it, "
            f"such as --monotone {told[0] if told else 'age+'}"
        )
    return told[0]


def _sets(ranges: Ranges, samples: Samples, options: MonotoneOptions, feature: int) -> Iterator[Sequence[Box | Cell]]:
    """Yield for each sample the sets of every radius: boxes, or valid rows, in which one input moves freely.

    Raises:
        DataError: where a sample lies outside its range, or is no valid row.
    """
    bounds, features = options.data.preprocessing.bounds, ranges.features
    if features is None:
        for row in sample_sets(samples, options.eps, bounds, free=(feature,)):
            read = [ranges.subject.readable(one, options.data.preprocessing) for one in row]
            yield [one for one in read if isinstance(one, Box)]
        return
    for index, x in zip(samples.indices, samples.inputs, strict=True):
        try:
            cells = [features.rising(x, radius.value, feature, bounds) for radius in options.eps]
        except DataError as error:
            raise DataError(f"sample {int(index)}: {error}") from error
        yield [ranges.readable(cell) for cell in cells]


def _of_rows(found: Everywhere) -> Monotone:
    """Return what is known of valid rows: where it is certified, the score falls nowhere, and no slope is known."""
    slope = 0.0 if found.verdict is Verdict.CERTIFIED else None
    return Monotone(found.verdict, found.reason, found.fall, slope, found.n_parts, found.tree, found.seconds)


def _claim(
    options: MonotoneOptions, feature: int, sample: FloatArray, eps: float, index: int, way: Direction
) -> MonotoneClaim:
    ball = Ball(sample, eps, clip=options.data.preprocessing.bounds, free=(feature,))
    return MonotoneClaim(ball, options.label or 0, way.direction == "+", index)


def _written(
    options: MonotoneOptions,
    subject: Subject,
    model: ImplicitModel,
    claim: MonotoneClaim | RangeClaim,
    tree: Forest,
    path: Path,
) -> str:
    """Write the certificate of one sample, checked anew; return its file."""
    refused = claim.misfit(model) or claim.refused(model, tree)
    if refused:
        raise AssertionError(f"a proof that was found does not hold: {refused}")
    of = about(subject, options.model, options.data.preprocessing)
    write(path, ProofFile(of, claim, tree=tree), force=options.force)
    return str(path)


def question_of(
    subject: Subject, feature: int, direction: Literal["+", "-"], label: int | None
) -> tuple[Question, str]:
    """Return what must not fall, and what the score is, in words.

    Of a class before a last softmax, the score falls nowhere where no difference to another output does.

    Raises:
        OptionError: where the class is none of the outputs, or one is needed.
    """
    q, stripped = subject.model.n_outputs, subject.model.stripped_output
    sign = 1.0 if direction == "+" else -1.0
    if q == 1:
        if label is not None:
            raise OptionError(f"--class names an output, and {subject.path} has one; leave it out")
        return _of_output(feature, 0, 1, sign), "the output"
    if label is None or not label < q:
        which = "" if label is None else f", not {label}"
        raise OptionError(
            f"--monotone is about the score of one class of {subject.path}: name it with --class, 0 to {q - 1}{which}"
        )
    if not stripped:
        return _of_output(feature, label, q, sign), f"output {label}"
    if stripped not in RANKING:
        raise OptionError(
            f"--monotone knows no rule for the last operator {stripped} of {subject.path}; export without it"
        )
    rows = score_rows(subject.model, label, rises=sign > 0)
    assert rows is not None
    return Question(feature, rows, _column(label, sign), _log_share(label, sign)), f"{stripped} output {label}"


def _of_output(feature: int, label: int, q: int, sign: float) -> Question:
    score = _column(label, sign)
    return Question(feature, sign * np.eye(q)[label][None], score, score)


def _column(label: int, sign: float) -> Callable[[FloatArray], FloatArray]:
    return lambda outputs: np.asarray(sign * outputs[:, label])


def _log_share(label: int, sign: float) -> Callable[[FloatArray], FloatArray]:
    """Return sign times the logarithm of a class's softmax."""

    def score(outputs: FloatArray) -> FloatArray:
        apart = outputs - outputs.max(axis=1, keepdims=True)
        return np.asarray(sign * (apart[:, label] - np.log(np.exp(apart).sum(axis=1))))

    return score


def _result(
    eps: float, found: Monotone, sample: FloatArray, feature: int, network: str, *, rises: bool
) -> MonotoneResult:
    wrong = None
    if found.found is not None:
        low, high = found.found.low.astype(np.float64), found.found.high.astype(np.float64)
        others = np.delete(np.abs(low - sample), feature)
        scores = [score if rises else -score for score in found.found.scores]
        wrong = WrongWay(
            low=float(low[feature]),
            high=float(high[feature]),
            score_low=scores[0],
            score_high=scores[1],
            linf=float(others.max(initial=0.0)),
            confirmed_by=(network, "the implicit model"),
        )
    return MonotoneResult(
        eps=eps,
        verdict=found.verdict,
        reason=found.reason,
        found=wrong,
        slope=None if found.slope is None else max(found.slope, 0.0),
        parts=found.parts,
        seconds=found.seconds,
    )


def _diagnostics(subject: Subject) -> Iterator[Diagnostic]:
    why = "its output of a class rises where all differences of the class to others do, which is what is proved"
    yield from without_last_operator(subject.info.stripped_output, why)
