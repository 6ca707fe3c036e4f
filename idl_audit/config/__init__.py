"""What `idl-audit.toml` or `[tool.idl-audit]` in pyproject.toml says; needs neither a network nor a solver."""
