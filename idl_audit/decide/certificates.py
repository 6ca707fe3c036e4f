"""Certificate files: what proves one certified sample, written by `certify --certificates` and checked by `verify`.

A certificate is an .npz file: the sample (centre), eps, perhaps radii (sigma) and the valid range of the data, which
together are the set; the label; and the chain of choices (`proof.chain`, as arrays: `decide.chains`), with
a JSON `meta`. It holds no bound: the check computes them all. A certificate of a model with loops, or of the method
`exact`, has the arrays of `lp_certificates` instead: there the box of states is given, and the check proves it anew.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from idl_audit.data.preprocessing import Preprocessing
from idl_audit.decide import lp_certificates
from idl_audit.decide.case import Recorded
from idl_audit.decide.chains import CHAIN_KEYS, opened_chain, packed_chain
from idl_audit.decide.lp_certificates import opened_lp
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.bounds import Interval
from idl_audit.proof.chain import Chain, Leaves, check_chain
from idl_audit.proof.files.arrays import ProofArrays
from idl_audit.proof.files.strict_json import Damaged, Entry, below
from idl_audit.proof.lp_chain import LpChain, check_lp_chain
from idl_audit.search import branching
from idl_audit.search.judge import Judge, Network
from idl_audit.values.arrays import AnyArray, FloatArray
from idl_audit.values.box import Box
from idl_audit.values.budget import Budget
from idl_audit.values.errors import InvalidInputError, UnsupportedModelError
from idl_audit.values.margins import margin_functionals
from idl_audit.values.npz import write_npz
from idl_audit.values.query import Query

SCHEMA_VERSION: Final = "1.1"
KIND: Final = "certificate"


@dataclass(frozen=True, eq=False)
class Ball:
    """The set around a sample: within eps sigma of it, and within the valid range."""

    centre: FloatArray
    eps: float
    sigma: FloatArray | None = None
    clip: tuple[float, float] | None = None

    @property
    def box(self) -> Box:
        """The set. Raises InvalidInputError where it makes no sense."""
        lo, hi = self.clip or (None, None)
        return Box.around(self.centre, self.eps, sigma=self.sigma, valid_lo=lo, valid_hi=hi)


@dataclass(frozen=True, eq=False)
class Certificate:
    """The claim that the network gives every input of a set the same class, and what proves it."""

    ball: Ball
    label: int
    chain: Chain | LpChain
    index: int
    """Which sample of the data it is."""

    def query(self, model: ImplicitModel) -> Query:
        """Return the query without counterexamples, if the claim holds."""
        return Query.misclassification(self.ball.box, model.n_outputs, self.label)

    @property
    def n_leaves(self) -> int:
        """Leaves of all trees."""
        if isinstance(self.chain, LpChain):
            return sum(len(leaves.phases) for leaves in self.chain.trees.values())
        return sum(sum(tree.sizes) for tree in self.chain.trees.values())

    def refused(self, model: ImplicitModel) -> list[str]:
        """Return why the chain does not prove the claim; empty where it does. The model reads data units."""
        if model.n_outputs < 2:
            return ["it speaks of classes, and the model has one output and the file no threshold"]
        if not 0 <= self.label < model.n_outputs or self.ball.centre.shape != (model.n_inputs,):
            return [
                f"it speaks of class {self.label} and {self.ball.centre.size} inputs, which the model does not have"
            ]
        chain, query = self.chain, self.query(model)
        if isinstance(chain, Chain):
            return refused_chain(model, query, chain)
        rows, inputs = margin_functionals(model.n_outputs, self.label), Interval.of_boxes(query.box)
        return refused_proof(model, lambda: check_lp_chain(model, inputs, rows, chain))


def refused_chain(model: ImplicitModel, query: Query, chain: Chain) -> list[str]:
    """Return why a chain does not prove that a query has no counterexample; empty where it does."""
    return refused_proof(model, lambda: check_chain(model, query, chain))


def refused_proof(model: ImplicitModel, check: Callable[[], list[str]]) -> list[str]:
    """Return what a check of a proof refuses; empty where the proof holds."""
    try:
        if not model.is_well_posed:
            return ["nothing proves that the model has one state for every input"]
        with np.errstate(all="ignore"):  # numbers that no search would choose prove nothing
            return check()
    except UnsupportedModelError as error:  # a box over which nothing bounds a loop
        return list(error.problems)
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
        chain.trees.setdefault(number, Leaves(0, [{}], [{}], [{}], [1], [{}], after=len(chain.rounds)))


def certificate_of(
    model: ImplicitModel,
    network: Network,
    ball: Ball,
    label: int,
    recorded: Recorded | None,
    *,
    index: int,
    budget: Budget,
) -> Certificate | None:
    """Return a certificate that was checked, for a sample that is certified; None where no chain proves it.

    What intervals, lines or the LP proved is proved again by the usual lines or, where these do not reach, by
    branching, within the budget: so is what splitting the inputs proved, for which these files have no place.
    """
    recorded = recorded or Recorded()
    chain = recorded.lp or recorded.chain
    if isinstance(chain, LpChain) or not model.is_feed_forward:
        known = chain if isinstance(chain, LpChain) else None
        rows = margin_functionals(model.n_outputs, label)
        proof = lp_certificates.completed(model, Interval.of_boxes(ball.box), rows, known, budget=budget)
        return None if proof is None else Certificate(ball, label, proof, index)
    tried = trivial_chain(model) if chain is None else chain
    complete(tried, model.n_outputs - 1)
    found = Certificate(ball, label, tried, index)
    if not found.refused(model):
        return found
    if not branching.applies(model):
        return None
    again = Chain()
    query = found.query(model)
    branching.branch(model, query, budget=budget, judge=Judge.of(model, network, query), record=again)
    found = Certificate(ball, label, again, index)
    return None if found.refused(model) else found


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
        chain: dict[str, Any] = {"lp": lp_certificates.packed(found.chain, arrays)}
    else:
        chain = packed_chain(found.chain, "", arrays)
    meta = {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
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


CLAIM_KEYS: Final = ("schema_version", "kind", "model_sha256", "output_name")
"""What every proof file says in `meta`: of which kind it is, and of which model."""
KEYS: Final = (*CLAIM_KEYS, "preprocessing", "index", "eps", "clip", "label")


def opened_certificate(meta: Mapping[str, Any], arrays: ProofArrays) -> Certificate:
    """Return the certificate in a file.

    Raises:
        Damaged: where the file contradicts itself.
        Misfit: where it speaks of blocks, states, inputs or classes that the model does not have.
    """
    entry = Entry(meta, "meta", (*KEYS, "lp") if "lp" in meta else (*KEYS, *CHAIN_KEYS), ("threshold",))
    centre = arrays.take("centre")
    sigma = arrays.take("sigma") if arrays.has("sigma") else None
    ball = Ball(centre, entry.number("eps"), sigma, entry.pair("clip"))
    try:
        _ = ball.box
    except InvalidInputError as error:
        raise Damaged(f"its set makes no sense: {error}") from error
    label = below(entry.whole("label"), arrays.sizes.outputs, "the label", "class")
    chain: Chain | LpChain = (
        opened_lp(entry.get("lp"), arrays)
        if "lp" in entry
        else opened_chain(entry, "", arrays, [1] * (arrays.sizes.outputs - 1))
    )
    return Certificate(ball, label, chain, entry.whole("index"))
