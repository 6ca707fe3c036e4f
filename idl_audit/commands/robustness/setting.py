"""What an audit is asked, out of its options: the set, the features, the attacks."""

from __future__ import annotations

import math
from dataclasses import replace

from idl_audit.commands.options.common import AUTO
from idl_audit.commands.options.robustness import RobustnessOptions
from idl_audit.commands.shared.features import named_inputs
from idl_audit.commands.shared.ranges import refuse_other_size
from idl_audit.commands.shared.sample_tasks import Setting
from idl_audit.commands.shared.subject import Subject
from idl_audit.commands.shared.whole_numbers import refuse_fractions_of, refuse_whole
from idl_audit.data.features import Features, read_features
from idl_audit.data.perturbations import read_directions
from idl_audit.data.radii import read_sample_radii
from idl_audit.data.vectors import read_ranking
from idl_audit.graph.files import read_with_sha256
from idl_audit.search.attacks import Ranking
from idl_audit.values.box import is_coarse, is_whole
from idl_audit.values.errors import DataError, OptionError, UnsupportedModelError
from idl_audit.values.perturbations import Perturbation


def setting_of(subject: Subject, options: RobustnessOptions) -> Setting:
    """Return what is asked of every sample. Raises InvalidInputError where a file or the network is refused."""
    _refuse_unproved(subject, options)
    sigma = None
    if options.sigma is not None:
        sigma = read_sample_radii(options.sigma, subject.input_shape, options.data.layout)
    return Setting(
        subject.path,
        options.model,
        subject.info.sha256,
        options.data.preprocessing,
        options.eps,
        replace(options.verdicts, max_bytes=options.model.max_bytes),
        options.certificates,
        options.force or options.resume,
        sigma,
        named_inputs(subject, options.ignore or (), "--ignore"),
        options.sparse,
        options.demanded,
        options.largest,
        _features(subject, options),
        options.fair,
        options.norm,
        perturbation_of(options, subject.n_inputs),
        options.image_shape or subject.input_shape,
        minimal=options.is_minimal,
        may_lack_form=options.may_lack_form,
    )


def _features(subject: Subject, options: RobustnessOptions) -> Features | None:
    """Return what the inputs are, where a file says so. Raises DataError where it speaks of others."""
    if options.features is None:
        return None
    found = read_features(options.features)
    refuse_other_size(found, subject.n_inputs, subject.path)
    refuse_fractions_of(subject, found)
    if options.fair and not any(one.protected for one in found.features):
        raise DataError(
            f"{options.features} has no protected feature; write protected = true for those that --fair moves"
        )
    return found


def with_attacks(options: RobustnessOptions) -> RobustnessOptions:
    """Return the options whose attacks can look for what is demanded: for sign and pgd the attack on properties.

    Raises:
        OptionError: where an attack is about classes alone.
    """
    methods = options.verdicts.methods
    if methods is None or not options.demanded.beside_class:
        return options
    alone = [name for name in methods if name in ("random", "sensitivity", "gradient", "mip")]
    if alone:
        raise OptionError(f"the method {alone[0]} is about one class of a sample; leave it out beside --task or limits")
    of_properties = ("sign", "pgd", *AUTO)
    instead = tuple(dict.fromkeys("attack" if name in of_properties else name for name in methods))
    return replace(options, verdicts=replace(options.verdicts, methods=instead))


def perturbation_of(options: RobustnessOptions, size: int) -> Perturbation | None:
    """Return what changes in place of every input; None where each moves by itself. Raises InvalidInputError."""
    if options.directions is None:
        return options.perturb
    terms = () if options.perturb is None else options.perturb.terms
    own = options.perturb
    alone = (None, None, None) if own is None else (own.patch, own.shift, own.rotation)
    return Perturbation(terms, read_directions(options.directions, size), *alone)


def _refuse_unproved(subject: Subject, options: RobustnessOptions) -> None:
    """Refuse networks for which sets that are no boxes are not proved. Raises UnsupportedModelError."""
    if subject.no_form is not None:  # nothing of it is proved
        return
    if options.is_perturbed and not subject.model.is_feed_forward:
        raise UnsupportedModelError(
            [f"{subject.path} has loops, and perturbations are decided for networks without; give -e alone"]
        )
    reads_floats = not (is_coarse(subject.point_type) or is_whole(subject.point_type))
    if options.is_perturbed:
        refuse_whole(subject, "--perturb")
    if options.norm != "linf" and not (subject.model.is_feed_forward and reads_floats):
        raise UnsupportedModelError(
            [f"--norm {options.norm} is for networks without loops that read float32 or finer, unlike {subject.path}"]
        )


def check_target(subject: Subject, options: RobustnessOptions) -> None:
    """Raise OptionError where --target is no class of the network."""
    q = subject.n_outputs
    if options.target is not None and not 0 <= options.target < q:
        raise OptionError(f"--target must be a class of the network, 0 to {q - 1}, not {options.target}")


def with_ranking(subject: Subject, options: RobustnessOptions) -> RobustnessOptions:
    """Return the options with S of --matrix read."""
    if options.matrix is None:
        return options
    q, p = subject.n_outputs, subject.n_inputs
    matrix, sha256 = read_with_sha256(options.matrix, lambda path: read_ranking(path, q, p, subject.input_shape))
    attack = replace(options.verdicts.attack, ranking=Ranking(matrix, sha256))
    return replace(options, verdicts=replace(options.verdicts, attack=attack))


def check_image_shape(subject: Subject, options: RobustnessOptions) -> None:
    """Raise OptionError where --image-shape has another number of pixels than an input."""
    shape, p = options.image_shape, subject.n_inputs
    if shape is not None and math.prod(shape) != p:
        raise OptionError(f"--image-shape {','.join(map(str, shape))} has {math.prod(shape)} numbers, and an input {p}")
