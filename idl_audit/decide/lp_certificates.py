"""Certificates by trees of LPs (`proof.lp_chain`): how their arrays lie in a certificate file.

`box.K.lo` and `box.K.hi` bound block K's pre-activations, `loop.K.NAME` are the arrays of its loop's proof, and
`leaves.J.phases`, `leaves.J.multipliers` the leaves of rival J.
"""

from __future__ import annotations

from typing import Any

from idl_audit.implicit.elimination import without_self_feedback
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.files.strict_json import Damaged, Entry, below
from idl_audit.proof.format_1.arrays import PROOFS, PROOFS_OF, ProofArrays, filled
from idl_audit.proof.lp_chain import LpChain, LpLeaves, check_lp_chain, complete, prove_leaves
from idl_audit.proof.sensitivity_witness import ProofWitness
from idl_audit.search.lp_tree.tree import LpTree
from idl_audit.values.arrays import AnyArray, FloatArray
from idl_audit.values.budget import Budget


def completed(
    model: ImplicitModel, inputs: Interval, functionals: FloatArray, chain: LpChain | None, *, budget: Budget
) -> LpChain | None:
    """Return a chain that proves functionals . y > 0 over one box, checked; None where none was found in time.

    What closed forms proved before is proved again by them or, where float32 multipliers do not reach, by a tree.
    """
    found = LpChain() if chain is None else chain
    complete(model, inputs, functionals, found)
    there, bounds = without_self_feedback(model), StateBounds(dict(found.z))
    tree: LpTree | None = None
    for number, functional in enumerate(functionals):
        if bool((prove_leaves(there, inputs, bounds, functional, found.trees[number]) > 0).all()):
            continue
        tree = LpTree(there, inputs, bounds, budget) if tree is None else tree
        grown = tree.grow(functional, lambda u: False)
        if not grown.lower > 0:
            return None
        found.trees[number] = grown.leaves
    return None if check_lp_chain(model, inputs, functionals, found) else found


def packed(chain: LpChain, arrays: dict[str, AnyArray]) -> dict[str, Any]:
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
