"""`python -m idl_audit` and the console script `idl-audit`."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from idl_audit.cli.app import app

    app()


if __name__ == "__main__":
    main()
