"""Certificates by trees of LPs (`analysis.lp_tree.chain`): how their arrays lie in a certificate file.

`box.K.lo` and `box.K.hi` bound block K's pre-activations, `loop.K.NAME` are the arrays of its loop's proof, and
`leaves.J.phases`, `leaves.J.multipliers` the leaves of rival J.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from idl_audit.analysis.bounds import Interval, StateBounds
from idl_audit.analysis.lp_tree.chain import LpChain, LpLeaves, check_lp_chain, complete, prove_leaves
from idl_audit.analysis.lp_tree.tree import LpTree
from idl_audit.analysis.witness import ProofWitness
from idl_audit.arrays import AnyArray, FloatArray
from idl_audit.budget import Budget
from idl_audit.implicit.elimination import without_self_feedback
from idl_audit.implicit.model import ImplicitModel

Reader = Callable[[str], AnyArray]


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


def unpacked(meta: Mapping[str, Any], floats: Reader, whole: Reader) -> LpChain:
    """Return the chain in a file. Raises whatever a damaged file does to it."""
    chain = LpChain()
    for k in map(int, meta["boxes"]):
        chain.z[k] = Interval(floats(f"box.{k}.lo")[None], floats(f"box.{k}.hi")[None])
    for key, entry in meta["loops"].items():
        found = {str(name): floats(f"loop.{int(key)}.{name}") for name in entry["arrays"]}
        chain.proofs[int(key)] = ProofWitness(str(entry["kind"]), found, bool(entry["middle"]))
    for j in map(int, meta["leaves"]):
        phases = np.sign(whole(f"leaves.{j}.phases")).astype(np.int8)
        chain.trees[j] = LpLeaves(phases, floats(f"leaves.{j}.multipliers").astype(np.float32))
    return chain
