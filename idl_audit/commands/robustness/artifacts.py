"""The files beside a report: adversarial inputs as arrays and as pictures, and curves."""

from __future__ import annotations

from itertools import islice

import numpy as np

from idl_audit.commands.options.robustness import RobustnessOptions
from idl_audit.commands.robustness.decided import DecidedSamples
from idl_audit.commands.shared.adversarial_pictures import MOST_PICTURES, Pair, draw_pairs
from idl_audit.commands.shared.audited import floats
from idl_audit.commands.shared.subject import Subject
from idl_audit.report.pictures import accuracy_points, plot_accuracy
from idl_audit.report.schema import (
    Report,
)
from idl_audit.values.arrays import AnyArray
from idl_audit.values.box import is_whole
from idl_audit.values.files import write_whole
from idl_audit.values.npz import write_npz


def plotted(report: Report, options: RobustnessOptions) -> Report:
    """Draw the shares of samples over eps where that is asked; return the report, which names the file."""
    if options.plot is None or len(accuracy_points(report)) < 2:
        return report
    write_whole(options.plot, lambda stream: plot_accuracy(report, stream))
    return report.model_copy(update={"artifacts": (*report.artifacts, str(options.plot))})


def draw(options: RobustnessOptions, decided: DecidedSamples, subject: Subject) -> tuple[str, ...]:
    """Draw the adversarial inputs for --images and return the names of written files."""
    if options.images is None:
        return ()
    texts = {radius.value: radius.text for radius in options.eps}
    kind = floats(subject, options)
    pairs = [
        Pair(
            sample.index,
            sample.label,
            found.predicted,
            texts[eps],
            centre,
            centre.astype(kind).astype(np.float32),
            found.point,
        )
        for sample, centre, eps, found in islice(decided.successes, MOST_PICTURES)
    ]
    shape = options.image_shape or subject.input_shape
    files = draw_pairs(options.images, pairs, shape=shape, bounds=options.data.preprocessing.bounds)
    return tuple(str(file) for file in files)


def save(options: RobustnessOptions, decided: DecidedSamples, subject: Subject) -> tuple[str, ...]:
    """Write the adversarial inputs to --save, in the type that the network reads; return the names of written files."""
    if options.save is None:
        return ()
    rows, size = list(decided.successes), subject.n_inputs
    kind = subject.point_type if is_whole(subject.point_type) else np.dtype(np.float32)
    arrays: dict[str, AnyArray] = {
        "inputs": np.array([found.point for *_, found in rows], kind).reshape(len(rows), size),
        "labels": np.array([sample.label for sample, *_ in rows], np.int64),
        "predictions": np.array([found.predicted for *_, found in rows], np.int64),
        "eps": np.array([eps for _, _, eps, _ in rows], np.float64),
        "indices": np.array([sample.index for sample, *_ in rows], np.int64),
        "originals": np.array([centre for _, centre, *_ in rows], np.float64).reshape(len(rows), size),
    }
    write_npz(options.save, arrays, force=options.force or options.resume)
    return (str(options.save),)
