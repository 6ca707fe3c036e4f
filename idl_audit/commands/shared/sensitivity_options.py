"""What `sensitivity` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from idl_audit.commands.shared.samples import DataOptions
from idl_audit.commands.shared.sensitivity_pictures import check_new_folder
from idl_audit.commands.shared.subject import ModelOptions
from idl_audit.data.numbers import Eps
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.measure.centre_radius import METHODS
from idl_audit.measure.local_sensitivity import STATE_BOUNDS
from idl_audit.values.errors import OptionError
from idl_audit.values.files import check_new_file


@dataclass(frozen=True)
class LocalOptions:
    """Where S is asked for: in boxes of one radius around samples."""

    data: DataOptions
    eps: Eps
    state_bounds: str = "interval"

    def __post_init__(self) -> None:
        if self.state_bounds not in STATE_BOUNDS:
            known = ", ".join(STATE_BOUNDS)
            raise OptionError(f"there is no kind of state bounds '{self.state_bounds}'; known are {known}")


@dataclass(frozen=True)
class SensitivityOptions:
    """Which matrix, what to read off it, and what to write."""

    method: str = "best"
    top: int = 5
    label: int | None = None
    """Class whose differences to all others are asked for."""
    sparse: int | None = None
    """Bound the outputs where at most so many inputs change."""
    groups: str | None = None
    """Sum S over groups: a file with one label per input, or rows, columns, channels, patches:HxW of images."""
    local: LocalOptions | None = None
    image_shape: tuple[int, ...] | None = None
    """Shape of one input as a picture, where the model reads it flat."""
    save: Path | None = None
    witness: Path | None = None
    """Write what proves the global S and well-posedness into this .npz file."""
    images: Path | None = None
    """Folder for a picture of each row of S."""
    force: bool = False
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    model: ModelOptions = field(default_factory=ModelOptions)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise OptionError(f"there is no method '{self.method}' for S; known are {', '.join(METHODS)}")
        if self.top < 1:
            raise OptionError(f"--top must be at least 1, not {self.top}")
        if self.sparse is not None and self.sparse < 1:
            raise OptionError(f"--sparse must be 1 or more, not {self.sparse}")
        for file in filter(None, (self.save, self.witness)):
            check_new_file(file, force=self.force)
        if self.images is not None:
            check_new_folder(self.images, force=self.force)
