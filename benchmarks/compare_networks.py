"""How far apart the outputs of a network and of a smaller version of it are proved to be, three ways.

    python -m benchmarks.compare_networks

The sample network digits_mlp beside itself with weights rounded to float16, to 8 bits a tensor, or without the smallest
tenth of each matrix, over boxes of eps .02 around its first samples. *separate*: the ends of either network's outputs
by backward linear bounds; *apart*: rows y - y' of both in one model; *differences*: states x - x' (docs/mathematics.md,
section 9.6). *seen*: the largest difference at points of the box that signed steps lead to.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from idl_audit.commands.shared.subject import open_subject
from idl_audit.decide.comparing import Pair, compare_at
from idl_audit.decide.ladder import Options
from idl_audit.implicit.linear_maps import Dense
from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.implicit.pair import FORMS, paired_model
from idl_audit.proof.bounds import Interval
from idl_audit.proof.linear_bounds import backward_state_bounds, output_lower_bounds
from idl_audit.values.arrays import Float32Array, FloatArray
from idl_audit.values.box import Box

ROOT = Path(__file__).resolve().parents[1]
EPS, SAMPLES = 0.02, 20

Change = Callable[[FloatArray], FloatArray]


def to_8_bits(weights: FloatArray) -> FloatArray:
    """Return multiples of a 127th of the largest."""
    step = np.abs(weights).max() / 127
    return np.asarray(np.round(weights / step) * step)


def without_a_tenth(weights: FloatArray) -> FloatArray:
    """Return the weights, the smallest tenth of them 0."""
    return np.where(np.abs(weights) < np.quantile(np.abs(weights), 0.1), 0.0, weights)


CHANGES: Mapping[str, Change] = {
    "float16": lambda weights: weights.astype(np.float16).astype(np.float64),
    "8 bits": to_8_bits,
    "pruned 10 %": without_a_tenth,
    "itself": lambda weights: weights.copy(),
}


def changed(model: ImplicitModel, change: Change) -> ImplicitModel:
    """Return the model with other matrices."""

    def of(row: Affine) -> Affine:
        states = {k: Dense(matrix=change(own.to_sparse().toarray())) for k, own in row.states.items()}
        reads = None if row.input is None else Dense(matrix=change(row.input.to_sparse().toarray()))
        return replace(row, states=states, input=reads)

    return replace(model, rows=tuple(map(of, model.rows)), output=of(model.output))


def upper(model: ImplicitModel, inputs: Interval, rows: FloatArray) -> FloatArray:
    """Return proved upper bounds of rows . y over one box."""
    return -output_lower_bounds(model, inputs, backward_state_bounds(model, inputs), -rows)[0]


def separate(first: ImplicitModel, second: ImplicitModel, inputs: Interval) -> float:
    """Return the largest |y - y'| that the ends of both allow."""
    both = np.concatenate([np.eye(first.n_outputs), -np.eye(first.n_outputs)])
    (high, low), (other_high, other_low) = (np.split(upper(one, inputs, both), 2) for one in (first, second))
    return float(np.maximum(high + other_low, other_high + low).max())


def together(model: ImplicitModel, inputs: Interval) -> float:
    """Return the largest |y - y'| that the bounds of a pair allow."""
    q = model.n_outputs // 3
    unit = np.eye(3 * q)[2 * q :]
    return float(upper(model, inputs, np.concatenate([unit, -unit])).max())


def main() -> None:
    """Print the table: means over the samples."""
    first = open_subject(ROOT / "sample_models/digits_mlp.onnx").model
    data = np.load(ROOT / "sample_models/digits_mlp.npz")["inputs"].reshape(-1, first.n_inputs)[:SAMPLES]
    print(f"{'':12} {'separate':>10} {'apart':>10} {'differences':>12} {'compare':>10} {'seen':>10} {'seconds':>8}")
    for name, change in CHANGES.items():
        second = changed(first, change)

        def network(points: Float32Array, second: ImplicitModel = second) -> FloatArray:
            y, z = (one(points.astype(np.float64)) for one in (first, second))
            return np.hstack([y, z, y - z])

        pair, rows = Pair(first, second, network), []
        models = [paired_model(first, second, form) for form in FORMS]
        start = time.process_time()
        for sample in data:
            box = Box.around(sample, EPS, valid_lo=0.0, valid_hi=1.0)
            inputs = Interval.of_boxes(box)
            found = compare_at(pair, sample, box, Options(), classes=False)
            bounds = [together(model, inputs) for model in models]
            rows.append([separate(first, second, inputs), *bounds, found.limits.max(), found.reached])
        means = np.mean(rows, axis=0)
        seconds = (time.process_time() - start) / len(data)
        print(
            f"{name:12} " + " ".join(f"{value:>{w}.4g}" for value, w in zip(means, (10, 10, 12, 10, 10), strict=True)),
            f"{seconds:>8.2f}",
        )


if __name__ == "__main__":
    main()
