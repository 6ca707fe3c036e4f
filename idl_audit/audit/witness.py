"""Witness files: written beside a sensitivity matrix or a converted model, and checked again by `verify`.

A witness is an .npz file: S, a JSON `meta` (schema_version, model_sha256, preprocessing, what each part is) and the
arrays of the parts, `loop.K.Y`, `adjoint.K`, `flat.J.Y`, `flat.J.r`, `monotone.factor`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from idl_audit.analysis.sensitivity import Sensitivity as Norms
from idl_audit.analysis.witness import Checked, ProofWitness, Witness, check_witness
from idl_audit.arrays import AnyArray
from idl_audit.audit.certificates import KIND as CERTIFICATE
from idl_audit.audit.certificates import SCHEMA_VERSION as CERTIFICATE_VERSION
from idl_audit.audit.certificates import Certificate, opened_certificate
from idl_audit.audit.classifier import as_classifier
from idl_audit.audit.frame import Clock, framed_report
from idl_audit.audit.properties import read_property
from idl_audit.audit.property_certificates import KIND as PROPERTY
from idl_audit.audit.property_certificates import PropertyCertificate, opened_property_certificate
from idl_audit.audit.subject import ModelOptions, Subject, open_subject
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.errors import IdlAuditError, InvalidInputError, ModelFileError, OptionError
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.threshold import Threshold
from idl_audit.npz import read_npz, write_npz
from idl_audit.report.schema import Report, Verification

SCHEMA_VERSION: Final = "1.0"
KIND: Final = "witness"
VERSIONS: Final[Mapping[str, str]] = MappingProxyType(
    {KIND: SCHEMA_VERSION, CERTIFICATE: CERTIFICATE_VERSION, PROPERTY: CERTIFICATE_VERSION}
)
"""What `verify` reads: kind -> version."""


def write_witness(
    path: Path, witness: Witness, *, sha256: str, output_name: str | None, preprocessing: Preprocessing, force: bool
) -> None:
    """Write a witness for the model file with this hash, in data units.

    Raises:
        OptionError: where the file cannot be written.
    """
    arrays: dict[str, AnyArray] = {"S": witness.S}
    meta: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "model_sha256": sha256,
        "output_name": output_name,
        "preprocessing": asdict(preprocessing),
        "loops": {str(k): _packed(f"loop.{k}", part, arrays) for k, part in witness.loops.items()},
        "adjoint": None if witness.adjoint is None else sorted(witness.adjoint),
        "flat": [_packed(f"flat.{j}", part, arrays) for j, (part, _) in enumerate(witness.flat)],
        "monotone": None if witness.monotone is None else _packed("monotone", witness.monotone, arrays),
    }
    for k, rows in (witness.adjoint or {}).items():
        arrays[f"adjoint.{k}"] = rows
    for j, (_, rows) in enumerate(witness.flat):
        arrays[f"flat.{j}.r"] = rows
    arrays["meta"] = np.asarray(json.dumps(meta))
    write_npz(path, arrays, force=force)


def _packed(key: str, part: ProofWitness, arrays: dict[str, AnyArray]) -> dict[str, Any]:
    for name, array in part.arrays.items():
        arrays[f"{key}.{name}"] = array
    return {"kind": part.kind, "middle": part.middle, "arrays": sorted(part.arrays)}


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
    with clock.step("read"):
        meta, arrays = _read(file)
        if vnnlib is not None and meta["kind"] != PROPERTY:
            raise OptionError(f"{file} is a {meta['kind']} and not of a property; leave {vnnlib} out")
        if options.output_name is None:
            options = ModelOptions(meta["output_name"], options.max_bytes, options.threads, options.torch)
        subject = open_subject(model, options)
    with clock.step("check"):
        norm_inf = None
        if meta["kind"] == PROPERTY:
            claim, found = _check_property(opened_property_certificate(file, meta, arrays), subject, vnnlib)
        elif meta["kind"] == CERTIFICATE:
            units = _preprocessing(file, meta)
            subject = _with_classes(file, meta, subject)
            read = opened_certificate(file, meta, arrays)
            claim, found = _check_certificate(read, subject.in_data_units(units), subject.threshold)
            claim += _in_units(units)
        else:
            in_units = subject.in_data_units(_preprocessing(file, meta))
            claim, norm_inf, found = _check_witness(_opened(file, meta, arrays), in_units)
    # a witness holds for any model that it proves; a certificate names the file that it speaks of
    is_certificate = meta["kind"] in (CERTIFICATE, PROPERTY)
    if meta["model_sha256"] != subject.info.sha256 and (is_certificate or not found.accepted):
        note = f"it was made for another file (sha256 {str(meta['model_sha256'])[:12]})"
        if meta["model_sha256"] == subject.info.file_sha256:
            note = "it names the model's file alone, and not what belongs to it (weights beside it, code): make it anew"
        found = Checked(found.checked, (*found.refused, note))
    return framed_report(
        "verify",
        clock,
        model=subject.info,
        verification=Verification(
            file=str(file),
            claim=claim,
            norm_inf=norm_inf if found.accepted else None,
            accepted=found.accepted,
            checked=found.checked,
            refused=found.refused,
        ),
    )


def _check_witness(witness: Witness, model: ImplicitModel) -> tuple[str, float | None, Checked]:
    claim = f"S, {witness.S.shape[0]} x {witness.S.shape[1]} ({' and '.join(_parts(witness))})"
    return claim, Norms(witness.S, None).norm_inf, check_witness(model, witness)


def _with_classes(file: Path, meta: Mapping[str, Any], subject: Subject) -> Subject:
    """Return the subject with the classes that a certificate speaks of. Raises ModelFileError where there are none."""
    value = meta.get("threshold")
    if value is None:
        return subject
    try:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise TypeError("it is no number")
        return as_classifier(subject, float(value))
    except (InvalidInputError, TypeError, ValueError, OverflowError) as error:
        raise ModelFileError(f"{file} speaks of a threshold that the model does not have: {error}") from error


def _check_certificate(found: Certificate, model: ImplicitModel, threshold: Threshold | None) -> tuple[str, Checked]:
    ball = found.ball
    within = "" if ball.clip is None else f" within [{ball.clip[0]:g}, {ball.clip[1]:g}]"
    radius = f"eps {ball.eps:g}" if ball.sigma is None else f"eps {ball.eps:g} times the radii of the file"
    where = f"in the box of {radius}{within} around the file's sample {found.index}"
    means = ""
    if threshold is not None:
        means = f" (output {'above' if found.label else 'below'} {threshold.value!r})"
    claim = f"class {found.label}{means} {where}, by {found.n_leaves} leaves"
    return claim, Checked(model.n_outputs - 1, tuple(found.refused(model)))


def _check_property(found: PropertyCertificate, subject: Subject, vnnlib: Path | None) -> tuple[str, Checked]:
    alternatives = sum(len(part.query.alternatives) for part in found.parts)
    refused = found.refused(subject.model)
    if vnnlib is None:
        which = f"the input boxes of the file ({len(found.parts)}), said to be those of {found.name} (not compared)"
    else:
        refused = [*found.refused_for(read_property(subject, vnnlib).queries), *refused]
        which = f"the input boxes of {vnnlib} ({len(found.parts)})"
    claim = f"unsat: none of {alternatives} alternatives holds in {which}"
    return claim, Checked(alternatives, tuple(refused))


def _parts(witness: Witness) -> list[str]:
    parts = [] if witness.adjoint is None else ["adjoint rows"]
    parts += [f"{len(witness.flat)} contraction{'s' if len(witness.flat) > 1 else ''}"] if witness.flat else []
    parts += [] if witness.monotone is None else ["a monotone proof"]
    return parts or ["no proof"]


def _read(file: Path) -> tuple[dict[str, Any], dict[str, AnyArray]]:
    arrays = read_npz(file)
    try:
        meta = json.loads(str(arrays["meta"][()]))
        missing = {"output_name", "model_sha256"} - set(meta)
        if missing or meta["schema_version"] != VERSIONS[meta["kind"]]:
            raise KeyError("kind")
        if not isinstance(meta["output_name"], str | None):
            raise TypeError("output_name")
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{file} is no witness or certificate of this version of idl-audit; write one with idl-audit sensitivity "
            "--witness or idl-audit certify --certificates"
        ) from error
    return meta, arrays


def _preprocessing(file: Path, meta: Mapping[str, Any]) -> Preprocessing:
    """Return the data units that the claim is made in."""
    try:
        given = meta["preprocessing"]
        return Preprocessing(
            float(given["scale"]), tuple(float(m) for m in given["mean"]), tuple(float(s) for s in given["std"])
        )
    except (LookupError, TypeError, ValueError) as error:
        raise ModelFileError(f"{file} does not say which data units it speaks of; write it anew") from error


def _in_units(units: Preprocessing) -> str:
    """Say in which units a claim is made, where they are not those of the network: eps means nothing without them."""
    if units.is_identity:
        return ""

    def shown(values: tuple[float, ...], usual: float) -> str:
        few = ", ".join(f"{value:.9g}" for value in values[:MOST_UNITS]) or f"{usual:g}"
        return f"{few}, ..." if len(values) > MOST_UNITS else few

    return f"; inputs u, read as (u * {units.scale:.9g} - ({shown(units.mean, 0)})) / ({shown(units.std, 1)})"


MOST_UNITS = 4
"""Means and standard deviations that a claim lists."""


def _opened(file: Path, meta: Mapping[str, Any], arrays: Mapping[str, AnyArray]) -> Witness:
    """Return the witness in the file; what does not fit the model is for the check to refuse."""
    try:
        numbers = {name: _floats(array) for name, array in arrays.items() if name != "meta"}

        def part(key: str, entry: Mapping[str, Any]) -> ProofWitness:
            found = {str(name): numbers[f"{key}.{name}"] for name in entry["arrays"]}
            return ProofWitness(str(entry["kind"]), found, bool(entry["middle"]))

        adjoint = meta["adjoint"]
        witness = Witness(
            numbers["S"],
            {int(k): part(f"loop.{int(k)}", entry) for k, entry in meta["loops"].items()},
            None if adjoint is None else {int(k): numbers[f"adjoint.{int(k)}"] for k in adjoint},
            tuple((part(f"flat.{j}", entry), numbers[f"flat.{j}.r"]) for j, entry in enumerate(meta["flat"])),
            None if meta["monotone"] is None else part("monotone", meta["monotone"]),
        )
    except IdlAuditError:
        raise
    except Exception as error:  # whatever a damaged file does to the lines above
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelFileError(f"{file} is a damaged witness ({why}); write it anew") from error
    return witness


def _floats(array: AnyArray) -> AnyArray:
    if array.dtype.kind not in "fiu":
        raise TypeError(f"an array of {array.dtype}")
    return array.astype(np.float64)
