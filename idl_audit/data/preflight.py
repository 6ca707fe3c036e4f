"""Before any work: are these the numbers that the network was trained on? Nothing is ever changed, only told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

import numpy as np

from idl_audit.data.numbers import Eps
from idl_audit.data.overview import Overview, look_at
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.data.readings import Reading, readings
from idl_audit.data.samples import Layout, Samples, SampleStream
from idl_audit.values.arrays import BoolArray, Float32Array, FloatArray, IntArray
from idl_audit.values.errors import InvalidInputError

POOR: Final = 0.5
"""Below this share of correct predictions, or 1.3 times that of guessing, another reading is looked for."""
SECONDS: Final = 20.0
"""Time for trying readings."""

Predict: TypeAlias = Callable[[Float32Array], FloatArray]
"""The network: inputs in its own units, (m, p) -> outputs (m, q)."""


@dataclass(frozen=True)
class Finding:
    """Something odd about the samples; `code` is one of `idl_audit.report.codes`."""

    code: str
    level: Literal["info", "warning"]
    message: str
    hint: str | None = None


def inspect_samples(
    samples: Samples | SampleStream,
    preprocessing: Preprocessing,
    layout: Layout,
    input_shape: tuple[int, ...],
    predict: Predict,
    *,
    eps: Sequence[Eps] = (),
    seen: Overview | None = None,
) -> tuple[Finding, ...]:
    """Return what is odd about samples, labels and units: clean accuracy first, with the reading that does better.

    `seen` is what an earlier pass over the samples has found.
    """
    if seen is None:
        seen = look_at(SampleStream.of(samples) if isinstance(samples, Samples) else samples)
    inputs, labels = seen.tried.inputs, seen.tried.labels
    outputs = predict(preprocessing.apply(inputs, input_shape))
    poor: list[Finding] = []
    better = None
    if labels is not None and outputs.shape[1] > 1:
        right = _right(outputs, labels)
        if right < max(POOR, 1.3 / outputs.shape[1]) * labels.size:
            better = _better(inputs, labels, right, preprocessing, layout, input_shape, predict)
            poor.append(_poor_accuracy(right, labels.size, better))
    return (
        *poor,
        *([] if better else _unscaled(seen, preprocessing, poor=bool(poor))),
        *_narrow(seen, preprocessing),
        *_number_type(samples.dtype, seen),
        *_constant(samples.indices, seen),
        *_repeated(samples.indices, seen),
        *_probabilities(outputs),
        *_small_eps(seen, eps, preprocessing),
    )


def _right(outputs: FloatArray, labels: IntArray) -> int:
    """Return how many rows of outputs, all of them finite, have their largest entry at the label."""
    return int(((outputs.argmax(axis=1) == labels) & np.isfinite(outputs).all(axis=1)).sum())


def _better(
    inputs: FloatArray,
    labels: IntArray,
    right: int,
    preprocessing: Preprocessing,
    layout: Layout,
    input_shape: tuple[int, ...],
    predict: Predict,
) -> tuple[Reading, int] | None:
    """Return the reading of the data that predicts most labels, where that is clearly more; else None."""
    deadline = time.monotonic() + SECONDS
    best: Reading | None = None
    most = right
    n = labels.size
    first_labels = (0, 1) if labels.min() > 0 else (0,)
    for reading in readings(preprocessing, layout, input_shape, bytes_like=float(inputs.max()) > 1.5):
        if time.monotonic() > deadline:
            break
        try:
            outputs = predict(reading.apply(inputs, input_shape))
        except InvalidInputError:  # numbers beyond float32
            continue
        for first in first_labels:
            found = _right(outputs, labels - first)
            if found > most + n // 50:  # simple readings come first, and a sample or two decide nothing
                best, most = replace(reading, first_label=first), found
    return None if best is None or most - right < max(3, n / 5) else (best, most)


def _poor_accuracy(right: int, n: int, better: tuple[Reading, int] | None) -> Finding:
    message = f"the network predicts the label of only {right} of {n} samples"
    if better is None:
        hint = "give the preprocessing it was trained with: --scale, --mean, --std, --layout"
    else:
        reading, found = better
        hint = f"{reading.advice} would raise that from {right} to {found} of {n}; nothing was changed"
    return Finding("IDL101", "warning", message, hint)


def _unscaled(seen: Overview, preprocessing: Preprocessing, *, poor: bool) -> Iterator[Finding]:
    if preprocessing.is_identity and _look_like_bytes(seen, preprocessing):
        yield Finding(
            "IDL102",
            "warning" if poor else "info",
            f"the samples are whole numbers from {seen.least:g} to {seen.greatest:g}, and the network "
            "reads them as they are",
            "give --scale 1/255 if it was trained on numbers from 0 to 1",
        )


def _narrow(seen: Overview, preprocessing: Preprocessing) -> Iterator[Finding]:
    if preprocessing.bounds is not None:
        lo, hi = seen.least, seen.greatest
        low, high = preprocessing.bounds
        if hi - lo < 0.02 * (high - low):
            yield Finding(
                "IDL102",
                "warning",
                f"the samples lie between {lo:g} and {hi:g}, a small part of the valid range {low:g} to {high:g}",
                "give --bounds in the units of the data",
            )


FEW, BRIGHT = 16, 128
"""Fewer inputs than that are no picture; nor are whole numbers that are all below the second."""


def _look_like_bytes(seen: Overview, preprocessing: Preprocessing) -> bool:
    """Whether samples look like pictures of bytes: whole numbers, many of them, up to 255 and, by --bounds, no less."""
    _, most = preprocessing.bounds or (0.0, 255.0)
    is_wide = seen.tried.inputs.shape[1] >= FEW and min(seen.greatest, most) >= BRIGHT
    return is_wide and seen.least >= 0 and seen.greatest <= 255 and seen.whole


def _number_type(dtype: str, seen: Overview) -> Iterator[Finding]:
    if dtype.startswith(("int", "uint")) and seen.zeros_and_ones:
        yield Finding(
            "IDL103",
            "warning",
            f"the inputs are of type {dtype} and nothing but 0 and 1",
            "save them as float32 if they were numbers between 0 and 1",
        )


def _constant(indices: IntArray, seen: Overview) -> Iterator[Finding]:
    constant = seen.constant
    if seen.tried.inputs.shape[1] > 1 and constant.any():
        yield Finding(
            "IDL104",
            "warning",
            f"{int(constant.sum())} of {constant.size} samples are one number throughout: {_listed(indices, constant)}",
            "check how they were made, or leave them out with --index",
        )


def _repeated(indices: IntArray, seen: Overview) -> Iterator[Finding]:
    repeats = seen.repeats
    if repeats.any():
        labels = f", {seen.contradicted} of them with another label" if seen.contradicted else ""
        yield Finding(
            "IDL105",
            "warning",
            f"{int(repeats.sum())} of {repeats.size} samples repeat earlier ones{labels}: {_listed(indices, repeats)}",
            "keep one of each: every sample is counted",
        )


def _listed(indices: IntArray, which: BoolArray) -> str:
    """Return the positions in the file of the first few."""
    found = indices[which]
    return ", ".join(map(str, found[:5])) + (", ..." if found.size > 5 else "")


def _probabilities(outputs: FloatArray) -> Iterator[Finding]:
    sums = outputs.sum(axis=1)
    if outputs.shape[1] > 1 and (outputs >= 0).all() and (np.abs(sums - 1) < 1e-4).all():
        yield Finding(
            "IDL106",
            "info",
            "the outputs are probabilities: margins are differences of these, which saturate",
            "export the network without its softmax",
        )


def _small_eps(seen: Overview, eps: Sequence[Eps], preprocessing: Preprocessing) -> Iterator[Finding]:
    small = [radius for radius in eps if radius.value < 1]
    if small and _look_like_bytes(seen, preprocessing):
        text = small[0].text
        whole = text.removesuffix("/255") if text.endswith("/255") else f"{float(small[0].value) * 255:.3g}"
        yield Finding(
            "IDL107",
            "warning",
            f"eps {text} is less than one grey level of samples from 0 to 255",
            f"eps is in the units of the data: write -e {whole} for {text} of their range",
        )
