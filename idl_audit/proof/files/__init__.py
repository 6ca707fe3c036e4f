"""Proof files: strict JSON, and the one door for the arrays of today's formats."""
