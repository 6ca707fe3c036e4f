"""train: an implicit model from data, written as a model for every other command."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, cast

import numpy as np

from idl_audit.commands.options.models_from_data import TrainOptions
from idl_audit.commands.options.reading import DataOptions
from idl_audit.commands.shared.apart import refuse_few, refuse_shared, split
from idl_audit.commands.shared.frame import Clock, framed_report
from idl_audit.commands.shared.samples import describe_data
from idl_audit.commands.shared.subject import Subject, describe_conversion, open_subject
from idl_audit.data.examples import Examples, Kind, read_examples
from idl_audit.implicit.wellposed import MOST_STATES
from idl_audit.report.schema import Diagnostic, Fit, Report, Training
from idl_audit.training.fit import Moves, Task, Trained, outputs_of, train
from idl_audit.training.implicit import Form
from idl_audit.training.recipe import Loss, Penalties, Recipe, Solver
from idl_audit.training.schedule import Heard
from idl_audit.values.arrays import AnyArray, FloatArray
from idl_audit.values.errors import AgreementError, DataError, OptionError
from idl_audit.values.files import check_distinct
from idl_audit.values.margins import predictions
from idl_audit.values.npz import write_npz

CHECKED: Final = 20
"""Samples at which the file is compared with what was trained."""
AGREES: Final = 1e-6
"""Of max|y|: how far the two may be apart."""
FEW_PIXELS: Final = 4
"""What has no more of them along an axis may have channels there."""
UNEQUAL: Final = 100.0
"""Times that the deviation of one input is another's: in one unit, the latter is hardly seen."""


def train_model(options: TrainOptions, *, heard: Heard = lambda step: None) -> Report:
    """Train a model, write it, and read it back.

    Raises:
        InvalidInputError: where the data or options are refused; nothing is written.
        AgreementError: where the model in the file is not the one that was trained.
    """
    clock = Clock()
    check_distinct((options.data, options.labels, options.holdout.path), (options.out,))
    with clock.step("read"):
        given = _read(options, options.data, options.labels, limit=options.limit)
        held, trained = _apart(given, options)
        task = _task(trained, _n_outputs(given), options)
    with clock.step("train"):
        start = time.process_time()
        found = train(task, heard)
        seconds = time.process_time() - start
    with clock.step("write and check"):
        subject = _written(options.out, found.weights, given, force=options.force)
        rows = _as_read(held, options)
        _check_written(subject, found, task.form, rows[:CHECKED])
    with clock.step("judge"):
        fits = tuple(_fit(outputs_of(found.weights, task.form, _as_read(one, options)), one) for one in (trained, held))
    return framed_report(
        "train",
        clock,
        seed=options.seed,
        model=subject.info,
        conversion=describe_conversion(subject.model, None, None, subject.seconds),
        data=describe_data(given.samples, _data_options(options)),
        training=_described(task, found, options, seconds, fits),
        diagnostics=tuple(_diagnostics(task)),
        artifacts=(str(options.out),),
    )


# --- what is read -----------------------------------------------------------------------------------------------------


def _read(options: TrainOptions, path: Path, labels: Path | None, *, limit: int | None = None) -> Examples:
    kinds: Mapping[str, Kind | None] = {"auto": None, "squared": "numbers", "cross-entropy": "classes"}
    found = read_examples(path, labels=labels, limit=limit, kind=kinds[options.loss])
    labels_found = found.samples.labels
    if labels_found is not None and len(np.unique(labels_found)) < 2:
        raise DataError(f"{path} has samples of one class only; there is nothing to learn")
    return found


def _apart(given: Examples, options: TrainOptions) -> tuple[Examples, Examples]:
    """Return the samples to judge by, and those to train on."""
    chosen = options.holdout
    if chosen.path is not None:
        held = read_examples(chosen.path, kind=given.kind, input_shape=given.input_shape, n_outputs=_n_outputs(given))
        trained = given
        refuse_shared(held.samples, given.samples, f"--holdout {chosen.path}", "training")
    else:
        assert chosen.share is not None
        held, trained = map(given.rows, split(given.samples.n, chosen.share, options.seed))
    refuse_few(held.samples, "kept apart")
    refuse_few(trained.samples, "trained on")
    return held, trained


def _n_outputs(examples: Examples) -> int:
    """Return q: the numbers of a target, or the classes up to the largest label."""
    if examples.targets is not None:
        return int(examples.targets.shape[1])
    assert examples.samples.labels is not None
    return int(examples.samples.labels.max()) + 1


def _as_read(examples: Examples, options: TrainOptions) -> AnyArray:
    """Return the inputs as the model reads them."""
    return options.preprocessing.apply(examples.samples.inputs, examples.input_shape)


def _data_options(options: TrainOptions) -> DataOptions:
    return DataOptions(
        path=options.data, labels=options.labels, limit=options.limit, preprocessing=options.preprocessing
    )


# --- what is trained --------------------------------------------------------------------------------------------------


