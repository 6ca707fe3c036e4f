"""verify: a proof file against its model, without search or solver, and exactly what it is then known to prove."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol

import numpy as np

from idl_audit.commands.options.reading import ModelOptions
from idl_audit.commands.shared.classifier import as_classifier
from idl_audit.commands.shared.float_margins import float_margins
from idl_audit.commands.shared.frame import Clock, framed_report
from idl_audit.commands.shared.query_proofs import CheckedQuery, arithmetic_of, check_query
from idl_audit.commands.shared.questions import read_property
from idl_audit.commands.shared.subject import Subject, describe_model, open_subject
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.data.vnnlib2.reader import read_specification
from idl_audit.implicit.input_units import in_data_units
from idl_audit.implicit.model import ImplicitModel
from idl_audit.proof.exact.refutation import ExactQuery
from idl_audit.proof.files import file as today
from idl_audit.proof.files.claims import (
    About,
    Ball,
    DemandClaim,
    MonotoneClaim,
    PerturbedClaim,
    PropertyClaim,
    SampleClaim,
    SensitivityClaim,
    is_asked,
)
from idl_audit.proof.files.file import ProofFile, read_meta
from idl_audit.proof.files.pairs import AgreementClaim, DifferenceClaim, Pairing
from idl_audit.proof.files.ranges import NeverFalls, NeverPredicted, RangeClaim
from idl_audit.proof.files.rows import RowsClaim
from idl_audit.proof.files.strict_json import Damaged, Misfit
from idl_audit.proof.format_1 import reading as format_1
from idl_audit.proof.sensitivity_witness import Checked, Witness
from idl_audit.report.schema import (
    Claim,
    Diagnostic,
    NetworkFacts,
    Numbers,
    PreprocessingInfo,
    QueryFacts,
    Report,
    SecondModel,
    Verification,
)
from idl_audit.report.schema import PropertyClaim as PropertyFacts
from idl_audit.values.arrays import AnyArray
from idl_audit.values.demand import AmongFirst, Limits, PixelClasses
from idl_audit.values.errors import InvalidInputError, ModelFileError, OptionError
from idl_audit.values.mixed import Cell
from idl_audit.values.npz import NpzFile
from idl_audit.values.query import Query
from idl_audit.values.rounding import gamma


class Opener(Protocol):
    """Opens a model."""

    def __call__(self, path: Path, options: ModelOptions | None = None, *, whole: bool = False) -> Subject:
        """Return the model; `whole` keeps a last softmax."""


WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "sample": "certificate",
        "limits": "certificate",
        "top": "certificate",
        "pixels": "certificate",
        "perturbed": "certificate",
        "rows": "certificate",
        "property": "property certificate",
        "query": "query certificate",
        "sensitivity": "witness",
        "agreement": "certificate of two networks",
        "difference": "certificate of two networks",
        "monotone": "certificate of a score",
        **dict.fromkeys(("stays", "never", "rising"), "certificate of a whole range"),
    }
)
"""Kind of a claim -> what its file is called."""


MOST_LIMITS: Final = 4
"""Limits that a statement names."""


@dataclass(frozen=True)
class Outcome:
    """What came of one file."""

    statement: str
    """The claim in one line."""
    about: Claim | None
    """The claim in full."""
    checked: Checked
    norm_inf: float | None = None
    """Of an accepted S."""


def verify(
    file: Path,
    model: Path | None,
    options: ModelOptions,
    vnnlib: Path | None = None,
    second: Path | None = None,
    networks: Mapping[str, Path] = MappingProxyType({}),
    *,
    opened: Opener = open_subject,
) -> Report:
    """Check a proof file against the model it was made for, without any solver, and report on it.

    Args:
        file: the proof of a sample, of a property, of a query, or of S.
        model: the model file; of a query about several networks None.
        options: how to read it.
        vnnlib: the property or query that the file must be about; of a property None takes the file's word for it.
        second: the other network, where the file is about two.
        networks: of a query: the file of each network by its name, in place of the model.
        opened: what opens models.

    Raises:
        InvalidInputError: where a file cannot be read; one that proves nothing is reported, not raised.
    """
    if file.suffix.lower() == ".onnx" and file.is_file():
        raise OptionError(f"{file} is a model; what proves something stands before it: idl-audit verify PROOF {file}")
    clock = Clock()
    with clock.step("read"), NpzFile(file) as archive:
        asked = _asked(file, archive)
        if asked.kind == "query":
            return _verified_query(clock, asked, archive, _files(asked, model, vnnlib, second, networks), vnnlib)
        if networks:
            raise OptionError(f"{file} is a {asked.word} and not of a query; leave --network out")
        if model is None:
            raise OptionError(f"{file} is a {asked.word}; give its model: idl-audit verify {file} MODEL")
        if vnnlib is not None and asked.kind != "property":
            raise OptionError(f"{file} is a {asked.word} and not of a property; leave {vnnlib} out")
        whole = asked.kind in ("limits", "stays")
        subject = _with_classes(asked, opened(model, _with_output(asked, options), whole=whole))
        other, against = _second(asked, options, second, opened), None
        found: ProofFile | str
        try:
            against = _checked_model(asked, subject, other)
            found = asked.opened(archive, asked.meta, against)
        except OptionError as error:  # two networks that are no pair
            found = str(error)
        except Misfit as error:
            found = str(error)
        except Damaged as error:
            raise ModelFileError(f"{file} is a damaged {asked.word}: {error}; write it anew") from error
    with clock.step("check"):
        outcome = _of_this_model(asked, subject, _outcome(asked, found, subject, against, vnnlib, other))
        if other is not None:
            outcome = _of_this_model(other.asked, other.subject, outcome)
    return framed_report(
        "verify",
        clock,
        model=subject.info,
        diagnostics=asked.diagnostics,
        verification=Verification(
            file=str(file),
            claim=outcome.statement,
            about=outcome.about,
            norm_inf=outcome.norm_inf if outcome.checked.accepted else None,
            accepted=outcome.checked.accepted,
            checked=outcome.checked.checked,
            refused=outcome.checked.refused,
        ),
    )


def _files(
    asked: Asked, model: Path | None, query: Path | None, second: Path | None, networks: Mapping[str, Path]
) -> Mapping[str, Path]:
    """Return the file of each network of a query. Raises OptionError where something is missing, or too much."""
    file = asked.file
    if query is None:
        raise OptionError(f"{file} is a {asked.word}; give the query, which its proof is about: --query QUERY.vnnlib")
    if second is not None:
        raise OptionError(f"{file} is a {asked.word}; leave --second {second} out")
    if model is None:
        return networks
    names = [network.name for network in read_specification(query).networks]
    if networks or len(names) > 1:
        raise OptionError(
            f"{query} is about {', '.join(names)}; give each of them by its name, --network NAME=FILE, and leave "
            f"{model} out"
        )
    return {names[0]: model}


def _verified_query(
    clock: Clock, asked: Asked, archive: NpzFile, files: Mapping[str, Path], query: Path | None
) -> Report:
    """Check the proof of a query, of which everything but the choices is made anew from its text."""
    assert query is not None
    with clock.step("check"):
        try:
            done = check_query(archive, asked.meta, query, files)
        except Damaged as error:
            raise ModelFileError(f"{asked.file} is a damaged {asked.word}: {error}; write it anew") from error
    statement, about = _query(done, query)
    return framed_report(
        "verify",
        clock,
        model=describe_model(done.asked.networks[0].path, done.asked.networks[0].graph, None),
        verification=Verification(
            file=str(asked.file),
            claim=statement,
            about=about,
            accepted=done.checked.accepted,
            checked=done.checked.checked,
            refused=done.checked.refused,
        ),
    )


def _query(done: CheckedQuery, query: Path) -> tuple[str, Claim]:
    """Return the claim about a query in one line, and in full."""
    asked = done.asked
    networks = tuple(
        NetworkFacts(
            name=one.declared.name,
            path=str(one.path),
            sha256=one.graph.provenance.sha256,
            equal_to=one.declared.other if one.declared.relation == "equal-to" else None,
        )
        for one in asked.networks
    )
    named = ", ".join(f"{one.name} = {one.path}" for one in networks)
    elements = " and ".join(dict.fromkeys(variable.element for variable in asked.specification.variables))
    arithmetic = "in real numbers" if asked.is_real else f"in {elements} as runtimes compute"
    leaves = 0 if done.found is None else done.found.n_leaves
    statement = f"unsat: no assignment satisfies {query}, {named}; {arithmetic}"
    facts = QueryFacts(
        file=str(query),
        sha256=done.sha256,
        networks=networks,
        elements=tuple(dict.fromkeys(variable.element for variable in asked.specification.variables)),
        boxes=len(asked.boxes),
        alternatives=sum(len(box.query.alternatives) for box in asked.boxes),
        left=sum(len(part.alternatives) for part in done.parts),
    )
    return statement, Claim(kind="query", arithmetic=arithmetic_of(asked), query=facts, leaves=leaves)


@dataclass(frozen=True)
class Asked:
    """A proof file whose kind is known, and what it says of its model."""

    file: Path
    meta: Mapping[str, Any]
    kind: str
    of: About
    opened: Callable[[NpzFile, Mapping[str, Any], ImplicitModel], ProofFile]
    pairing: Pairing | None = None
    """Where the claim is about two models: the other one."""

    @property
    def word(self) -> str:
        """What such a file is called."""
        return WORDS[self.kind]

    @property
    def units(self) -> Preprocessing:
        """The data units that the claim is made in. Raises ModelFileError."""
        try:
            return Preprocessing(self.of.units.scale, self.of.units.mean, self.of.units.std)
        except OptionError as error:
            raise ModelFileError(f"{self.file} is a damaged {self.word}: {error}; write it anew") from error

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        """That an old format was read."""
        if self.opened is not format_1.opened:
            return ()
        version = self.meta["schema_version"]
        message = f"a file of format {version}, which the next release no longer reads; write it anew"
        return (Diagnostic(code="IDL507", level="warning", message=message, where=str(self.file)),)


def _asked(file: Path, archive: NpzFile) -> Asked:
    """Return what a proof file says of itself. Raises ModelFileError where it is none."""
    try:
        meta = read_meta(archive)
        if meta.get("schema_version") == today.SCHEMA_VERSION:
            of, claim = today.read_about(meta), meta["claim"]
            kind = claim.get("kind") if isinstance(claim, dict) else None
            if not isinstance(kind, str) or kind not in WORDS:
                raise Damaged("it makes a claim of no kind that is known")
            return Asked(file, meta, kind, of, today.read_proof, today.read_pairing(meta))
        of = format_1.about_of(meta)
        return Asked(file, meta, format_1.KINDS[meta["kind"]].claim, of, format_1.opened)
    except Damaged as error:
        raise ModelFileError(
            f"{file} is no witness or certificate of this version of idl-audit ({error}); write one with idl-audit "
            "sensitivity --witness or idl-audit certify --certificates"
        ) from error


@dataclass(frozen=True)
class Second:
    """The other model of a claim about two."""

    asked: Asked
    """What the file says of it, in place of the first one."""
    subject: Subject

    @property
    def model(self) -> ImplicitModel:
        """In its own data units."""
        return self.subject.in_data_units(self.asked.units)

    @property
    def facts(self) -> SecondModel:
        """What a report says of it."""
        units, threshold = self.asked.units, self.subject.threshold
        return SecondModel(
            path=str(self.subject.path),
            sha256=self.subject.info.sha256,
            output=self.subject.output,
            stripped_output=self.subject.model.stripped_output or None,
            threshold=None if threshold is None else threshold.value,
            preprocessing=PreprocessingInfo(scale=units.scale, mean=units.mean, std=units.std),
        )


def _second(asked: Asked, options: ModelOptions, path: Path | None, opened: Opener) -> Second | None:
    """Return the other model where there is one. Raises OptionError where one is missing, or has no place."""
    if asked.pairing is None:
        if path is not None:
            raise OptionError(f"{asked.file} is a {asked.word} of one network; leave --second {path} out")
        return None
    if path is None:
        raise OptionError(f"{asked.file} is a {asked.word}; give the other one with --second MODEL")
    own = replace(asked, of=asked.pairing.other)
    return Second(own, _with_classes(own, opened(path, _with_output(own, options))))


def _checked_model(asked: Asked, subject: Subject, other: Second | None) -> ImplicitModel:
    """Return the model that a claim is checked against. Raises OptionError where two models are no pair."""
    model = subject.in_data_units(asked.units)
    if asked.pairing is None or other is None:
        return model
    ours, theirs = (one.stripped_output or "none" for one in (model, other.model))
    if asked.kind == "difference" and ours != theirs:
        raise OptionError(f"the last operator that is left out is {ours} in one network and {theirs} in the other")
    if other.asked.units != asked.units:
        return asked.pairing.model(model, other.model)
    pair = asked.pairing.model(subject.model, other.subject.model)
    return in_data_units(pair, *asked.units.affine(subject.input_shape))


def _outcome(
    asked: Asked,
    found: ProofFile | str,
    subject: Subject,
    model: ImplicitModel | None,
    vnnlib: Path | None,
    other: Second | None,
) -> Outcome:
    """Check what a file claims; a text says why it does not fit the model."""
    if isinstance(found, str) or model is None:
        return Outcome(f"a {asked.word} of another model", None, Checked(1, (str(found),)))
    units = asked.units
    shared: dict[str, Any] = {
        "arithmetic": found.about.arithmetic,
        "output": subject.output,
        "stripped_output": subject.model.stripped_output or None,
        "threshold": None if subject.threshold is None else subject.threshold.value,
        "preprocessing": PreprocessingInfo(scale=units.scale, mean=units.mean, std=units.std),
        "second": None if other is None else other.facts,
    }
    statement, about = _described(found, shared, vnnlib)
    if found.about.arithmetic != "real":
        statement += f"; in {found.about.arithmetic} arithmetic as runtimes compute"
    arithmetic = None if found.about.arithmetic == "real" else float_margins(subject, units)
    wanted = None if vnnlib is None else read_property(subject, vnnlib).queries
    try:
        checked = found.checked(model, arithmetic, _exactly(found, subject, units, wanted))
    except (ValueError, ArithmeticError, IndexError, KeyError) as error:  # a matrix that cannot be inverted
        checked = Checked(1, (f"its arrays prove nothing ({type(error).__name__}: {error})",))
    if wanted is None and not checked.accepted and any(proof.exact for proof in found.proofs):
        why = "what it refutes in rational numbers may be about the property's own decimals: give its file as PROPERTY"
        checked = Checked(checked.checked, (*checked.refused, why))
    if wanted is not None and isinstance(found.claim, PropertyClaim):
        own = found.claim.asked
        if len(wanted) != len(own) or not all(map(is_asked, own, wanted)):
            why = "it is the certificate of another property: its boxes or alternatives differ"
            checked = Checked(checked.checked, (why, *checked.refused))
    return Outcome(statement, about, checked, _norm_inf(found))


def _exactly(
    found: ProofFile, subject: Subject, units: Preprocessing, wanted: Sequence[Query] | None
) -> tuple[ExactQuery, ...]:
    """Return what refutations in rational numbers are about: the property's own decimals, else the file's floats."""
    if not isinstance(found.claim, PropertyClaim) or found.about.arithmetic != "real":
        return ()
    queries, network = found.claim.asked if wanted is None else wanted, subject.exact(units)
    return tuple(ExactQuery(query, network) for query in queries)


def _described(found: ProofFile, shared: dict[str, Any], vnnlib: Path | None) -> tuple[str, Claim]:
    """Return a claim in one line, and in full."""
    claim = found.claim
    if isinstance(claim, SampleClaim | DemandClaim):
        return _sample(claim, found.n_leaves, shared)
    if isinstance(claim, PerturbedClaim):
        return _perturbed(claim, found.n_leaves, shared)
    if isinstance(claim, MonotoneClaim):
        return _monotone(claim, found.n_leaves, shared)
    if isinstance(claim, RangeClaim):
        return _range(claim, found.n_leaves, shared)
    if isinstance(claim, RowsClaim):
        return _rows(claim, found.n_leaves, shared)
    if isinstance(claim, PropertyClaim):
        return _property(claim, shared, vnnlib)
    if isinstance(claim, (AgreementClaim, DifferenceClaim)):
        return _pair(claim, found.n_leaves, shared)
    assert isinstance(claim, SensitivityClaim)  # queries have no model of their own
    parts = parts_of(found.witness)
    statement = f"S, {claim.S.shape[0]} x {claim.S.shape[1]} ({' and '.join(parts)})"
    return statement, Claim(kind="sensitivity", **shared, matrix=numbers(claim.S))


def _sample(claim: SampleClaim | DemandClaim, leaves: int, shared: dict[str, Any]) -> tuple[str, Claim]:
    ball = claim.ball
    few = "" if ball.cardinality is None else f", at most {ball.cardinality} inputs changed,"
    free = f", inputs {', '.join(map(str, ball.free))} free" if ball.free else ""
    what = f"{ball.norm} ball" if ball.norm != "linf" else "box" if not few else "set"
    where = f"in the {what} of {_reach(ball)}{few}{free} around the file's sample {claim.index}"
    kept, facts = _kept(claim, shared["threshold"])
    about = Claim(
        **shared,
        **facts,
        eps=ball.eps,
        centre=numbers(ball.centre),
        sigma=None if ball.sigma is None else numbers(ball.sigma),
        clip=ball.clip,
        cardinality=ball.cardinality,
        norm=ball.norm,
        free=ball.free,
        index=claim.index,
        leaves=leaves,
    )
    return f"{kept} {where}, by {leaves} leaves", about


def _reach(ball: Ball) -> str:
    within = "" if ball.clip is None else f" within [{ball.clip[0]!r}, {ball.clip[1]!r}]"
    units = "times" if ball.norm == "linf" else "in units of"
    return f"eps {ball.eps!r}{'' if ball.sigma is None else f' {units} the radii of the file'}{within}"


def _monotone(claim: MonotoneClaim, leaves: int, shared: dict[str, Any]) -> tuple[str, Claim]:
    ball = claim.ball
    assert ball.clip is not None  # the range that the input moves in
    way, within = "falls" if claim.rises else "rises", f"[{ball.clip[0]!r}, {ball.clip[1]!r}]"
    score = f"{shared['stripped_output'] or ''} output {claim.output}".strip()
    about = Claim(
        kind="monotone",
        **shared,
        label=claim.output,
        eps=ball.eps,
        centre=numbers(ball.centre),
        clip=ball.clip,
        free=ball.free,
        direction="+" if claim.rises else "-",
        index=claim.index,
        leaves=leaves,
    )
    where = f"in the box of eps {ball.eps!r} within {within} around the file's sample {claim.index}"
    return f"{score} never {way} while input {claim.feature} rises within {within}, {where}, by {leaves} leaves", about


def _range(claim: RangeClaim, leaves: int, shared: dict[str, Any]) -> tuple[str, Claim]:
    statement, cell, facts = claim.statement, claim.cell, dict[str, Any]()
    if isinstance(statement, NeverPredicted):
        what, facts = f"class {statement.label} is never predicted", {"kind": "never", "label": statement.label}
    elif isinstance(statement, NeverFalls):
        way = "falls" if statement.rises else "rises"
        score = f"{shared['stripped_output'] or ''} output {statement.output}".strip()
        what = f"{score} never {way} while input {statement.feature} rises"
        facts = {"kind": "rising", "label": statement.output, "free": (statement.feature,)}
        facts["direction"] = "+" if statement.rises else "-"
    else:
        columns = (statement.outputs, statement.sides, statement.values, statement.strict)
        limits = np.column_stack([np.asarray(column, np.float64) for column in columns])
        what, facts = _in_words(statement), {"kind": "stays", "output_limits": numbers(limits)}
    about = Claim(**shared, **facts, range=ends_and_values(cell), leaves=leaves)
    return f"{what} in the file's whole range of {_extent(cell)}, by {leaves} leaves", about


def _rows(claim: RowsClaim, leaves: int, shared: dict[str, Any]) -> tuple[str, Claim]:
    rules = None if claim.rules is None else numbers(np.column_stack(claim.rules))
    kept = "" if claim.rules is None else f" that keep {len(claim.rules[1])} rules"
    about = Claim(
        kind="rows",
        **shared,
        label=claim.label,
        centre=numbers(claim.centre),
        index=claim.index,
        range=ends_and_values(claim.cell),
        rules=rules,
        leaves=leaves,
    )
    where = f"at all rows{kept} of the file's range of {_extent(claim.cell)} around its sample {claim.index}"
    return f"class {claim.label} {where}, by {leaves} leaves", about


def ends_and_values(cell: Cell) -> tuple[Numbers, ...]:
    """Return what tells ranges apart: ends, and of each feature with values of its own its inputs above its values."""
    own = (np.vstack([np.array(choice.columns, np.float64), choice.values]) for choice in cell.choices)
    return numbers(np.stack([cell.hull.lo, cell.hull.hi])), *map(numbers, own)


def _extent(cell: Cell) -> str:
    apart = f", {len(cell.choices)} features at values of their own" if cell.choices else ""
    least, greatest = float(cell.hull.lo.min()), float(cell.hull.hi.max())
    return f"{cell.hull.size} inputs, within [{least!r}, {greatest!r}]{apart}"


def _kept(claim: SampleClaim | DemandClaim, threshold: float | None) -> tuple[str, dict[str, Any]]:
    """Return what is kept everywhere in a set, in words and as facts of a report."""
    if isinstance(claim, SampleClaim):
        means = "" if threshold is None else f" (output {'above' if claim.label else 'below'} {threshold!r})"
        return f"class {claim.label}{means}", {"kind": "class", "label": claim.label}
    demand = claim.demand
    if isinstance(demand, AmongFirst):
        facts: dict[str, Any] = {"kind": "top", "label": demand.label, "top": demand.k}
        return f"class {demand.label} among the first {demand.k}", facts
    parts = np.unique(np.concatenate(claim.groups))
    facts = {"kind": "limits" if isinstance(demand, Limits) else "pixels", "parts": numbers(parts)}
    if isinstance(demand, PixelClasses):
        facts["pixel_labels"] = numbers(demand.labels)
        return f"{parts.size} of {demand.labels.size} pixels of one class each", facts
    some = demand.only(parts)
    columns = (some.outputs, some.sides, some.values, some.strict)
    facts["output_limits"] = numbers(np.column_stack([np.asarray(column, np.float64) for column in columns]))
    return _in_words(some), facts


def _in_words(limits: Limits) -> str:
    """Return the first few limits in words."""
    each = zip(limits.outputs.tolist(), limits.sides.tolist(), limits.values.tolist(), limits.strict, strict=True)
    signs = {(1, True): ">", (1, False): ">=", (-1, True): "<", (-1, False): "<="}
    told = [f"output {i} {signs[side, bool(strict)]} {value!r}" for i, side, value, strict in each]
    more = f" and {len(told) - MOST_LIMITS} more limits" if len(told) > MOST_LIMITS else ""
    return ", ".join(told[:MOST_LIMITS]) + more


def _perturbed(claim: PerturbedClaim, leaves: int, shared: dict[str, Any]) -> tuple[str, Claim]:
    inputs, limit = claim.inputs, shared["threshold"]
    around, directions = inputs.around, inputs.perturbation.directions
    what = [inputs.perturbation.text] if inputs.perturbation.text else []
    what += [] if directions is None else [f"{len(directions.vectors)} directions of the file"]
    times = "" if inputs.factor == 1 else f" (ranges times {inputs.factor!r})"
    within = "" if around.clip is None else f", saturating at {around.clip[0]!r} and {around.clip[1]!r},"
    if claim.angles is not None:
        within = f" in {claim.angles.size - 1} intervals of angles"
    elif not inputs.perturbation.terms and directions is None and around.clip is not None:
        within = f" within [{around.clip[0]!r}, {around.clip[1]!r}]"
    drawn = f" as {'x'.join(map(str, around.shape))}" if inputs.perturbation.needs_picture else ""
    means = "" if limit is None else f" (output {'above' if claim.label else 'below'} {limit!r})"
    about = Claim(
        kind="class",
        **shared,
        label=claim.label,
        eps=inputs.factor,
        centre=numbers(around.sample),
        clip=around.clip,
        index=claim.index,
        leaves=leaves,
        perturbation=inputs.perturbation.text or None,
        directions=None if directions is None else tuple(numbers(own) for own in directions.arrays),
        picture=around.shape if inputs.perturbation.needs_picture else (),
    )
    where = f"for all of {' and '.join(what)}{times}{within} of the file's sample {claim.index}{drawn}"
    return f"class {claim.label}{means} {where}, by {leaves} leaves", about


def _pair(claim: AgreementClaim | DifferenceClaim, leaves: int, shared: dict[str, Any]) -> tuple[str, Claim]:
    ball = claim.ball
    where = f"in the box of {_reach(ball)} around the file's sample {claim.index}"
    about = Claim(
        kind="agreement" if isinstance(claim, AgreementClaim) else "difference",
        **shared,
        eps=ball.eps,
        centre=numbers(ball.centre),
        sigma=None if ball.sigma is None else numbers(ball.sigma),
        clip=ball.clip,
        index=claim.index,
        leaves=leaves,
        limits=None if isinstance(claim, AgreementClaim) else numbers(claim.limits),
    )
    if isinstance(claim, AgreementClaim):
        return f"one class of two networks {where}, by {leaves} leaves", about
    largest = float(claim.limits.max(initial=0.0))
    return f"outputs of two networks differ by at most {largest!r} {where}, by {leaves} leaves", about


def _property(claim: PropertyClaim, shared: dict[str, Any], vnnlib: Path | None) -> tuple[str, Claim]:
    boxes = len(claim.asked)
    if vnnlib is None:
        name, sha256 = claim.name, claim.sha256
        which = f"the input boxes of the file ({boxes}), said to be those of {name} (not compared)"
    else:
        name, sha256 = str(vnnlib), hashlib.sha256(vnnlib.read_bytes()).hexdigest()
        which = f"the input boxes of {vnnlib} ({boxes})"
    alternatives = [alternative for query in claim.asked for alternative in query.alternatives]
    strict = np.concatenate([each.strict for each in alternatives])
    facts = PropertyFacts(
        file=name,
        sha256=sha256,
        compared=vnnlib is not None,
        boxes=numbers(np.stack([np.stack([query.box.lo, query.box.hi]) for query in claim.asked])),
        alternatives=numbers(np.concatenate([np.column_stack([each.rows, each.offsets]) for each in alternatives])),
        strict=numbers(strict.astype(np.float64)) if strict.any() else None,
        n_alternatives=len(alternatives),
    )
    statement = f"unsat: none of {len(alternatives)} alternatives holds in {which}"
    return statement, Claim(kind="property", **shared, property=facts)


def parts_of(witness: Witness | None) -> list[str]:
    """Return the proofs that a witness has, in words."""
    if witness is None:
        return ["no proof"]
    parts = [] if witness.adjoint is None else ["adjoint rows"]
    parts += [f"{len(witness.flat)} contraction{'s' if len(witness.flat) > 1 else ''}"] if witness.flat else []
    parts += [] if witness.monotone is None else ["a monotone proof"]
    return parts or ["no proof"]


def _norm_inf(found: ProofFile) -> float | None:
    """Return ||S||_inf, rounded upward, where it is a number."""
    if not isinstance(found.claim, SensitivityClaim):
        return None
    with np.errstate(all="ignore"):
        rows = found.claim.S.sum(axis=1) * (1 + 2 * gamma(found.claim.S.shape[1]))
        norm = float(rows.max(initial=0.0))
    return norm if np.isfinite(norm) else None


def _with_output(asked: Asked, options: ModelOptions) -> ModelOptions:
    """Return options that read the output which the file speaks of. Raises OptionError where another is asked for."""
    name = asked.of.output_name
    if name is None:
        return options
    if options.output_name not in (None, name):
        raise OptionError(f"{asked.file} speaks of the output '{name}'; leave --output-name {options.output_name} out")
    return replace(options, output_name=name)


def _with_classes(asked: Asked, subject: Subject) -> Subject:
    """Return the subject with the classes that a certificate speaks of. Raises ModelFileError where there are none."""
    if asked.of.threshold is None or asked.kind in ("property", "sensitivity"):
        return subject
    try:
        return as_classifier(subject, asked.of.threshold)
    except InvalidInputError as error:
        raise ModelFileError(f"{asked.file} speaks of a threshold that the model does not have: {error}") from error


def _of_this_model(asked: Asked, subject: Subject, found: Outcome) -> Outcome:
    """Return the outcome, refused where a certificate names another model; a refused witness says so as well."""
    refused = list(found.checked.refused)
    must = asked.kind != "sensitivity"  # S is proved for whatever model it is checked against
    if asked.of.sha256 != subject.info.sha256 and (must or refused):
        note = f"it was made for another file (sha256 {asked.of.sha256[:12]})"
        if asked.of.sha256 == subject.info.file_sha256:
            note = "it names the model's file alone, and not what belongs to it (weights beside it, code): make it anew"
        refused.append(note)
    if subject.output is None and asked.of.output_name is not None:
        refused.append(f"it speaks of the output '{asked.of.output_name}', and the model's output has no name")
    return Outcome(found.statement, found.about, Checked(found.checked.checked, tuple(refused)), found.norm_inf)


def numbers(array: AnyArray) -> Numbers:
    """Return what tells an array of finite numbers from any other."""
    own = np.ascontiguousarray(array, "<f8")
    ends = (float(own.min()), float(own.max())) if own.size else (None, None)
    return Numbers(shape=own.shape, sha256=hashlib.sha256(own.tobytes()).hexdigest(), least=ends[0], greatest=ends[1])
