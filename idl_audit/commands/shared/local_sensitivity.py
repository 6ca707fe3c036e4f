"""Local sensitivity over a data set: S within the box around each sample, and the entrywise largest of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from idl_audit.commands.shared.progress import Progress, Watcher
from idl_audit.implicit.model import ImplicitModel
from idl_audit.measure.local_sensitivity import local_sensitivity
from idl_audit.measure.sensitivity import Sensitivity
from idl_audit.report.schema import LocalSensitivity
from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.box import Box
from idl_audit.values.errors import UnsupportedModelError


@dataclass(frozen=True)
class Rows:
    """What a matrix is asked for: all outputs, or functionals of them, with the global matrix."""

    functionals: FloatArray | None
    whole: FloatArray


@dataclass
class WorstCase:
    """What holds for every sample's own box so far."""

    matrices: list[FloatArray]
    """One for each `Rows` that were asked for: the entrywise largest over the samples."""
    samples: list[LocalSensitivity]
    complete: bool = True


def worst_case(
    model: ImplicitModel,
    boxes: Sequence[Box],
    indices: IntArray,
    asked: Sequence[Rows],
    *,
    method: str,
    state_bounds: str,
    max_bytes: int | None,
    watch: Watcher,
) -> WorstCase:
    """Return the entrywise largest local matrices over the samples; Ctrl-C leaves those of the samples so far.

    Args:
        model: reads data units.
        boxes: one per sample.
        indices: the samples' positions in their file.
        asked: the first of them is the matrix of all outputs, which the samples' own figures are of.
        method: as for `local_sensitivity`.
        state_bounds, max_bytes: likewise.
        watch: is told how far the work has come.
    """
    found = WorstCase([np.zeros_like(rows.whole) for rows in asked], [])
    try:
        for index, box in zip(indices, boxes, strict=True):
            watch(Progress(len(found.samples), len(boxes), Counter()))
            with _of_sample(int(index)):
                matrices = [
                    local_sensitivity(
                        model,
                        box,
                        method,
                        state_bounds=state_bounds,
                        functionals=rows.functionals,
                        within=rows.whole,
                        max_bytes=max_bytes,
                    )
                    for rows in asked
                ]
            found.matrices = [np.maximum(*pair) for pair in zip(found.matrices, matrices, strict=True)]
            found.samples.append(_figures(int(index), matrices[0]))
        watch(Progress(len(found.samples), len(boxes), Counter()))
    except KeyboardInterrupt:
        found.complete = False
    return found


@contextmanager
def _of_sample(index: int) -> Iterator[None]:
    """Say which sample a refusal is about."""
    try:
        yield
    except UnsupportedModelError as error:
        advice = "a smaller eps, tighter bounds (--state-bounds linear), or other samples (--index) may do"
        raise UnsupportedModelError([f"sample {index}: {problem}; {advice}" for problem in error.problems]) from error


def _figures(index: int, matrix: FloatArray) -> LocalSensitivity:
    found = Sensitivity(matrix, None)
    return LocalSensitivity(index=index, norm_inf=found.norm_inf, row_sums=tuple(found.row_sums.tolist()))
