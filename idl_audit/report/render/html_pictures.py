"""The pictures of the HTML report, as data: links with texts for those who do not see them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from markupsafe import Markup

from idl_audit.report.adversarial_file import Triple
from idl_audit.report.input_maps import is_image
from idl_audit.report.render.details import detailed
from idl_audit.report.render.extras import Extras
from idl_audit.report.schema import Report, Sensitivity, Verdict, WholeStatement
from idl_audit.report.wording import eps_text, figure, plain, share_text
from idl_audit.values.arrays import FloatArray

MOST_BYTES: Final = 900_000
"""Adversarial inputs are drawn until their pictures take so much."""
MOST_MAPS: Final = 20
"""The first so many outputs get a heat map."""
MOST_LINKS: Final = 2000
"""With more nonzero blocks there is no picture of the structure: it would be a grey square."""
MOST_CHANGES: Final = 5
"""Of inputs that are no image, so many are listed."""

MAGMA: Final = (("0", "#000004"), ("0.25", "#51127c"), ("0.5", "#b73779"), ("0.75", "#fc8961"), ("1", "#fcfdbf"))
"""The colour scale of the heat maps, at even distances."""

CHANGES: Final = (
    ("0", "#266bd6", "1"),
    ("0.49", "#266bd6", "0.3"),
    ("0.49", "#266bd6", "0"),
    ("0.51", "#d62028", "0"),
    ("0.51", "#d62028", "0.3"),
    ("1", "#d62028", "1"),
)
"""The colour scale of changes: offset, colour, opacity."""

NARROW: Final = "(max-width: 40rem)"
DARK: Final = "screen and (prefers-color-scheme: dark)"


@dataclass(frozen=True)
class Picture:
    """A drawing in four forms: light and dark, wide and narrow."""

    key: str
    source: Markup
    sources: tuple[tuple[str, Markup], ...]
    alt: str
    caption: str


@dataclass(frozen=True)
class HeatMap:
    """A small picture with its caption."""

    source: Markup
    alt: str
    caption: str


@dataclass(frozen=True)
class TripleCard:
    """An adversarial input, as three pictures or as its largest changes."""

    index: int
    told: str
    key: str = ""
    """Where more is told of the sample."""
    pictures: tuple[tuple[Markup, str, str], ...] = ()
    changes: tuple[tuple[int, str, str], ...] = ()


def _link(kind: str, content: bytes) -> Markup:
    """Return bytes as a data: link; base64 has no character that HTML could read otherwise."""
    return Markup(f"data:{kind};base64,{base64.b64encode(content).decode()}")


def in_four_forms(key: str, draw: Callable[[bool, bool], str], alt: str, caption: str) -> Picture:
    """Return a drawing, (dark, narrow) -> SVG, in its four forms."""

    def source(dark: bool, narrow: bool) -> Markup:
        return _link("image/svg+xml", draw(dark, narrow).encode("utf-8"))

    sources = (
        (f"{DARK} and {NARROW}", source(True, True)),
        (NARROW, source(False, True)),
        (DARK, source(True, False)),
    )
    return Picture(key, source(False, False), sources, alt, caption)


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def accuracy_chart(report: Report) -> Picture | None:
    """Return the band between certified and attacked accuracy; None for fewer than two radii."""
    if report.summary is None:
        return None
    from idl_audit.report import pictures

    points, share = pictures.accuracy_points(report), pictures.clean_share(report)
    if len(points) < 2:
        return None

    def draw(dark: bool, narrow: bool) -> str:
        theme = pictures.DARK if dark else pictures.LIGHT
        return pictures.draw_accuracy(points, clean=share, theme=theme, narrow=narrow)

    told = "; ".join(
        f"at eps {point.text}, {_share(point.certified or 0)} certified and {_share(point.attacked)} without an attack"
        for point in points
    )
    alt = f"Chart of accuracy over eps: {told}."
    caption = (
        "Accuracy under the worst change of at most eps lies within the band. Between two radii its edges are what the "
        "larger one proves and the smaller one refutes: nothing is interpolated."
    )
    return in_four_forms("accuracy", draw, alt, caption)


def statement_maps(report: Report) -> list[Picture]:
    """Return where each statement over the whole range is open and where it fails, over two inputs."""
    found: list[Picture] = []
    for one in () if report.everywhere is None else report.everywhere.statements[:MOST_MAPS]:
        if one.map is not None:
            found.append(_statement_map(one, len(found)))
    return found


def _statement_map(one: WholeStatement, number: int) -> Picture:
    from idl_audit.report import pictures

    assert one.map is not None
    x, y = one.map.x, one.map.y

    def draw(dark: bool, narrow: bool) -> str:
        return pictures.draw_parts(one, theme=pictures.DARK if dark else pictures.LIGHT, narrow=narrow)

    told = f"{share_text(one.open)} of the range is open and it fails in {share_text(one.failing)}"
    alt = f"Map over {plain(x)} and {plain(y)}: {plain(one.text)}; {told}."
    caption = (
        f"{plain(one.text)}: where it is open and where it fails, over {plain(x)} and {plain(y)}; elsewhere it is "
        "proved. The stronger the colour, the larger the share of what the other inputs may be."
    )
    return in_four_forms(f"parts-{number}", draw, alt, caption)


def structure_picture(report: Report) -> Picture | None:
    """Return which block reads which; None where the report does not say."""
    found = report.conversion
    if found is None or not found.links or len(found.links) > MOST_LINKS:
        return None
    rows = [*(block.size for block in found.blocks), found.n_outputs]
    columns = [*(block.size for block in found.blocks), found.n_inputs]
    if any(link.row >= len(rows) or link.column >= len(columns) for link in found.links):
        return None
    from idl_audit.report import pictures

    cells = [
        pictures.Cell(link.row, link.column, link.nnz / max(rows[link.row] * columns[link.column], 1))
        for link in found.links
    ]
    names = [block.name for block in found.blocks]

    def draw(dark: bool, narrow: bool) -> str:
        theme = pictures.DARK if dark else pictures.LIGHT
        return pictures.draw_blocks(names, cells, theme=theme, narrow=narrow)

    count = len(names)
    alt = (
        f"Block structure of A, B, C, D: {count} block{'' if count == 1 else 's'} of states, {len(found.links)} "
        f"nonzero blocks, {found.structure}."
    )
    caption = (
        "Structure of the matrices: a row is a block of states, at the bottom the outputs y; a column is what it "
        "reads, on the right the inputs u. The darker, the larger the share of nonzeros. Blocks stand in order."
    )
    return in_four_forms("structure", draw, alt, caption)


def cards_of_triples(report: Report, extras: Extras) -> tuple[list[TripleCard], str]:
    """Return the adversarial inputs, worst first, and a note on them."""
    falsified = sum(result.verdict is Verdict.FALSIFIED for sample in report.samples for result in sample.results)
    if not extras.triples:
        hint = (
            "To see adversarial inputs here: --save adv.npz with attack or certify, then report --adversarial adv.npz."
        )
        return [], hint if falsified else ""
    shape = _image_shape(report, extras)
    limits = _limits(report, extras.triples)
    keys = detailed(report)
    cards: list[TripleCard] = []
    used = 0
    for triple in extras.triples:
        told = _told(report, triple)
        if shape is None:
            cards.append(TripleCard(triple.index, told, keys.get(triple.index, ""), changes=_changes(triple)))
            continue
        drawn = _pictures(triple, shape, limits)
        used += sum(len(link) for link, _, _ in drawn)
        if used > MOST_BYTES:
            break
        cards.append(TripleCard(triple.index, told, keys.get(triple.index, ""), pictures=drawn))
    left = len(extras.triples) - len(cards)
    note = "Each falsified sample at the smallest radius that an attack was found for; the smallest first."
    if shape is not None:
        note += " Changed pixels are red where they rise and blue where they fall, the stronger the larger the change."
    return cards, note + (f" {left} more are left out, for the sake of the file's size." if left else "")


def _pictures(triple: Triple, shape: Sequence[int], limits: tuple[float, float]) -> tuple[tuple[Markup, str, str], ...]:
    from idl_audit.report import pictures

    found = triple.found
    becomes = "no number" if found.class_ is None else f"class {found.class_}"
    before = pictures.image_png(triple.original, shape, limits)
    change = pictures.change_png(triple.adversarial - triple.original, shape)
    after = pictures.image_png(triple.adversarial, shape, limits)
    which = f"Which of the {found.l0} changed inputs rise, and which fall"
    return (
        (_link("image/png", before), f"Sample {triple.index}, original, class {triple.label}", f"class {triple.label}"),
        (_link("image/png", change), which, f"±{figure(found.linf)}"),
        (_link("image/png", after), f"Sample {triple.index}, adversarial, {becomes}", becomes),
    )


def _changes(triple: Triple) -> tuple[tuple[int, str, str], ...]:
    change = np.abs(triple.adversarial - triple.original)
    largest = np.argsort(-change, kind="stable")[:MOST_CHANGES]
    return tuple(
        (int(place), figure(float(triple.original[place])), figure(float(triple.adversarial[place])))
        for place in largest
        if change[place] > 0
    )


def _told(report: Report, triple: Triple) -> str:
    found = triple.found
    inputs = f"{found.l0:,} of {triple.original.size:,} inputs change by at most {figure(found.linf)}"
    text = f"eps {eps_text(report, triple.eps)}: {inputs}; margin {figure(found.margin)}"
    becomes = "no number" if found.class_ is None else f"class {found.class_}"
    text = f"class {triple.label} → {becomes}. At {text}"
    if found.confirmed_by:
        text += f"; confirmed by {' and '.join(found.confirmed_by)}"
    if found.survives_8bit is not None:
        text += "; survives 8-bit rounding" if found.survives_8bit else "; lost when rounded to 8 bits"
    return f"{text}."


def _limits(report: Report, triples: Sequence[Triple]) -> tuple[float, float]:
    """Return what is black and what is white: the valid range, else that of all originals."""
    if report.data is not None and report.data.bounds is not None:
        return report.data.bounds
    lows, highs = ([float(pick(one.original)) for one in triples] for pick in (np.min, np.max))
    return min(lows), max(highs)


def _image_shape(report: Report, extras: Extras) -> tuple[int, ...] | None:
    shape = extras.image_shape or (report.model.input_shape if report.model is not None else ())
    size = extras.triples[0].original.size if extras.triples else None
    if size is None and extras.matrix is not None:
        size = extras.matrix.shape[1]
    return shape if is_image(shape) and (size is None or int(np.prod(shape)) == size) else None


def heat_maps(report: Report, extras: Extras) -> tuple[list[HeatMap], str]:
    """Return S as images, the sum over outputs first, and a note on their scales."""
    found = report.sensitivity
    if found is None:
        return [], ""
    maps = _whole_map(found)
    shape = _image_shape(report, extras)
    if extras.matrix is None or shape is None:
        note = "" if not maps else "All outputs together; one map for each: give the file of --save with --matrix."
        return maps, note
    from idl_audit.report import pictures

    rows: FloatArray = extras.matrix[:MOST_MAPS]
    largest = pictures.largest_pixel(rows, shape)
    for output, row in enumerate(rows):
        caption = f"output {output}: row sum {figure(float(row.sum()))}"
        alt = f"Heat map of the sensitivity of output {output} to each input"
        maps.append(HeatMap(_link("image/png", pictures.heat_png(row, shape, largest)), alt, caption))
    note = f"The maps of single outputs share one scale, up to {figure(largest)}."
    left = len(extras.matrix) - len(rows)
    return maps, note + (f" The first {len(rows)} of {len(extras.matrix)} outputs." if left else "")


def _whole_map(found: Sensitivity) -> list[HeatMap]:
    one = found.input_map
    if one is None or not one.values:
        return []
    from idl_audit.report import pictures

    values = np.array(one.values)
    largest = float(values.max())
    side = "" if one.block == 1 else f", the largest of {one.block} x {one.block} pixels each"
    caption = f"all outputs together, up to {figure(largest)}{side}"
    picture = pictures.heat_png(values, (one.height, one.width), largest, is_map=True)
    return [HeatMap(_link("image/png", picture), "Heat map of the sensitivity of all outputs to each input", caption)]
