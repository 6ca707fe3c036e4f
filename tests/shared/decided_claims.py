"""Decides what proof files claim about small networks, without a look at their proofs.

In rational arithmetic where all states are kinked; by halving boxes with a bound of the outputs' slopes where there are
two inputs; and S by the slopes of every pattern of phases. Each claim is decided once.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from idl_audit.commands.shared.subject import open_subject
from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.implicit.unfused import unfused
from idl_audit.proof.bounds import Interval
from idl_audit.proof.exact.phases import Decider, program_of
from idl_audit.proof.linear_bounds import backward_state_bounds
from idl_audit.values.box import Box
from idl_audit.values.query import Conjunction, Query
from tests import independent_float32
from tests.shared.proof_sources import Source, Told, claim_of

Arrays = dict[str, np.ndarray]
HAIR = 1e-9
"""Margins of this size are lost in float64's rounding; of claims about float32, ROUNDINGS are."""
ROUNDINGS = 1e-4
MOST_CELLS, FEW_CELLS = 400_000, 20_000
"""Of a box, before nothing is decided: by halving alone, and where fractions decide then."""
Ends = tuple[list[Fraction], list[Fraction]]


def boxes_of(told: Told, q: int = 3) -> Iterator[tuple[Ends, list[tuple[np.ndarray, np.ndarray]]]]:
    """Yield the boxes of a claim, exactly, in the units that it is made in, and its alternatives: rows and offsets."""
    if told.kind == "class":
        assert told.centre is not None
        centre = [Fraction(float(c)) for c in told.centre]
        sigma = np.ones(len(centre)) if told.sigma is None else told.sigma
        reach = [Fraction(told.words["eps"]) * Fraction(float(s)) for s in sigma]
        lo, hi = ([c + sign * r for c, r in zip(centre, reach, strict=True)] for sign in (-1, 1))
        if told.words["clip"] is not None:
            least, most = map(Fraction, told.words["clip"])
            lo, hi = [max(v, least) for v in lo], [min(v, most) for v in hi]
        rows = np.eye(q)[told.words["label"]] - np.eye(q)
        yield (lo, hi), [(row[None], np.zeros(1)) for row in np.delete(rows, told.words["label"], axis=0)]
    for (lo, hi), alternatives in zip(told.boxes, told.alternatives, strict=True):
        yield tuple([Fraction(float(v)) for v in end] for end in (lo, hi)), list(alternatives)


def in_network_units(ends: Ends, units: Any) -> Ends:
    """Return a box as the network reads it."""
    mean, std = (Fraction((units[key] or [i])[0]) for i, key in enumerate(("mean", "std")))
    return tuple([(v * Fraction(units["scale"]) - mean) / std for v in end] for end in ends)


@dataclass
class InFractions:
    """Whether claims about one network of kinked states are true: by halving boxes where that is quick enough."""

    path: Path
    computed: bool = False
    """Whether the claim is about float32: what the roundings may change is then taken off, for the whole box."""
    known: dict[bytes, bool] = field(default_factory=dict)

    def __call__(self, arrays: Arrays, meta: Any) -> bool:
        told = claim_of(arrays, meta)
        key = pickle.dumps([told.kind, told.units, told.words, [*boxes_of(told)]])
        if key not in self.known:
            found = ((in_network_units(box, told.units), rows) for box, rows in boxes_of(told))
            self.known[key] = all(self._refuted(*one) for one in found)
        return self.known[key]

    def _refuted(self, ends: Ends, alternatives: list[tuple[np.ndarray, np.ndarray]]) -> bool:
        if any(lo > hi for lo, hi in zip(*ends, strict=True)):
            return True
        errors = independent_float32.roundings(self.path, *map(np.array, ends)) if self.computed else [Fraction(0)] * 3
        left = []
        for rows, offsets in alternatives:
            slack = [sum(abs(Fraction(float(c))) * e for c, e in zip(row, errors, strict=True)) for row in rows]
            exact = tuple(Fraction(float(c)) - s for c, s in zip(offsets, slack, strict=True))
            one = Conjunction(rows, np.nextafter([float(e) for e in exact], -np.inf), exact)
            if not self._by_halving(np.array(ends, float), one):
                left.append(one)
        return not left or self._exactly(_box(*ends), tuple(left))

    def _by_halving(self, ends: np.ndarray, one: Conjunction) -> bool:
        model, (lo, hi) = _as_written(self.path), ends
        try:
            return _is_positive(
                lambda u: (model(u) @ one.rows.T + one.offsets).max(axis=1),
                np.abs(one.rows) @ _sums_of_paths(self.path),
                lo - np.abs(lo) * HAIR,
                hi + np.abs(hi) * HAIR,
                HAIR,
                most=FEW_CELLS,
            )
        except Undecided:
            return False

    def _exactly(self, box: Box, alternatives: tuple[Conjunction, ...]) -> bool:
        model, query = _as_written(self.path), Query(box, alternatives)
        program = program_of(model, box, backward_state_bounds(model, Interval.of_boxes(box)))
        if program is None:  # bounds of states beyond floats
            raise Undecided
        decider = Decider(model, query, program)
        return all(decider.decide(alternative).refuted for alternative in query.alternatives)


@cache
def _sums_of_paths(path: Path) -> np.ndarray:
    """Return the sums over all ways from an input to an output of products of |weights|, (q, p)."""
    model = _as_written(path)
    known: dict[int, np.ndarray] = {}

    def through(row: Affine) -> np.ndarray:
        found = np.zeros((row.size, model.n_inputs))
        for k, linear_map in row.states.items():
            found += abs(linear_map.to_sparse()) @ known[k]
        return found if row.input is None else found + abs(row.input.to_sparse()).toarray()

    for k in model.evaluation_order:
        known[k] = through(model.rows[k])
    return through(model.output)


