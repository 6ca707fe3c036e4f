"""Well-posedness: does x = phi(A x + B u + b) have one solution for every input? Proofs, each with a witness."""

from idl_audit.implicit.wellposed.contraction import MOST_STATES, Coefficients, Contraction, contraction, perron_root
from idl_audit.implicit.wellposed.ladder import Proof, contractions, gain, prove
from idl_audit.implicit.wellposed.monotone import Monotone, monotone

__all__ = [
    "MOST_STATES",
    "Coefficients",
    "Contraction",
    "Monotone",
    "Proof",
    "contraction",
    "contractions",
    "gain",
    "monotone",
    "perron_root",
    "prove",
]
