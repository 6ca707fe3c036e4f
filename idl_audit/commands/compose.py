"""compose: two models become one implicit model, checked against the two."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from idl_audit.commands.options.models import WriteOptions
from idl_audit.commands.shared.frame import Clock, framed_report
from idl_audit.commands.shared.smaller import check_same, open_model, save
from idl_audit.commands.shared.subject import describe_conversion, random_inputs
from idl_audit.graph.files import combined_sha256
from idl_audit.implicit.compose import COMPOSITIONS
from idl_audit.implicit.model import ImplicitModel
from idl_audit.report.schema import Diagnostic, Report
from idl_audit.values.arrays import FloatArray
from idl_audit.values.errors import OptionError, UnsupportedModelError
from idl_audit.values.files import check_distinct


def compose(kind: str, first: Path, second: Path, options: WriteOptions) -> Report:
    """Compose two models, check the result and write it.

    Raises:
        InvalidInputError: where the models do not fit, or nothing proves a feedback loop well-posed.
        AgreementError: where the result is not the composition.
    """
    if kind not in COMPOSITIONS:
        raise OptionError(f"there is no composition '{kind}'; known are {', '.join(COMPOSITIONS)}")
    check_distinct((first, second), (options.out,))
    clock = Clock()
    opened = [open_model(path, options, None, clock) for path in (first, second)]
    f, g = (one.subject.model for one in opened)
    with clock.step("compose"):
        try:
            model = COMPOSITIONS[kind](f, g)
        except UnsupportedModelError as error:
            raise UnsupportedModelError([f"{first}, {second}: {problem}" for problem in error.problems]) from error
    with clock.step("check the result"):
        inputs = random_inputs(model.n_inputs, seed=options.seed)
        check = check_same(model, lambda u: _expected(kind, f, g, u, model), inputs, f"the two models in {kind}")
    with clock.step("write"):
        artifacts = save(model, options, [one.subject for one in opened], f"compose {kind}")
    told = []
    if not model.is_well_posed:
        told.append(
            Diagnostic(code="IDL305", level="warning", message="nothing proves that the result has one state per input")
        )
    info = opened[0].subject.info.model_copy(
        update={
            "path": f"{first}, {second}",
            "sha256": combined_sha256(opened[0].subject.info.sha256, [opened[1].subject.info.sha256]),
            "file_sha256": None,
            "input_shape": model.input_shape,
            "n_outputs": model.n_outputs,
            "n_parameters": sum(one.subject.info.n_parameters for one in opened),
            "ops": {},
        }
    )
    return framed_report(
        "compose",
        clock,
        seed=options.seed,
        model=info,
        conversion=describe_conversion(model, None, check, clock.timing().total),
        diagnostics=tuple(told),
        artifacts=artifacts,
    )


def _expected(kind: str, f: ImplicitModel, g: ImplicitModel, u: FloatArray, model: ImplicitModel) -> FloatArray:
    """Return what the two models give one after the other; of a feedback loop, f(u + g(y)) at its own y."""
    if kind == "cascade":
        return g(f(u))
    if kind == "sum":
        return f(u) + g(u)
    if kind == "concat":
        return np.hstack([f(u), g(u)])
    return f(u + g(model(u)))
