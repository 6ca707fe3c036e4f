"""Proof files as commands write them: of which model, in which units, by which version."""

from __future__ import annotations

from pathlib import Path

from idl_audit import __version__
from idl_audit.commands.options.reading import ModelOptions
from idl_audit.commands.shared.subject import Subject
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.proof.files.claims import About, Units
from idl_audit.proof.files.file import ProofFile, write_proof
from idl_audit.values.verdicts import ArithmeticName


def about(
    subject: Subject, reading: ModelOptions, preprocessing: Preprocessing, arithmetic: ArithmeticName = "real"
) -> About:
    """Return what a proof file says of the model that it is about."""
    units = units_of(preprocessing)
    return About(subject.info.sha256, reading.output_name, units, subject.info.threshold, arithmetic)


def units_of(preprocessing: Preprocessing) -> Units:
    """Return the data units that a claim is made in."""
    return Units(preprocessing.scale, preprocessing.mean, preprocessing.std)


def write_certificate(folder: Path, vnnlib: Path, found: ProofFile, *, force: bool) -> str:
    """Write the certificate of a property or query into a folder; return its name. Raises OptionError."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{vnnlib.name.removesuffix('.gz').removesuffix('.vnnlib')}.npz"
    write(path, found, force=force)
    return str(path)


def write(path: Path, found: ProofFile, *, force: bool) -> None:
    """Write a proof file, whole or not at all. Raises OptionError where that cannot be."""
    write_proof(path, found, tool=f"idl-audit {__version__}", force=force)
