"""What two runs of an audit must have in common, so that one goes on from the journal of the other."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np

from idl_audit import __version__
from idl_audit.commands.options.reading import ModelOptions
from idl_audit.commands.options.robustness import RobustnessOptions
from idl_audit.commands.robustness.setting import perturbation_of
from idl_audit.commands.shared.audited import Audited
from idl_audit.commands.shared.journal import COUNT, DATA, RADII, TOOL, digest
from idl_audit.commands.shared.sample_tasks import Setting
from idl_audit.commands.shared.subject import Subject
from idl_audit.data.fingerprints import numbers_sha256


def run_key(
    command: str, subject: Subject, found: Audited, setting: Setting, options: RobustnessOptions
) -> dict[str, str]:
    """Return what a run must have in common with the one whose journal it goes on from."""
    reading, data, chosen = options.model, options.data, replace(options.verdicts)
    perturbation = perturbation_of(options, found.samples.p)
    own = None if perturbation is None else perturbation.directions
    asked = (
        chosen,
        options.sparse,
        options.ignore,
        options.demanded,
        options.largest,
        None if setting.features is None else setting.features.sha256,
        options.fair,
        options.norm,
        None if perturbation is None else (perturbation.text, options.image_shape),
        "" if own is None else digest(*(array.tobytes() for array in own.arrays)),
        options.certificates,
        data.layout,
        asdict(data.preprocessing),
        options.shard,
    )
    return {
        TOOL: __version__,
        "command": command,
        "model": model_key(subject, reading),
        DATA: _data_key(found, setting, found.samples.n, found.seen.numbers_sha256),
        COUNT: str(found.samples.n),
        RADII: ",".join(sorted(repr(radius.value) for radius in options.eps)),
        "set of options": digest(repr(asked).encode()),
    }


def _data_key(found: Audited, setting: Setting, n: int, numbers: str) -> str:
    """Return a hash of the first n samples, whose numbers have a hash already."""
    return digest(
        numbers.encode(),
        found.samples.indices[:n].tobytes(),
        found.labels[:n].tobytes(),
        b"" if setting.sigma is None else setting.sigma.tobytes(),
    )


def key_of_the_first(found: Audited, setting: Setting, n: int) -> str:
    """Return what the key of a run over the first n samples says of the data; they are read for it."""
    first = found.samples.rows(np.arange(n))
    order = np.argsort(first.indices, kind="stable")
    numbers = numbers_sha256(row for _, part in first.parts(order) for row in part.inputs)
    return _data_key(found, setting, n, numbers)


def model_key(subject: Subject, reading: ModelOptions) -> str:
    """Return a hash of the function that is judged, and of how it is run."""
    return digest(
        subject.info.sha256.encode(),
        repr((reading.output_name, reading.torch, subject.info.threshold)).encode(),
        repr(reading.runtime_optimisation).encode(),
    )
