"""bounds: intervals for every state and output around every sample, and what each method gains."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from idl_audit.commands.options.measures import BoundsOptions
from idl_audit.commands.shared.boxes import sample_set, threat_model
from idl_audit.commands.shared.float_margins import check_arithmetic, float_margins
from idl_audit.commands.shared.frame import Clock, framed_report, without_last_operator
from idl_audit.commands.shared.preflight import Teller, preflight, tell_nobody
from idl_audit.commands.shared.progress import Progress, Watcher
from idl_audit.commands.shared.samples import describe_data, open_samples
from idl_audit.commands.shared.subject import (
    CHECKED_SAMPLES,
    Subject,
    check_agreement,
    describe_conversion,
    open_subject,
)
from idl_audit.commands.shared.whole_numbers import with_range
from idl_audit.data.numbers import Eps, check_eps_units
from idl_audit.data.radii import read_radii
from idl_audit.data.samples import Samples
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.scaling import rescale
from idl_audit.measure.state_bounds import Counts, Prepared, SetBounds, bound_set, counts, prepare
from idl_audit.proof.bounds import Interval
from idl_audit.proof.domains import why_outside
from idl_audit.proof.float_margins import FloatMargins, Unbounded
from idl_audit.report.schema import BlockBounds, Diagnostic, MethodBounds, OutputBounds, Report
from idl_audit.values.arrays import AnyArray, FloatArray
from idl_audit.values.box import is_whole
from idl_audit.values.budget import Budget
from idl_audit.values.errors import BudgetError, DataError, OptionError, UnsupportedModelError
from idl_audit.values.input_sets import InputSet
from idl_audit.values.npz import write_npz
from idl_audit.values.rounding import down, up

OUTPUTS: Final = "outputs"
"""What the entry of the outputs is called."""

LARGEST_SAVED: Final = 4 * 2**30
"""Bytes that --save may collect."""


def audit_bounds(
    path: Path, options: BoundsOptions, *, watch: Watcher = lambda progress: None, tell: Teller = tell_nobody
) -> Report:
    """Bound states and outputs around every sample at every radius; Ctrl-C leaves a valid, incomplete report.

    Raises:
        InvalidInputError: where the model, the data or an option is refused; nothing is written.
        AgreementError: where the implicit model is not the network.
    """
    clock = Clock()
    with clock.step("read and convert"):
        subject = open_subject(path, options.model)
        check_arithmetic(subject, options.arithmetic)
        options = replace(options, data=with_range(subject, options.data))
        samples = open_samples(subject, options.data, with_labels=False)
        sets = _Sets(options, subject, samples)
    preprocessing = options.data.preprocessing
    with clock.step("check"):
        inputs = preprocessing.apply(samples.inputs[:CHECKED_SAMPLES], subject.input_shape)
        check = check_agreement(subject, inputs.astype(float))
    with clock.step("preflight"):
        radii = () if options.sigma is not None else options.eps
        noted = preflight(subject, samples, options.data, eps=radii, tell=tell)
    model, margins = subject.in_data_units(preprocessing), _float_margins(subject, options)
    _check_save(model, samples, options)
    with clock.step("matrices"):
        prepared = prepare(model, options.methods, sparse=options.sparse is not None, max_bytes=options.model.max_bytes)
    found = [_Found(radius, model, keep=options.save is not None) for radius in options.eps]
    with clock.step("bounds"):
        complete = _bound_all(prepared, sets, found, options, watch, margins)
    if options.save is not None:
        write_npz(options.save, _arrays(model, found, samples), force=options.force)
    return framed_report(
        "bounds",
        clock,
        why_incomplete=None if complete else "interrupted",
        model=subject.info,
        conversion=describe_conversion(subject.model, rescale(subject.model), check, subject.seconds),
        data=describe_data(samples, options.data),
        threat_model=threat_model(
            options.eps,
            preprocessing.bounds,
            sigma=options.sigma,
            radii=sets.sigma,
            k=options.sparse,
            arithmetic=options.arithmetic,
        ),
        bounds=tuple(entry for one in found for entry in one.entries()),
        diagnostics=(*noted, *_diagnostics(subject, prepared, found, options)),
        artifacts=() if options.save is None else (str(options.save),),
    )


class _Sets:
    """The input sets of all samples; a sample outside the valid range is refused before any work is done."""

    def __init__(self, options: BoundsOptions, subject: Subject, samples: Samples) -> None:
        self.samples = samples
        self._subject, self._options = subject, options
        self._valid = options.data.preprocessing.bounds
        self.sigma: FloatArray | None = None
        if options.sigma is None:
            ends = float(samples.inputs.min()), float(samples.inputs.max())
            check_eps_units(options.eps, *ends, self._valid, whole=is_whole(subject.point_type))
        else:
            self.sigma = read_radii(options.sigma, subject.input_shape, options.data.layout)
        for place in range(samples.n):
            for radius in options.eps:
                self.around(place, radius)

    def around(self, place: int, radius: Eps) -> InputSet:
        """Return the set around one sample."""
        x, k = self.samples.inputs[place], self._options.sparse
        try:
            found = sample_set(x, radius.value, self._valid, self.sigma, k, ())
            return self._subject.readable(found, self._options.data.preprocessing)
        except DataError as error:
            raise DataError(f"sample {int(self.samples.indices[place])}: {error}") from error


def _float_margins(subject: Subject, options: BoundsOptions) -> FloatMargins | None:
    """Return what bounds the roundings of the outputs; None in real arithmetic.

    Raises:
        UnsupportedModelError: where nothing does.
    """
    if options.arithmetic == "real":
        return None
    found = float_margins(subject, options.data.preprocessing, max_bytes=options.model.max_bytes)
    if isinstance(found, Unbounded):
        raise UnsupportedModelError([f"{subject.path}: {found.told}; leave --arithmetic {options.arithmetic} out"])
    return found


def _computed(bounds: SetBounds, inputs: InputSet, margins: FloatMargins, budget: Budget) -> SetBounds:
    """Return the bounds with those of the outputs as runtimes compute them."""
    box, error = Interval.of_boxes(inputs.hull), np.full_like(bounds.outputs.lo, np.inf)
    with suppress(BudgetError, MemoryError), np.errstate(all="ignore"):
        for sharp in (False, True) if margins.can_be_sharp else (False,):
            known = margins.over(box, bounds.states, sharp=sharp, check=budget.check)
            error = np.fmin(error, known.of_each_output())
    lo, hi = bounds.outputs.lo - error, bounds.outputs.hi + error
    return replace(bounds, outputs=Interval(down(lo), up(hi)).known)


def _bound_all(
    prepared: Prepared,
    sets: _Sets,
    found: Sequence[_Found],
    options: BoundsOptions,
    watch: Watcher,
    margins: FloatMargins | None,
) -> bool:
    """Bound all sets, all radii of a sample before the next; return whether none was left over."""
    total, done = sets.samples.n * len(found), 0
    watch(Progress(0, total, Counter()))
    try:
        for place, index in enumerate(sets.samples.indices):
            for one in found:
                budget = Budget.of(options.time_limit)
                inputs = sets.around(place, one.eps)
                bounds = bound_set(prepared, inputs, budget=budget)
                one.add(int(index), bounds if margins is None else _computed(bounds, inputs, margins, budget))
                done += 1
                watch(Progress(done, total, Counter()))
    except KeyboardInterrupt:
        return False
    return True


@dataclass
class _Widths:
    """Widths so far: their sum, their number, the largest."""

    total: float = 0.0
    n: int = 0
    largest: float = 0.0

    def add(self, interval: Interval) -> None:
        width = interval.width
        self.total += float(width.sum())
        self.n += width.size
        self.largest = float(np.maximum(self.largest, width.max(initial=0.0)))  # NaN stays

    @property
    def mean(self) -> float | None:
        return _finite(self.total / self.n) if self.n else None

    @property
    def most(self) -> float | None:
        return _finite(self.largest)


@dataclass
class _Method:
    """What one method gave on the sets so far."""

    widths: _Widths = field(default_factory=_Widths)
    n: int = 0
    unstable: list[int | None] = field(default_factory=list)
    """Of each sample."""
    seconds: float = 0.0

    @property
    def mean_unstable(self) -> float | None:
        """Mean of a sample; None where some states have no bounds."""
        known = [count for count in self.unstable if count is not None]
        return sum(known) / self.n if self.n and len(known) == self.n else None


@dataclass
class _Block:
    """What is known of one block on the sets so far."""

    widths: _Widths = field(default_factory=_Widths)
    n: int = 0
    worst: Counts | None = None
    unstable: int = 0


class _Found:
    """All sets of one radius, added up."""

    def __init__(self, eps: Eps, model: ImplicitModel, *, keep: bool) -> None:
        self.eps = eps
        self.cut_short = 0
        self.unbounded = 0
        self.outside: dict[int, str] = {}
        """Sample -> which operator may have no value in its set."""
        self.kept: list[SetBounds] = []
        self._model, self._keep = model, keep
        self._blocks = {k: _Block() for k in model.evaluation_order}
        self._methods: dict[str, _Method] = {}
        self._outputs = _Widths()
        self._samples: list[OutputBounds] = []

    def add(self, index: int, bounds: SetBounds) -> None:
        """Take in the bounds of one sample."""
        self.cut_short += bounds.cut_short
        outside, outputs = why_outside(self._model, bounds.states), bounds.outputs
        if outside:
            self.outside[index] = outside
        self.unbounded += not np.isfinite(outputs.width).all()
        self._outputs.add(outputs)
        self._samples.append(
            OutputBounds(
                index=index,
                lower=tuple(_finite(float(value)) for value in outputs.lo[0]),
                upper=tuple(_finite(float(value)) for value in outputs.hi[0]),
            )
        )
        for rung in bounds.rungs:
            method = self._methods.setdefault(rung.method, _Method())
            method.widths.add(rung.outputs)
            method.n += 1
            method.unstable.append(rung.unstable)
            method.seconds += rung.seconds
        for k, z in bounds.states.z.items():
            block = self._blocks[k]
            here = counts(self._model.blocks[k], z)
            block.widths.add(z)
            block.n += 1
            block.unstable += here.unstable
            if block.worst is None or here.unstable > block.worst.unstable:
                block.worst = here
        if self._keep:
            self.kept.append(bounds)

    @property
    def n_sets(self) -> int:
        """Samples so far."""
        return len(self._samples)

    def entries(self) -> Iterator[BlockBounds]:
        """Yield the report's entries: the blocks in order of evaluation, then the outputs."""
        for k, found in self._blocks.items():
            if found.worst is not None:
                yield BlockBounds(
                    block=self._model.blocks[k].name,
                    eps=self.eps.value,
                    size=self._model.blocks[k].size,
                    mean_width=found.widths.mean,
                    max_width=found.widths.most,
                    dead=found.worst.dead,
                    active=found.worst.active,
                    unstable=found.worst.unstable,
                    mean_unstable=found.unstable / found.n,
                )
        if self._samples:
            yield BlockBounds(
                block=OUTPUTS,
                part="outputs",
                eps=self.eps.value,
                size=self._model.n_outputs,
                mean_width=self._outputs.mean,
                max_width=self._outputs.most,
                methods=tuple(self._method_entry(name, found) for name, found in self._methods.items()),
                samples=tuple(self._samples),
            )

    @staticmethod
    def _method_entry(name: str, found: _Method) -> MethodBounds:
        return MethodBounds(
            method=name,
            n=found.n,
            mean_width=found.widths.mean,
            max_width=found.widths.most,
            unstable=found.mean_unstable,
            seconds=found.seconds,
        )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _diagnostics(
    subject: Subject, prepared: Prepared, found: Sequence[_Found], options: BoundsOptions
) -> Iterator[Diagnostic]:
    yield from without_last_operator(subject.info.stripped_output, "these are bounds of its input")
    if options.arithmetic != "real":
        yield Diagnostic(
            code="IDL405",
            level="info",
            message=f"the outputs' bounds hold for what is computed in {options.arithmetic}; those of states, and the "
            "widths by method, in exact arithmetic",
        )
    for method, why in prepared.left_out.items():
        hint = "raise --max-memory" if "exceed" in why else None
        yield Diagnostic(code="IDL401", level="info", message=f"{method}: {why}", hint=hint)
    cut_short = sum(one.cut_short for one in found)
    if cut_short:
        total = sum(one.n_sets for one in found)
        yield Diagnostic(
            code="IDL402",
            level="warning",
            message=f"the time ran out on {cut_short} of {total} sets: some of their states keep earlier bounds",
            hint="raise --time-limit",
        )
    unbounded = sum(one.unbounded for one in found)
    if unbounded:
        yield Diagnostic(
            code="IDL403",
            level="warning",
            message=f"on {unbounded} sets an output has no finite bound",
            hint="use more methods, or a smaller eps",
        )
    for one in found:
        for index, why in itertools.islice(one.outside.items(), 1):
            more = f" ({len(one.outside) - 1} samples more have such a place)" if len(one.outside) > 1 else ""
            message = f"sample {index} at eps {one.eps.text}: {why}{more}"
            yield Diagnostic(code="IDL212", level="warning", message=message)
    if options.sigma is not None:
        yield Diagnostic(
            code="IDL404",
            level="info",
            message="each input moves by at most eps times its own radius",
            where=str(options.sigma),
        )