@cache
def _as_written(path: Path) -> ImplicitModel:
    """Return a network with the file's own coefficients: none is a product, which might be rounded."""
    graph = open_subject(path).graph
    assert graph is not None
    return unfused(graph)


def _box(lo: list[Fraction], hi: list[Fraction]) -> Box:
    """Return a box with these ends, rounded outward and inward."""
    near = [np.array([float(v) for v in end]) for end in (lo, hi)]
    outward = np.nextafter(near[0], -np.inf), np.nextafter(near[1], np.inf)
    inward = np.nextafter(near[0], np.inf), np.nextafter(near[1], -np.inf)
    return Box(*outward, *inward, ends=(tuple(lo), tuple(hi)))


# --- two inputs ------------------------------------------------------------------------------------------------------


class Undecided(Exception):
    """A claim that is too nearly false for this, or whose numbers are too large for floats."""


def slopes(path: Path) -> np.ndarray:
    """Return max |C (I - D A)^-1 D B| over all D of zeros and ones, (q, p): no two inputs move an output by more.

    Between two inputs the states differ by D (A dx + B du) with some D between 0 and 1, and each entry of the matrix is
    a quotient of affine functions of each entry of D, so that the greatest is at a corner.
    """
    with np.load(path) as file:
        a, b, c = (file[name] for name in "ABC")
    n = len(a)
    if not np.linalg.matrix_power(np.abs(a), n).any() and n > 12:
        return np.asarray(np.abs(c) @ np.linalg.inv(np.eye(n) - np.abs(a)) @ np.abs(b))
    d = (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(float)
    moved = np.linalg.solve(np.eye(n) - d[:, :, None] * a, d[:, :, None] * b)
    return np.asarray(np.abs(c @ moved).max(axis=0))


@dataclass
class ByHalving:
    """Whether claims about one network of two inputs are true."""

    source: Source
    slopes: np.ndarray
    """(q, p), of the network in its own units."""
    known: dict[bytes, bool] = field(default_factory=dict)

    def __call__(self, arrays: Arrays, meta: Any) -> bool:
        told = claim_of(arrays, meta)
        key = pickle.dumps([told, meta["arithmetic"]])
        if key not in self.known:
            self.known[key] = self._bounds(told) if told.kind == "bounds" else self._refuted(told, meta["arithmetic"])
        return self.known[key]

    def _units(self, told: Told) -> tuple[np.ndarray, np.ndarray]:
        mean, std = (np.array(told.units[key] or [i], float) for i, key in enumerate(("mean", "std")))
        return told.units["scale"] / std * np.ones(2), -mean / std * np.ones(2)

    def _bounds(self, told: Told) -> bool:
        assert told.S is not None
        return bool((self.slopes * self._units(told)[0] <= told.S * (1 + HAIR) + HAIR).all())

    def _refuted(self, told: Told, arithmetic: str) -> bool:
        network, (scale, shift) = self.source.networks[told.output_name], self._units(told)
        threshold = told.words["threshold"]

        def outputs(u: np.ndarray) -> np.ndarray:
            y = network(u * scale + shift)
            return y if threshold is None else np.hstack([np.zeros_like(y), y - threshold])

        own = self.slopes * scale
        own = own if threshold is None else np.vstack([np.zeros(2), own])
        hair = HAIR if arithmetic == "real" else ROUNDINGS
        return all(
            _is_positive(
                lambda u, rows=rows, c=c: (outputs(u) @ rows.T + c).max(axis=1), np.abs(rows) @ own, *cell, hair
            )
            for ends, alternatives in _boxes(told, len(own))
            for rows, c in alternatives
            for cell in _cells(told, ends)
        )


def _boxes(told: Told, q: int) -> Iterator[tuple[np.ndarray, list[tuple[np.ndarray, np.ndarray]]]]:
    for ends, alternatives in boxes_of(told, q):
        yield np.array(ends, float), alternatives


def _cells(told: Told, ends: np.ndarray) -> list[np.ndarray]:
    """Return the boxes that make up a set: of at most one input that changes, a line for each."""
    if told.words["cardinality"] is None or told.words["cardinality"] >= 2:
        return [ends]
    return [np.where(np.arange(2) == j, ends, told.centre) for j in range(2)]


def _is_positive(
    margin: Callable[[np.ndarray], np.ndarray],
    slope: np.ndarray,
    lo: np.ndarray,
    hi: np.ndarray,
    hair: float,
    most: int = MOST_CELLS,
) -> bool:
    """Return whether a function is above a hair in a box, each of whose rows' slopes are known: (r, p)."""
    if (lo > hi).any():
        return True
    with np.errstate(all="ignore"):  # ends beyond floats leave it undecided
        steep, middle, radius = slope.max(axis=0), ((lo + hi) / 2)[None], ((hi - lo) / 2)[None]
    while len(middle):
        if len(middle) > most:
            raise Undecided
        with np.errstate(all="ignore"):
            values, falls = margin(middle), radius @ steep
        if not (np.isfinite(values).all() and np.isfinite(falls).all()):
            raise Undecided
        if not (values > hair).all():
            return False
        left = ~(values - falls > hair)
        middle, radius = middle[left], radius[left]
        axis = (radius * steep).argmax(axis=1)
        radius = np.where(np.arange(2) == axis[:, None], radius / 2, radius)
        step = np.where(np.arange(2) == axis[:, None], radius, 0.0)
        middle, radius = np.concatenate([middle - step, middle + step]), np.concatenate([radius, radius])
    return True
