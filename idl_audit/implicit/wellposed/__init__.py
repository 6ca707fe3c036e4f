"""Well-posedness: does x = phi(A x + B u + b) have one solution for every input? Proofs, each with a witness."""

from idl_audit.implicit.wellposed.contraction import MOST_STATES, Coefficients, Contraction, contraction, perron_root
from idl_audit.implicit.wellposed.groups import NORMS, Coupling, GroupContraction, group_contractions, joined
from idl_audit.implicit.wellposed.ladder import Proof, contractions, gain, monotone_loop, prove
from idl_audit.implicit.wellposed.monotone import Monotone, monotone

__all__ = [
    "MOST_STATES",
    "NORMS",
    "Coefficients",
    "Contraction",
    "Coupling",
    "GroupContraction",
    "Monotone",
    "Proof",
    "contraction",
    "contractions",
    "gain",
    "group_contractions",
    "joined",
    "monotone",
    "monotone_loop",
    "perron_root",
    "prove",
]
