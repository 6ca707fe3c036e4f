"""What a checked claim is about, in words: every number in full, every array by its hash."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from idl_audit.report.schema import Claim, Numbers, PreprocessingInfo, PropertyClaim, QueryFacts, SecondModel
from idl_audit.report.wording import saturates
from idl_audit.values.verdicts import ArithmeticName

MOST_NUMBERS = 4
"""Means and standard deviations that are listed."""
HASH = 16
"""Digits of a hash that are shown."""
ARITHMETICS: Final[Mapping[ArithmeticName, str]] = MappingProxyType(
    {
        "real": "real numbers: what floating point does to the network is not part of it",
        **{
            name: f"{name}, as runtimes compute: sums in any order, fused and folded or not"
            for name in ("float64", "float32")
        },
        **{
            name: f"{name}, as runtimes compute: summed up in float32 or finer, in any order, every step rounded or not"
            for name in ("float16", "bfloat16")
        },
    }
)
"""What a claim speaks of."""


def facts(claim: Claim) -> Iterator[tuple[str, str]]:
    """Yield (name, text) for everything that a claim is about, beside the model."""
    if claim.query is not None:
        yield from _of_query(claim.query, claim.leaves or 0, claim.arithmetic)
        return
    left_out = f", the {claim.stripped_output} at the end left out" if claim.stripped_output else ""
    yield "output", (f"'{claim.output}'" if claim.output is not None else "the model's own") + left_out
    if claim.perturbation is not None:
        drawn = f" as pictures of {' x '.join(map(str, claim.picture))}" if claim.picture else ""
        patch = claim.perturbation.startswith("patch=")
        how = ", inputs saturating at clip's ends" if claim.clip and saturates(claim.perturbation) else ""
        how = ", anywhere, with any values of clip" if patch else how
        yield "perturbation", claim.perturbation + drawn + how
    if claim.directions is not None:
        yield "directions", "; ".join(map(numbers, claim.directions))
    if claim.eps is not None:
        norm = "" if claim.norm == "linf" else f" in the {claim.norm} norm"
        times = " times" if claim.norm == "linf" else " of changes in units of"
        yield "eps", repr(claim.eps) + norm + ("" if claim.sigma is None else f"{times} sigma, {numbers(claim.sigma)}")
    if claim.centre is not None:
        yield "centre", f"{numbers(claim.centre)}; by the file's word, sample {claim.index} of its data"
    if claim.range:
        yield "range", "; ".join(map(numbers, claim.range))
    if claim.rules is not None:
        yield "rules", numbers(claim.rules)
    if claim.threshold is not None:
        yield "threshold", f"{claim.threshold!r}: class 1 is an output above it"
    if claim.top is not None:
        yield "place", f"among the first {claim.top} classes"
    if claim.parts is not None:
        yield "outputs" if claim.output_limits is not None else "pixels", numbers(claim.parts)
    if claim.output_limits is not None:
        yield "limits", numbers(claim.output_limits)
    if claim.pixel_labels is not None:
        yield "classes of pixels", numbers(claim.pixel_labels)
    if claim.eps is not None:
        lo, hi = claim.clip or (None, None)
        yield "clip", "none" if lo is None else f"[{lo!r}, {hi!r}]"
        if claim.free:
            yield "free inputs", f"{', '.join(map(str, claim.free))} move through the whole of clip"
        if claim.cardinality is not None:
            yield "inputs changed", f"at most {claim.cardinality}"
    if claim.second is not None:
        yield from _of_second(claim.second)
    if claim.limits is not None:
        yield "limits of |y - y'|", numbers(claim.limits)
    if claim.property is not None:
        yield from _of_property(claim.property)
    if claim.matrix is not None:
        yield "S", numbers(claim.matrix)
    yield "inputs", units(claim.preprocessing)
    yield "arithmetic", ARITHMETICS[claim.arithmetic]


def _of_query(found: QueryFacts, leaves: int, arithmetic: ArithmeticName) -> Iterator[tuple[str, str]]:
    yield "query", f"{found.file} (sha256 {found.sha256[:HASH]})"
    for one in found.networks:
        same = f", equal to {one.equal_to}" if one.equal_to else ""
        yield f"network {one.name}", f"{one.path} (sha256 {one.sha256[:HASH]}){same}"
    proved = f"{found.left} refuted by {leaves} leaves, the others by ranges" if found.left else "all refuted by ranges"
    proved = "which contradict each other" if not found.boxes else proved
    yield "boxes", f"{found.boxes} with {found.alternatives} alternatives, {proved}"
    words = ARITHMETICS[arithmetic]
    yield "arithmetic", words if arithmetic == "real" else words.replace(arithmetic, ", ".join(found.elements), 1)


def _of_second(found: SecondModel) -> Iterator[tuple[str, str]]:
    name = "the model's own" if found.output is None else f"'{found.output}'"
    yield "second network", f"{found.path} (sha256 {found.sha256[:HASH]}), output {name}"
    yield "its inputs", units(found.preprocessing)


def _of_property(found: PropertyClaim) -> Iterator[tuple[str, str]]:
    said = "" if found.compared else ", by the file's word (not compared)"
    yield "property", f"{found.file} (sha256 {found.sha256[:HASH]}){said}"
    yield "boxes", numbers(found.boxes)
    yield "rows", numbers(found.alternatives)
    if found.strict is not None:
        yield "strict rows", numbers(found.strict)


def numbers(found: Numbers) -> str:
    """Return an array's shape, range and hash."""
    span = "" if found.least is None else f" in [{found.least!r}, {found.greatest!r}]"
    return f"{' x '.join(map(str, found.shape))} numbers{span}, sha256 {found.sha256[:HASH]}"


def units(found: PreprocessingInfo) -> str:
    """Say what turns the inputs that a claim speaks of into the network's."""
    if found == PreprocessingInfo():
        return "u, as the network reads them"
    mean, std = _listed(found.mean, 0.0), _listed(found.std, 1.0)
    return f"u, read as (u * {found.scale!r} - ({mean})) / ({std})"


def _listed(values: tuple[float, ...], usual: float) -> str:
    few = ", ".join(map(repr, values[:MOST_NUMBERS])) or repr(usual)
    return f"{few}, ..., {len(values)} in all" if len(values) > MOST_NUMBERS else few
