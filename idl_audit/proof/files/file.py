"""Proof files, schema_version 2.0: one claim about a model, and the choices that make it easy to check.

docs/proof-format.md describes them, enough to write another checker. Headers are compared with a table before an array
is read (`door`), and everything else happens in `check`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias, get_args

import numpy as np

from idl_audit.implicit.front import with_family
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.pair import FORMS
from idl_audit.proof.check import check
from idl_audit.proof.exact.refutation import ExactQuery
from idl_audit.proof.files.arrays import (
    CONTRACTION,
    LOOP,
    NORMED,
    PROOF,
    REAL,
    WEIGHTED,
    WHOLE,
    opened,
    opened_forest,
    opened_loop,
    opened_loops,
    pack_forest,
    pack_loop,
    packed,
    sizes,
    tree_of,
)
from idl_audit.proof.files.claims import (
    About,
    Ball,
    DemandClaim,
    MonotoneClaim,
    PerturbedClaim,
    PropertyClaim,
    QueryClaim,
    SampleClaim,
    SensitivityClaim,
    Units,
)
from idl_audit.proof.files.door import Arrays, Name, Spec, check_values, fit
from idl_audit.proof.files.pairs import PAIRED, AgreementClaim, DifferenceClaim, Pairing
from idl_audit.proof.files.ranges import (
    NEVER,
    OF_LIMITS,
    RISING,
    STAYS,
    RangeClaim,
    opened_limits,
    opened_range,
    pack_limits,
    pack_range,
)
from idl_audit.proof.files.rows import ROWS, RowsClaim, opened_rows, pack_rows, with_rules
from idl_audit.proof.files.strict_json import Damaged, Entry, Misfit, below, parsed, whole
from idl_audit.proof.float_check import check_computed
from idl_audit.proof.float_margins import Arithmetic, FloatMargins, Unbounded
from idl_audit.proof.forest import Forest
from idl_audit.proof.proof import Proof
from idl_audit.proof.sensitivity_witness import Checked, Witness, check_witness
from idl_audit.values.arrays import AnyArray
from idl_audit.values.box import Box
from idl_audit.values.demand import AmongFirst, Parted, PixelClasses
from idl_audit.values.errors import DataError, InvalidInputError
from idl_audit.values.families import Family
from idl_audit.values.npz import NpzFile, write_npz
from idl_audit.values.patches import Patch
from idl_audit.values.perturbations import Around, Directions, Perturbation, Perturbed, Term
from idl_audit.values.query import Conjunction, Query
from idl_audit.values.rotations import MOST_DEGREES, Rotation
from idl_audit.values.shifts import Shift
from idl_audit.values.verdicts import ArithmeticName, NormName

SCHEMA_VERSION: Final = "2.0"
KIND: Final = "proof"
ARITHMETICS: Final[Mapping[str, ArithmeticName]] = MappingProxyType({one: one for one in get_args(ArithmeticName)})
"""What a claim may be about, by its word."""
NORM_NAMES: Final[Mapping[str, NormName]] = MappingProxyType({"l2": "l2", "l1": "l1"})
"""Norms that a claim may name; without a name it is about linf."""
LONGEST_META: Final = 2**22
"""Characters that `meta` may have in a file of any size; a larger file may have as many as it has bytes."""

SAMPLE: Final[Mapping[str, Spec]] = MappingProxyType(
    {**PROOF, "centre": Spec(REAL, ("inputs",)), "sigma": Spec(REAL, ("inputs",), 0)}
)
PERTURBED: Final[Mapping[str, Spec]] = MappingProxyType(
    {
        **PROOF,
        "centre": Spec(REAL, ("sample",)),
        "directions": Spec(REAL, ("directions/0", "sample")),
        "low": Spec(REAL, ("directions/0",)),
        "high": Spec(REAL, ("directions/0",)),
        "angles": Spec(REAL, ("angles/1",), -MOST_DEGREES, MOST_DEGREES, ascending=True),
    }
)
PROPERTY: Final[Mapping[str, Spec]] = MappingProxyType(
    {
        **PROOF,
        "part.*.lo": Spec(REAL, ("inputs",)),
        "part.*.hi": Spec(REAL, ("inputs",)),
        "part.*.alternative.*.rows": Spec(REAL, ("rows/4", "outputs")),
        "part.*.alternative.*.offsets": Spec(REAL, ("rows/4",)),
        "part.*.alternative.*.strict": Spec(WHOLE, ("rows/4",), 0, 1),
    }
)
GROUPS: Final[Mapping[str, Spec]] = MappingProxyType(
    {**SAMPLE, "group.*.parts": Spec(WHOLE, ("parts/2",), 0, ascending=True)}
)
LIMITS: Final[Mapping[str, Spec]] = MappingProxyType({**GROUPS, **OF_LIMITS})
PIXELS: Final[Mapping[str, Spec]] = MappingProxyType({**GROUPS, "pixel.labels": Spec(WHOLE, ("pixels/1",), 0)})
DIFFERENCE: Final[Mapping[str, Spec]] = MappingProxyType({**SAMPLE, "limits": Spec(REAL, ("pair outputs",), 0)})
MONOTONE: Final[Mapping[str, Spec]] = MappingProxyType(
    {"centre": Spec(REAL, ("inputs",)), **{f"tree.{name}": spec for name, spec in tree_of("tree").items()}}
)
SENSITIVITY: Final[Mapping[str, Spec]] = MappingProxyType(
    {
        "S": Spec(REAL, ("outputs", "inputs")),
        "adjoint.*": Spec(REAL, ("outputs", "states"), 0),
        "flat.*.r": Spec(REAL, ("outputs", "all"), 0),
        **{f"loop.*.{name}": Spec(REAL, shape) for name, shape in LOOP.items()},
        **{
            f"{part}.{name}": Spec(REAL, tuple("all" if size == "loop" else size for size in LOOP[name]))
            for part, names in (("flat.*", CONTRACTION), ("norms.*", NORMED), ("monotone", WEIGHTED))
            for name in sorted(names)
        },
    }
)
"""Pattern of a name -> what arrays of that name are, for each kind of claim."""

Claim: TypeAlias = (
    SampleClaim
    | DemandClaim
    | MonotoneClaim
    | RangeClaim
    | RowsClaim
    | PerturbedClaim
    | PropertyClaim
    | QueryClaim
    | SensitivityClaim
    | AgreementClaim
    | DifferenceClaim
)


@dataclass(frozen=True, eq=False)
class ProofFile:
    """A claim and what proves it: a proof for each query of a sample or property, a witness of S, a tree of boxes."""

    about: About
    claim: Claim
    proofs: tuple[Proof, ...] = ()
    witness: Witness | None = None
    tree: Forest | None = None
    """Of a score that never falls."""
    fault: str = ""
    """Of a file of format 1: why its choices are no proof."""

    def checked(self, model: ImplicitModel, arithmetic: Arithmetic = None, exact: Sequence[ExactQuery] = ()) -> Checked:
        """Return how many claims there are and why some do not hold.

        Args:
            model: in the claim's units.
            arithmetic: of a claim about floating-point arithmetic: what bounds its roundings in this model.
            exact: of one about real numbers: for each query what refutations in rational numbers are about.
        """
        if isinstance(self.claim, SensitivityClaim):
            if self.witness is None:
                return Checked(model.n_outputs, ("nothing in the file proves any bound of S",))
            with np.errstate(all="ignore"):  # numbers that no search would choose prove nothing
                return check_witness(model, self.witness)
        why = self.claim.misfit(model)
        if why:
            return Checked(1, (why,))
        if isinstance(self.claim, MonotoneClaim) or (isinstance(self.claim, RangeClaim) and not self.proofs):
            if self.tree is None:
                return Checked(1, ("nothing in the file proves it",))
            with np.errstate(all="ignore"):
                return Checked(1, tuple(self.claim.refused(model, self.tree)))
        if isinstance(self.claim, PAIRED) and (self.claim.is_settled(model) or self.claim.pairing.other == self.about):
            return Checked(1, () if model.is_well_posed else ("nothing proves that the models have one state",))
        queries = self.claim.queries(model)
        count = sum(len(query.alternatives) for query in queries)
        if self.fault:
            return Checked(count, (self.fault,))
        why = self._unbounded(arithmetic)
        if why:
            return Checked(count, (why,))
        try:
            refused = self._refused(model, queries, arithmetic, exact or (None,) * len(queries))
        except DataError as error:  # a piece that is made where it is checked
            refused = [f"its set makes no sense: {error}"]
        return Checked(count, tuple(refused))

    def _unbounded(self, arithmetic: Arithmetic) -> str:
        """Return why nothing is known of the roundings that the claim is about; empty where that is known."""
        if self.about.arithmetic == "real":
            return ""
        if isinstance(arithmetic, FloatMargins):
            own = arithmetic.written.arithmetic.name
            if own == self.about.arithmetic:
                return ""
            return f"it speaks of {self.about.arithmetic} arithmetic, and the network computes in {own}"
        return arithmetic.told if isinstance(arithmetic, Unbounded) else "nothing bounds what its arithmetic changes"

    def _refused(
        self,
        model: ImplicitModel,
        queries: tuple[Query, ...],
        arithmetic: Arithmetic,
        exact: Sequence[ExactQuery | None],
    ) -> list[str]:
        if not model.is_well_posed:
            return ["nothing proves that the model has one state for every input"]
        nothing_left = isinstance(self.claim, QueryClaim)
        if not (queries or nothing_left) or len(queries) != len(self.proofs):
            return [f"it has {len(self.proofs)} proofs for {len(queries)} queries"]
        found = []
        asked = zip(_questions(self.claim, model), self.proofs, exact, strict=True)
        for number, ((there, query), proof, own) in enumerate(asked):
            where = f"{_PARTS[type(self.claim)]} {number}: " if type(self.claim) in _PARTS else ""
            if not query.alternatives:
                found.append(f"{where}it names no alternative")
            found += [where + why for why in self._open(there, query, proof, arithmetic, own)]
        return found

    def _open(
        self, model: ImplicitModel, query: Query, proof: Proof, arithmetic: Arithmetic, exact: ExactQuery | None
    ) -> list[str]:
        """Return why one proof does not hold, in the arithmetic that the claim is about."""
        if self.about.arithmetic == "real":
            return check(model, query, proof, exact=exact)
        assert isinstance(arithmetic, FloatMargins)  # by `_unbounded`
        return check_computed(model, query, proof, arithmetic)

    @property
    def n_leaves(self) -> int:
        """Leaves of the trees that refute alternatives."""
        return sum(proof.n_leaves for proof in self.proofs) + (0 if self.tree is None else self.tree.n_leaves)


def _questions(claim: Claim, model: ImplicitModel) -> Iterator[tuple[ImplicitModel, Query]]:
    """Yield the queries of a claim, each with the model that it is about."""
    if isinstance(claim, PerturbedClaim | RowsClaim):
        yield from claim.questions(model)
    elif not isinstance(claim, SensitivityClaim | MonotoneClaim):
        yield from ((model, query) for query in claim.queries(model))


_PARTS: Final[Mapping[type, str]] = MappingProxyType(
    {PropertyClaim: "box", QueryClaim: "box", PerturbedClaim: "piece", RowsClaim: "cell", DemandClaim: "group"}
)
"""What the queries of a claim with several are about."""


# --- writing ---------------------------------------------------------------------------------------------------------


def write_proof(path: Path, found: ProofFile, *, tool: str, force: bool) -> None:
    """Write a proof file, whole or not at all. Raises OptionError where that cannot be."""
    arrays: dict[str, AnyArray] = {}
    about = found.about
    meta = {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "tool": tool,
        "arithmetic": about.arithmetic,
        "model": _packed_about(about),
        "claim": _packed_claim(found.claim, arrays),
    }
    for number, proof in enumerate(found.proofs):
        packed(proof, number, arrays)
    if found.witness is not None:
        _pack_witness(found.witness, arrays)
    if found.tree is not None:
        pack_forest(found.tree, "tree", arrays)
    arrays["meta"] = np.asarray(json.dumps(meta, allow_nan=False))
    write_npz(path, arrays, force=force)


def _packed_about(about: About) -> dict[str, Any]:
    return {
        "sha256": about.sha256,
        "output_name": about.output_name,
        "preprocessing": asdict(about.units),
        "threshold": about.threshold,
    }


def _packed_claim(claim: Claim, arrays: dict[str, AnyArray]) -> dict[str, Any]:
    """Put a claim's arrays among others and return its entry of meta."""
    if isinstance(claim, SensitivityClaim):
        arrays["S"] = np.asarray(claim.S, np.float64)
        return {"kind": "sensitivity"}
    if isinstance(claim, PropertyClaim):
        for number, query in enumerate(claim.asked):
            arrays[f"part.{number}.lo"], arrays[f"part.{number}.hi"] = query.box.lo, query.box.hi
            for a, alternative in enumerate(query.alternatives):
                key = f"part.{number}.alternative.{a}"
                arrays[f"{key}.rows"], arrays[f"{key}.offsets"] = alternative.rows, alternative.offsets
                if alternative.strict.any():
                    arrays[f"{key}.strict"] = alternative.strict.astype(np.int64)
        return {"kind": "property", "name": claim.name, "sha256": claim.sha256}
    if isinstance(claim, QueryClaim):
        networks = [{"name": name, "sha256": sha256} for name, sha256 in claim.networks]
        return {"kind": "query", "name": claim.name, "sha256": claim.sha256, "networks": networks}
    if isinstance(claim, PerturbedClaim):
        return _packed_perturbed(claim, arrays)
    if isinstance(claim, RangeClaim):
        return pack_range(claim, arrays)
    if isinstance(claim, RowsClaim):
        return pack_rows(claim, arrays)
    ball = claim.ball
    arrays["centre"] = np.asarray(ball.centre, np.float64)
    if ball.sigma is not None:
        arrays["sigma"] = np.asarray(ball.sigma, np.float64)
    if isinstance(claim, MonotoneClaim):
        moved = {"input": claim.feature, "output": claim.output, "direction": "+" if claim.rises else "-"}
        return {"kind": "monotone", "index": claim.index, "eps": ball.eps, "clip": ball.clip, **moved}
    if isinstance(claim, PAIRED):
        pairing = {"form": claim.pairing.form, "other": _packed_about(claim.pairing.other)}
        shared = {"index": claim.index, "eps": ball.eps, "clip": ball.clip, **pairing}
        if isinstance(claim, DifferenceClaim):
            arrays["limits"] = np.asarray(claim.limits, np.float64)
            return {"kind": "difference", **shared}
        first, second = claim.possible
        return {"kind": "agreement", **shared, "reference": claim.reference, "first": first, "second": second}
    of_set: dict[str, Any] = {
        "index": claim.index,
        "eps": ball.eps,
        "clip": ball.clip,
        "cardinality": ball.cardinality,
        **({"free": ball.free} if ball.free else {}),
        **({"norm": ball.norm} if ball.norm != "linf" else {}),
    }
    if isinstance(claim, DemandClaim):
        return {**of_set, **_packed_demand(claim, arrays)}
    return {**of_set, "kind": "sample", "label": claim.label}


