"""Proof files of format 1 (schema_version 1.0 and 1.1): read for one release more, written by no command."""