def _check_save(model: ImplicitModel, samples: Samples, options: BoundsOptions) -> None:
    needed = 8 * samples.n * len(options.eps) * (4 * model.n_states + 2 * model.n_outputs)
    if options.save is not None and needed > LARGEST_SAVED:
        raise OptionError(
            f"--save would collect {needed / 2**30:.1f} GiB of bounds, above the limit of "
            f"{LARGEST_SAVED / 2**30:g} GiB; take fewer samples with --limit"
        )


def _arrays(model: ImplicitModel, found: Sequence[_Found], samples: Samples) -> dict[str, AnyArray]:
    """Return the arrays of --save: blocks are numbered in order of evaluation; axes are radius, sample, entry.

    Where a block has no bounds they are infinite. An interrupted run saves the samples that have all their radii.
    """
    n = min(one.n_sets for one in found)
    arrays: dict[str, AnyArray] = {
        "eps": np.array([one.eps.value for one in found]),
        "indices": samples.indices[:n],
        "blocks": np.array([model.blocks[k].name for k in model.evaluation_order], np.str_),
    }

    def collected(pick: Callable[[SetBounds], Interval | None], size: int, name: str) -> None:
        lo = np.full((len(found), n, size), -np.inf)
        hi = np.full((len(found), n, size), np.inf)
        for i, one in enumerate(found):
            for j, bounds in enumerate(one.kept[:n]):
                interval = pick(bounds)
                if interval is not None:
                    lo[i, j], hi[i, j] = interval.lo[0], interval.hi[0]
        arrays[f"{name}_lo"], arrays[f"{name}_hi"] = lo, hi

    for number, k in enumerate(model.evaluation_order):
        collected(lambda bounds, k=k: bounds.states.z.get(k), model.blocks[k].size, f"z{number}")  # type: ignore[misc]
        collected(lambda bounds, k=k: bounds.states.x.get(k), model.blocks[k].size, f"x{number}")  # type: ignore[misc]
    collected(lambda bounds: bounds.outputs, model.n_outputs, "outputs")
    return arrays