def _packed_perturbed(claim: PerturbedClaim, arrays: dict[str, AnyArray]) -> dict[str, Any]:
    around, perturbation = claim.inputs.around, claim.inputs.perturbation
    arrays["centre"] = np.asarray(around.sample, np.float64)
    if claim.angles is not None:
        arrays["angles"] = np.asarray(claim.angles, np.float64)
    if perturbation.directions is not None:
        names = ("directions", "low", "high")
        arrays.update(dict(zip(names, perturbation.directions.arrays, strict=True)))
    return {
        "kind": "perturbed",
        "index": claim.index,
        "label": claim.label,
        "factor": claim.inputs.factor,
        "clip": around.clip,
        "shape": around.shape,
        "terms": [asdict(term) for term in perturbation.terms],
        **({} if perturbation.patch is None else {"patch": (perturbation.patch.height, perturbation.patch.width)}),
        **({} if perturbation.shift is None else {"translate": perturbation.shift.most}),
        **({} if perturbation.rotation is None else {"rotate": perturbation.rotation.most}),
    }


def _packed_demand(claim: DemandClaim, arrays: dict[str, AnyArray]) -> dict[str, Any]:
    """Put the arrays of a demand among others and return what meta says of it."""
    demand = claim.demand
    if isinstance(demand, AmongFirst):
        return {"kind": "top", "label": demand.label, "k": demand.k, "below": list(demand.below)}
    for number, group in enumerate(claim.groups):
        arrays[f"group.{number}.parts"] = group.astype(np.int64)
    if isinstance(demand, PixelClasses):
        arrays["pixel.labels"] = demand.labels.astype(np.int64)
        return {"kind": "pixels", "classes": demand.classes}
    pack_limits(demand, arrays)
    return {"kind": "limits"}


