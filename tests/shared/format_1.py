"""Writers of proof files of format 1, which `verify` still reads; no command writes them any more."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide.proofs import Recorded
from idl_audit.implicit.elimination import without_self_feedback
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval
from idl_audit.proof.chain import Chain, Leaves, StateTrees
from idl_audit.proof.check import check
from idl_audit.proof.convert import of_chain, of_lp_chain, of_splits
from idl_audit.proof.files.claims import Ball
from idl_audit.proof.format_1.chains import CHOICES
from idl_audit.proof.linear_bounds import backward_state_bounds
from idl_audit.proof.lp_chain import LpChain, widened
from idl_audit.proof.planes import AllPlanes
from idl_audit.proof.sensitivity_witness import ProofWitness, Witness, loop_witnesses
from idl_audit.proof.split_tree import SplitTree
from idl_audit.search import branching
from idl_audit.search.judge import Judge
from idl_audit.search.lp_tree.tree import LpTree
from idl_audit.search.splitting.growth import grown
from idl_audit.values.arrays import AnyArray
from idl_audit.values.budget import UNLIMITED
from idl_audit.values.network import Network
from idl_audit.values.npz import write_npz
from idl_audit.values.query import Query, plain


@dataclass(frozen=True, eq=False)
class Certificate:
    """The claim of one sample, and what was recorded of its proof."""

    ball: Ball
    label: int
    chain: Chain | LpChain
    index: int

    def query(self, model: ImplicitModel) -> Query:
        return Query.misclassification(self.ball.inputs, model.n_outputs, self.label)

    def refused(self, model: ImplicitModel) -> list[str]:
        """Return why it proves nothing, as `verify` finds it."""
        return refused(model, self.query(model), self.chain)


@dataclass(frozen=True, eq=False)
class Part:
    """One box of a property, and what was recorded of its proof."""

    query: Query
    proof: Chain | SplitTree

    def refused(self, model: ImplicitModel) -> list[str]:
        """Return why it proves nothing, as `verify` finds it."""
        return refused(model, self.query, self.proof)


def refused(model: ImplicitModel, query: Query, recorded: Chain | LpChain | SplitTree) -> list[str]:
    """Return what the one checker refuses of a record made a proof."""
    try:
        if isinstance(recorded, Chain):
            proof = of_chain(model, query, recorded)
        elif isinstance(recorded, LpChain):
            proof = of_lp_chain(model, query, recorded)
        else:
            proof = of_splits(recorded)
    except (ValueError, IndexError, KeyError) as error:
        return [str(error)]
    return check(model, query, proof)


def trivial_chain(model: ImplicitModel) -> Chain:
    """Return the chain of backward linear bounds: no choices beyond the usual lines, one leaf for each rival."""
    chain = Chain()
    complete(chain, model.n_outputs - 1)
    return chain


def complete(chain: Chain, n_alternatives: int) -> None:
    """Add a leaf with the usual lines for every alternative that has none."""
    for number in range(n_alternatives):
        chain.trees.setdefault(number, Leaves(0, [{}], [{}], [{}], [1], [{}], after=len(chain.rounds)))


def certificate_of(
    model: ImplicitModel, network: Network, ball: Ball, label: int, chain: Chain | LpChain | None, *, index: int
) -> Certificate | None:
    """Return a certificate that holds; None where neither lines nor a search proves it."""
    query = Query.misclassification(ball.inputs, model.n_outputs, label)
    if not model.is_feed_forward:
        found = Certificate(ball, label, grown_programs(model, query, chain), index)
        return None if found.refused(model) else found
    tried = trivial_chain(model) if chain is None else chain
    complete(tried, model.n_outputs - 1)
    found = Certificate(ball, label, tried, index)
    if not found.refused(model):
        return found
    again = Chain()
    branching.branch(model, query, budget=UNLIMITED, judge=Judge.of(model, network, query), record=again)
    found = Certificate(ball, label, again, index)
    return None if found.refused(model) else found


def grown_programs(model: ImplicitModel, query: Query, known: Chain | LpChain | None) -> LpChain:
    """Return trees of linear programs for every rival, and the loops' proofs."""
    there, inputs = without_self_feedback(model), Interval.of_set(query.inputs)
    bounds = widened(backward_state_bounds(there, inputs))
    chain = LpChain(dict(bounds.z), dict(known.trees) if isinstance(known, LpChain) else {}, loop_witnesses(model))
    tree = LpTree(there, inputs, bounds)
    for number, alternative in enumerate(query.alternatives):
        if number not in chain.trees:
            chain.trees[number] = tree.grow(alternative.rows[0], lambda u: False).leaves
    return chain


def part_of(model: ImplicitModel, query: Query, recorded: Recorded) -> Part:
    """Return the part of a property that was recorded, its leaves split further where they must be."""
    query = plain(query)
    if recorded.splits is not None:
        tree = grown(model, query, recorded.splits, UNLIMITED)
        assert tree is not None
        return Part(query, tree)
    chain = recorded.chain or Chain()
    complete(chain, len(query.alternatives))
    return Part(query, chain)


