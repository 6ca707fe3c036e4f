"""How steeply outputs rise with one input: exact lower bounds of quotients of differences over a box.

For u and v = u + t e_f in a box, t > 0, let dz = (z(v) - z(u)) / t and dx likewise. Then dz = A dx + B e_f, and
dx_i = s_i dz_i with s_i between the least and the greatest slope [a_i, g_i] of phi_i over the box; the quotient of a
row c . y is c . (C dx + D e_f) (docs/mathematics.md, section 9.7). dz has an interval, block by block, and with it dx_i
lies between two lines through which c is pulled back, as in backward linear bounds. t does not occur: what is bounded
are quotients, whose least may be 0 where the network is flat. So all of it is exact (`dyadic`): a bound of at least 0
says that the row never falls.

Elsewhere: certified monotonicity.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from idl_audit.implicit.activations.paired import slopes_of_lines
from idl_audit.implicit.affine import INPUT
from idl_audit.implicit.model import Affine, ImplicitModel
from idl_audit.implicit.pair import written_out
from idl_audit.proof.bounds import Interval, StateBounds
from idl_audit.proof.cells import fault, leaves
from idl_audit.proof.dyadic import Dyadic
from idl_audit.proof.forest import Forest
from idl_audit.proof.linear_bounds import backward_state_bounds
from idl_audit.values.arrays import FloatArray
from idl_audit.values.check import Check, unchecked
from idl_audit.values.errors import UnsupportedModelError
from idl_audit.values.mixed import Cell

RANKING: Final = ("Softmax", "LogSoftmax")
"""Last operators that are left out, and of which a class rises where all its differences to others do."""

MOST_ENTRIES: Final = 2**20
"""Of all maps of a model: exact products take a ten-millionth of a second each, and memory."""


@dataclass(frozen=True, eq=False)
class _Map:
    """A map's entries, exactly, and what is uncertain in them; None stands for nothing."""

    entries: Dyadic
    errors: Dyadic | None

    @cached_property
    def rising(self) -> Dyadic:
        """The entries above 0."""
        return self.entries.positive

    @cached_property
    def falling(self) -> Dyadic:
        """The entries below 0."""
        return self.entries.negative


