"""Certificate files: what proves one certified sample, written by `certify --certificates` and checked by `verify`.

A certificate is an .npz file: the box (lo, hi), the label, and the chain of choices (`analysis.branching.chain`) as
arrays `step.J.states`, `step.J.slopes.K`, `tree.A.B.phases.K`, `tree.A.B.slopes.K`, `tree.A.B.multipliers.K`, with a
JSON `meta` that says which there are. It holds no bound: the check computes them all. A certificate of a model with
loops, or of the method `exact`, has the arrays of `lp_certificates` instead: there the box of states is given, and the
check proves it anew.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from idl_audit.analysis import branching
from idl_audit.analysis.attacks import Network
from idl_audit.analysis.bounds import Interval
from idl_audit.analysis.branching.chain import Chain, Leaves, StateStep, check_chain
from idl_audit.analysis.lp_tree.chain import LpChain, check_lp_chain
from idl_audit.analysis.margins import margin_functionals
from idl_audit.analysis.query import Query
from idl_audit.arrays import AnyArray, FloatArray
from idl_audit.audit import lp_certificates
from idl_audit.box import Box
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.errors import ModelFileError
from idl_audit.implicit.model import ImplicitModel
from idl_audit.npz import write_npz

SCHEMA_VERSION: Final = "1.0"
KIND: Final = "certificate"


@dataclass(frozen=True, eq=False)
class Certificate:
    """The claim that the network gives every input of a box the same class, and what proves it."""

    box: Box
    label: int
    chain: Chain | LpChain
    index: int
    """Which sample of the data it is."""
    eps: float

    def query(self, model: ImplicitModel) -> Query:
        """Return the query without counterexamples, if the claim holds."""
        return Query.misclassification(self.box, model.n_outputs, self.label)

    @property
    def n_leaves(self) -> int:
        """Leaves of all trees."""
        if isinstance(self.chain, LpChain):
            return sum(len(leaves.phases) for leaves in self.chain.trees.values())
        return sum(sum(tree.sizes) for tree in self.chain.trees.values())

    def refused(self, model: ImplicitModel) -> list[str]:
        """Return why the chain does not prove the claim; empty where it does. The model reads data units."""
        if not 0 <= self.label < model.n_outputs or self.box.size != model.n_inputs:
            return [f"it speaks of class {self.label} and {self.box.size} inputs, which the model does not have"]
        if not model.is_well_posed:
            return ["nothing proves that the model has one state for every input"]
        try:
            if isinstance(self.chain, LpChain):
                rows = margin_functionals(model.n_outputs, self.label)
                return check_lp_chain(model, Interval.of_boxes(self.box), rows, self.chain)
            return check_chain(model, self.query(model), self.chain)
        except (ValueError, IndexError, KeyError, TypeError) as error:  # arrays that do not fit the model
            return [f"its arrays do not fit the model ({type(error).__name__}: {error})"]


def trivial_chain(model: ImplicitModel) -> Chain:
    """Return the chain of backward linear bounds: no choices beyond the usual lines, one leaf for each rival."""
    chain = Chain()
    complete(chain, model.n_outputs - 1)
    return chain


def complete(chain: Chain, n_alternatives: int) -> None:
    """Add a leaf with the usual lines for every alternative that has none."""
    for number in range(n_alternatives):
        chain.trees.setdefault(number, Leaves(0, [{}], [{}], [{}], [1]))


def certificate_of(
    model: ImplicitModel,
    network: Network,
    box: Box,
    label: int,
    chain: Chain | LpChain | None,
    *,
    index: int,
    eps: float,
    seconds: float,
) -> Certificate | None:
    """Return a certificate that was checked, for a sample that is certified; None where no chain proves it.

    What intervals, lines or the LP proved is proved again by the usual lines or, where these do not reach, by
    branching, for at most so many seconds.
    """
    if isinstance(chain, LpChain) or not model.is_feed_forward:
        known = chain if isinstance(chain, LpChain) else None
        rows = margin_functionals(model.n_outputs, label)
        proof = lp_certificates.completed(model, Interval.of_boxes(box), rows, known, seconds=seconds)
        return None if proof is None else Certificate(box, label, proof, index, eps)
    tried = trivial_chain(model) if chain is None else chain
    complete(tried, model.n_outputs - 1)
    found = Certificate(box, label, tried, index, eps)
    if not found.refused(model):
        return found
    if not branching.applies(model):
        return None
    again = Chain()
    query = Query.misclassification(box, model.n_outputs, label)
    branching.branch(model, query, deadline=time.monotonic() + seconds, network=network, record=again)
    found = Certificate(box, label, again, index, eps)
    return None if found.refused(model) else found


def write_certificate(
    path: Path, found: Certificate, *, sha256: str, output_name: str | None, preprocessing: Preprocessing, force: bool
) -> None:
    """Write a certificate for the model file with this hash. Raises OptionError where the file cannot be written."""
    arrays: dict[str, AnyArray] = {"lo": found.box.lo, "hi": found.box.hi}
    if isinstance(found.chain, LpChain):
        chain = {"lp": lp_certificates.packed(found.chain, arrays)}
    else:
        chain = _packed(found.chain, arrays)
    meta = {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "model_sha256": sha256,
        "output_name": output_name,
        "preprocessing": asdict(preprocessing),
        "index": found.index,
        "eps": found.eps,
        "label": found.label,
        **chain,
    }
    arrays["meta"] = np.asarray(json.dumps(meta))
    write_npz(path, arrays, force=force)


def _packed(chain: Chain, arrays: dict[str, AnyArray]) -> dict[str, Any]:
    """Put a chain's arrays among the others; return what `meta` says of them."""
    steps, trees = [], {}
    for j, step in enumerate(chain.steps):
        arrays[f"step.{j}.states"] = step.states
        for k, slopes in step.slopes.items():
            arrays[f"step.{j}.slopes.{k}"] = slopes
        steps.append({"block": step.block, "sign": step.sign, "slopes": sorted(step.slopes)})
    for a, leaves in chain.trees.items():
        batches = []
        for b, m in enumerate(leaves.sizes):
            parts: dict[str, Mapping[int, AnyArray]] = {
                "phases": leaves.phases[b],
                "slopes": leaves.slopes[b],
                "multipliers": leaves.multipliers[b],
            }
            for name, values in parts.items():
                for k, array in values.items():
                    arrays[f"tree.{a}.{b}.{name}.{k}"] = array
            batches.append({"size": m, **{name: sorted(values) for name, values in parts.items()}})
        trees[str(a)] = {"row": leaves.row, "batches": batches}
    return {"steps": steps, "trees": trees}