def _task(trained: Examples, q: int, options: TrainOptions) -> Task:
    p, n = trained.samples.inputs.shape[1], options.n_states
    loops_too_large = not options.structure.layers and n > MOST_STATES
    if loops_too_large:
        raise OptionError(f"--states {n:,} is too many: at most {MOST_STATES:,} states of a loop can be proved")
    if options.select is not None and options.select > p:
        raise OptionError(f"--select {options.select} is more than the {p} inputs of {options.data}")
    loss: Loss = "squared" if trained.kind == "numbers" else "cross-entropy"
    weights = options.penalty
    recipe = Recipe(
        loss,
        cast(Solver, options.solver),
        Penalties(weights.S, weights.rho, weights.columns, weights.l1),
        options.select,
        shift=options.shift or 0,
        seed=options.seed,
    )
    monotone = 1 - options.kappa if options.well_posed == "monotone" else None
    form = Form(n, p, q, options.kappa, options.structure.layers, monotone)
    targets = trained.targets if trained.targets is not None else trained.samples.labels
    assert targets is not None
    each = len(trained.input_shape) == 2 and options.preprocessing.bounds is None
    image = None if options.shift is None else _image(trained.input_shape, options.shift)
    rows = _as_read(trained, options)
    return Task(rows, targets, form, recipe, 60 * options.minutes, each, _moves(trained, options), image)


def _image(shape: tuple[int, ...], shift: int) -> tuple[int, int, int]:
    """Return channels, rows and columns of samples that are shifted.

    Raises:
        OptionError: where they are no images, or smaller than what they are shifted by.
    """
    own = shape[1:]
    if len(own) not in (2, 3) or min(own[-2:]) <= max(shift, FEW_PIXELS):
        raise OptionError(
            f"--shift {shift} needs images of shape (rows, columns) or (channels, rows, columns), larger than "
            f"the shift and {FEW_PIXELS} pixels; the samples are {' x '.join(map(str, own))}"
        )
    channels, rows, columns = (1, *own)[-3:]
    return channels, rows, columns


def _moves(trained: Examples, options: TrainOptions) -> Moves | None:
    """Return how far inputs may move, as the model reads them."""
    if options.eps is None:
        return None
    return Moves(*options.preprocessing.reach(options.eps.value, trained.input_shape))


# --- what is written --------------------------------------------------------------------------------------------------


def _written(path: Path, weights: Mapping[str, FloatArray], given: Examples, *, force: bool) -> Subject:
    """Write A, B, C, D, b, d, and return the model in the file."""
    meta = {"schema_version": "1.0", "activation": "relu", "input_shape": given.input_shape}
    write_npz(path, {**weights, "meta": np.asarray(json.dumps(meta))}, force=force)
    return open_subject(path)


def _check_written(subject: Subject, found: Trained, form: Form, rows: AnyArray) -> None:
    """Raise AgreementError where the model in the file is another one, or not proved to be well-posed."""
    wanted = outputs_of(found.weights, form, rows)
    apart = float(np.abs(subject.model(rows.astype(np.float64)) - wanted).max(initial=0.0))
    if not subject.model.is_well_posed or not apart <= AGREES * (1e-3 + float(np.abs(wanted).max(initial=0.0))):
        raise AgreementError(f"{subject.path} was written and differs from what was trained by {apart:.1e}")


# --- what is told -----------------------------------------------------------------------------------------------------


def _fit(outputs: FloatArray, examples: Examples) -> Fit:
    n = examples.samples.n
    if examples.targets is None:
        return Fit(n=n, right=int((predictions(outputs) == examples.samples.labels).sum()))
    squares = float(np.square(outputs - examples.targets).sum())
    spread = float(np.square(examples.targets - examples.targets.mean(axis=0)).sum())
    rmse = float(np.sqrt(squares / examples.targets.size))
    return Fit(n=n, rmse=rmse, r2=1 - squares / spread if spread > 0 else None)


def _described(task: Task, found: Trained, options: TrainOptions, seconds: float, fits: tuple[Fit, ...]) -> Training:
    weights = options.penalty
    given = {name: getattr(weights, name) for name in ("S", "rho", "columns", "l1")}
    norms = found.column_norms
    chosen = options.select is not None or bool(weights.columns)
    acting = [int(k) for k in np.argsort(-norms, kind="stable") if norms[k] > 0]
    return Training(
        solver=options.solver,
        loss=task.recipe.loss,
        penalties={name: weight for name, weight in given.items() if weight},
        states=task.form.states,
        structure=str(options.structure),
        kappa=None if task.form.layers else task.form.kappa,
        well_posed="layers" if task.form.layers else options.well_posed,
        norm_inf_A=float(np.abs(found.weights["A"]).sum(axis=1).max()),
        units="each" if task.each else "one",
        eps=None if options.eps is None else options.eps.value,
        minutes=options.minutes,
        seconds=seconds,
        steps=found.steps,
        train=fits[0],
        holdout=fits[1],
        select=options.select,
        shift=options.shift,
        kept_inputs=tuple(acting) if chosen else (),
        column_norms=tuple(map(float, norms)) if chosen else (),
    )


def _diagnostics(task: Task) -> Iterator[Diagnostic]:
    deviations = task.inputs.std(axis=0, dtype=np.float64)
    middle = float(np.median(deviations[deviations > 0])) if (deviations > 0).any() else 0.0
    if not task.each and float(deviations.max(initial=0.0)) > UNEQUAL * middle > 0:
        yield Diagnostic(
            code="IDL604",
            level="warning",
            message=f"one input's deviation is {deviations.max() / middle:.0f} times that of the middle one, and all "
            "inputs are trained in one unit",
            hint="leave --bounds out, or give --mean and --std for each input",
        )
