"""sensitivity: the matrix S of a model in data units, and what to read off it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from idl_audit.analysis.centre_radius import METHODS, applicable_methods
from idl_audit.analysis.sensitivity import Sensitivity, norm_bound, sensitivity_matrix
from idl_audit.audit.frame import Clock, framed_report
from idl_audit.audit.subject import ModelOptions, check_agreement, describe_conversion, open_subject, random_inputs
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.errors import OptionError
from idl_audit.files import check_new_file
from idl_audit.implicit.model import ImplicitModel
from idl_audit.implicit.scaling import rescale
from idl_audit.implicit.storage import write_npz
from idl_audit.report.schema import Report, TopInput
from idl_audit.report.schema import Sensitivity as SensitivitySection


@dataclass(frozen=True)
class SensitivityOptions:
    """What sensitivity is asked for."""

    method: str = "best"
    top: int = 5
    save: Path | None = None
    force: bool = False
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    model: ModelOptions = field(default_factory=ModelOptions)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise OptionError(f"there is no method '{self.method}' for S; known are {', '.join(METHODS)}")
        if self.top < 1:
            raise OptionError(f"--top must be at least 1, not {self.top}")
        if self.save is not None:
            check_new_file(self.save, force=self.force)


def audit_sensitivity(path: Path, options: SensitivityOptions) -> Report:
    """Compute S of the network at `path` (paper Thm 4.2) and report on it.

    Raises:
        InvalidInputError: where the file or an option is refused; nothing is written.
        AgreementError: where the implicit model is not the network.
    """
    clock = Clock()
    with clock.step("read and convert"):
        subject = open_subject(path, options.model)
    with clock.step("check"):
        check = check_agreement(subject, random_inputs(subject.model.n_inputs, seed=options.seed))
    model = subject.in_data_units(options.preprocessing)
    rescaled = rescale(model)
    with clock.step("sensitivity"):
        found = Sensitivity(sensitivity_matrix(model, options.method), norm_bound(rescaled))
    if options.save is not None:
        arrays = {"S": found.matrix, "row_sums": found.row_sums}
        write_npz(options.save, arrays, force=options.force)
    return framed_report(
        "sensitivity",
        clock,
        seed=options.seed,
        model=subject.info,
        conversion=describe_conversion(subject.model, rescaled, check, subject.seconds),
        sensitivity=_section(found, _method(model, options), options),
        artifacts=() if options.save is None else (str(options.save),),
    )


def _method(model: ImplicitModel, options: SensitivityOptions) -> str:
    """Return the method, and for `best` what it is the least of."""
    if options.method != "best":
        return options.method
    return f"best of {' and '.join(applicable_methods(model))}"


def _section(found: Sensitivity, method: str, options: SensitivityOptions) -> SensitivitySection:
    return SensitivitySection(
        kind="global",
        method=method,
        norm_inf=found.norm_inf,
        rho_norm_bound=found.norm_bound,
        row_sums=tuple(float(value) for value in found.row_sums),
        top_inputs=tuple(_top_inputs(found, options.top)),
        matrix_file=None if options.save is None else str(options.save),
    )


def _top_inputs(found: Sensitivity, top: int) -> list[TopInput]:
    """Return the largest entries of each row, largest first; equal ones in the order of the inputs."""
    order = np.argsort(-found.matrix, axis=1, kind="stable")[:, :top]
    return [
        TopInput(output=i, input=int(j), value=float(found.matrix[i, j])) for i, row in enumerate(order) for j in row
    ]
