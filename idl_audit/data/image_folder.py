"""A folder of images: class folders, or labels.csv beside the files. The door to Pillow.

Pixels stay numbers from 0 to 255 and images are never resized; only what changes no pixel is converted: palettes,
grey to three equal channels and back, an alpha channel that is opaque.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from idl_audit.data.rows import Row, Rows
from idl_audit.data.tables import LABEL_COLUMNS
from idl_audit.values.arrays import AnyArray, IntArray
from idl_audit.values.errors import DataError
from idl_audit.values.text import decoded

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".webp"})
FORMATS: Final = ("PNG", "JPEG", "BMP", "PPM", "WEBP")
LABEL_FILE: Final = "labels.csv"
_WHOLE: Final = re.compile(r"([0-9]{1,9})(?:[.,]0*)?")
"""A class number, as a whole number or as pandas writes it beside missing ones."""
_COLUMNS: Final = "give the columns file, label"
MAX_IMAGES: Final = 1_000_000

_LARGEST_LABEL_FILE: Final = 2**26
_INTEGER_LENGTH: Final = 9


@dataclass(frozen=True)
class ImageFolder:
    """The images of a folder in the order of their names; nothing is decoded yet.

    labels: (n,) class numbers, or None. classes: the names of the class folders where they are no numbers: then
    labels count them in the order of their names.
    """

    path: Path
    files: Sequence[Path]
    labels: AnyArray | None
    classes: tuple[str, ...] = ()
    contents: Callable[[int], bytes] | None = None
    """Place -> the bytes of an image, where it is not a file of its own."""
    sha256: str | None = None
    """Of the one file that holds all of them."""

    def content(self, place: int) -> bytes:
        """Return the bytes of an image. Raises DataError where it cannot be read."""
        return _content(self.files[place]) if self.contents is None else self.contents(place)


def list_images(path: Path) -> ImageFolder:
    """Return what a folder holds: CLASS/*.png, or *.png with labels.csv (columns file, label), or *.png alone.

    Class folders named by numbers are those classes; others are counted in the order of their names, from 0.

    Raises:
        DataError: where there are no images, or labels.csv does not fit them.
    """
    try:
        entries = sorted(path.iterdir())
        folders = [entry for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
        files = [entry for entry in entries if is_image(entry)]
        inside = {folder: sorted(filter(is_image, folder.iterdir())) for folder in folders}
    except OSError as error:
        raise DataError(f"{path} cannot be listed: {error.strerror}") from error
    if len(files) + sum(map(len, inside.values())) > MAX_IMAGES:
        raise DataError(f"{path} has more than {MAX_IMAGES:,} images; audit a part of them")
    if (path / LABEL_FILE).exists():
        return _with_label_file(path)
    classes = [folder for folder, images in inside.items() if images]
    if files and classes:
        raise DataError(
            f"{path} has images both in itself and in the folder {classes[0].name}; put all into class folders, "
            f"or none, with {LABEL_FILE}"
        )
    if files:
        return ImageFolder(path, tuple(files), None)
    if not classes:
        raise DataError(f"{path} is a folder without images; give {', '.join(sorted(SUFFIXES))} files in class folders")
    numbered = all(_is_class_number(folder.name) for folder in classes)
    number = {folder: int(folder.name) if numbered else k for k, folder in enumerate(classes)}
    pairs = [(file, number[folder]) for folder in classes for file in inside[folder]]
    labels = np.array([label for _, label in pairs], np.int64)
    names = () if numbered else tuple(folder.name for folder in classes)
    return ImageFolder(path, tuple(file for file, _ in pairs), labels, names)


def read_images(folder: ImageFolder, chosen: IntArray, shape: PixelShape) -> AnyArray:
    """Return the chosen images as bytes, shape (m, p), in the order in which the model reads them.

    Raises:
        DataError: where an image cannot be read or has another size than the model's input.
    """
    rows = np.empty((chosen.size, shape.p), np.uint8)
    for row, place in enumerate(chosen):
        rows[row] = _pixels(folder, int(place), shape).reshape(-1)
    return rows


def digest(folder: ImageFolder, chosen: IntArray) -> str:
    """Return the SHA-256 of the names and labels of all images and the contents of the chosen ones."""
    if folder.sha256 is not None:
        return folder.sha256
    found = hashlib.sha256()
    labels = [-1] * len(folder.files) if folder.labels is None else folder.labels.tolist()
    for file, label in zip(folder.files, labels, strict=True):
        found.update(f"{file.relative_to(folder.path).as_posix()}\0{label}\0".encode("utf-8", "surrogateescape"))
    for place in chosen:
        found.update(hashlib.sha256(_content(folder.files[int(place)])).digest())
    return found.hexdigest()


@dataclass(frozen=True)
class PixelShape:
    """How the model reads an image."""

    size: tuple[int, int]
    """(H, W)"""
    channels: int
    channels_last: bool

    @property
    def p(self) -> int:
        """Numbers of an image."""
        return self.size[0] * self.size[1] * self.channels


def pixel_shape(folder: ImageFolder, input_shape: tuple[int, ...]) -> PixelShape:
    """Return how a model reads images: channels last where it reads (1, H, W, C) with 1 or 3 of them, else (C, H, W).

    Raises:
        DataError: where its input is no image.
    """
    shape = input_shape[1:] if len(input_shape) > 1 and input_shape[0] == 1 else input_shape
    if len(shape) == 3:
        last = shape[0] not in (1, 3) and shape[2] in (1, 3)
        channels, size = (shape[2], shape[:2]) if last else (shape[0], shape[1:])
    elif len(shape) == 2:
        channels, size, last = 1, shape, False
    else:  # a flat input says nothing of its picture: the first image does
        width, height = _open(folder, 0).size
        channels, rest = divmod(int(np.prod(shape)), width * height)
        size, last = (height, width), False
        channels = channels if not rest else 0
    if channels not in (1, 3):
        raise DataError(
            f"{folder.path}: the model's input {input_shape} is no image of 1 or 3 channels of the size of the "
            f"images there; save the samples with numpy.savez instead"
        )
    return PixelShape((size[0], size[1]), channels, last)


def _pixels(folder: ImageFolder, place: int, shape: PixelShape) -> AnyArray:
    """Return the pixels of one image, shape (C, H, W) or (H, W, C), bytes."""
    file, image = folder.files[place], _open(folder, place)
    height, width = shape.size
    if image.size != (width, height):  # before anything is decoded: a small file may claim a huge picture
        raise DataError(
            f"{file} is {image.size[0]} x {image.size[1]} pixels, and the model reads {width} x {height}; "
            "resize the images as in the network's training"
        )
    try:
        image.load()
        colours: AnyArray = np.asarray(_as_colours(image, file))
    except (OSError, ValueError, SyntaxError, EOFError) as error:  # SyntaxError: Pillow's word for a broken PNG
        raise DataError(f"{file} cannot be decoded ({error}); write the image again") from error
    if shape.channels == 1:
        if not ((colours[..., 0] == colours[..., 1]) & (colours[..., 1] == colours[..., 2])).all():
            raise DataError(f"{file} has colours, and the model reads one channel; save the images as grey")
        colours = colours[..., :1]
    return colours if shape.channels_last else colours.transpose(2, 0, 1)


def _as_colours(image: Image, file: Path) -> Image:
    """Return the image in three channels of 8 bits, none of its pixels changed."""
    if image.mode not in ("1", "L", "P", "RGB", "RGBA", "LA", "PA"):
        raise DataError(f"{file} has pixels of mode {image.mode}; save the images with 8 bits a channel")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        if np.asarray(image)[..., 3].min() < 255:
            raise DataError(f"{file} is transparent in places; save the images without an alpha channel")
    return image.convert("RGB")


def _open(folder: ImageFolder, place: int) -> Image:
    from PIL import Image, UnidentifiedImageError

    file, content = folder.files[place], folder.content(place)
    try:
        with warnings.catch_warnings():  # of huge pictures: their size is checked before they are decoded
            warnings.simplefilter("ignore")
            return Image.open(io.BytesIO(content), formats=FORMATS)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} is no image that can be read; give {', '.join(FORMATS)}") from error


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error


def _with_label_file(path: Path) -> ImageFolder:
    """Return the images that labels.csv lists, in its order."""
    label_file = path / LABEL_FILE
    rows = _label_rows(label_file)
    files, labels, seen = [], [], set()
    for row in rows:
        where = f"{label_file}, line {row.line}"
        name, label = row.cells
        number = _WHOLE.fullmatch(label)
        if number is None:
            raise DataError(f"{where} has the label {label[:40]!r}; give whole class numbers from 0")
        file = Path(os.path.normpath(path / name))
        if not file.is_relative_to(os.path.normpath(path)):
            raise DataError(f"{where} names {name[:80]!r}, which lies outside the folder")
        if not is_image(file):
            raise DataError(f"{where} names {name[:80]!r}, which is no image in the folder")
        if file in seen:
            raise DataError(f"{where} names {name[:80]!r} a second time")
        seen.add(file)
        files.append(path / file.relative_to(os.path.normpath(path)))
        labels.append(int(number[1]))
    return ImageFolder(path, tuple(files), np.array(labels, np.int64))


def _label_rows(label_file: Path) -> Sequence[Row]:
    try:
        if label_file.stat().st_size > _LARGEST_LABEL_FILE:
            raise DataError(f"{label_file} is too large for a list of labels")
        content = label_file.read_bytes()
    except OSError as error:
        raise DataError(f"{label_file} cannot be read ({error.strerror}); {_COLUMNS}") from error
    listed = Rows(decoded(content, label_file, _COLUMNS), label_file, comments=False)
    rows = list(listed)
    for row in rows:
        if len(row.cells) != 2:
            raise DataError(
                f"{label_file}, line {row.line} has {len(row.cells)} entries, separated by {listed.name}; give the "
                "file and its class number"
            )
    if rows and rows[0].cells[1].lower() in LABEL_COLUMNS:
        rows = rows[1:]
    if not rows:
        raise DataError(f"{label_file} lists no images; {_COLUMNS}")
    return rows


def _is_class_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _INTEGER_LENGTH


def is_image(file: Path) -> bool:
    """Return whether a file is an image by its name."""
    return file.suffix.lower() in SUFFIXES and file.is_file()