def _pack_witness(witness: Witness, arrays: dict[str, AnyArray]) -> None:
    for k, loop in witness.loops.items():
        pack_loop(loop, f"loop.{k}", arrays)
    for k, rows in (witness.adjoint or {}).items():
        arrays[f"adjoint.{k}"] = rows
    for j, (part, rows) in enumerate(witness.flat):
        pack_loop(part, f"flat.{j}", arrays)
        arrays[f"flat.{j}.r"] = rows
    for j, part in enumerate(witness.norms):
        pack_loop(part, f"norms.{j}", arrays)
    if witness.monotone is not None:
        pack_loop(witness.monotone, "monotone", arrays)


# --- reading ---------------------------------------------------------------------------------------------------------


def read_meta(archive: NpzFile) -> Mapping[str, Any]:
    """Return what a file of any version says of itself. Raises Damaged where it says nothing, or too much."""
    header = archive.headers.get("meta")
    longest = max(LONGEST_META, archive.stored)
    if header is None or header.shape != () or header.dtype.kind != "U" or header.dtype.itemsize > 4 * longest:
        raise Damaged("it has no meta, or too much of it")
    return parsed(str(archive.read("meta")[()]))


def read_about(meta: Mapping[str, Any]) -> About:
    """Return the model that a file of this version speaks of. Raises Damaged."""
    entry = Entry(meta, "meta", ("schema_version", "kind", "tool", "arithmetic", "model", "claim"))
    if entry.get("schema_version") != SCHEMA_VERSION or entry.get("kind") != KIND:
        raise Damaged("it is of another kind or version")
    arithmetic = ARITHMETICS.get(entry.text("arithmetic"))
    if arithmetic is None:
        raise Damaged("it speaks of an arithmetic that is not known")
    entry.text("tool")
    return replace(_about(entry.get("model"), "model"), arithmetic=arithmetic)