class Rise:
    """A feed-forward model whose states are functions of one variable each, and one of its inputs."""

    def __init__(self, model: ImplicitModel, feature: int) -> None:
        """Take the model and the number of the input.

        Raises:
            UnsupportedModelError: where it has loops, states that are coupled or jump, or is too large.
        """
        wrong = [f"'{b.name}' ({b.op})" for b in model.blocks if b.activation.coupled or b.jumps or np.any(b.exponent)]
        if not model.is_feed_forward:
            wrong = ["its loops"]
        if wrong:
            raise UnsupportedModelError(
                [f"monotonicity is proved for networks whose states are functions of one number: not {wrong[0]}"]
            )
        if sum(linear_map.n_in * linear_map.n_out for linear_map in model.maps) > MOST_ENTRIES:
            raise UnsupportedModelError(
                [f"monotonicity is proved for networks with up to {MOST_ENTRIES:,} coefficients"]
            )
        self._model, self._feature = model, feature
        self._rows = {k: _maps_of(row) for k, row in enumerate((*model.rows, model.output))}

    def least(self, inputs: Interval, bounds: StateBounds, rows: FloatArray, *, check: Check = unchecked) -> Dyadic:
        """Return exact lower bounds of the quotients of rows . y, (r, q) -> (r,), over one box.

        Args:
            inputs: the box, (1, p).
            bounds: proved bounds of all states over it.
            rows: functionals of the outputs.
            check: called between blocks.

        Raises:
            UnsupportedModelError: where a slope or a bound is no finite number.
        """
        model, q = self._model, len(self._model.blocks)
        z = self._pre_activations(inputs, bounds, check)
        slopes = {k: _exact(block.slopes(*z[k])) for k, block in enumerate(model.blocks)}
        dz, dx = self._forward(slopes, check)
        lam = Dyadic.of(rows)
        ends = self._interval(q, dx)
        found = lam.positive @ ends[0] + lam.negative @ ends[1]
        arriving: dict[int, Dyadic] = {}
        total = self._push(q, lam, dx, arriving, Dyadic.of(np.zeros(len(rows))))
        for k in range(q):
            check()
            v = arriving.pop(k, None)
            if v is None:
                continue
            a, g = slopes[k]
            lines = slopes_of_lines(*(end.rounded(-np.inf) for end in (a, g, *dz[k])))
            below, above = map(Dyadic.of, lines)
            kept = [_corners(a, g, *dz[k], line) for line in (below, above)]
            total = total + (v.positive * kept[0][0]).total + (v.negative * kept[1][1]).total
            total = self._push(k, v.positive * below + v.negative * above, dx, arriving, total)
        return found.greatest(total)

    def _pre_activations(
        self, inputs: Interval, bounds: StateBounds, check: Check
    ) -> dict[int, tuple[FloatArray, FloatArray]]:
        """Return the ends of z, exact sums rounded outward where they are no float64, and no wider than is known."""
        model = self._model
        states: dict[int, tuple[Dyadic, Dyadic]] = {INPUT: (Dyadic.of(inputs.lo[0]), Dyadic.of(inputs.hi[0]))}
        found = {}
        for k in model.evaluation_order:
            check()
            constant = Dyadic.of(model.rows[k].constant)
            off = Dyadic.of(np.full(1, model.rows[k].constant_error))
            lo, hi = constant - off, constant + off
            for source, own in self._rows[k].items():
                low, high = _image(own, *states[source])
                lo, hi = lo + low, hi + high
            ends = (
                np.fmax(lo.rounded(-np.inf), bounds.z[k].lo[0]),
                np.fmin(hi.rounded(np.inf), bounds.z[k].hi[0]),
            )
            found[k] = ends
            states[k] = _exact(model.blocks[k].interval(*ends))
        return found

    def _forward(
        self, slopes: dict[int, tuple[Dyadic, Dyadic]], check: Check
    ) -> tuple[dict[int, tuple[Dyadic, Dyadic]], dict[int, tuple[Dyadic, Dyadic]]]:
        """Return the intervals of dz and dx."""
        dz: dict[int, tuple[Dyadic, Dyadic]] = {}
        dx: dict[int, tuple[Dyadic, Dyadic]] = {}
        for k in self._model.evaluation_order:
            check()
            dz[k] = self._interval(k, dx)
            a, g = slopes[k]
            products = [s * end for s in (a, g) for end in dz[k]]
            low = products[0].least(products[1]).least(products[2].least(products[3]))
            high = products[0].greatest(products[1]).greatest(products[2].greatest(products[3]))
            dx[k] = low, high
        return dz, dx

    def _interval(self, k: int, dx: dict[int, tuple[Dyadic, Dyadic]]) -> tuple[Dyadic, Dyadic]:
        """Return the ends of A dx + B e_f, or of C dx + D e_f."""
        size = self._model.output.size if k == len(self._model.blocks) else self._model.blocks[k].size
        lo = hi = Dyadic.of(np.zeros(size))
        for source, own in self._rows[k].items():
            low, high = self._column(own) if source == INPUT else _image(own, *dx[source])
            lo, hi = lo + low, hi + high
        return lo, hi

    def _column(self, own: _Map) -> tuple[Dyadic, Dyadic]:
        """Return the ends of the column of the input."""
        column = Dyadic(own.entries.values[:, self._feature], own.entries.shift)
        if own.errors is None:
            return column, column
        off = Dyadic(own.errors.values[:, self._feature], own.errors.shift)
        return column - off, column + off

    def _push(
        self,
        k: int,
        lam: Dyadic,
        dx: dict[int, tuple[Dyadic, Dyadic]],
        arriving: dict[int, Dyadic],
        total: Dyadic,
    ) -> Dyadic:
        """Hand lam . (A dx + B e_f) on to the blocks that it reads; return the total with what needs no more looks."""
        for source, own in self._rows[k].items():
            if source == INPUT:
                low, high = self._column(own)
                total = total + lam.positive @ low + lam.negative @ high
                continue
            v = lam @ own.entries
            arriving[source] = arriving[source] + v if source in arriving else v
            if own.errors is not None:
                largest = dx[source][0].size.greatest(dx[source][1].size)
                total = total - lam.size @ (own.errors @ largest)
        return total


