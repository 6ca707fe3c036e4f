"""A report for people at a terminal. rich is used here and in the command line only."""

from idl_audit.report.terminal.render import render

__all__ = ["render"]
