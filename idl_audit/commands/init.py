"""init: a commented configuration for a model and its samples, guessed from the range of the data."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from idl_audit.commands.options.reading import DataOptions, ModelOptions
from idl_audit.commands.shared.classifier import open_labelled
from idl_audit.commands.shared.subject import CHECKED_SAMPLES, Subject, open_subject
from idl_audit.data.samples import Samples
from idl_audit.values.errors import OptionError
from idl_audit.values.margins import predictions

LIMIT = 100
"""Samples that the starter asks for, where there are more."""
NODES = 5000
REPORT = "report.json"
"""Where the starter has `run` write."""
SECONDS = 300


@dataclass(frozen=True)
class Guess:
    """The valid range and radii that fit the data, and why."""

    bounds: str | None
    eps: str
    why: str

    @property
    def middle(self) -> str:
        """A radius for the rules."""
        return self.eps.split(",")[len(self.eps.split(",")) // 2].strip()


def starter(model: Path, data: Path | None, options: ModelOptions, *, folder: Path = Path()) -> str:
    """Return the text of an idl-audit.toml in `folder` for a model and its samples.

    Raises:
        InvalidInputError: where the model or the data is refused.
    """
    subject = open_subject(model, options)
    lines = _header(_seen_from(folder, model), None if data is None else _seen_from(folder, data), subject)
    if data is None:
        lines += _without_samples()
    else:
        reader, samples = open_labelled(subject, DataOptions(data), options.threshold)
        lines += _with_samples(samples, reader)
    return "\n".join(lines) + "\n"


def guess(lo: float, hi: float, *, whole: bool) -> Guess:
    """Return bounds and radii for data within [lo, hi]; `whole` says that all of them are whole numbers."""
    if lo >= 0 and hi <= 1:
        return Guess("0,1", "1/255, 2/255, 4/255", f"the data lie within [{lo:g}, {hi:g}]: taken for [0, 1]")
    if lo >= 0 and hi <= 255 and whole:
        return Guess("0,255", "1, 2, 4", f"the data are whole numbers within [{lo:g}, {hi:g}]: taken for bytes")
    if lo >= -1 and hi <= 1:
        return Guess("-1,1", "2/255, 4/255, 8/255", f"the data lie within [{lo:g}, {hi:g}]: taken for [-1, 1]")
    size = 10.0 ** math.floor(math.log10((hi - lo) / 100)) if hi > lo else 0.01
    radii = ", ".join(f"{factor * size:g}" for factor in (1, 2, 4))
    return Guess(None, radii, f"the data lie within [{lo:g}, {hi:g}]: eps is about a hundredth of that")


def _header(model: Path, data: Path | None, subject: Subject) -> list[str]:
    lines = [
        f"# What `idl-audit run` does with {_comment(model.name)}: {subject.model.n_inputs:,} inputs, "
        f"{subject.model.n_outputs:,} outputs, {subject.model.n_states:,} states.",
        "# Keys are the options' names without dashes; `idl-audit COMMAND --help` explains them.",
        "# The command line and IDL_AUDIT_<COMMAND>_<OPTION> stand before this file; file names start at its folder.",
        "",
        "[defaults]",
        f"model = {_quoted(model)}",
    ]
    return lines if data is None else [*lines, f"data = {_quoted(data)}"]


def _without_samples() -> list[str]:
    return [
        '# data = "data.npz"        # samples and labels: verdicts need them',
        '# bounds = "0,1"           # valid range of the data',
        '# eps = "1/255, 2/255"     # how far every input may move, in data units',
        "",
        "[run]",
        'steps = "sensitivity"      # with data: "sensitivity, certify"',
        f'output = "{REPORT}"',
        "",
        "[gate]",
        "require = [",
        '    # "norm_inf_S <= 100",',
        "]",
    ]


def _with_samples(samples: Samples, subject: Subject) -> list[str]:
    lo, hi = float(samples.inputs.min()), float(samples.inputs.max())
    found = guess(lo, hi, whole=bool((samples.inputs == np.round(samples.inputs)).all()))
    lines = [f"# {found.why}"]
    lines += ['# bounds = "LO,HI"' if found.bounds is None else f'bounds = "{found.bounds}"']
    lines += [f'eps = "{found.eps}"  # how far every input may move, in data units']
    if samples.n > LIMIT:
        lines += [f"limit = {LIMIT}  # the first so many of {samples.n:,}; leave it out for all"]
    if found.bounds == "0,255":
        lines += ['# scale = "1/255"  # if the network was trained on data within [0, 1]']
    lines += ['# mean = "0.485,0.456,0.406"  # if it was trained on (data * scale - mean) / std']
    lines += ['# std = "0.229,0.224,0.225"']
    lines += [
        f"max-nodes = {NODES}  # work for one sample at one radius: the same on every machine",
        f"time-limit = {SECONDS}  # seconds for it, a safety net: the report says whom it ended",
        "seed = 0",
        "",
    ]
    if samples.labels is None:
        return [*lines, *_without_labels(samples)]
    if subject.threshold is not None:
        lines.insert(-1, f"threshold = {subject.threshold.value!r}  # class 1 is where the one output is above it")
    return [*lines, *_accuracy(samples, subject), *_verdict_tables(found)]


def _without_labels(samples: Samples) -> list[str]:
    if samples.has_targets:
        return [
            f"# {_comment(samples.source)} has the targets of a regression; verdicts need labels of classes.",
            "[run]",
            'steps = "sensitivity, bounds"',
            f'output = "{REPORT}"',
        ]
    return [
        f"# {_comment(samples.source)} has no labels, which verdicts need:",
        '# labels = "labels.npz"',
        "[run]",
        'steps = "sensitivity"',
        f'output = "{REPORT}"',
    ]


def _accuracy(samples: Samples, subject: Subject) -> list[str]:
    assert samples.labels is not None
    few = min(samples.n, CHECKED_SAMPLES)
    outputs = subject.original(samples.inputs[:few].astype(np.float32))
    right = int((predictions(outputs) == samples.labels[:few]).sum())
    told = f"# Read like this, the network predicts {right} of the first {few} labels."
    if right < few / 2:
        told += " That is poor: mend scale, mean and std first."
    return [told]


def _verdict_tables(found: Guess) -> list[str]:
    return [
        "[run]",
        'steps = "sensitivity, certify"',
        f'output = "{REPORT}"',
        '# reports = ["report.html", "report.md"]',
        "",
        "[certify]",
        '# method = "interval, quick, linear, attack, branch"   # those that suit the model, unless given',
        '# certificates = "certificates"   # a folder; `idl-audit verify` checks what is in it',
        "",
        "# Rules: shares as 0.9 or '90 %'; a failed rule ends `run` and `gate` with exit code 1.",
        "[gate]",
        "require = [",
        '    "clean_accuracy >= 0.9",',
        f'    "certified_accuracy@{found.middle} >= 0.5",',
        "]",
        f'warn = ["unknown@{found.middle} <= 0.1", "timed_out@{found.middle} <= 0"]',
        '# baseline = "baseline.json"      # an earlier report; then also: "drop <= 0.01"',
    ]


def _seen_from(folder: Path, path: Path) -> Path:
    """Return the name of a file as a configuration in that folder has it."""
    if path.is_absolute() or folder == Path():
        return path
    return Path(os.path.relpath(path, folder))


def _quoted(path: Path) -> str:
    """Return a file's name as a TOML string. Raises OptionError where TOML has no text for it."""
    text = str(path)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise OptionError(f"{path} has a name that is no UTF-8 text; rename it") from None
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(text: str) -> str:
    """Return a text that stays within one comment line."""
    return "".join(char if char.isprintable() else "?" for char in text)
