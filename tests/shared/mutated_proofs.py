"""Changed proof files of every kind, and what `verify` must not say of them."""

from __future__ import annotations

import copy
import hashlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.shared import mutations, proof_mutations
from tests.shared.mutated_case import Case
from tests.shared.proof_sources import Source, claim_of, sources

TWO_LAYERS = frozenset({"trees", "boxes", "two boxes", "branches"})
"""Sources of networks that the mutations of `mutations` know by heart: what they demand holds there."""


def mutant_of(source: Source, rng: np.random.Generator) -> mutations.Mutant:
    """Return a source's content, to be changed."""
    return mutations.Mutant(dict(source.arrays), copy.deepcopy(source.meta), rng)


def changed(source: Source, rng: np.random.Generator) -> tuple[str, bool, mutations.Mutant] | None:
    """Return (name, whether no proof is left, the changed content); None where nothing was found to change."""
    mutant = mutant_of(source, rng)
    of_chains = mutations.MUTATIONS if source.name in TWO_LAYERS else ()
    pool = (*proof_mutations.MUTATIONS, *of_chains)
    names, strict = [], False
    for _ in range(2 if rng.random() < 0.3 else 1):
        mutation = pool[rng.integers(len(pool))]
        try:
            demand = mutation(mutant)
        except (LookupError, TypeError, ValueError, AttributeError):  # after another change, this one makes no sense
            return None
        if demand is None:
            return None
        names.append(mutation.__name__)
        strict |= demand == mutations.STRICT and len(names) == 1
    return " and ".join(names), strict and len(names) == 1, mutant


def cases(folder: Path, rng: np.random.Generator) -> Iterator[Case]:
    """Yield changed proof files without end."""
    folder.mkdir(parents=True, exist_ok=True)
    known = list(sources(folder))
    path = folder / "changed.npz"
    while True:
        source = known[rng.integers(len(known))]
        found = changed(source, rng)
        if found is None:
            continue
        name, strict, mutant = found
        text = json.dumps(mutant.meta)
        if rng.random() < 0.12:
            name, strict, mutant = "bent_text", False, mutant_of(source, rng)
            text = proof_mutations.bent_text(source.meta, rng)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # members that are there twice
            content = proof_mutations.packed(mutant.arrays, text, rng)
            if rng.random() < 0.1:
                name, content = f"bent_archive of {name}", proof_mutations.bent_archive(content, rng)
        path.write_bytes(content)
        beside = [str(source.vnnlib)] if source.vnnlib is not None and rng.random() < 0.3 else []
        args = ["verify", str(path), str(source.model), *beside, "-f", "json"]
        yield Case(name, args, path, _judge(source, path, strict=strict, compared=bool(beside)))


def _judge(source: Source, path: Path, *, strict: bool, compared: bool):
    def wrong(code: int, out: str) -> str:
        if code != 0:
            return ""
        if strict:
            return "no proof is left"
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files if name != "meta"}
                meta = json.loads(str(file["meta"]))
            return (
                source.false_claim(arrays, meta)
                or _unlike(arrays, meta, json.loads(out)["verification"])
                or (_other_property(source, arrays) if compared else "")
            )
        except Exception as error:
            return f"the judge cannot read it: {type(error).__name__}: {error}"

    return wrong


def _unlike(arrays, meta, told) -> str:
    """Say where the report speaks of something else than the file."""
    about = told["about"]
    if not told["accepted"] or told["refused"]:
        return "the exit code says something else than the report"
    claim = claim_of(arrays, meta)
    expected = {"centre": claim.centre, "sigma": claim.sigma, "matrix": claim.S}
    for name, array in expected.items():
        digest = None if array is None else hashlib.sha256(np.ascontiguousarray(array, "<f8").tobytes()).hexdigest()
        if (about[name] or {}).get("sha256") != digest:
            return f"the report tells of another {name}"
    if claim.boxes and about["property"]["boxes"]["sha256"] != _digest(claim.boxes):
        return "the report tells of other boxes"
    if about["output"] != claim.output_name and claim.output_name is not None:
        return "the report tells of another output"
    if any(about[key] != value for key, value in claim.words.items()):
        return f"the report tells of {[about[key] for key in claim.words]}, the file of {list(claim.words.values())}"
    if any(about["preprocessing"][key] != claim.units[key] for key in ("scale", "mean", "std")):
        return "the report tells of other units"
    return ""


def _digest(arrays) -> str:
    return hashlib.sha256(np.array(arrays, "<f8").tobytes()).hexdigest()


def _other_property(source: Source, arrays) -> str:
    names = {name for name in source.arrays if name.split(".")[-1] in ("lo", "hi", "rows", "offsets")}
    same = all(np.array_equal(arrays.get(name), source.arrays[name]) for name in names)
    return "" if same else "it is not the property that it was compared with"
