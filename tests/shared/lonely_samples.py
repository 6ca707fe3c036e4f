"""Samples that are decided one by one, for tests of what happens on the way."""

from __future__ import annotations

import pytest

from idl_audit.commands.shared import deciding


def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no sample be decided with others."""
    monkeypatch.setattr(deciding, "samples_at_once", lambda *_: 1)
