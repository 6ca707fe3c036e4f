"""idl-audit: how robust is the neural network in a file, with proofs that can be checked.

Public names are resolved on first use, so that reading a report does not import solvers and networks.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Box": "idl_audit.box",
    "IdlAuditError": "idl_audit.errors",
    "ImplicitModel": "idl_audit.implicit.model",
    "from_mondeq": "idl_audit.implicit.mondeq",
    "from_torch": "idl_audit.audit.subject",
    "load": "idl_audit.audit.subject",
    "rescale": "idl_audit.implicit.scaling",
    "sensitivity_matrix": "idl_audit.analysis.sensitivity",
}

__all__ = [
    "Box",
    "IdlAuditError",
    "ImplicitModel",
    "__version__",
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
