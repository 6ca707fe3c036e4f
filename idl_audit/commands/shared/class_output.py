"""Networks that end in ArgMax, or in TopK for the place of the largest: their output is a class and no scores.

The model is that of the scores before it, and the file has the last word on classes: what it gives is read as scores,
1 for its class and 0 for the others. So a tie falls as the file lets it fall, and whoever asks for a prediction, or for
another class somewhere, is answered by the file's own whole number. A certificate says y_label > y_j for all scores,
whatever breaks ties.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from idl_audit.graph.original import OriginalNetwork
from idl_audit.implicit.last_operator import NAMED
from idl_audit.implicit.model import ImplicitModel
from idl_audit.values.arrays import Float32Array, FloatArray
from idl_audit.values.errors import UnsupportedModelError


@dataclass(frozen=True)
class ClassAsScores:
    """A network whose output is a class, as a function to scores of which the largest is that of the class."""

    network: OriginalNetwork
    n_classes: int
    path: Path

    @property
    def name(self) -> str:
        """What runs the network."""
        return self.network.name

    def __call__(self, inputs: Float32Array) -> FloatArray:
        """Return rows of zeros and a one, shape (n, q). Raises UnsupportedModelError where an output is no class."""
        classes = self.network(inputs)
        if classes.shape != (len(inputs), 1) or not np.isin(classes, np.arange(self.n_classes)).all():
            raise UnsupportedModelError(
                [
                    f"{self.path}: its outputs are to be classes, one of 0 to {self.n_classes - 1} for each input, and "
                    f"{self.name} gives others; make the scores before them the output"
                ]
            )
        return np.eye(self.n_classes)[classes[:, 0].astype(np.int64)]


def gives_class(model: ImplicitModel) -> bool:
    """Return whether the network names the class, and the model gives the scores before that."""
    return model.stripped_output in NAMED


def as_scores(network: OriginalNetwork, model: ImplicitModel, path: Path) -> OriginalNetwork:
    """Return the original network with outputs that can be compared as the model's are."""
    return ClassAsScores(network, model.n_outputs, path) if gives_class(model) else network