def _about(value: object, where: str) -> About:
    model = Entry(value, where, ("sha256", "output_name", "preprocessing", "threshold"))
    if not isinstance(model.get("output_name"), str | None):
        raise Damaged(f"'output_name' of {where} is neither a text nor null")
    units = Entry(model.get("preprocessing"), "preprocessing", ("scale", "mean", "std"))
    return About(
        model.sha256("sha256"),
        model.get("output_name"),
        Units(units.number("scale"), units.numbers("mean"), units.numbers("std")),
        model.number_or_none("threshold"),
    )


def read_pairing(meta: Mapping[str, Any]) -> Pairing | None:
    """Return the second model that a file speaks of; None where its claim is about one. Raises Damaged."""
    value = meta.get("claim")
    if not isinstance(value, dict) or value.get("kind") not in ("agreement", "difference"):
        return None
    return _pairing(Entry(value, "claim", ("kind", *KINDS[value["kind"]].keys)))


def _pairing(entry: Entry) -> Pairing:
    form = entry.text("form")
    for known in FORMS:
        if form == known:
            return Pairing(_about(entry.get("other"), "other"), known)
    raise Damaged("'form' of claim is none that is known")


def read_proof(archive: NpzFile, meta: Mapping[str, Any], model: ImplicitModel) -> ProofFile:
    """Return the claim and the proof in a file, for the model that it is to be checked against.

    Args:
        archive: the file.
        meta: what it says of itself.
        model: the model, in any units: only its sizes matter here.

    Raises:
        Damaged: where the file contradicts itself, or holds what such files do not hold.
        Misfit: where it speaks of blocks, states, inputs or outputs that the model does not have.
    """
    about, value = read_about(meta), meta["claim"]
    name = value.get("kind") if isinstance(value, dict) else None
    kind = KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        raise Damaged("'claim' of meta is of no kind that is known")
    if about.threshold is not None and name in (
        "property",
        "query",
        "sensitivity",
        "monotone",
        "stays",
        "rising",
        *DEMANDS,
    ):
        raise Damaged("it has a threshold, which makes two classes, and is about none")
    entry = Entry(value, "claim", ("kind", *kind.keys), kind.optional)
    headers = {name: header for name, header in archive.headers.items() if name != "meta"}
    there = kind.form(model, entry)

    def size_of(name: Name, size: str) -> int | None:
        return model.n_inputs if size == "sample" else sizes(there, headers, name, size)

    fit(headers, kind.table, size_of)
    arrays = {name: check_values(name, archive.read(name), kind.table) for name in headers}
    found = kind.opened(about, entry, Arrays(arrays), model)
    if about.arithmetic != "real" and name not in ("sample", "rows", "property", "query", *DEMANDS):
        what = _NEVER_ROUNDED.get(str(name), "two networks")
        raise Damaged(f"it speaks of roundings, and is about {what}")
    if about.arithmetic != "real" and isinstance(found.claim, RowsClaim) and found.claim.rules is not None:
        raise Damaged("it speaks of roundings, and has rules between inputs")
    if about.arithmetic == "real" and any(proof.slack for proof in found.proofs):
        raise Damaged("it speaks of roundings, and is about real numbers")
    return found


