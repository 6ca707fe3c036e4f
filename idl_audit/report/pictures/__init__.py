"""Pictures as PNG files. The door to matplotlib."""

from idl_audit.report.pictures.adversarial import draw_adversarial
from idl_audit.report.pictures.heat_map import draw_heat_map
from idl_audit.report.pictures.structure import draw_structure

__all__ = ["draw_adversarial", "draw_heat_map", "draw_structure"]