def opened_certificate(file: Path, meta: Mapping[str, Any], arrays: Mapping[str, AnyArray]) -> Certificate:
    """Return the certificate in a file. Raises ModelFileError where it is damaged."""
    try:

        def floats(key: str) -> FloatArray:
            if arrays[key].dtype.kind != "f":
                raise TypeError(f"an array of {arrays[key].dtype}")
            return arrays[key].astype(np.float64)

        def whole(key: str) -> AnyArray:
            if arrays[key].dtype.kind != "i":
                raise TypeError(f"an array of {arrays[key].dtype}")
            return arrays[key]

        found = lp_certificates.unpacked(meta["lp"], floats, whole) if "lp" in meta else _opened(meta, floats, whole)
        box = Box.between(floats("lo"), floats("hi"))
        return Certificate(box, int(meta["label"]), found, int(meta["index"]), float(meta["eps"]))
    except Exception as error:  # whatever a damaged file does to the lines above
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelFileError(f"{file} is a damaged certificate ({why}); write it anew") from error


def _opened(meta: Mapping[str, Any], floats: lp_certificates.Reader, whole: lp_certificates.Reader) -> Chain:
    """Return the chain of choices in a file. Raises whatever a damaged file does to it."""
    chain = Chain()
    for j, entry in enumerate(meta["steps"]):
        slopes = {int(k): floats(f"step.{j}.slopes.{int(k)}").astype(np.float32) for k in entry["slopes"]}
        states = whole(f"step.{j}.states").astype(np.int64)
        if (states < 0).any() or entry["sign"] not in (1.0, -1.0):
            raise ValueError("a step without states or sign")
        chain.steps.append(StateStep(int(entry["block"]), states, float(entry["sign"]), slopes))
    for a, entry in meta["trees"].items():
        leaves = Leaves(int(entry["row"]))
        for b, batch in enumerate(entry["batches"]):
            key = f"tree.{int(a)}.{b}"
            leaves.phases.append(
                {int(k): np.sign(whole(f"{key}.phases.{int(k)}")).astype(np.int8) for k in batch["phases"]}
            )
            leaves.slopes.append({int(k): floats(f"{key}.slopes.{int(k)}").astype(np.float32) for k in batch["slopes"]})
            leaves.multipliers.append(
                {int(k): floats(f"{key}.multipliers.{int(k)}").astype(np.float32) for k in batch["multipliers"]}
            )
            leaves.sizes.append(int(batch["size"]))
        chain.trees[int(a)] = leaves
    return chain
