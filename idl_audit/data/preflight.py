"""Before any work: are these the numbers that the network was trained on? Nothing is ever changed, only told."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

import numpy as np

from idl_audit.data.numbers import Eps
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.data.readings import Reading, readings
from idl_audit.data.samples import Layout, Samples
from idl_audit.values.arrays import Float32Array, FloatArray, IntArray
from idl_audit.values.errors import InvalidInputError

TRIED: Final = 100
"""Samples that readings are tried on, spread evenly over those that were chosen."""
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
    samples: Samples,
    preprocessing: Preprocessing,
    layout: Layout,
    input_shape: tuple[int, ...],
    predict: Predict,
    *,
    eps: Sequence[Eps] = (),
) -> tuple[Finding, ...]:
    """Return what is odd about samples, labels and units: clean accuracy first, with the reading that does better."""
    places = np.unique(np.linspace(0, samples.n - 1, min(samples.n, TRIED)).round().astype(np.int64))
    inputs = samples.inputs[places]
    outputs = predict(preprocessing.apply(inputs, input_shape))
    poor: list[Finding] = []
    better = None
    if samples.labels is not None and outputs.shape[1] > 1:
        labels = samples.labels[places]
        right = _right(outputs, labels)
        if right < max(POOR, 1.3 / outputs.shape[1]) * places.size:
            better = _better(inputs, labels, right, preprocessing, layout, input_shape, predict)
            poor.append(_poor_accuracy(right, places.size, better))
    return (
        *poor,
        *([] if better else _unscaled(samples, preprocessing, poor=bool(poor))),
        *_narrow(samples, preprocessing),
        *_number_type(samples),
        *_constant(samples),
        *_repeated(samples),
        *_probabilities(outputs),
        *_small_eps(samples, eps),
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


def _unscaled(samples: Samples, preprocessing: Preprocessing, *, poor: bool) -> Iterator[Finding]:
    if preprocessing.is_identity and _look_like_bytes(samples):
        yield Finding(
            "IDL102",
            "warning" if poor else "info",
            f"the samples are whole numbers from {samples.inputs.min():g} to {samples.inputs.max():g}, and the network "
            "reads them as they are",
            "give --scale 1/255 if it was trained on numbers from 0 to 1",
        )


def _narrow(samples: Samples, preprocessing: Preprocessing) -> Iterator[Finding]:
    if preprocessing.bounds is not None:
        lo, hi = float(samples.inputs.min()), float(samples.inputs.max())
        low, high = preprocessing.bounds
        if hi - lo < 0.02 * (high - low):
            yield Finding(
                "IDL102",
                "warning",
                f"the samples lie between {lo:g} and {hi:g}, a small part of the valid range {low:g} to {high:g}",
                "give --bounds in the units of the data",
            )


def _look_like_bytes(samples: Samples) -> bool:
    inputs = samples.inputs
    return bool(inputs.min() >= 0 and 16 <= inputs.max() <= 255 and (inputs == np.round(inputs)).all())


def _number_type(samples: Samples) -> Iterator[Finding]:
    whole = samples.dtype.startswith(("int", "uint"))
    if whole and set(np.unique(samples.inputs[:TRIED])) <= {0.0, 1.0}:
        yield Finding(
            "IDL103",
            "warning",
            f"the inputs are of type {samples.dtype} and nothing but 0 and 1",
            "save them as float32 if they were numbers between 0 and 1",
        )


def _constant(samples: Samples) -> Iterator[Finding]:
    constant = samples.inputs.min(axis=1) == samples.inputs.max(axis=1)
    if samples.inputs.shape[1] > 1 and constant.any():
        yield Finding(
            "IDL104",
            "warning",
            f"{int(constant.sum())} of {samples.n} samples are one number throughout: {_listed(samples, constant)}",
            "check how they were made, or leave them out with --index",
        )


def _repeated(samples: Samples) -> Iterator[Finding]:
    first: dict[bytes, int] = {}
    repeats = np.zeros(samples.n, bool)
    contradicted = 0
    for row in range(samples.n):
        digest = hashlib.blake2b(samples.inputs[row].tobytes()).digest()  # the rows themselves would double the memory
        earlier = first.setdefault(digest, row)
        repeats[row] = earlier != row
        contradicted += samples.labels is not None and samples.labels[earlier] != samples.labels[row]
    if repeats.any():
        labels = f", {contradicted} of them with another label" if contradicted else ""
        yield Finding(
            "IDL105",
            "warning",
            f"{int(repeats.sum())} of {samples.n} samples repeat earlier ones{labels}: {_listed(samples, repeats)}",
            "keep one of each: every sample is counted",
        )


def _listed(samples: Samples, which: np.ndarray) -> str:
    """Return the positions in the file of the first few."""
    found = samples.indices[which]
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


def _small_eps(samples: Samples, eps: Sequence[Eps]) -> Iterator[Finding]:
    small = [radius for radius in eps if radius.value < 1]
    if small and _look_like_bytes(samples):
        text = small[0].text
        whole = text.removesuffix("/255") if text.endswith("/255") else f"{float(small[0].value) * 255:.3g}"
        yield Finding(
            "IDL107",
            "warning",
            f"eps {text} is less than one grey level of samples from 0 to 255",
            f"eps is in the units of the data: write -e {whole} for {text} of their range",
        )
