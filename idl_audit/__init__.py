"""idl-audit: how robust is the neural network in a file, with proofs that can be checked.

Public names are resolved on first use, so that reading a report does not import solvers and networks.
`idl_audit.api` has examples.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from idl_audit import losses
    from idl_audit.api import (
        Robustness,
        SampleVerdict,
        Sweep,
        attack,
        audit,
        certify,
        certify_everywhere,
        compare,
        load,
    )
    from idl_audit.api_training import harden, train
    from idl_audit.commands.shared.subject import from_torch
    from idl_audit.implicit.model import ImplicitModel
    from idl_audit.implicit.scaling import rescale
    from idl_audit.measure.sensitivity import sensitivity_matrix
    from idl_audit.plots import plot_accuracy, plot_adversarial, plot_sensitivity
    from idl_audit.reports import check_rules, to_dataframe, to_html, to_rows
    from idl_audit.values.box import Box
    from idl_audit.values.errors import IdlAuditError

__version__ = "0.1.0"

_HOMES = {
    "Box": "idl_audit.values.box",
    "IdlAuditError": "idl_audit.values.errors",
    "ImplicitModel": "idl_audit.implicit.model",
    "Robustness": "idl_audit.api",
    "SampleVerdict": "idl_audit.api",
    "Sweep": "idl_audit.api",
    "attack": "idl_audit.api",
    "audit": "idl_audit.api",
    "certify": "idl_audit.api",
    "certify_everywhere": "idl_audit.api",
    "compare": "idl_audit.api",
    "from_fixed_point": "idl_audit.implicit.mondeq",
    "from_mondeq": "idl_audit.implicit.mondeq",
    "from_torch": "idl_audit.commands.shared.subject",
    "harden": "idl_audit.api_training",
    "load": "idl_audit.api",
    "losses": "idl_audit.losses",
    "plot_accuracy": "idl_audit.plots",
    "plot_adversarial": "idl_audit.plots",
    "plot_sensitivity": "idl_audit.plots",
    "check_rules": "idl_audit.reports",
    "rescale": "idl_audit.implicit.scaling",
    "sensitivity_matrix": "idl_audit.measure.sensitivity",
    "to_dataframe": "idl_audit.reports",
    "to_html": "idl_audit.reports",
    "to_rows": "idl_audit.reports",
    "train": "idl_audit.api_training",
}

__all__ = [
    "Box",
    "IdlAuditError",
    "ImplicitModel",
    "Robustness",
    "SampleVerdict",
    "Sweep",
    "__version__",
    "attack",
    "audit",
    "certify",
    "certify_everywhere",
    "check_rules",
    "compare",
    "from_fixed_point",
    "from_mondeq",
    "from_torch",
    "harden",
    "load",
    "losses",
    "plot_accuracy",
    "plot_adversarial",
    "plot_sensitivity",
    "rescale",
    "sensitivity_matrix",
    "to_dataframe",
    "to_html",
    "to_rows",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'idl_audit' has no attribute {name!r}")
    home = import_module(_HOMES[name])
    return home if _HOMES[name] == f"{__name__}.{name}" else getattr(home, name)


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
