"""verify: a proof file against its model, without search or solver, and exactly what it is then known to prove."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from idl_audit.commands.certify_property import read_property
from idl_audit.commands.options.reading import ModelOptions
from idl_audit.commands.shared.classifier import as_classifier
from idl_audit.commands.shared.frame import Clock, framed_report
from idl_audit.commands.shared.subject import Subject, open_subject
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide.certificates import CLAIM_KEYS, opened_certificate
from idl_audit.decide.certificates import KIND as CERTIFICATE
from idl_audit.decide.certificates import SCHEMA_VERSION as CERTIFICATE_VERSION
from idl_audit.decide.property_certificates import KIND as PROPERTY
from idl_audit.decide.property_certificates import PropertyCertificate, opened_property_certificate
from idl_audit.decide.witness_files import KIND as WITNESS
from idl_audit.decide.witness_files import SCHEMA_VERSION as WITNESS_VERSION
from idl_audit.decide.witness_files import opened_witness, parts_of, refused_witness
from idl_audit.proof.files.arrays import ProofArrays, Sizes
from idl_audit.proof.files.strict_json import SHA256, Damaged, Entry, Misfit, number, parsed
from idl_audit.proof.sensitivity_witness import Checked
from idl_audit.report.schema import Claim, Numbers, PreprocessingInfo, PropertyClaim, Report, Verification
from idl_audit.values.arrays import AnyArray
from idl_audit.values.errors import IdlAuditError, InvalidInputError, ModelFileError, OptionError
from idl_audit.values.npz import NpzFile

LONGEST_META: Final = 2**22
"""Characters that `meta` may have in a file of any size; a larger file may have as many as it has bytes."""


@dataclass(frozen=True)
class Outcome:
    """What came of one file."""

    statement: str
    """The claim in one line."""
    about: Claim | None
    """The claim in full."""
    checked: Checked
    norm_inf: float | None = None
    """Of an accepted S."""


def verify(file: Path, model: Path, options: ModelOptions, vnnlib: Path | None = None) -> Report:
    """Check a witness or a certificate against the model it was made for, without any solver, and report on it.

    Args:
        file: the witness or certificate.
        model: the model file.
        options: how to read it.
        vnnlib: the property that a certificate must be about; None takes the certificate's word for it.

    Raises:
        InvalidInputError: where a file cannot be read; one that proves nothing is reported, not raised.
    """
    clock = Clock()
    with clock.step("read"), NpzFile(file) as archive:
        meta = _meta(file, archive)
        if vnnlib is not None and meta["kind"] != PROPERTY:
            raise OptionError(f"{file} is a {meta['kind']} and not of a property; leave {vnnlib} out")
        subject = _with_classes(file, meta, open_subject(model, _with_output(file, meta, options)))
        asked = Asked(file, meta, subject, vnnlib)
        try:
            arrays = ProofArrays(archive, Sizes.of(subject.model))
            with np.errstate(all="ignore"):  # numbers that no search would choose
                check = KINDS[meta["kind"]].opened(asked, arrays)
            arrays.done()
        except Misfit as error:
            check = _misfit(meta["kind"], error)
        except Damaged as error:
            raise ModelFileError(f"{file} is a damaged {meta['kind']}: {error}; write it anew") from error
    with clock.step("check"):
        found = _of_this_model(meta, subject, check())
    return framed_report(
        "verify",
        clock,
        model=subject.info,
        verification=Verification(
            file=str(file),
            claim=found.statement,
            about=found.about,
            norm_inf=found.norm_inf if found.checked.accepted else None,
            accepted=found.checked.accepted,
            checked=found.checked.checked,
            refused=found.checked.refused,
        ),
    )


@dataclass(frozen=True)
class Asked:
    """A proof file whose kind is known, and what it is to be checked against."""

    file: Path
    meta: Mapping[str, Any]
    subject: Subject
    vnnlib: Path | None

    @property
    def units(self) -> Preprocessing:
        """The data units that the claim is made in. Raises Damaged."""
        entry = Entry(self.meta.get("preprocessing"), "preprocessing", ("scale", "mean", "std"), ("bounds",))
        try:
            return Preprocessing(entry.number("scale"), entry.numbers("mean"), entry.numbers("std"))
        except IdlAuditError as error:
            raise Damaged(f"it does not say which data units it speaks of: {error}") from error

    def claim(self, units: Preprocessing | None = None) -> dict[str, Any]:
        """Return the entries that every claim has."""
        used = units or Preprocessing()
        return {
            "output": self.subject.output,
            "stripped_output": self.subject.model.stripped_output or None,
            "threshold": None if self.subject.threshold is None else self.subject.threshold.value,
            "preprocessing": PreprocessingInfo(scale=used.scale, mean=used.mean, std=used.std),
        }


Check = Callable[[], Outcome]


def _certificate(asked: Asked, arrays: ProofArrays) -> Check:
    units, found = asked.units, opened_certificate(asked.meta, arrays)
    ball = found.ball
    within = "" if ball.clip is None else f" within [{ball.clip[0]!r}, {ball.clip[1]!r}]"
    radius = f"eps {ball.eps!r}" if ball.sigma is None else f"eps {ball.eps!r} times the radii of the file"
    where = f"in the box of {radius}{within} around the file's sample {found.index}"
    limit = asked.subject.threshold
    means = "" if limit is None else f" (output {'above' if found.label else 'below'} {limit.value!r})"
    about = Claim(
        kind="class",
        **asked.claim(units),
        label=found.label,
        eps=ball.eps,
        centre=numbers(ball.centre),
        sigma=None if ball.sigma is None else numbers(ball.sigma),
        clip=ball.clip,
        index=found.index,
        leaves=found.n_leaves,
    )

    def check() -> Outcome:
        model = asked.subject.in_data_units(units)
        checked = Checked(model.n_outputs - 1, tuple(found.refused(model)))
        return Outcome(f"class {found.label}{means} {where}, by {found.n_leaves} leaves", about, checked)

    return check


def _property(asked: Asked, arrays: ProofArrays) -> Check:
    found = opened_property_certificate(asked.meta, arrays)
    vnnlib, subject = asked.vnnlib, asked.subject
    if vnnlib is None:
        name, sha256 = found.name, found.sha256
        which = f"the input boxes of the file ({len(found.parts)}), said to be those of {name} (not compared)"
    else:
        name, sha256 = str(vnnlib), hashlib.sha256(vnnlib.read_bytes()).hexdigest()
        which = f"the input boxes of {vnnlib} ({len(found.parts)})"
    count = sum(len(part.query.alternatives) for part in found.parts)
    about = Claim(
        kind="property",
        **asked.claim(),
        property=PropertyClaim(
            file=name,
            sha256=sha256,
            compared=vnnlib is not None,
            boxes=numbers(np.stack([np.stack([part.query.box.lo, part.query.box.hi]) for part in found.parts])),
            alternatives=numbers(_rows(found)),
            n_alternatives=count,
        ),
    )

    def check() -> Outcome:
        refused = found.refused(subject.model)
        if vnnlib is not None:
            refused = [*found.refused_for(read_property(subject, vnnlib).queries), *refused]
        statement = f"unsat: none of {count} alternatives holds in {which}"
        return Outcome(statement, about, Checked(count, tuple(refused)))

    return check


def _rows(found: PropertyCertificate) -> AnyArray:
    """Return all rows with their offsets, (rows, outputs + 1)."""
    alternatives = [alternative for part in found.parts for alternative in part.query.alternatives]
    return np.concatenate([np.column_stack([each.rows, each.offsets]) for each in alternatives])


def _witness(asked: Asked, arrays: ProofArrays) -> Check:
    units, found = asked.units, opened_witness(asked.meta, arrays)
    about = Claim(kind="sensitivity", **asked.claim(units), matrix=numbers(found.S))
    statement = f"S, {found.S.shape[0]} x {found.S.shape[1]} ({' and '.join(parts_of(found))})"

    def check() -> Outcome:
        checked, norm_inf = refused_witness(asked.subject.in_data_units(units), found)
        return Outcome(statement, about, checked, norm_inf)

    return check


@dataclass(frozen=True)
class Kind:
    """One kind of proof file."""

    version: str
    opened: Callable[[Asked, ProofArrays], Check]
    """Read the file's arrays; the check looks at nothing but these and the model. Raises Damaged or Misfit."""
    names_its_model: bool
    """Whether it speaks of one model file alone; S is proved for whatever model it is checked against."""


KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        WITNESS: Kind(WITNESS_VERSION, _witness, names_its_model=False),
        CERTIFICATE: Kind(CERTIFICATE_VERSION, _certificate, names_its_model=True),
        PROPERTY: Kind(CERTIFICATE_VERSION, _property, names_its_model=True),
    }
)
"""What `verify` reads."""


def _meta(file: Path, archive: NpzFile) -> Mapping[str, Any]:
    """Return what a proof file says of itself. Raises ModelFileError where it is none."""
    header = archive.headers.get("meta")
    longest = max(LONGEST_META, archive.stored)
    try:
        if header is None or header.shape != () or header.dtype.kind != "U" or header.dtype.itemsize > 4 * longest:
            raise Damaged("it has no meta, or too much of it")
        meta = parsed(str(archive.read("meta")[()]))
        kind = KINDS.get(meta["kind"]) if isinstance(meta.get("kind"), str) else None
        if kind is None or meta.get("schema_version") != kind.version or set(CLAIM_KEYS) - meta.keys():
            raise Damaged("it is of another kind or version")
        if not isinstance(meta["output_name"], str | None):
            raise Damaged("output_name")
        if not isinstance(meta["model_sha256"], str) or not SHA256.fullmatch(meta["model_sha256"]):
            raise Damaged("model_sha256")
    except Damaged as error:
        raise ModelFileError(
            f"{file} is no witness or certificate of this version of idl-audit ({error}); write one with idl-audit "
            "sensitivity --witness or idl-audit certify --certificates"
        ) from error
    return meta


