"""Attacks: ways to look for a point of the input set that the network misclassifies.

An attack proposes points; success is the original network's word alone (`Replay`), asked in float32 at points that lie
inside the set exactly. Gradients come from the implicit model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np

from idl_audit.analysis.gradients import gradient
from idl_audit.analysis.margins import margin_functionals, margins, predictions
from idl_audit.analysis.sensitivity import sensitivity_matrix
from idl_audit.arrays import Float32Array, FloatArray
from idl_audit.box import Box
from idl_audit.errors import OptionError
from idl_audit.implicit.model import ImplicitModel

Network: TypeAlias = Callable[[Float32Array], FloatArray]
"""The original network in data units: (m, p) float32 -> (m, q)."""


@dataclass(frozen=True)
class Found:
    """A point inside the input set, with what the original network says of it."""

    point: Float32Array
    predicted: int
    """The class that the network predicts there; -1 where an output is no number."""
    margin: float
    """y_label - max over the others; negative or zero where the network errs, -inf where an output is no number."""
    method: str


@dataclass(frozen=True)
class Target:
    """What is attacked: the sample's box, its label, and the network that has the last word."""

    model: ImplicitModel
    box: Box
    centre: FloatArray
    """The sample itself, shape (p,)."""
    label: int
    network: Network

    def replay(self, points: FloatArray, method: str) -> Found | None:
        """Return the worst of the points by the original network, put into the set first; None where none fits."""
        inside = self.box.project(np.atleast_2d(points))
        inside = inside[self.box.contains(inside)]
        if not len(inside):
            return None
        outputs = self.network(inside)
        predicted = predictions(outputs)
        margin = np.where(predicted < 0, -np.inf, margins(outputs, self.label))
        # a wrong prediction first, then the smallest margin: with ties, argmax may err at margin 0
        worst = int(np.lexsort((margin, predicted == self.label))[0])
        return Found(inside[worst], int(predicted[worst]), float(margin[worst]), method)


def is_success(found: Found | None, label: int) -> bool:
    """Return whether the original network misclassifies the point."""
    return found is not None and found.predicted != label


@dataclass(frozen=True)
class AttackOptions:
    """How hard to try."""

    steps: int = 20
    restarts: int = 5
    samples: int = 100
    fraction: float = 0.1
    """Share of the inputs that the ranking attacks may change."""


def random_points(target: Target, options: AttackOptions, rng: np.random.Generator) -> FloatArray:
    """Return points drawn evenly from the box, and as many of its corners."""
    shape = (max(options.samples // 2, 1), target.box.size)
    lo, width = target.box.lo, target.box.hi - target.box.lo
    return np.vstack([lo + rng.random(shape) * width, lo + rng.integers(0, 2, shape) * width])


def signed_gradient(target: Target, options: AttackOptions, rng: np.random.Generator) -> FloatArray:
    """Return, for each rival class, the corner that the gradient of the margin at the sample points to."""
    functionals = _rival_functionals(target)
    slope = gradient(target.model, np.tile(target.centre, (len(functionals), 1)), functionals)
    return np.where(slope > 0, target.box.lo, target.box.hi)


def projected_gradient(target: Target, options: AttackOptions, rng: np.random.Generator) -> FloatArray:
    """Return the end points of signed projected gradient descent on every rival's margin, from random starts.

    Step sizes shrink from half the width of the box by a constant factor; starts: the sample, then random points.
    """
    functionals = np.repeat(_rival_functionals(target), options.restarts, axis=0)
    box, width = target.box, target.box.hi - target.box.lo
    points = box.lo + rng.random((len(functionals), box.size)) * width
    points[:: options.restarts] = target.centre
    best, best_value = points.copy(), np.full(len(points), np.inf)
    for step in np.geomspace(0.5, 0.02, options.steps):
        value = np.einsum("ij,ij->i", functionals, target.model(points))
        better = value < best_value
        best[better], best_value[better] = points[better], value[better]
        points = np.clip(points - step * width * np.sign(gradient(target.model, points, functionals)), box.lo, box.hi)
    return np.vstack([best, points])


def sensitivity_ranking(target: Target, options: AttackOptions, rng: np.random.Generator) -> FloatArray:
    """Return points that change only the inputs to which the label's output is most sensitive (paper 7.3.1).

    The inputs are ranked by the label's row of S; a share `fraction` of them goes to random ends of their intervals.
    """
    return _ranked(target, _sensitivity_of_output(target.model, target.label), options, rng)


@lru_cache(maxsize=16)
def _sensitivity_of_output(model: ImplicitModel, output: int) -> FloatArray:
    """Return one row of S; it is the same for every sample of a class."""
    return np.asarray(sensitivity_matrix(model, functionals=np.eye(model.n_outputs)[[output]])[0])


def gradient_ranking(target: Target, options: AttackOptions, rng: np.random.Generator) -> FloatArray:
    """Return points that change only the inputs with the largest |d y_label / du| at the sample."""
    functional = np.eye(target.model.n_outputs)[[target.label]]
    ranking = np.abs(gradient(target.model, target.centre[None], functional)[0])
    return _ranked(target, ranking, options, rng)


def _ranked(target: Target, ranking: FloatArray, options: AttackOptions, rng: np.random.Generator) -> FloatArray:
    count = max(1, round(options.fraction * ranking.size))
    chosen = np.argsort(-ranking, kind="stable")[:count]
    points = np.tile(target.centre, (options.samples, 1))
    ends = rng.integers(0, 2, (options.samples, count)).astype(bool)
    points[:, chosen] = np.where(ends, target.box.hi[chosen], target.box.lo[chosen])
    return points


def _rival_functionals(target: Target) -> FloatArray:
    return margin_functionals(target.model.n_outputs, target.label)


Attack: TypeAlias = Callable[[Target, AttackOptions, np.random.Generator], FloatArray]

ATTACKS: Final[Mapping[str, Attack]] = MappingProxyType(
    {
        "random": random_points,
        "sign": signed_gradient,
        "sensitivity": sensitivity_ranking,
        "gradient": gradient_ranking,
        "pgd": projected_gradient,
    }
)
"""Name -> attack, cheap ones first; the attack by the LP's minimiser is a rung of `verdicts`, with its relaxation."""


def run_attack(name: str, target: Target, options: AttackOptions, rng: np.random.Generator) -> Found | None:
    """Run one attack and replay what it proposes on the original network. Raises OptionError for an unknown name."""
    if name not in ATTACKS:
        raise OptionError(f"there is no attack '{name}'; known are {', '.join(ATTACKS)} and lp")
    return target.replay(ATTACKS[name](target, options, rng), name)
