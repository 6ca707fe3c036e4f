"""The user's samples and what was said about them on the command line."""

from __future__ import annotations

from collections.abc import Sequence

from idl_audit.commands.options.reading import DataOptions
from idl_audit.commands.shared.subject import Subject
from idl_audit.data.fingerprints import samples_sha256
from idl_audit.data.labels import LabelRows, OneOutput
from idl_audit.data.overview import Overview
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.data.samples import Samples, SampleStream, all_of, stream_samples
from idl_audit.report.schema import DataInfo, PreprocessingInfo


def open_samples(subject: Subject, options: DataOptions, *, with_labels: bool = True) -> Samples:
    """Read the samples for a model. Raises DataError where they do not fit it."""
    return all_of(open_stream(subject, options, with_labels=with_labels))


def open_stream(
    subject: Subject,
    options: DataOptions,
    *,
    with_labels: bool = True,
    rows: LabelRows | None = None,
    aside: Sequence[str] = (),
) -> SampleStream:
    """Return the samples for a model, to be read by and by; where each has several labels, those of `rows`.

    Columns `aside` of a table are no inputs unless the others are too few.

    Raises:
        DataError: where they do not fit the model.
    """
    return stream_samples(
        options.path,
        input_shape=subject.input_shape,
        parts=subject.parts,
        n_classes=subject.n_outputs,
        of_labels=rows or _one_output(subject),
        labels=options.labels,
        limit=options.limit,
        index=options.index,
        layout=options.layout,
        with_labels=with_labels,
        aside=aside,
    )


def _one_output(subject: Subject) -> OneOutput | None:
    """Return what the labels of a network with one output can be; None where it has several."""
    if subject.threshold is not None:
        return OneOutput.CLASS
    return OneOutput.VALUE if subject.n_outputs == 1 else None


def describe_data(samples: Samples | SampleStream, options: DataOptions, seen: Overview | None = None) -> DataInfo:
    """Return the report's section on the data; `seen` is what a pass over the samples has found."""
    chosen = options.preprocessing
    return DataInfo(
        source=samples.source,
        sha256=samples.sha256,
        n=samples.n,
        indices=tuple(samples.indices.tolist()),
        numbers_sha256=_fingerprint(samples) if seen is None else seen.numbers_sha256,
        layout=options.layout,
        preprocessing=describe_preprocessing(chosen),
        bounds=chosen.bounds,
    )


def _fingerprint(samples: Samples | SampleStream) -> str:
    return samples_sha256(samples if isinstance(samples, Samples) else all_of(samples))


def describe_preprocessing(chosen: Preprocessing) -> PreprocessingInfo:
    """Return how a report says what is done to the user's numbers."""
    return PreprocessingInfo(scale=chosen.scale, mean=chosen.mean, std=chosen.std)
