"""reduce and compress: a smaller implicit model, with what is proved and what was measured about its outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from idl_audit.commands.options.models import CompressOptions, WriteOptions
from idl_audit.commands.options.reading import DataOptions
from idl_audit.commands.shared.frame import Clock, framed_report
from idl_audit.commands.shared.kept_certified import Found, furthest_kept
from idl_audit.commands.shared.preflight import Teller, tell_nobody
from idl_audit.commands.shared.samples import describe_data
from idl_audit.commands.shared.smaller import Opened, check_same, input_box, inside, open_model, save
from idl_audit.commands.shared.subject import describe_conversion
from idl_audit.decide.ladder import Options
from idl_audit.implicit.compress import (
    MATRICES,
    OUTPUT,
    Compressed,
    low_rank,
    pruned,
    quantized,
    row_weights,
    weights,
)
from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.implicit.reduce import Values, reduce_model
from idl_audit.measure.drift import GlobalDrift, box_drift, global_drift
from idl_audit.proof.bounds import Interval
from idl_audit.proof.intervals import interval_bounds
from idl_audit.report.schema import (
    BlockDrift,
    Compression,
    Diagnostic,
    Drift,
    KeptCertified,
    NonzeroChange,
    Removed,
    Report,
)
from idl_audit.values.arrays import FloatArray
from idl_audit.values.check import allow
from idl_audit.values.errors import OptionError, UnsupportedModelError
from idl_audit.values.rounding import up

BYTES_A_TRIPLE: Final = 32
"""A number with its row and column, and what is made of them beside them."""

_EMPTY = ImplicitModel((), (), Affine({}, None, np.zeros(1)), (1, 1), (1, 1))


def reduce(path: Path, options: WriteOptions, data: DataOptions | None = None, *, tell: Teller = tell_nobody) -> Report:
    """Remove what changes no output, check that none changed, and write the smaller model.

    Raises:
        InvalidInputError: where the file, the data or an option is refused; nothing is written.
        AgreementError: where an output changed; nothing is written.
    """
    clock = Clock()
    opened = open_model(path, options, data, clock, tell)
    model = opened.subject.model
    box = input_box(opened, options) if options.preprocessing.bounds is not None else None
    widest = max((linear_map.nnz for linear_map in model.maps), default=0)
    allow(BYTES_A_TRIPLE * widest, options.model.max_bytes, "the coefficients of the largest map, one by one,")
    with clock.step("reduce"):
        found = reduce_model(model, None if box is None else partial(_constant_on, box))
    with clock.step("check the result"):
        inputs = opened.inputs
        if box is not None:
            inputs = np.vstack([np.clip(inputs, box.lo, box.hi), inside(box, options.seed)])
        check = check_same(found.model, model, inputs, "the model before")
    with clock.step("write"):
        artifacts = save(found.model, options, [opened.subject], "reduce")
    compression = Compression(
        kind="reduce",
        setting=None if box is None else "on the box of --bounds",
        states=NonzeroChange(before=model.n_states, after=found.model.n_states),
        nonzeros=NonzeroChange(before=weights(model), after=weights(found.model)),
        drift=Drift(measured=_moved(found.model, model, inputs)),
        removed=Removed(
            constant=sum(found.constant.values()),
            dead=sum(found.dead.values()),
            unobserved=sum(found.unobserved.values()),
        ),
        unused_inputs=tuple(int(i) for i in found.unused_inputs),
    )
    told = list(opened.diagnostics)
    if found.unused_inputs.size:
        count = found.unused_inputs.size
        told.append(
            Diagnostic(code="IDL303", level="info", message=f"no output depends on {count} of {model.n_inputs} inputs")
        )
    return framed_report(
        "reduce",
        clock,
        seed=options.seed,
        model=opened.subject.info,
        conversion=describe_conversion(found.model, None, check, clock.timing().total),
        data=None if data is None or opened.samples is None else describe_data(opened.samples, data),
        compression=compression,
        diagnostics=tuple(told),
        artifacts=artifacts,
    )


def _constant_on(box: Interval, model: ImplicitModel) -> Values:
    """Return the states whose activation is constant on their intervals over the box, with values and errors."""
    bounds = interval_bounds(model, box)
    found = {}
    for k, block in enumerate(model.blocks):
        least, most = block.slopes(bounds.z[k].lo[0], bounds.z[k].hi[0])
        constant = (least == 0) & (most == 0) & (not block.activation.coupled)
        low, high = bounds.x[k].lo[0], bounds.x[k].hi[0]
        value = low / 2 + high / 2
        error = np.where(low == high, 0.0, up(np.maximum(high - value, value - low)))
        found[k] = constant, value, error
    return found


def compress(
    path: Path,
    chosen: CompressOptions,
    options: WriteOptions,
    data: DataOptions | None = None,
    *,
    tell: Teller = tell_nobody,
) -> Report:
    """Make a smaller model, bound and measure how far its outputs stray, and write it.

    Raises:
        InvalidInputError: where the file, the data or an option is refused; nothing is written.
    """
    kind, setting, make = _kind(chosen)
    make(_EMPTY)  # refuses a setting that makes no sense before any work
    clock = Clock()
    opened = open_model(path, options, data, clock, tell)
    model = opened.subject.model
    kept: KeptCertified | None = None
    with clock.step("compress"):
        if chosen.keep_certified is None:
            pair = make(model)
        else:
            found = _kept(opened, chosen, data, options)
            if found.level is None or found.pair is None:
                return _nothing_kept(kind, opened, found.table, clock, options)
            pair, setting, make, kept = found.pair, found.level.setting, found.level.make, found.table
    if model.is_well_posed and not pair.stored.is_well_posed:
        raise UnsupportedModelError(
            [f"{path}: nothing proves that the smaller model has one state for every input; compress it less"]
        )
    told = list(opened.diagnostics)
    for name in pair.whole_loops:
        message = f"the loop '{name}' keeps the product of its factors: nothing proves that x = phi(L z + i), z = R x "
        told.append(Diagnostic(code="IDL307", level="info", message=f"{message}has one state for every i"))
    box = input_box(opened, options)
    with clock.step("bound the drift"):
        drift, why = _drift(pair, opened, box, options)
        if why:
            told.append(Diagnostic(code="IDL304", level="warning", message=why))
    entries: tuple[BlockDrift, ...] = ()
    if chosen.by_block:
        with clock.step("each block alone"):
            entries = tuple(_by_block(model, make, opened, box, options))
    changed = None
    if opened.samples is not None:
        before, after = opened.classes(model(opened.inputs)), opened.classes(pair.stored(opened.inputs))
        changed = None if before is None or after is None else int((before != after).sum())
    with clock.step("write"):
        artifacts = save(pair.stored, options, [opened.subject], f"compress {kind} {setting}")
    return framed_report(
        "compress",
        clock,
        seed=options.seed,
        model=opened.subject.info,
        conversion=describe_conversion(pair.stored, None, None, clock.timing().total),
        data=None if data is None or opened.samples is None else describe_data(opened.samples, data),
        compression=Compression(
            kind=kind,
            setting=setting,
            states=NonzeroChange(before=model.n_states, after=pair.stored.n_states),
            nonzeros=NonzeroChange(before=weights(model), after=weights(pair.stored)),
            drift=drift,
            blocks=entries,
            changed_predictions=changed,
            kept_certified=kept,
        ),
        diagnostics=tuple(told),
        artifacts=artifacts,
    )


def _kept(opened: Opened, chosen: CompressOptions, data: DataOptions | None, options: WriteOptions) -> Found:
    assert chosen.keep_certified is not None
    if data is None:
        raise OptionError("--keep-certified counts certified samples; give them with -d FILE")
    verdicts = Options(time_limit=chosen.time_limit, max_nodes=chosen.max_nodes, seed=options.seed)
    return furthest_kept(opened, chosen, chosen.keep_certified, data, verdicts)


def _nothing_kept(kind: str, opened: Opened, table: KeptCertified, clock: Clock, options: WriteOptions) -> Report:
    """Return the report of a compression of which no level keeps enough samples certified: nothing is written."""
    model = opened.subject.model
    coefficients = weights(model)
    failed = Diagnostic(
        code="IDL309",
        level="error",
        message=f"at no level are {table.least} of {table.n} samples certified; nothing was written",
        hint="ask for fewer with --keep-certified, or give each verdict more time with --time-limit",
    )
    return framed_report(
        "compress",
        clock,
        seed=options.seed,
        model=opened.subject.info,
        conversion=describe_conversion(model, None, None, clock.timing().total),
        compression=Compression(
            kind=kind,
            nonzeros=NonzeroChange(before=coefficients, after=coefficients),
            drift=Drift(),
            kept_certified=table,
        ),
        diagnostics=(*opened.diagnostics, failed),
    )


def _kind(chosen: CompressOptions) -> tuple[str, str, Callable[..., Compressed]]:
    given = {"--prune": chosen.prune, "--quantize": chosen.quantize, "--rank": chosen.rank}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise OptionError(f"give one of --prune T, --quantize BITS, --rank K, not {' and '.join(named) or 'none'}")
    of = "".join(chosen.of)
    more = "" if set(of) == set(MATRICES) else f" of {', '.join(of)}"
    if chosen.prune is not None:
        return "prune", f"{chosen.prune:g}{more}", partial(pruned, threshold=chosen.prune, of=of)
    if chosen.quantize is not None:
        return "quantize", f"{chosen.quantize} bits{more}", partial(quantized, bits=chosen.quantize, of=of)
    assert chosen.rank is not None
    return "rank", f"{chosen.rank}{more}", partial(low_rank, rank=chosen.rank, of=of)


def _drift(pair: Compressed, opened: Opened, box: Interval | None, options: WriteOptions) -> tuple[Drift, str]:
    """Return what is proved and what was seen, and why nothing is proved where that is so."""
    points = [opened.inputs] if box is None else [opened.inputs, inside(box, options.seed)]
    if options.preprocessing.bounds is not None and opened.samples is None and box is not None:
        points = [inside(box, options.seed)]  # random inputs may lie outside what --bounds speaks of
    measured = max(_moved(pair.stored, pair.original, u) for u in points)
    why = ""
    everywhere: GlobalDrift | None = None
    try:
        everywhere = global_drift(pair)
    except UnsupportedModelError as error:
        why = f"no bound for all inputs: {error}"
    guaranteed = at_samples = None
    try:
        if box is not None:
            guaranteed = _finite(box_drift(pair, box, everywhere))
        if opened.samples is not None:
            at_samples = _finite(box_drift(pair, Interval(opened.inputs, opened.inputs), everywhere))
    except UnsupportedModelError as error:
        why = f"no bound on the box of inputs: {error}"
    offset = None if everywhere is None else _finite(everywhere.offset)
    slope = None if everywhere is None else _finite(everywhere.matrix.sum(axis=1) * (1 + 1e-12))
    if not why and (slope is None or (box is not None and guaranteed is None)):
        why = "the bound on the drift is beyond the range of float64"
    return Drift(guaranteed=guaranteed, measured=measured, at_samples=at_samples, offset=offset, slope=slope), why


def _moved(small: Callable[[FloatArray], FloatArray], whole: ImplicitModel, points: FloatArray) -> float:
    """Return how far outputs move at most at some points where the original model has any.

    Raises:
        UnsupportedModelError: where the smaller model has none there.
    """
    before = whole(points)
    within = np.isfinite(before).all(axis=1)
    after = small(points)[within]
    if not np.isfinite(after).all():
        raise UnsupportedModelError(["the smaller model gives NaN or infinity where the original does not"])
    return float(np.abs(after - before[within]).max(initial=0.0))


def _finite(values: FloatArray) -> float | None:
    largest = float(np.max(values, initial=0.0))
    return largest if np.isfinite(largest) else None


def _by_block(
    model: ImplicitModel, make: Callable[..., Compressed], opened: Opened, box: Interval | None, options: WriteOptions
) -> Sequence[BlockDrift]:
    """Return each block's entry, the largest proved drift first."""
    found = []
    for k in (*model.evaluation_order, OUTPUT):
        pair = make(model, only=k)
        if not pair.changes:
            continue
        drift, _ = _drift(pair, opened, box, options)
        before, after = weights(model), weights(pair.stored)
        own = row_weights(model.output if k == OUTPUT else model.rows[k])
        name = "outputs" if k == OUTPUT else model.blocks[k].name
        found.append(
            BlockDrift(block=name, nonzeros=NonzeroChange(before=own, after=own - (before - after)), drift=drift)
        )
    return sorted(found, key=lambda entry: -_rank_of(entry.drift))


def _rank_of(drift: Drift) -> float:
    for value in (drift.at_samples, drift.guaranteed, drift.slope):
        if value is not None:
            return value
    return float("inf")
