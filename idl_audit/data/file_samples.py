"""What a file holds whose samples are either arrays or images."""

from __future__ import annotations

from dataclasses import dataclass

from idl_audit.data.array_files import StoredFile
from idl_audit.data.image_folder import ImageFolder


@dataclass(frozen=True)
class FileSamples:
    """The samples of a file: arrays, or images, with labels where all have them."""

    arrays: StoredFile | None
    images: ImageFolder | None
