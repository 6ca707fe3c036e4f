"""What can be asked: the options of every command, each declared once.

From here come the command line (`idl_audit.cli.options`), the keys and the schema of configuration files
(`idl_audit.config.files`), the variables of the environment, and the keyword arguments of `idl_audit.api`. Importing
this loads neither a network's libraries nor a solver: `--help` and `gate` do not wait for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Final

from idl_audit.values.options import Declared

COMMANDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "certify": "robustness:Certify",
        "attack": "robustness:Attack",
        "sensitivity": "measures:Sensitivity",
        "bounds": "measures:Bounds",
        "compare": "comparing:Compare",
        "bench": "many:Bench",
        "convert": "models:Convert",
        "convert-property": "models:ConvertProperty",
        "predict": "models:Predict",
        "reduce": "models:Reduce",
        "compress": "models:Compress",
        "compose": "models:Compose",
        "train": "models_from_data:Train",
        "harden": "training:Harden",
        "inspect": "models:Inspect",
        "verify": "models:Verify",
        "demo": "models:Demo",
        "init": "models:Init",
        "run": "many:Run",
        "gate": "reports:Gate",
        "diff": "reports:Diff",
        "merge": "reports:Merge",
        "report": "reports:Rendering",
        "history": "reports:History",
        "explain": "reports:Explain",
        "schema": "reports:Schema",
    }
)
"""Command -> the module of this package and the dataclass that has its options."""


def asked_of(command: str) -> type[Declared]:
    """Return the dataclass that has the options of a command."""
    module, _, name = COMMANDS[command].partition(":")
    found: type[Declared] = getattr(import_module(f"{__name__}.{module}"), name)
    return found
