"""Witness files: written beside a sensitivity matrix or a converted model, and checked again by `verify`.

A witness is an .npz file: S, a JSON `meta` (schema_version, model_sha256, preprocessing, what each part is) and the
arrays of the parts, `loop.K.Y`, `adjoint.K`, `flat.J.Y`, `flat.J.r`, `monotone.factor`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide.certificates import CLAIM_KEYS
from idl_audit.decide.lp_certificates import opened_loops, opened_proof
from idl_audit.implicit.model import ImplicitModel
from idl_audit.measure.sensitivity import Sensitivity as Norms
from idl_audit.proof.files.strict_json import Entry
from idl_audit.proof.format_1.arrays import ProofArrays
from idl_audit.proof.sensitivity_witness import Checked, ProofWitness, Witness, check_witness
from idl_audit.values.arrays import AnyArray
from idl_audit.values.npz import write_npz

SCHEMA_VERSION: Final = "1.0"
KIND: Final = "witness"


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


def opened_witness(meta: Mapping[str, Any], arrays: ProofArrays) -> Witness:
    """Return the witness in a file.

    Raises:
        Damaged: where the file contradicts itself.
        Misfit: where it speaks of blocks, states, inputs or outputs that the model does not have.
    """
    entry, sizes = Entry(meta, "meta", KEYS), arrays.sizes
    adjoint = None if entry.get("adjoint") is None else entry.members("adjoint", len(sizes.blocks), "block")
    flat = []
    for j, value in enumerate(entry.items("flat")):
        proof = opened_proof(value, "flat.#", (j,), arrays, sizes.states)
        flat.append((proof, arrays.take("flat.#.r", j, states=sizes.states)))
    alone = entry.get("monotone")
    return Witness(
        arrays.take("S"),
        opened_loops(entry, arrays),
        None if adjoint is None else {k: arrays.take("adjoint.#", k, states=sizes.blocks[k]) for k in adjoint},
        tuple(flat),
        None if alone is None else opened_proof(alone, "monotone", (), arrays, sizes.states),
    )


KEYS: Final = (*CLAIM_KEYS, "preprocessing", "loops", "adjoint", "flat", "monotone")


def refused_witness(model: ImplicitModel, witness: Witness) -> tuple[Checked, float | None]:
    """Return what comes of a check, and ||S||_inf where it is a number."""
    try:
        with np.errstate(all="ignore"):  # numbers that no search would choose prove nothing
            checked, norm_inf = check_witness(model, witness), Norms(witness.S, None).norm_inf
    except (ValueError, ArithmeticError) as error:  # a matrix that cannot be inverted
        return Checked(1, (f"its arrays prove nothing ({type(error).__name__}: {error})",)), None
    return checked, norm_inf if norm_inf is not None and np.isfinite(norm_inf) else None


def parts_of(witness: Witness) -> list[str]:
    """Return the proofs that a witness has, in words."""
    parts = [] if witness.adjoint is None else ["adjoint rows"]
    parts += [f"{len(witness.flat)} contraction{'s' if len(witness.flat) > 1 else ''}"] if witness.flat else []
    parts += [] if witness.monotone is None else ["a monotone proof"]
    return parts or ["no proof"]
