"""The steps of each command in order: files in, Report out. Nothing is printed here.

The public function `idl_audit.audit` has the name of this folder, so the folder itself can be called.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from idl_audit.report.schema import Report


class _CallableFolder(ModuleType):
    """A package that answers calls as `idl_audit.api.audit` does."""

    def __call__(self, *args: Any, **options: Any) -> Report:
        """Return the report of `idl-audit certify` on files; see `idl_audit.api.audit`."""
        from idl_audit.api import audit

        return audit(*args, **options)


sys.modules[__name__].__class__ = _CallableFolder