_NEVER_ROUNDED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "sensitivity": "slopes",
        "perturbed": "a perturbation",
        "monotone": "a score that never goes the wrong way",
        **dict.fromkeys(("stays", "never", "rising"), "a whole range"),
    }
)
"""Claims about real numbers alone, in words; others are about two networks."""


def _proofs(arrays: Arrays, count: int) -> tuple[Proof, ...]:
    parts = arrays.counted("part", "parts")
    if parts != count:
        raise Damaged(f"it has {parts} parts for {count} queries")
    return tuple(opened(arrays, number) for number in range(count))


def _ball(about: About, entry: Entry, arrays: Arrays, model: ImplicitModel) -> Ball:
    """Return the set around a sample. Raises Damaged where it makes no sense."""
    cardinality = None if entry.get("cardinality") is None else entry.whole("cardinality")
    free = tuple(entry.members("free", model.n_inputs, "input"))
    if free and cardinality is not None:
        raise Damaged("its set has inputs that move freely, and a limit on how many move")
    norm = NORM_NAMES.get(entry.text("norm")) if "norm" in entry else "linf"
    if norm is None:
        raise Damaged("it speaks of a norm that is not known")
    if norm != "linf" and about.arithmetic != "real":
        raise Damaged("it speaks of roundings, and is about a ball")
    ball = Ball(arrays["centre"], entry.number("eps"), arrays.get("sigma"), entry.pair("clip"), cardinality, free, norm)
    try:
        _ = ball.inputs
    except InvalidInputError as error:
        raise Damaged(f"its set makes no sense: {error}") from error
    return ball


