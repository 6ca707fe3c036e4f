"""idl-audit: how robust is the neural network in a file, with proofs that can be checked.

Public names are resolved on first use, so that reading a report does not import solvers and networks.
`idl_audit.api` has examples.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from idl_audit.api import Robustness, SampleVerdict, attack, audit, certify, load
    from idl_audit.commands.shared.subject import from_torch
    from idl_audit.implicit.model import ImplicitModel
    from idl_audit.implicit.scaling import rescale
    from idl_audit.measure.sensitivity import sensitivity_matrix
    from idl_audit.values.box import Box
    from idl_audit.values.errors import IdlAuditError

__version__ = "0.1.0"

_HOMES = {
    "Box": "idl_audit.values.box",
    "IdlAuditError": "idl_audit.values.errors",
    "ImplicitModel": "idl_audit.implicit.model",
    "Robustness": "idl_audit.api",
    "SampleVerdict": "idl_audit.api",
    "attack": "idl_audit.api",
    "audit": "idl_audit.api",
    "certify": "idl_audit.api",
    "from_fixed_point": "idl_audit.implicit.mondeq",
    "from_mondeq": "idl_audit.implicit.mondeq",
    "from_torch": "idl_audit.commands.shared.subject",
    "load": "idl_audit.api",
    "rescale": "idl_audit.implicit.scaling",
    "sensitivity_matrix": "idl_audit.measure.sensitivity",
}

__all__ = [
    "Box",
    "IdlAuditError",
    "ImplicitModel",
    "Robustness",
    "SampleVerdict",
    "__version__",
    "attack",
    "audit",
    "certify",
    "from_fixed_point",
    "from_mondeq",
    "from_torch",
    "load",
    "rescale",
    "sensitivity_matrix",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'idl_audit' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