# --- a whole set ------------------------------------------------------------------------------------------------------


def score_rows(model: ImplicitModel, output: int, *, rises: bool) -> FloatArray | None:
    """Return functionals, (r, q): where none of them ever falls, the score of an output never falls, or never rises.

    Of a class before a last softmax they are its differences to the other outputs; None where the last operator that
    is left out has no such rule.
    """
    q, sign = model.n_outputs, 1.0 if rises else -1.0
    unit = np.eye(q)
    if q == 1 or not model.stripped_output:
        return np.asarray(sign * unit[output][None])
    if model.stripped_output not in RANKING:
        return None
    return np.stack([sign * (unit[output] - unit[j]) for j in range(q) if j != output])


def part_rises(rise: Rise, model: ImplicitModel, part: Interval, rows: FloatArray, check: Check = unchecked) -> Dyadic:
    """Return exact lower bounds of the quotients of rows over one box, (1, p), by bounds of the states there.

    Raises:
        UnsupportedModelError: where a slope or a bound is no finite number.
    """
    return rise.least(part, backward_state_bounds(model, part, check=check), rows, check=check)


def never_falls(model: ImplicitModel, feature: int, rows: FloatArray, cell: Cell, tree: Forest) -> list[str]:
    """Return why a tree of boxes does not prove that no row falls while one input rises; empty where it does.

    A way along the input within the set goes through the leaves one after the other: those that it crosses at cuts of
    the input itself, and in all others all of it lies on one side. So what never falls in any leaf never falls.

    Args:
        model: in the units of the set.
        feature: the input, which no choice of the range has.
        rows: functionals of the outputs, (r, q).
        cell: the range.
        tree: one tree that shares it out.
    """
    why = fault(cell, tree)
    if why:
        return [why]
    try:
        rise = Rise(model, feature)
    except UnsupportedModelError as error:
        return list(error.problems)
    refused = []
    for node, piece in leaves(cell, tree):
        try:
            part = Interval(piece.lo[None], piece.hi[None])
            proved = bool(part_rises(rise, model, part, rows).is_at_least_zero.all())
        except UnsupportedModelError:
            proved = False
        if not proved:
            refused.append(f"leaf {node}: the score may go the wrong way there")
    return refused


def _exact(ends: tuple[FloatArray, FloatArray]) -> tuple[Dyadic, Dyadic]:
    return Dyadic.of(ends[0]), Dyadic.of(ends[1])


def _maps_of(row: Affine) -> dict[int, _Map]:
    found = {}
    for source, (values, errors) in written_out(row).items():
        own = None if errors is None else Dyadic.of(errors.toarray())
        found[source] = _Map(Dyadic.of(values.toarray()), own)
    return found


def _image(own: _Map, lo: Dyadic, hi: Dyadic) -> tuple[Dyadic, Dyadic]:
    """Return the ends of W x over lo <= x <= hi."""
    low, high = own.rising @ lo + own.falling @ hi, own.rising @ hi + own.falling @ lo
    if own.errors is None:
        return low, high
    off = own.errors @ lo.size.greatest(hi.size)
    return low - off, high + off


def _corners(a: Dyadic, g: Dyadic, p: Dyadic, q: Dyadic, line: Dyadic) -> tuple[Dyadic, Dyadic]:
    """Return the least and the greatest of (s - line) dz over s in [a, g] and dz in [p, q]."""
    products = [(s - line) * end for s in (a, g) for end in (p, q)]
    low = products[0].least(products[1]).least(products[2].least(products[3]))
    return low, products[0].greatest(products[1]).greatest(products[2].greatest(products[3]))