def _sample(about: About, entry: Entry, arrays: Arrays, model: ImplicitModel) -> ProofFile:
    ball = _ball(about, entry, arrays, model)
    label = below(entry.whole("label"), max(2, model.n_outputs), "the label", "class")
    return ProofFile(about, SampleClaim(ball, label, entry.whole("index")), _proofs(arrays, 1))


def _monotone(about: About, entry: Entry, arrays: Arrays, model: ImplicitModel) -> ProofFile:
    feature = below(entry.whole("input"), model.n_inputs, "the input", "input")
    output = below(entry.whole("output"), model.n_outputs, "the output", "output")
    direction = entry.text("direction")
    if direction not in ("+", "-"):
        raise Damaged("its score goes neither up (+) nor down (-)")
    ball = Ball(arrays["centre"], entry.number("eps"), clip=entry.pair("clip"), free=(feature,))
    try:
        _ = ball.inputs
    except InvalidInputError as error:
        raise Damaged(f"its set makes no sense: {error}") from error
    claim = MonotoneClaim(ball, output, direction == "+", entry.whole("index"))
    return ProofFile(about, claim, tree=opened_forest(arrays, "tree"))


def _top(about: About, entry: Entry, arrays: Arrays, model: ImplicitModel) -> ProofFile:
    q = max(2, model.n_outputs)
    label = below(entry.whole("label"), q, "the label", "class")
    k = below(entry.whole("k"), q, "k", "class")
    demand = AmongFirst(label, k, tuple(entry.members("below", q, "class")))
    if k < 1 or label in demand.below:
        raise Damaged("it says of a class that it is among none, or stays below itself")
    claim = DemandClaim(_ball(about, entry, arrays, model), demand, (), entry.whole("index"))
    return ProofFile(about, claim, _proofs(arrays, 1))


def _limits(about: About, entry: Entry, arrays: Arrays, model: ImplicitModel) -> ProofFile:
    return _with_groups(about, opened_limits(arrays, model), entry, arrays, model)


def _range(about: About, entry: Entry, arrays: Arrays, model: ImplicitModel) -> ProofFile:
    claim, is_tree = opened_range(entry, arrays, model), bool(arrays.words("tree"))
    if is_tree:
        return ProofFile(about, claim, _proofs(arrays, 0), tree=opened_forest(arrays, "tree"))
    return ProofFile(about, claim, _proofs(arrays, 1))


def _rows(about: About, entry: Entry, arrays: Arrays, model: ImplicitModel) -> ProofFile:
    claim = opened_rows(entry, arrays, model)
    return ProofFile(about, claim, _proofs(arrays, len(claim.queries(model))))


def _pixels(about: About, entry: Entry, arrays: Arrays, model: ImplicitModel) -> ProofFile:
    labels, classes = arrays["pixel.labels"], entry.whole("classes")
    if classes < 2 or labels.size * classes != model.n_outputs:
        raise Misfit("it is about pixels or classes that the model does not have")
    if not (labels < classes).all():
        raise Damaged("a pixel has a class that there is not")
    return _with_groups(about, PixelClasses(labels, classes, np.arange(labels.size)), entry, arrays, model)


def _with_groups(about: About, demand: Parted, entry: Entry, arrays: Arrays, model: ImplicitModel) -> ProofFile:
    """Return the claim that the parts of some groups keep what is demanded. Raises Damaged where there are none."""
    count = arrays.counted("group", "groups")
    groups = tuple(arrays[f"group.{number}.parts"] for number in range(count))
    if not count or not all(group.size and np.isin(group, demand.parts).all() for group in groups):
        raise Damaged("it has a group without parts, or of parts of which nothing is demanded")
    claim = DemandClaim(_ball(about, entry, arrays, model), demand, groups, entry.whole("index"))
    return ProofFile(about, claim, _proofs(arrays, count))