def packed_chain(chain: Chain, prefix: str, arrays: dict[str, AnyArray]) -> dict[str, Any]:
    """Put the arrays of a chain into `arrays` and return its entries of meta."""
    steps: list[dict[str, Any]] = []
    trees: dict[str, Any] = {}
    for j, step in enumerate(chain.steps):
        arrays[f"{prefix}step.{j}.states"] = step.states
        for k, slopes in step.slopes.items():
            arrays[f"{prefix}step.{j}.slopes.{k}"] = slopes
        steps.append({"block": step.block, "sign": step.sign, "slopes": sorted(step.slopes)})
    for a, leaves in chain.trees.items():
        batches = []
        for b, m in enumerate(leaves.sizes):
            chosen = leaves.phases[b], leaves.slopes[b], leaves.multipliers[b]
            key = f"{prefix}tree.{a}.{b}"
            packed = {**_packed_choices(chosen, key, arrays), **_packed_planes(leaves.planes[b], key, arrays)}
            batches.append({"size": m, **packed})
        trees[str(a)] = {"row": leaves.row, "after": leaves.after, "batches": batches}
    for k, states in chain.kept.items():
        arrays[f"{prefix}kept.{k}"] = states
    rounds = [
        [_packed_states(own, f"{prefix}round.{r}.{j}", arrays) for j, own in enumerate(trees_of_round)]
        for r, trees_of_round in enumerate(chain.rounds)
    ]
    return {"steps": steps, "kept": sorted(chain.kept), "rounds": rounds, "trees": trees}


def _packed_states(own: StateTrees, key: str, arrays: dict[str, AnyArray]) -> dict[str, Any]:
    arrays[f"{key}.states"], arrays[f"{key}.signs"], arrays[f"{key}.owner"] = own.states, own.signs, own.owner
    choices = _packed_choices((own.phases, own.slopes, own.multipliers), key, arrays)
    return {"block": own.block, **choices, **_packed_planes(own.planes, key, arrays)}


def _packed_choices(
    chosen: tuple[Mapping[int, AnyArray], ...], key: str, arrays: dict[str, AnyArray]
) -> dict[str, list[int]]:
    named = dict(zip(CHOICES, chosen, strict=True))
    for name, values in named.items():
        for k, array in values.items():
            arrays[f"{key}.{name}.{k}"] = array
    return {name: sorted(values) for name, values in named.items()}


def _packed_planes(planes: AllPlanes, key: str, arrays: dict[str, AnyArray]) -> dict[str, list[int]]:
    for k, own in planes.items():
        arrays[f"{key}.planes.{k}.states"], arrays[f"{key}.planes.{k}.shares"] = own.states, own.shares
    return {"planes": sorted(planes)}


def packed_splits(tree: SplitTree, prefix: str, arrays: dict[str, AnyArray]) -> None:
    """Put the arrays of a tree of boxes into `arrays`."""
    arrays[f"{prefix}split.inputs"] = np.asarray(tree.inputs, np.int64)
    arrays[f"{prefix}split.cuts"] = np.asarray(tree.cuts, np.float64)
    arrays[f"{prefix}split.children"] = np.asarray(tree.children, np.int64)


def packed_lp(chain: LpChain, arrays: dict[str, AnyArray]) -> dict[str, Any]:
    """Put a chain's arrays among the others; return what `meta` says of them."""
    for k, box in chain.z.items():
        arrays[f"box.{k}.lo"], arrays[f"box.{k}.hi"] = box.lo[0], box.hi[0]
    for k, proof in chain.proofs.items():
        arrays |= {f"loop.{k}.{name}": array for name, array in proof.arrays.items()}
    for j, leaves in chain.trees.items():
        arrays[f"leaves.{j}.phases"], arrays[f"leaves.{j}.multipliers"] = leaves.phases, leaves.multipliers
    return {
        "boxes": sorted(chain.z),
        "loops": {
            str(k): {"kind": proof.kind, "middle": proof.middle, "arrays": sorted(proof.arrays)}
            for k, proof in chain.proofs.items()
        },
        "leaves": sorted(chain.trees),
    }


def write_certificate(
    path: Path,
    found: Certificate,
    *,
    sha256: str,
    output_name: str | None,
    threshold: float | None = None,
    preprocessing: Preprocessing,
    force: bool,
) -> None:
    """Write a certificate for the model file with this hash; `threshold` makes the classes of one output.

    Raises:
        OptionError: where the file cannot be written.
    """
    ball = found.ball
    arrays: dict[str, AnyArray] = {"centre": ball.centre}
    if ball.sigma is not None:
        arrays["sigma"] = ball.sigma
    if isinstance(found.chain, LpChain):
        chain: dict[str, Any] = {"lp": packed_lp(found.chain, arrays)}
    else:
        chain = packed_chain(found.chain, "", arrays)
    meta = {
        "schema_version": "1.1",
        "kind": "certificate",
        "model_sha256": sha256,
        "output_name": output_name,
        "threshold": threshold,
        "preprocessing": asdict(preprocessing),
        "index": found.index,
        "eps": ball.eps,
        "clip": ball.clip,
        "label": found.label,
        **chain,
    }
    arrays["meta"] = np.asarray(json.dumps(meta))
    write_npz(path, arrays, force=force)


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
        "schema_version": "1.1",
        "kind": "property certificate",
        "model_sha256": sha256,
        "output_name": output_name,
        "property": vnnlib.name,
        "property_sha256": hashlib.sha256(vnnlib.read_bytes()).hexdigest(),
        "parts": entries,
    }
    arrays["meta"] = np.asarray(json.dumps(meta))
    write_npz(path, arrays, force=force)


def write_witness(
    path: Path, witness: Witness, *, sha256: str, output_name: str | None, preprocessing: Preprocessing, force: bool
) -> None:
    """Write a witness for the model file with this hash, in data units.

    Raises:
        OptionError: where the file cannot be written.
    """
    arrays: dict[str, AnyArray] = {"S": witness.S}
    meta: dict[str, Any] = {
        "schema_version": "1.0",
        "kind": "witness",
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
