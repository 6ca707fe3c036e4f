"""Files of format 1, put together as the claims and proofs of today: the one checker reads both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval
from idl_audit.proof.convert import of_chain, of_lp_chain, of_splits
from idl_audit.proof.files.claims import About, Ball, PropertyClaim, SampleClaim, SensitivityClaim, Units
from idl_audit.proof.files.file import ProofFile
from idl_audit.proof.files.strict_json import Damaged, Entry, below
from idl_audit.proof.format_1.arrays import PROOFS, PROOFS_OF, ProofArrays, Sizes, filled
from idl_audit.proof.format_1.chains import CHAIN_KEYS, opened_chain, opened_splits
from idl_audit.proof.lp_chain import LpChain, LpLeaves
from idl_audit.proof.proof import Proof, Refused
from idl_audit.proof.rows import with_sums
from idl_audit.proof.sensitivity_witness import ProofWitness, Witness
from idl_audit.values.box import Box
from idl_audit.values.errors import InvalidInputError, UnsupportedModelError
from idl_audit.values.npz import NpzFile
from idl_audit.values.query import Conjunction, Query

CLAIM_KEYS: Final = ("schema_version", "kind", "model_sha256", "output_name")
"""What every such file says in `meta`: of which kind it is, and of which model."""
MOST_ROWS: Final = 2**17
"""Of one alternative: far more than a property file may have."""


def about_of(meta: Mapping[str, Any]) -> About:
    """Return the model that a file speaks of. Raises Damaged."""
    if not isinstance(meta.get("kind"), str) or meta["kind"] not in KINDS or set(CLAIM_KEYS) - meta.keys():
        raise Damaged("it is of another kind or version")
    if meta["schema_version"] != KINDS[meta["kind"]].version:
        raise Damaged("it is of another kind or version")
    entry = Entry({key: meta[key] for key in CLAIM_KEYS}, "meta", CLAIM_KEYS)
    if not isinstance(meta["output_name"], str | None):
        raise Damaged("output_name")
    units, threshold = Units(), None
    if "preprocessing" in KINDS[meta["kind"]].keys:
        own = Entry(meta.get("preprocessing"), "preprocessing", ("scale", "mean", "std"), ("bounds",))
        units = Units(own.number("scale"), own.numbers("mean"), own.numbers("std"))
    if meta.get("threshold") is not None:
        threshold = Entry({"threshold": meta["threshold"]}, "meta", ("threshold",)).number("threshold")
    return About(entry.sha256("model_sha256"), meta["output_name"], units, threshold)


def opened(archive: NpzFile, meta: Mapping[str, Any], model: ImplicitModel) -> ProofFile:
    """Return the claim and the proof in a file, for the model that it is to be checked against.

    Raises:
        Damaged: where the file contradicts itself, or its leaves do not cover its set.
        Misfit: where it speaks of blocks, states, inputs or outputs that the model does not have.
    """
    arrays, kind = ProofArrays(archive, Sizes.of(model)), KINDS[meta["kind"]]
    entry = Entry(meta, "meta", (*CLAIM_KEYS, *kind.keys), kind.optional)
    found = kind.opened(about_of(meta), entry, arrays)
    arrays.done()
    with np.errstate(all="ignore"):  # numbers that no search would choose
        return found(model)


Opened = Callable[[ImplicitModel], ProofFile]
"""What makes a proof of records: some of it follows from the model."""


def _certificate(about: About, entry: Entry, arrays: ProofArrays) -> Opened:
    centre = arrays.take("centre")
    sigma = arrays.take("sigma") if arrays.has("sigma") else None
    ball = Ball(centre, entry.number("eps"), sigma, entry.pair("clip"))
    try:
        _ = ball.inputs
    except InvalidInputError as error:
        raise Damaged(f"its set makes no sense: {error}") from error
    outputs = max(2, arrays.sizes.outputs)
    claim = SampleClaim(ball, below(entry.whole("label"), outputs, "the label", "class"), entry.whole("index"))
    if "lp" in entry:
        if any(key in entry for key in CHAIN_KEYS):
            raise Damaged("it has two kinds of proofs")
        lp = opened_lp(entry.get("lp"), arrays)
        return lambda model: _of_sample(about, claim, model, lambda query: of_lp_chain(model, query, lp))
    if not all(key in entry for key in CHAIN_KEYS):
        raise Damaged("it has no proof")
    chain = opened_chain(entry, "", arrays, [1] * (outputs - 1))
    return lambda model: _of_sample(about, claim, model, lambda query: of_chain(model, query, chain))


def _of_sample(about: About, claim: SampleClaim, model: ImplicitModel, convert: Callable[[Query], Proof]) -> ProofFile:
    if claim.misfit(model):
        return ProofFile(about, claim)
    return _converted(about, claim, [(query, convert) for query in claim.queries(model)])


def _converted(
    about: About, claim: SampleClaim | PropertyClaim, parts: Sequence[tuple[Query, Callable[[Query], Proof]]]
) -> ProofFile:
    try:
        return ProofFile(about, claim, tuple(convert(query) for query, convert in parts))
    except (ValueError, IndexError, KeyError, Refused, UnsupportedModelError) as error:  # choices that make no sense
        return ProofFile(about, claim, fault=f"its choices are no proof: {error}")


def _property(about: About, entry: Entry, arrays: ProofArrays) -> Opened:
    parts = [_opened_part(value, number, arrays) for number, value in enumerate(entry.items("parts"))]
    if not parts:
        raise Damaged("it has no box")
    queries = tuple(query for query, _ in parts)
    claim = PropertyClaim(entry.text("property"), entry.sha256("property_sha256"), queries)

    def put_together(model: ImplicitModel) -> ProofFile:
        if claim.misfit(model):
            return ProofFile(about, claim)
        return _converted(about, claim, [(query, convert(model)) for query, convert in parts])

    return put_together


Convert = Callable[[ImplicitModel], Callable[[Query], Proof]]


def _opened_part(value: object, number: int, arrays: ProofArrays) -> tuple[Query, Convert]:
    entry, prefix = Entry(value, f"part {number}", ("alternatives", "chain")), f"{number}."
    lo, hi = (arrays.take(end, prefix=prefix) for end in ("lo", "hi"))
    if not (lo <= hi).all():
        raise Damaged(f"the box of part {number} is empty")
    alternatives: list[Conjunction] = []
    while arrays.has(f"{prefix}{len(alternatives)}.rows"):
        rows = arrays.take("#.rows", len(alternatives), prefix=prefix, free="rows")
        if len(rows) > MOST_ROWS:
            raise Damaged(f"alternative {len(alternatives)} of part {number} has {len(rows):,} rows")
        offsets = arrays.take("#.offsets", len(alternatives), prefix=prefix, rows=len(rows))
        alternatives.append(Conjunction(rows, offsets))
    if not alternatives:
        raise Damaged(f"part {number} names no alternative")
    if entry.whole("alternatives") != len(alternatives):
        raise Damaged(
            f"part {number} is said to have {entry.whole('alternatives')} alternatives, and has {len(alternatives)}"
        )
    query, chain = Query(Box.between(lo, hi), tuple(alternatives)), entry.get("chain")
    if chain is None:
        splits = opened_splits(prefix, arrays)
        return query, lambda model: lambda query: of_splits(splits)
    counts = [len(with_sums(alternative).rows) for alternative in alternatives]
    found = opened_chain(Entry(chain, f"the chain of part {number}", CHAIN_KEYS), prefix, arrays, counts)
    return query, lambda model: lambda query: of_chain(model, query, found)


def _witness(about: About, entry: Entry, arrays: ProofArrays) -> Opened:
    sizes = arrays.sizes
    adjoint = None if entry.get("adjoint") is None else entry.members("adjoint", len(sizes.blocks), "block")
    flat = []
    for j, value in enumerate(entry.items("flat")):
        proof = opened_proof(value, "flat.#", (j,), arrays, sizes.states)
        flat.append((proof, arrays.take("flat.#.r", j, states=sizes.states)))
    alone = entry.get("monotone")
    found = Witness(
        arrays.take("S"),
        opened_loops(entry, arrays),
        None if adjoint is None else {k: arrays.take("adjoint.#", k, states=sizes.blocks[k]) for k in adjoint},
        tuple(flat),
        monotone=None if alone is None else opened_proof(alone, "monotone", (), arrays, sizes.states),
    )
    return lambda model: ProofFile(about, SensitivityClaim(found.S), witness=found)


def opened_lp(value: object, arrays: ProofArrays) -> LpChain:
    """Return the chain of a file. Raises Damaged, or Misfit where it is not one of this model."""
    chain, sizes = LpChain(), arrays.sizes
    entry = Entry(value, "lp", ("boxes", "loops", "leaves"))
    for k in entry.members("boxes", len(sizes.blocks), "block"):
        lo, hi = (arrays.take(f"box.#.{end}", k, states=sizes.blocks[k])[None] for end in ("lo", "hi"))
        chain.z[k] = Interval(lo, hi)
    chain.proofs |= opened_loops(entry, arrays)
    for j in entry.members("leaves", sizes.outputs - 1, "rival"):
        phases = arrays.take("leaves.#.phases", j, free="leaves", states=sizes.states)
        multipliers = arrays.take("leaves.#.multipliers", j, leaves=len(phases), states=sizes.states)
        chain.trees[j] = LpLeaves(phases, multipliers)
    return chain


def opened_loops(entry: Entry, arrays: ProofArrays) -> dict[int, ProofWitness]:
    """Return block -> the proof of its loop, from the entry `loops`. Raises Damaged or Misfit."""
    found = {}
    for k, value in entry.numbered("loops").items():
        size = arrays.sizes.blocks[below(k, len(arrays.sizes.blocks), "a loop", "block")]
        found[k] = opened_proof(value, "loop.#", (k,), arrays, size)
    return found


def opened_proof(value: object, name: str, numbers: tuple[int, ...], arrays: ProofArrays, states: int) -> ProofWitness:
    """Return a proof over so many states, by its name among `PROOFS_OF`. Raises Damaged or Misfit."""
    entry = Entry(value, filled(name, numbers), ("kind", "middle", "arrays"))
    kind = entry.text("kind")
    if kind not in PROOFS_OF[name] or sorted(PROOFS[kind]) != entry.items("arrays"):
        raise Damaged(f"{filled(name, numbers)} is a proof of an unknown kind, or has other arrays than it needs")
    parts = {part: arrays.take(f"{name}.{part}", *numbers, states=states) for part in PROOFS[kind]}
    return ProofWitness(kind, parts, entry.flag("middle"))


@dataclass(frozen=True)
class Kind:
    """One kind of file: its version, its keys in meta beyond those of every kind, and how it is put together."""

    version: str
    claim: str
    """The kind of its claim today."""
    keys: tuple[str, ...]
    optional: tuple[str, ...]
    opened: Callable[[About, Entry, ProofArrays], Opened]


KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "certificate": Kind(
            "1.1",
            "sample",
            ("preprocessing", "index", "eps", "clip", "label"),
            ("threshold", "lp", *CHAIN_KEYS),
            _certificate,
        ),
        "property certificate": Kind("1.1", "property", ("property", "property_sha256", "parts"), (), _property),
        "witness": Kind("1.0", "sensitivity", ("preprocessing", "loops", "adjoint", "flat", "monotone"), (), _witness),
    }
)
"""What such a file may be."""