def _perturbed(about: About, entry: Entry, arrays: Arrays, model: ImplicitModel) -> ProofFile:
    shape = tuple(whole(extent, "'shape' of claim") for extent in entry.items("shape"))
    if math.prod(shape) != model.n_inputs:
        raise Misfit(f"its pictures have the shape {shape}, and the model has {model.n_inputs} inputs")
    vectors, low, high = (arrays.get(name) for name in ("directions", "low", "high"))
    angles = arrays.get("angles")
    if ("rotate" in entry) != (angles is not None and angles.size > 1):
        raise Damaged("it has rotations without intervals of angles, or intervals without rotations")
    try:
        if vectors is None or low is None or high is None:
            if not vectors is low is high is None:
                raise Damaged("it has directions without ends, or ends without directions")
            directions = None
        else:
            directions = Directions(vectors, low, high)
        patch = _patch(entry) if "patch" in entry else None
        shift = Shift(entry.number("translate")) if "translate" in entry else None
        turn = Rotation(entry.number("rotate")) if "rotate" in entry else None
        terms = tuple(_term(value) for value in entry.items("terms"))
        perturbation = Perturbation(terms, directions, patch, shift, turn)
        around = Around(arrays["centre"], shape, entry.pair("clip"))
        inputs = Perturbed(around, perturbation, entry.number("factor"))
        count = len(inputs.pieces) if angles is None else int(angles.size) - 1
        if turn is not None:
            _ = inputs.rotated, turn.reach(inputs.factor)
    except InvalidInputError as error:
        raise Damaged(f"its set makes no sense: {error}") from error
    label = below(entry.whole("label"), max(2, model.n_outputs), "the label", "class")
    found = ProofFile(about, PerturbedClaim(inputs, label, entry.whole("index"), angles), _proofs(arrays, count))
    if turn is not None and any(proof.has_planes for proof in found.proofs):
        raise Damaged("it has planes, which proofs of rotations do not have")
    return found


def _patch(entry: Entry) -> Patch:
    sides = [whole(side, "'patch' of claim") for side in entry.items("patch")]
    if len(sides) != 2:
        raise Damaged("its patch has not two sides")
    return Patch(*sides)


def _term(value: object) -> Term:
    entry = Entry(value, "a term", ("kind", "lo", "hi", "detail"))
    return Term(entry.text("kind"), entry.number("lo"), entry.number("hi"), entry.text("detail"))


def _of_parameters(model: ImplicitModel, entry: Entry) -> ImplicitModel:
    """Return the model behind some family: its blocks have the sizes of those behind any other."""
    if "patch" in entry:
        return model
    clip, p = entry.pair("clip"), model.n_inputs
    if not model.is_feed_forward:
        raise Misfit("it speaks of a perturbation, and the model has loops")
    if "translate" in entry:
        two = Box.between(np.zeros(2), np.ones(2))
        return with_family(model, Family(np.zeros(p), np.zeros((p, 2)), two, product=np.zeros(p)))
    if "rotate" in entry:
        one = Box.between(-np.ones(1 + p), np.ones(1 + p))
        return with_family(model, Family(np.zeros(p), np.zeros((p, 1)), one, spread=np.zeros(p)))
    if clip is not None and not clip[0] <= clip[1]:
        raise Damaged("its valid range is empty")
    return with_family(model, Family(np.full(p, 0.0 if clip is None else clip[0]), np.zeros((p, 1)), _UNIT, clip))


_UNIT: Final = Box.between(np.zeros(1), np.ones(1))


def _box_of(entry: Entry, arrays: Arrays) -> Ball:
    """Return the box that two models are compared over. Raises Damaged where it makes no sense."""
    ball = Ball(arrays["centre"], entry.number("eps"), arrays.get("sigma"), entry.pair("clip"))
    try:
        _ = ball.inputs
    except InvalidInputError as error:
        raise Damaged(f"its set makes no sense: {error}") from error
    return ball