def _with_output(file: Path, meta: Mapping[str, Any], options: ModelOptions) -> ModelOptions:
    """Return options that read the output which the file speaks of. Raises OptionError where another is asked for."""
    name = meta["output_name"]
    if name is None:
        return options
    if options.output_name not in (None, name):
        raise OptionError(f"{file} speaks of the output '{name}'; leave --output-name {options.output_name} out")
    return ModelOptions(name, options.max_bytes, options.threads, options.torch)


def _with_classes(file: Path, meta: Mapping[str, Any], subject: Subject) -> Subject:
    """Return the subject with the classes that a certificate speaks of. Raises ModelFileError where there are none."""
    value = meta.get("threshold") if meta["kind"] == CERTIFICATE else None
    if value is None:
        return subject
    try:
        return as_classifier(subject, number(value, "'threshold' of meta"))
    except (InvalidInputError, Damaged) as error:
        raise ModelFileError(f"{file} speaks of a threshold that the model does not have: {error}") from error


def _misfit(kind: str, error: Misfit) -> Check:
    outcome = Outcome(f"a {kind} of another model", None, Checked(1, (str(error),)))
    return lambda: outcome


def _of_this_model(meta: Mapping[str, Any], subject: Subject, found: Outcome) -> Outcome:
    """Return the outcome, refused where a certificate names another model; a refused witness says so as well."""
    refused = list(found.checked.refused)
    must = KINDS[meta["kind"]].names_its_model
    if meta["model_sha256"] != subject.info.sha256 and (must or refused):
        note = f"it was made for another file (sha256 {meta['model_sha256'][:12]})"
        if meta["model_sha256"] == subject.info.file_sha256:
            note = "it names the model's file alone, and not what belongs to it (weights beside it, code): make it anew"
        refused.append(note)
    if must and subject.output is None and meta["output_name"] is not None:
        refused.append(f"it speaks of the output '{meta['output_name']}', and the model's output has no name")
    return Outcome(found.statement, found.about, Checked(found.checked.checked, tuple(refused)), found.norm_inf)


def numbers(array: AnyArray) -> Numbers:
    """Return what tells an array of finite numbers from any other."""
    own = np.ascontiguousarray(array, "<f8")
    ends = (float(own.min()), float(own.max())) if own.size else (None, None)
    return Numbers(shape=own.shape, sha256=hashlib.sha256(own.tobytes()).hexdigest(), least=ends[0], greatest=ends[1])
