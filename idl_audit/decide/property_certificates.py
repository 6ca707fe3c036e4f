"""Certificates of VNN-LIB properties: what proves `unsat`, written by `certify MODEL PROPERTY --certificates`.

A certificate is an .npz file with one part for each input box: the box (`K.lo`, `K.hi`), each alternative's rows and
offsets (`K.A.rows`, `K.A.offsets`: a counterexample has rows y + offsets <= 0), and what refutes them all: a chain, or
a tree of boxes (`decide.chains`). It holds no bound: the check computes them all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from idl_audit.decide.case import Recorded
from idl_audit.decide.certificates import CLAIM_KEYS, SCHEMA_VERSION, refused_proof
from idl_audit.decide.chains import CHAIN_KEYS, opened_chain, opened_splits, packed_chain, packed_splits
from idl_audit.decide.rungs import FEW_INPUTS
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval
from idl_audit.proof.chain import Chain, Leaves, check_chain, checked_bounds
from idl_audit.proof.files.arrays import ProofArrays
from idl_audit.proof.files.strict_json import Damaged, Entry
from idl_audit.proof.linear_bounds import output_lower_bounds
from idl_audit.proof.rows import with_sums
from idl_audit.proof.split_tree import SplitTree, check_splits
from idl_audit.search import branching
from idl_audit.search.judge import Judge, Network
from idl_audit.search.splitting.boxes import moving_inputs
from idl_audit.values.arrays import AnyArray
from idl_audit.values.box import Box
from idl_audit.values.budget import Budget
from idl_audit.values.errors import BudgetError
from idl_audit.values.npz import write_npz
from idl_audit.values.query import Conjunction, Query

KIND: Final = "property certificate"
MOST_ROWS: Final = 2**17
"""Of one alternative: far more than a property file may have."""


@dataclass(frozen=True, eq=False)
class Part:
    """The claim that no input of one box satisfies an alternative, and what proves it."""

    query: Query
    proof: Chain | SplitTree

    def refused(self, model: ImplicitModel) -> list[str]:
        """Return why the proof does not hold; empty where it does."""
        shapes = [(c.rows.shape[1:], len(c.offsets) - len(c.rows)) for c in self.query.alternatives]
        if self.query.box.size != model.n_inputs or any(shape != ((model.n_outputs,), 0) for shape in shapes):
            return ["it speaks of inputs or outputs that the model does not have"]
        if not self.query.alternatives:
            return ["it names no alternative"]
        if model.stripped_output and not all(map(_compares, self.query.alternatives)):
            return [f"it speaks of values of {model.stripped_output}, which the model leaves out"]
        proof = self.proof
        if isinstance(proof, Chain):
            return refused_proof(model, lambda: check_chain(model, with_sums_of_rows(self.query), proof))
        return refused_proof(model, lambda: list(filter(None, [check_splits(model, self.query, proof)])))

    def asks(self, query: Query) -> bool:
        """Return whether the part answers this query: the same box and the same alternatives."""
        own = self.query
        return (
            np.array_equal(own.box.lo, query.box.lo)
            and np.array_equal(own.box.hi, query.box.hi)
            and len(own.alternatives) == len(query.alternatives)
            and all(
                np.array_equal(a.rows, b.rows) and np.array_equal(a.offsets, b.offsets)
                for a, b in zip(own.alternatives, query.alternatives, strict=True)
            )
        )


@dataclass(frozen=True, eq=False)
class PropertyCertificate:
    """The claim that a property is unsat, one part for each of its boxes."""

    parts: tuple[Part, ...]
    name: str
    """The property's file."""
    sha256: str
    """Of that file."""

    def refused(self, model: ImplicitModel) -> list[str]:
        """Return why the claim is not proved; empty where it is."""
        if not self.parts:
            return ["it has no box"]
        return [f"box {number}: {why}" for number, part in enumerate(self.parts) for why in part.refused(model)]

    def refused_for(self, queries: Sequence[Query]) -> list[str]:
        """Return why it is no answer to a property with these queries; empty where it is."""
        if len(queries) != len(self.parts) or not all(map(Part.asks, self.parts, queries)):
            return ["it is the certificate of another property: its boxes or alternatives differ"]
        return []


def _compares(alternative: Conjunction) -> bool:
    """Return whether every row says y_i <= y_j."""
    return not alternative.offsets.any() and all(
        np.count_nonzero(row) == 2 and row.sum() == 0 for row in alternative.rows
    )


def with_sums_of_rows(query: Query) -> Query:
    """Return the query with sums of rows added to each alternative: it has the same counterexamples."""
    return Query(query.box, tuple(Conjunction(*with_sums(alternative)) for alternative in query.alternatives))


