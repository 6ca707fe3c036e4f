"""Pictures as PNG files, and as SVG and small PNGs within a page. The door to matplotlib."""

from idl_audit.report.pictures.accuracy import (
    AccuracyPoint,
    accuracy_band,
    accuracy_points,
    clean_share,
    draw_accuracy,
    plot_accuracy,
)
from idl_audit.report.pictures.adversarial import adversarial_triple, draw_adversarial
from idl_audit.report.pictures.blocks import Cell, draw_blocks
from idl_audit.report.pictures.heat_map import draw_heat_map, heat_map
from idl_audit.report.pictures.parts_map import draw_parts, plot_parts
from idl_audit.report.pictures.structure import draw_structure
from idl_audit.report.pictures.theme import DARK, LIGHT, Theme
from idl_audit.report.pictures.thumbnails import change_png, heat_png, image_png, largest_pixel

__all__ = [
    "DARK",
    "LIGHT",
    "AccuracyPoint",
    "Cell",
    "Theme",
    "accuracy_band",
    "accuracy_points",
    "adversarial_triple",
    "change_png",
    "clean_share",
    "draw_accuracy",
    "draw_adversarial",
    "draw_blocks",
    "draw_heat_map",
    "draw_parts",
    "draw_structure",
    "heat_map",
    "heat_png",
    "image_png",
    "largest_pixel",
    "plot_accuracy",
    "plot_parts",
]
