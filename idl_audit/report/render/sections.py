"""All sections of a report in the order in which they are read."""

from __future__ import annotations

from idl_audit.report.render.comparison import comparison_section, monotone_section
from idl_audit.report.render.details import detail_section
from idl_audit.report.render.everywhere import everywhere_section
from idl_audit.report.render.groups import group_sections
from idl_audit.report.render.measures import bounds_section, other_sections, sensitivity_section
from idl_audit.report.render.parts import Section
from idl_audit.report.render.provenance import diagnostics_section, model_section, provenance_section
from idl_audit.report.render.training import hardening_section, training_section
from idl_audit.report.render.verdicts import (
    gate_section,
    objective_section,
    property_section,
    sample_section,
    verdict_section,
)
from idl_audit.report.schema import Report

ORDER = (
    gate_section,
    verdict_section,
    group_sections,
    sample_section,
    detail_section,
    comparison_section,
    monotone_section,
    everywhere_section,
    hardening_section,
    training_section,
    objective_section,
    property_section,
    other_sections,
    sensitivity_section,
    bounds_section,
    diagnostics_section,
    model_section,
    provenance_section,
)


def sections(report: Report) -> tuple[Section, ...]:
    """Return every section that the report has something for."""
    return tuple(section for make in ORDER for section in make(report))
