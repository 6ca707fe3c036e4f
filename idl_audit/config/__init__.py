"""What `idl-audit.toml` or `[tool.idl-audit]` in pyproject.toml says; needs neither a network nor a solver."""

from idl_audit.config.files import FILE, Configuration, find_configuration, read_configuration
from idl_audit.config.settings import STEPS, Settings

__all__ = ["FILE", "STEPS", "Configuration", "Settings", "find_configuration", "read_configuration"]
