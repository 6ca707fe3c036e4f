"""Forward affine forms: each z and x over a box as an affine function of the inputs, up to an error, rounded outward.

See docs/mathematics.md, section 6.7.

Over a box with centre c and radii r, u_j = c_j + r_j t_j with |t_j| <= 1. A value is kept as

    centre + sum_j slopes_j t_j + e,    |e| <= error,

j over the inputs that are told apart; what the others move belongs to the error. An affine map takes a form through
W centre + w, W slopes_j and |W| error; an activation x = phi(z) over [l, h] through any slope s and the range of
phi(z) - s z there. One pass costs as many products with each map as there are inputs and two, whatever the number of
states that bend: backward linear bounds are tighter, but cost a pass for each of these.

Elsewhere: forward-mode LiRPA, zonotopes without symbols for states (DeepZ).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from idl_audit.implicit.model import Affine, ImplicitModel, StateBlock
from idl_audit.proof.bounds import Interval
from idl_audit.proof.intervals import centre_and_radius, row_terms
from idl_audit.values.arrays import FloatArray, IntArray
from idl_audit.values.rounding import TINY, gamma

MOST_APART = 32
"""Inputs that move up to which forms are made: they cost as many products as there are such inputs."""


def moving(inputs: Interval) -> IntArray:
    """Return the inputs that are wider, in one of m boxes, than rounding a decimal outward makes a fixed one."""
    lo, hi = inputs.lo, inputs.hi
    return np.flatnonzero((hi - lo > 1e-12 * (np.abs(lo) + np.abs(hi))).any(axis=0))


@dataclass(frozen=True, eq=False)
class Form:
    """n values over each of m boxes: terms_0 + sum_j terms_(1 + j) t_j, up to an error."""

    terms: FloatArray
    """(m, 1 + f, n): the centre, then the slope of each of f inputs, by half the width of its interval."""
    error: FloatArray
    """(m, n)."""

    @classmethod
    def of_inputs(cls, inputs: Interval, apart: IntArray) -> Form:
        """Return the inputs themselves; those that are not told apart are their centres, up to their radii."""
        centre, radius = centre_and_radius(inputs)
        terms = np.zeros((len(centre), 1 + apart.size, centre.shape[1]))
        terms[:, 0] = centre
        terms[:, 1 + np.arange(apart.size), apart] = radius[:, apart]
        error = radius.copy()
        error[:, apart] = 0.0
        return cls(terms, error)

    @classmethod
    def of_interval(cls, interval: Interval, apart: int) -> Form:
        """Return values of which nothing but bounds is known."""
        centre, radius = centre_and_radius(interval)
        terms = np.zeros((len(centre), 1 + apart, centre.shape[1]))
        terms[:, 0] = np.where(np.isfinite(radius), centre, 0.0)
        return cls(terms, np.where(np.isfinite(centre), radius, np.inf))

    def part(self, boxes: slice | IntArray) -> Form:
        """Return those over some boxes."""
        return Form(self.terms[boxes], self.error[boxes])

    @property
    def reach(self) -> FloatArray:
        """|centre| + sum_j |slopes_j|, up to its rounding, (m, n)."""
        return np.asarray(np.abs(self.terms).sum(axis=1))

    @property
    def slopes(self) -> FloatArray:
        """By half the width of each input, (m, n, f)."""
        return self.terms[:, 1:].transpose(0, 2, 1)

    @property
    def interval(self) -> Interval:
        """centre -+ (sum_j |slopes_j| + error), rounded outward; infinite after an overflow."""
        centre = self.terms[:, 0]
        reach = (np.abs(self.terms[:, 1:]).sum(axis=1) + self.error) * (1 + 2 * gamma(self.terms.shape[1] + 4))
        known = np.isfinite(centre) & np.isfinite(reach)
        with np.errstate(invalid="ignore"):
            lo, hi = np.nextafter(centre - reach, -np.inf), np.nextafter(centre + reach, np.inf)
        return Interval(np.where(known, lo, -np.inf), np.where(known, hi, np.inf))

    def through(self, block: StateBlock, z: Interval, x: Interval) -> Form:
        """Return the form of x = phi(z) from this one of z, and from bounds of z and x.

        x = s z + (phi(z) - s z): the second lies in an interval that the summands of dual bounds give. Where bounds of
        x are as narrow as what it is uncertain by then, they take its place, as in coupled blocks.
        """
        if block.activation.coupled:
            return Form.of_interval(x, self.terms.shape[1] - 1)
        slope, middle, radius = linearised(block, z)
        terms = self.terms * slope[:, None, :]
        rounding = gamma(4) * (np.abs(slope) * self.reach + np.abs(middle)) + TINY
        error = (np.abs(slope) * self.error + radius + rounding) * (1 + gamma(self.terms.shape[1] + 12))
        terms[:, 0] += middle
        other = Form.of_interval(x, self.terms.shape[1] - 1)
        own = (error < other.error) & np.isfinite(terms).all(axis=1)  # NaN is no form
        return Form(np.where(own[:, None, :], terms, other.terms), np.where(own, error, other.error))


def linearised(block: StateBlock, z: Interval) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return s, m and rho with |phi(z) - s z - m| <= rho over [l, h], (m, n) each; s is the chord's slope."""
    slope = _slope(block, z)
    one, none = np.ones_like(slope), np.zeros_like(slope)
    least = block.lower_support(one, none, slope, z.lo, z.hi)
    most = -block.lower_support(-one, none, -slope, z.lo, z.hi)
    return slope, *centre_and_radius(Interval(least, most))


