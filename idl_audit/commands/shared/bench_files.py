"""bench on the machines of a scheduler: which files of a list go along with each of its rows."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from idl_audit.commands.shared.bench_resume import property_file
from idl_audit.commands.shared.cluster import Pack
from idl_audit.data.instances import Instance
from idl_audit.graph.files import ReadFile, hashed
from idl_audit.graph.onnx_reader import read_onnx
from idl_audit.graph.reader import sniff
from idl_audit.values.errors import IdlAuditError

KEPT: Final = 4
"""Networks whose bytes are kept for the rows behind."""
HERE: Final = ".here"
"""An empty file in the list's folder, so that there is one: its files may all lie beside it."""


@dataclass(eq=False)
class ListFiles:
    """The files of a list: they lie below one folder on a worker as they lie below another here."""

    folder: Path
    """That of the list."""
    root: Path
    """The deepest folder that has all of them in it."""
    _networks: OrderedDict[Path, tuple[tuple[ReadFile, ...], Pack]] = field(default_factory=OrderedDict)

    @classmethod
    def of(cls, folder: Path, instances: Iterable[Instance]) -> ListFiles:
        """Return the files that the rows of a list in this folder name."""
        names = {name for one in instances for name in (one.onnx, one.vnnlib) if not os.path.isabs(name)}
        below = [os.path.dirname(os.path.normpath(folder / name)) for name in names]
        return cls(folder, Path(os.path.commonpath([folder, *below])))

    @property
    def folder_there(self) -> Path:
        """The list's folder, as a process of a worker sees it."""
        return Path(os.path.relpath(self.folder, self.root))

    def packs(self, instance: Instance) -> tuple[Pack, ...]:
        """Return what a row reads; a file that cannot be read is left out, and the row's own process says so.

        Files with an absolute name are left out as well: each machine has its own.
        """
        own = {str(self.folder_there / HERE): b""}
        if not os.path.isabs(instance.vnnlib):
            own |= self._contents([property_file(self.folder / instance.vnnlib)])
        if os.path.isabs(instance.onnx):
            return (Pack(own),)
        return (self._network(self.folder / instance.onnx), Pack(own))

    def _network(self, path: Path) -> Pack:
        known = self._networks.get(path)
        if known is None or not known[0] or not all(file.is_unchanged for file in known[0]):
            files = _files_of(path)
            contents = self._contents([path, *(file.path for file in files)])
            digest = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in contents.values()))
            self._networks[path] = files, Pack(contents, digest.hexdigest())
            if len(self._networks) > KEPT:
                self._networks.popitem(last=False)
        self._networks.move_to_end(path)
        return self._networks[path][1]

    def _contents(self, paths: Iterable[Path]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for path in paths:
            if path.is_file():
                found[os.path.relpath(os.path.normpath(path), self.root)] = path.read_bytes()
        return found


def _files_of(path: Path) -> tuple[ReadFile, ...]:
    """Return the files that a network is read from; none where it cannot be read."""
    try:
        if sniff(path) == "onnx":
            return read_onnx(path, outline=True, whole=False).provenance.files
        return (hashed(path),)
    except IdlAuditError:
        return ()