def _agreement(about: About, entry: Entry, arrays: Arrays, model: ImplicitModel) -> ProofFile:
    q = max(2, model.n_outputs // 3)
    reference = below(entry.whole("reference"), q, "the reference", "class")
    first, second = (tuple(entry.members(key, q, "class")) for key in ("first", "second"))
    ball, pairing = _box_of(entry, arrays), _pairing(entry)
    claim = AgreementClaim(ball, reference, (first, second), entry.whole("index"), pairing)
    return ProofFile(about, claim, _proofs(arrays, 1))


def _difference(about: About, entry: Entry, arrays: Arrays, model: ImplicitModel) -> ProofFile:
    claim = DifferenceClaim(_box_of(entry, arrays), arrays["limits"], entry.whole("index"), _pairing(entry))
    return ProofFile(about, claim, _proofs(arrays, 1))


def _property(about: About, entry: Entry, arrays: Arrays, model: ImplicitModel) -> ProofFile:
    count = arrays.counted("part", "parts")
    if not count:
        raise Damaged("it has no box")
    queries = tuple(_query(arrays, number) for number in range(count))
    claim = PropertyClaim(entry.text("name"), entry.sha256("sha256"), queries)
    return ProofFile(about, claim, _proofs(arrays, count))


def _query(arrays: Arrays, number: int) -> Query:
    lo, hi = (arrays[f"part.{number}.{end}"] for end in ("lo", "hi"))
    if not (lo <= hi).all():
        raise Damaged(f"the box of part {number} is empty")
    start = f"part.{number}.alternative"
    count = arrays.counted(start, "alternatives")
    if not count:
        raise Damaged(f"part {number} names no alternative")
    alternatives = tuple(_alternative(arrays, f"{start}.{a}") for a in range(count))
    if not all(len(alternative.rows) for alternative in alternatives):
        raise Damaged(f"an alternative of part {number} has no row")
    return Query(Box.between(lo, hi), alternatives)


def _alternative(arrays: Arrays, start: str) -> Conjunction:
    rows, offsets, strict = arrays[f"{start}.rows"], arrays[f"{start}.offsets"], arrays.get(f"{start}.strict")
    return Conjunction(rows, offsets) if strict is None else Conjunction(rows, offsets, (), strict.astype(np.bool_))


def _asked_query(about: About, entry: Entry, arrays: Arrays, model: ImplicitModel) -> ProofFile:
    return ProofFile(about, _query_claim(entry), _proofs(arrays, arrays.counted("part", "parts")))


def _query_claim(entry: Entry) -> QueryClaim:
    parts = [Entry(value, "networks", ("name", "sha256")) for value in entry.items("networks")]
    networks = tuple((part.text("name"), part.sha256("sha256")) for part in parts)
    return QueryClaim(entry.text("name"), entry.sha256("sha256"), networks)


def read_without_proofs(archive: NpzFile, meta: Mapping[str, Any]) -> ProofFile:
    """Return what a file claims of a query of which nothing is left to prove. Raises Damaged where it holds a proof."""
    if set(archive.headers) != {"meta"}:
        raise Damaged("it proves something, and nothing is left of its query to prove")
    return ProofFile(read_about(meta), _query_claim(Entry(meta["claim"], "claim", ("kind", *KINDS["query"].keys))))


def _sensitivity(about: About, entry: Entry, arrays: Arrays, model: ImplicitModel) -> ProofFile:
    matrix, count = arrays["S"], arrays.counted("flat", "contractions")
    witness = Witness(
        matrix,
        opened_loops(arrays, "loop"),
        {k: arrays[f"adjoint.{k}"] for k in arrays.numbers("adjoint")} or None,
        tuple((opened_loop(arrays, f"flat.{j}"), arrays[f"flat.{j}.r"]) for j in range(count)),
        tuple(opened_loop(arrays, f"norms.{j}") for j in range(arrays.counted("norms", "contractions of norms"))),
        opened_loop(arrays, "monotone") if arrays.words("monotone") else None,
    )
    return ProofFile(about, SensitivityClaim(matrix), witness=witness)


@dataclass(frozen=True)
class Kind:
    """One kind of claim: its keys in meta, its arrays, and how it is put together."""

    keys: tuple[str, ...]
    table: Mapping[str, Spec]
    opened: Callable[[About, Entry, Arrays, ImplicitModel], ProofFile]
    optional: tuple[str, ...] = ()
    """Keys that may be left out."""
    form: Callable[[ImplicitModel, Entry], ImplicitModel] = lambda model, entry: model
    """A model of the form that proofs are about, for its sizes."""


_OF_A_SAMPLE: Final = ("index", "eps", "clip", "cardinality")
_OF_A_PAIR: Final = ("index", "eps", "clip", "form", "other")

KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "sample": Kind(("label", *_OF_A_SAMPLE), SAMPLE, _sample, ("free", "norm")),
        "limits": Kind(_OF_A_SAMPLE, LIMITS, _limits, ("free",)),
        "top": Kind(("label", "k", "below", *_OF_A_SAMPLE), SAMPLE, _top, ("free",)),
        "pixels": Kind(("classes", *_OF_A_SAMPLE), PIXELS, _pixels, ("free",)),
        "perturbed": Kind(
            ("index", "label", "factor", "clip", "shape", "terms"),
            PERTURBED,
            _perturbed,
            ("patch", "translate", "rotate"),
            _of_parameters,
        ),
        "property": Kind(("name", "sha256"), PROPERTY, _property),
        "query": Kind(("name", "sha256", "networks"), PROOF, _asked_query),
        "sensitivity": Kind((), SENSITIVITY, _sensitivity),
        "agreement": Kind((*_OF_A_PAIR, "reference", "first", "second"), SAMPLE, _agreement),
        "difference": Kind(_OF_A_PAIR, DIFFERENCE, _difference),
        "stays": Kind((), STAYS, _range),
        "never": Kind(("label",), NEVER, _range),
        "rows": Kind(("index", "label"), ROWS, _rows, ("rules",), with_rules),
        "rising": Kind(("input", "output", "direction"), RISING, _range),
        "monotone": Kind(("index", "eps", "clip", "input", "output", "direction"), MONOTONE, _monotone),
    }
)
"""What a claim may be."""
DEMANDS: Final = ("limits", "top", "pixels")
"""Kinds of claims about what outputs are to keep, beside one class."""