def _slope(block: StateBlock, z: Interval) -> FloatArray:
    """Return the slope of the chord of phi over [l, h]; any number is sound."""
    least, most = block.slopes(z.lo, z.hi)
    width = z.hi - z.lo
    usable = (width > 0) & np.isfinite(width)
    rise = block(np.where(usable, z.hi, 0.0)) - block(np.where(usable, z.lo, 0.0))
    chord = np.divide(rise, width, out=np.zeros_like(width), where=usable)
    return np.asarray(np.clip(chord, least, most))


def affine_form(row: Affine, states: Mapping[int, Form], inputs: Form) -> Form:
    """Return the form of sum_k P_k x_k + Q u + r from those of the states and inputs.

    error' = |W| (error + (gamma + relative) reach) + gamma |r| + ..., gamma for all roundings of one entry.
    """
    parts = [(row.states[k], states[k]) for k in sorted(row.states, reverse=True)]
    if row.input is not None:
        parts.append((row.input, inputs))
    m, count = inputs.terms.shape[:2]
    rounding = gamma(row_terms(row) + count + 8)
    terms = np.zeros((m, count, row.size))
    terms[:, 0] = row.constant
    error = np.broadcast_to(rounding * np.abs(row.constant) + row.constant_error + TINY, (m, row.size)).copy()
    for linear_map, form in parts:
        terms += linear_map.apply(form.terms.reshape(m * count, -1)).reshape(terms.shape)
        relative, reach = linear_map.relative, form.reach
        error += linear_map.magnitude.apply(form.error * (1 + 2 * relative) + (rounding + 2 * relative) * reach + TINY)
        error += (count + 1) * linear_map.row_loss
        if linear_map.slack is not None:
            error += linear_map.slack.apply(reach + form.error) * (1 + gamma(linear_map.slack.row_terms + 4))
            error += linear_map.slack.row_loss
    return Form(terms, error * (1 + 2 * rounding))


@dataclass(frozen=True, eq=False)
class Forms:
    """The forms over some boxes: of the inputs, and of each block so far."""

    inputs: Form
    z: Mapping[int, Form]
    x: Mapping[int, Form]

    @classmethod
    def over(cls, inputs: Interval, apart: IntArray) -> Forms:
        """Return those of the inputs alone."""
        return cls(Form.of_inputs(inputs, apart), {}, {})

    def part(self, boxes: slice | IntArray) -> Forms:
        """Return those over some boxes."""
        z, x = ({k: form.part(boxes) for k, form in forms.items()} for forms in (self.z, self.x))
        return Forms(self.inputs.part(boxes), z, x)

    def of_block(self, model: ImplicitModel, k: int) -> Form | None:
        """Return the form of a block's pre-activations; None in a loop, which reads itself."""
        return None if k in model.loops else affine_form(model.rows[k], self.x, self.inputs)

    def with_block(self, k: int, block: StateBlock, form: Form | None, z: Interval, x: Interval) -> Forms:
        """Return these with block k's put in, from that of its pre-activations and proved bounds of both."""
        if form is None:
            through = Form.of_interval(x, self.inputs.terms.shape[1] - 1)
            return Forms(self.inputs, self.z, {**self.x, k: through})
        return Forms(self.inputs, {**self.z, k: form}, {**self.x, k: form.through(block, z, x)})