def part_of(
    model: ImplicitModel, network: Network, query: Query, recorded: Recorded | None, *, budget: Budget
) -> Part | None:
    """Return a checked proof of a query that is unsat; None where what the budget allows proves nothing.

    What was recorded comes first; what only intervals or lines proved is proved again by lines, by splitting a box of
    few inputs, or by branching.
    """
    box = query.box
    plain = Query(Box.between(box.lo, box.hi), tuple(Conjunction(c.rows, c.offsets) for c in query.alternatives))
    recorded = recorded or Recorded()
    if recorded.splits is not None:
        return _grown(model, plain, recorded.splits, budget)
    chain = _completed(model, with_sums_of_rows(plain), recorded.chain or Chain())
    found = Part(plain, chain)
    if not found.refused(model):
        return found
    if moving_inputs(box).size <= FEW_INPUTS:
        return _grown(model, plain, SplitTree(), budget)
    if not branching.applies(model):
        return None
    again = Chain()
    asked = with_sums_of_rows(plain)
    branching.branch(model, asked, budget=budget, judge=Judge.of(model, network, asked), record=again)
    found = Part(plain, again)
    return None if found.refused(model) else found


def _grown(model: ImplicitModel, query: Query, tree: SplitTree, budget: Budget) -> Part | None:
    """Return the proof by a tree of boxes, whose open leaves are split further; None where the time is over."""
    try:
        if check_splits(model, query, tree, grow=budget):
            return None
    except BudgetError:
        return None
    found = Part(query, tree)
    return None if found.refused(model) else found


def _completed(model: ImplicitModel, query: Query, chain: Chain) -> Chain:
    """Return the chain with a leaf of the usual lines for every alternative that has none, for its best row."""
    inputs = Interval.of_boxes(query.box)
    bounds = checked_bounds(model, inputs, chain.steps)
    trees = dict(chain.trees)
    for number, alternative in enumerate(query.alternatives):
        if number not in trees and len(alternative.rows):
            lowers = output_lower_bounds(model, inputs, bounds, alternative.rows)[0] + alternative.offsets
            best = int(np.nan_to_num(lowers, nan=-np.inf).argmax())
            trees[number] = Leaves(best, [{}], [{}], [{}], [1], [{}], after=len(chain.rounds))
    return replace(chain, trees=trees)


def write_property_certificate(
    path: Path, parts: Sequence[Part], *, vnnlib: Path, sha256: str, output_name: str | None, force: bool
) -> None:
    """Write the certificate of a property for the model file with this hash. Raises OptionError."""
    arrays: dict[str, AnyArray] = {}
    entries = []
    for number, part in enumerate(parts):
        arrays[f"{number}.lo"], arrays[f"{number}.hi"] = part.query.box.lo, part.query.box.hi
        for a, alternative in enumerate(part.query.alternatives):
            arrays[f"{number}.{a}.rows"], arrays[f"{number}.{a}.offsets"] = alternative.rows, alternative.offsets
        entry: dict[str, Any] = {"alternatives": len(part.query.alternatives), "chain": None}
        if isinstance(part.proof, Chain):
            entry["chain"] = packed_chain(part.proof, f"{number}.", arrays)
        else:
            packed_splits(part.proof, f"{number}.", arrays)
        entries.append(entry)
    meta = {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "model_sha256": sha256,
        "output_name": output_name,
        "property": vnnlib.name,
        "property_sha256": hashlib.sha256(vnnlib.read_bytes()).hexdigest(),
        "parts": entries,
    }
    arrays["meta"] = np.asarray(json.dumps(meta))
    write_npz(path, arrays, force=force)


def opened_property_certificate(meta: Mapping[str, Any], arrays: ProofArrays) -> PropertyCertificate:
    """Return the certificate in a file.

    Raises:
        Damaged: where the file contradicts itself.
        Misfit: where it speaks of blocks, states, inputs or outputs that the model does not have.
    """
    entry = Entry(meta, "meta", (*CLAIM_KEYS, "property", "property_sha256", "parts"))
    parts = [_opened_part(value, number, arrays) for number, value in enumerate(entry.items("parts"))]
    if not parts:
        raise Damaged("it has no box")
    return PropertyCertificate(tuple(parts), entry.text("property"), entry.sha256("property_sha256"))


def _opened_part(value: object, number: int, arrays: ProofArrays) -> Part:
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
        return Part(query, opened_splits(prefix, arrays))
    counts = [len(with_sums(alternative)[0]) for alternative in alternatives]
    return Part(query, opened_chain(Entry(chain, f"the chain of part {number}", CHAIN_KEYS), prefix, arrays, counts))
