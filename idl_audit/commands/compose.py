"""compose: models become one implicit model, checked against them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path

import numpy as np

from idl_audit.commands.options.models import WriteOptions
from idl_audit.commands.shared.frame import Clock, framed_report
from idl_audit.commands.shared.points import random_inputs
from idl_audit.commands.shared.smaller import check_same, open_model, save
from idl_audit.commands.shared.subject import describe_conversion
from idl_audit.graph.files import combined_sha256
from idl_audit.implicit.compose import COMPOSITIONS, weighted
from idl_audit.implicit.model import ImplicitModel
from idl_audit.report.schema import Diagnostic, Report
from idl_audit.values.arrays import FloatArray
from idl_audit.values.errors import OptionError, UnsupportedModelError
from idl_audit.values.files import check_distinct


def compose(kind: str, paths: Sequence[Path], options: WriteOptions, weights: Sequence[float] | None = None) -> Report:
    """Compose two models or more, check the result and write it.

    Args:
        kind: a key of COMPOSITIONS.
        paths: the models f, g, ...: a cascade computes f first.
        options: where the result goes.
        weights: of a sum, one number a model; ones where left out.

    Raises:
        InvalidInputError: where the models do not fit, or nothing proves a feedback loop well-posed.
        AgreementError: where the result is not the composition.
    """
    if kind not in COMPOSITIONS:
        raise OptionError(f"there is no composition '{kind}'; known are {', '.join(COMPOSITIONS)}")
    _check_counts(kind, len(paths), weights)
    check_distinct(paths, (options.out,))
    clock = Clock()
    opened = [open_model(path, options, None, clock) for path in paths]
    models, names = [one.subject.model for one in opened], ", ".join(map(str, paths))
    with clock.step("compose"):
        try:
            parts = models if weights is None else list(map(weighted, models, weights))
            model = reduce(COMPOSITIONS[kind], parts)
        except UnsupportedModelError as error:
            raise UnsupportedModelError([f"{names}: {problem}" for problem in error.problems]) from error
    with clock.step("check the result"):
        inputs = random_inputs(model.n_inputs, seed=options.seed)
        check = check_same(
            model, lambda u: _expected(kind, models, weights, u, model), inputs, f"the {len(paths)} models in {kind}"
        )
    with clock.step("write"):
        artifacts = save(model, options, [one.subject for one in opened], f"compose {kind}")
    told = []
    if not model.is_well_posed:
        told.append(
            Diagnostic(code="IDL305", level="warning", message="nothing proves that the result has one state per input")
        )
    info = opened[0].subject.info.model_copy(
        update={
            "path": names,
            "sha256": combined_sha256(opened[0].subject.info.sha256, [one.subject.info.sha256 for one in opened[1:]]),
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


def _check_counts(kind: str, count: int, weights: Sequence[float] | None) -> None:
    """Refuse a number of models, or weights, that this composition has no meaning for."""
    if count < 2 or (kind == "feedback" and count != 2):
        raise OptionError(f"{kind} takes two models{'' if kind == 'feedback' else ' or more'}, not {count}")
    if weights is None:
        return
    if kind != "sum":
        raise OptionError(f"--weights are those of a sum; {kind} has none")
    if len(weights) != count:
        raise OptionError(f"--weights has {len(weights)} numbers for {count} models; give one for each")


def _expected(
    kind: str, models: Sequence[ImplicitModel], weights: Sequence[float] | None, u: FloatArray, model: ImplicitModel
) -> FloatArray:
    """Return what the models give one after the other; of a feedback loop, f(u + g(y)) at its own y."""
    if kind == "cascade":
        return reduce(lambda values, one: one(values), models, u)
    if kind == "feedback":
        plant, controller = models
        return plant(u + controller(model(u)))
    outputs = [one(u) for one in models]
    if kind == "concat":
        return np.hstack(outputs)
    shares = [1.0] * len(models) if weights is None else weights
    return np.asarray(sum(share * own for share, own in zip(shares, outputs, strict=True)))
