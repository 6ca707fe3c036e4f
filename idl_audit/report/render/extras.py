"""What stands beside a report and is drawn in HTML: adversarial inputs and the sensitivity matrix."""

from __future__ import annotations

from dataclasses import dataclass

from idl_audit.report.adversarial_file import Triple
from idl_audit.values.arrays import FloatArray


@dataclass(frozen=True)
class Extras:
    """Arrays that belong to a report; they have been compared with it."""

    triples: tuple[Triple, ...] = ()
    """Adversarial inputs, worst first."""
    matrix: FloatArray | None = None
    """S, shape (q, p)."""
    image_shape: tuple[int, ...] | None = None
    """Shape of an input as an image; None takes the model's input shape."""
