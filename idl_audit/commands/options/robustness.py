"""What certify and attack are asked for, and `idl_audit.certify`, `attack` and `audit`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idl_audit.commands.options import common as c
from idl_audit.commands.options.demands import DemandOptions
from idl_audit.commands.options.everywhere import PLOT, EverywhereOptions, is_asked
from idl_audit.commands.options.reading import ANY_OUTPUTS, DataOptions, SearchedModel
from idl_audit.commands.options.scores import Direction, class_of_score, monotone
from idl_audit.data.numbers import Eps, parse_number
from idl_audit.data.preprocessing import Preprocessing
from idl_audit.values.budget import Budget
from idl_audit.values.columns import GroupColumn
from idl_audit.values.errors import OptionError
from idl_audit.values.files import check_new_file, check_new_folder
from idl_audit.values.options import (
    PATH,
    REQUIRED,
    SWITCH,
    TEXT,
    Declared,
    Reader,
    group,
    option,
    several_of,
    whole,
)
from idl_audit.values.verdicts import ArithmeticName, NormName

if TYPE_CHECKING:
    from idl_audit.decide.ladder import Options
    from idl_audit.values.perturbations import Perturbation  # imports numpy: --help does without


def _share(text: str, flag: str) -> float:
    share = parse_number(text, option=flag)
    if not 0 < share <= 1:
        raise OptionError(f"{flag} must lie above 0 and be at most 1, not {text}")
    return share


def chosen_eps(given: tuple[Eps, ...] | None, *, perturbed: bool) -> tuple[Eps, ...]:
    """Return the radii; 1 where there are none and a perturbation says how far things go. Raises OptionError."""
    if given is None and not perturbed:
        raise OptionError("give a radius with --eps EPS, or what changes with --perturb")
    return given or (Eps(1.0, "1"),)


def check_arithmetic(verdicts: Options) -> None:
    """Refuse what is not proved of perturbations. Raises OptionError."""
    if verdicts.arithmetic != "real":
        raise OptionError(
            "--perturb and --directions are certified in real arithmetic alone: no float32 number is next to every "
            "member of a family; leave --arithmetic out"
        )


def check_norm(norm: NormName, verdicts: Options, *others: object) -> None:
    """Refuse what is not proved over balls of other norms. Raises OptionError."""
    if norm == "linf":
        return
    if any(one is not None for one in others):
        raise OptionError(f"--norm {norm} has no --sparse or --ignore beside it; leave one of them out")
    if verdicts.arithmetic != "real":
        raise OptionError(f"--norm {norm} is certified in real arithmetic alone; leave --arithmetic out")


@dataclass(frozen=True)
class CertifyVerdicts(Declared):
    """How certify decides a sample."""

    methods: tuple[str, ...] | None = c.method(
        None,
        several_of(c.METHODS, "method", c.METHODS),
        f"Which methods to use, a list of: {', '.join(c.METHODS)}; without it, those that suit model and set.",
    )
    arithmetic: ArithmeticName = c.arithmetic()
    time_limit: float = c.time_limit()
    max_nodes: int | None = c.max_nodes()
    seed: int = c.seed()

    def made(self) -> Options:
        """Return it as the ladder takes it."""
        from idl_audit.decide.ladder import Options

        return Options(
            self.methods,
            self.time_limit,
            seed=self.seed,
            max_nodes=self.max_nodes,
            arithmetic=self.arithmetic,
        )


@dataclass(frozen=True)
class AttackVerdicts(CertifyVerdicts):
    """How attack decides a sample."""

    methods: tuple[str, ...] | None = c.method(
        None,
        several_of(c.ATTACKS, "attack", ("auto", *c.METHODS)),
        f"Which attacks to use, a list of: {', '.join(c.ATTACKS)}; auto stands for {', '.join(c.AUTO)}; without it "
        f"{','.join(c.USUAL_ATTACKS)}, and with --minimal what certify uses.",
    )
    fraction: float | None = option(
        None,
        Reader(_share),
        "Share of the inputs that sensitivity and gradient (0.1 unless given) and random (all) may change.",
        metavar="SHARE",
    )
    draws: int = option(
        100, whole(1), "Points that sensitivity, gradient and random try; 1 is the paper's.", metavar="N"
    )
    max_queries: int = option(
        1000,
        whole(1),
        "Points at which each attack of auto may evaluate the network for one sample at one radius.",
        metavar="N",
        panel=c.LIMITS,
    )
    target: int | None = option(
        None,
        whole(),
        "Only this class counts: the network must predict it. Samples of the class itself are left out.",
        metavar="CLASS",
        panel=c.QUESTION,
    )

    def made(self) -> Options:
        """Return it as the ladder takes it."""
        from idl_audit.search.attacks import AttackOptions

        hard = AttackOptions(
            fraction=self.fraction, samples=self.draws, target=self.target, max_queries=self.max_queries
        )
        return replace(super().made(), attack=hard)


@dataclass(frozen=True)
class Shard:
    """One of several parts of an audit."""

    number: int
    """From 1."""
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def places(self, n: int) -> range:
        """Return the places of its samples among n. Raises OptionError where there are fewer samples than parts."""
        if self.of > n:
            raise OptionError(f"--shard {self}: {n} sample{'' if n == 1 else 's'} make no {self.of} parts; take fewer")
        return range(n * (self.number - 1) // self.of, n * self.number // self.of)


def _shard(text: str, flag: str) -> Shard:
    number, slash, of = text.partition("/")
    if not (slash and number.strip().isdecimal() and of.strip().isdecimal() and 1 <= int(number) <= int(of)):
        raise OptionError(f"{flag} must be I/N with I from 1 to N, such as 3/8, not {text!r}")
    return Shard(int(number), int(of))


@dataclass(frozen=True)
class RobustnessOptions(Declared):
    """What certify is asked for about samples; with `AttackedOptions`, what attack is."""

    data: DataOptions = group(DataOptions)
    eps: tuple[Eps, ...] = c.eps(None, reader=c.EPS_OR_ZERO)
    """Never empty: 1, of its ranges, where there is a perturbation and nothing else was given."""
    verdicts: Options = group(CertifyVerdicts, make=CertifyVerdicts.made)
    sparse: int | None = c.sparse()
    """At most so many inputs change; None stands for all of them."""
    sigma: Path | None = c.sigma()
    ignore: tuple[str, ...] | None = c.ignore()
    """Inputs that move through the whole valid range."""
    features: Path | None = c.features()
    fair: bool = option(
        False,
        SWITCH,
        "With --features and --eps 0: may any change of the protected features alone, to any of their values, change "
        "the class?",
        rank=3,
        panel=c.SET,
    )
    demanded: DemandOptions = group(DemandOptions)
    largest: bool = option(
        False,
        SWITCH,
        "Find the largest radius at which each sample is certified and the smallest at which it is falsified, up to "
        "the one EPS given, by bisection to one per cent; --time-limit and --max-nodes are for each radius tried.",
        rank=4,
        panel=c.QUESTION,
    )
    best_effort: bool = option(
        False,
        SWITCH,
        "Attack a network that has no implicit form, too: verdicts are then falsified, or unknown with the reason "
        "no_implicit_form, and never certified.",
        rank=4,
        panel=c.QUESTION,
    )
    group_by: tuple[GroupColumn, ...] = c.group_by()
    plot: Path | None = c.file(PLOT, metavar="FILE")
    norm: NormName = c.norm()
    perturb: Perturbation | None = c.perturb()
    directions: Path | None = c.directions()
    save: Path | None = c.adversarial()
    certificates: Path | None = c.file(
        "Write what proves each certified sample, or the PROPERTY, into this folder, for `verify`.", metavar="DIR"
    )
    images: Path | None = c.file(
        "Draw sample, change (red where pixels rise, blue where they fall) and adversarial input as PNGs in this "
        "folder.",
        metavar="DIR",
    )
    image_shape: tuple[int, ...] | None = c.image_shape()
    matrix: Path | None = option(
        None,
        PATH,
        "Rank the inputs for the method sensitivity by this S of another network (`sensitivity --save`).",
        metavar="S.npz",
    )
    force: bool = c.force()
    model: SearchedModel = group(SearchedModel)
    shard: Shard | None = option(
        None,
        Reader(_shard, was_read=lambda value: isinstance(value, Shard)),
        "Decide only part I of N of the samples, as the whole run would; `merge` puts the reports together.",
        metavar="I/N",
        panel=c.DATA,
    )
    jobs: int = c.jobs()
    scheduler: c.Scheduler | None = c.scheduler()
    worker_timeout: float | None = c.worker_timeout()
    journal: Path | None = c.file(
        "File that takes the samples as they are decided.", typed=False, in_file=False, in_environment=False
    )
    """Whoever writes the report removes it (`drop_journal`)."""
    resume: bool = c.resume(
        "Go on from the samples that an interrupted run with the same -o has decided (OUTPUT.journal)."
    )
    """Files of the earlier run may be written again."""

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [column.name for column in self.group_by]
        if len(set(names)) < len(names):
            raise OptionError(f"--group-by names {max(names, key=names.count)} twice; name each column once")
        object.__setattr__(self, "eps", chosen_eps(self.eps, perturbed=self.is_perturbed))
        c.check_hands(self.jobs, self.scheduler, self.model.device, self.worker_timeout)
        if self.scheduler is not None and (self.model.torch.arch or self.model.torch.allow_code_execution):
            raise OptionError(
                "--arch and --allow-code-execution run code of yours, which the workers of a scheduler do not have; "
                "write the network as ONNX with torch.onnx.export, and audit that"
            )
        if self.resume and self.journal is None:
            raise OptionError("--resume goes on from the journal beside the report; name the report with -o FILE")
        force = self.force or self.resume
        if self.demanded.beside_class and (self.sparse is not None or self.target is not None):
            word = "--sparse" if self.sparse is not None else "--target"
            raise OptionError(f"{word} is about samples of one class; leave it out beside --task, --top and limits")
        if self.ignore is not None and self.sparse is not None:
            raise OptionError(
                "--ignore lets its inputs move in any case, and --sparse few of all; leave one of them out"
            )
        if self.ignore is not None and self.data.preprocessing.bounds is None:
            raise OptionError("--ignore needs the range that these inputs move in; give it with --bounds LO,HI")
        self._check_features()
        if self.ignore is None and not self.fair and any(radius.value == 0 for radius in self.eps):
            comma = "" if len(self.eps) < 2 else "; a comma separates radii: 0.02 is one, and 0,02 are two"
            raise OptionError(
                "--eps must be above zero, not 0; write for example 8/255 or 0.03 (0 is for --ignore and --monotone, "
                f"where other inputs move){comma}"
            )
        if self.largest and len(self.eps) != 1:
            raise OptionError("--largest looks between 0 and one radius; give one with --eps")
        if self.plot is not None:
            check_new_file(self.plot, force=force, ending=".png")
            if len(self.eps) < 2 and not self.largest:
                raise OptionError("--plot draws shares over several radii; give several with --eps, or --largest")
        if self.is_perturbed:
            self._check_perturbed()
        if self.is_perturbed or self.norm != "linf":
            self._check_boxes()
        check_norm(self.norm, self.verdicts, self.sparse, self.ignore)
        if self.image_shape is not None and self.images is None and not self.is_perturbed:
            raise OptionError("--image-shape says how pictures are drawn; ask for them with --images DIR")
        if self.matrix is not None and "sensitivity" not in (self.verdicts.methods or ()):
            raise OptionError("--matrix ranks inputs for the method sensitivity; name it with --method sensitivity")
        if self.save is not None:
            check_new_file(self.save, force=force, ending=".npz")
        for folder in filter(None, (self.images, self.certificates)):
            check_new_folder(folder, force=force)
        if self.certificates is not None:
            if self.sparse is not None or self.target is not None:
                raise OptionError("--certificates are written for boxes and for all rivals at once")
            object.__setattr__(self, "verdicts", replace(self.verdicts, record=True))

    def _check_boxes(self) -> None:
        """Refuse what is asked of boxes alone. Raises OptionError."""
        given = {
            "--features": self.features is not None,
            "--largest": self.largest and self.is_perturbed,
            "--task, --top and limits": self.demanded.beside_class,
        }
        wrong = [name for name, there in given.items() if there]
        if wrong:
            raise OptionError(f"{wrong[0]} cannot be asked of --norm, --perturb or --directions yet; leave one out")

    def _check_features(self) -> None:
        """Refuse what is not asked of valid rows. Raises OptionError."""
        if self.fair and (self.features is None or any(radius.value != 0 for radius in self.eps)):
            raise OptionError("--fair is about the protected features of --features FILE alone: give these and --eps 0")
        if self.features is None:
            return
        given = {
            "--sparse": self.sparse is not None,
            "--sigma": self.sigma is not None,
            "--ignore": self.ignore is not None,
            "--largest": self.largest,
            "--target": self.target is not None,
            "--task, --top and limits": self.demanded.beside_class,
        }
        wrong = [name for name, there in given.items() if there]
        if wrong:
            raise OptionError(f"{wrong[0]} cannot be asked of the valid rows of --features yet; leave one of them out")

    def _check_perturbed(self) -> None:
        for name, value in (("sigma", self.sigma), ("sparse", self.sparse), ("ignore", self.ignore)):
            if value is not None:
                raise OptionError(
                    f"--{name} is about how far each input moves, and --perturb or --directions about what moves; "
                    "leave one of them out"
                )
        if self.norm != "linf":
            raise OptionError(f"--norm {self.norm} is about balls of inputs; leave it out beside --perturb")
        check_arithmetic(self.verdicts)

    @property
    def is_minimal(self) -> bool:
        """Whether the nearest counterexample of each sample is looked for."""
        return False

    @property
    def may_lack_form(self) -> bool:
        """Whether a network without an implicit form is attacked all the same."""
        return self.best_effort

    @property
    def is_perturbed(self) -> bool:
        """Whether the sets are families, in place of balls."""
        return self.perturb is not None or self.directions is not None

    @property
    def target(self) -> int | None:
        """The only class that counts as success; None stands for any but the label."""
        return self.verdicts.attack.target


@dataclass(frozen=True)
class AttackedOptions(RobustnessOptions):
    """What attack is asked for."""

    verdicts: Options = group(AttackVerdicts, make=AttackVerdicts.made)
    minimal: bool = option(
        False,
        SWITCH,
        "Find the smallest radius at which each sample is attacked, up to the one EPS given, by an attack that looks "
        "for the nearest counterexample and by bisection, beside the largest that is certified; --time-limit and "
        "--max-nodes are for each radius tried.",
        rank=4,
        panel=c.QUESTION,
    )

    def __post_init__(self) -> None:
        if self.minimal:
            self._check_minimal()
            object.__setattr__(self, "largest", True)
        object.__setattr__(self, "verdicts", with_usual_attacks(self.verdicts, minimal=self.minimal))
        super().__post_init__()

    @property
    def is_minimal(self) -> bool:
        """Whether the nearest counterexample of each sample is looked for."""
        return self.minimal

    @property
    def may_lack_form(self) -> bool:
        """Whether a network without an implicit form is attacked all the same: attacks claim nothing else."""
        return True

    def _check_minimal(self) -> None:
        """Refuse sets that have no radius, or several. Raises OptionError."""
        if self.eps is not None and len(self.eps) != 1:
            raise OptionError("--minimal looks between 0 and one radius; give one with --eps")
        given = {
            "--sparse": self.sparse is not None,
            "--ignore": self.ignore is not None,
            "--features": self.features is not None,
            "--perturb": self.perturb is not None,
            "--directions": self.directions is not None,
            "--task, --top and limits": self.demanded.beside_class,
        }
        wrong = [name for name, there in given.items() if there]
        if wrong:
            raise OptionError(f"--minimal is for boxes and balls, and knows no {wrong[0]} yet; leave one of them out")


def with_usual_attacks(verdicts: Options, *, minimal: bool = False) -> Options:
    """Return how attack decides a sample where no method was named."""
    if verdicts.methods is not None or minimal:
        return verdicts
    return replace(verdicts, methods=c.USUAL_ATTACKS)


@dataclass(frozen=True)
class PropertyOptions(Declared):
    """How a property is to be decided."""

    arithmetic: ArithmeticName = c.arithmetic()
    time_limit: float = c.time_limit()
    """Seconds in all, reading and converting included."""
    max_nodes: int | None = c.max_nodes()
    """Boxes, leaves of trees and starts of attacks, in all."""
    seed: int = c.seed()
    model: SearchedModel = group(SearchedModel, without=ANY_OUTPUTS)
    certificates: Path | None = c.file("Folder for the certificate of a property that is unsat.", metavar="DIR")
    force: bool = c.force()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.certificates is not None:
            check_new_folder(self.certificates, force=self.force)

    @property
    def budget(self) -> Budget:
        """What the property may cost, from now on, libraries included."""
        seconds, most = self.time_limit, self.model.max_bytes
        return Budget.of(seconds, nodes=self.max_nodes, max_bytes=most, clock=time.monotonic)


@dataclass(frozen=True)
class MonotoneOptions(Declared):
    """What certify --monotone is asked for."""

    monotone: Direction = monotone(REQUIRED)
    eps: tuple[Eps, ...] = c.eps(reader=c.EPS_OR_ZERO)
    data: DataOptions = group(DataOptions, without=("labels",))
    label: int | None = class_of_score()
    features: Path | None = c.features()
    time_limit: float = c.time_limit()
    max_nodes: int | None = c.max_nodes()
    seed: int = c.seed()
    certificates: Path | None = c.file("Folder for what proves each certified sample.", metavar="DIR")
    force: bool = c.force()
    model: SearchedModel = group(SearchedModel, without=ANY_OUTPUTS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.monotone.of_features and self.features is None:
            raise OptionError("--monotone features is what a file says of its features; give it with --features FILE")
        if self.data.preprocessing.bounds is None and self.features is None:
            raise OptionError(
                "--monotone needs the range that the input moves in; give it with --bounds LO,HI, or --features FILE"
            )
        if self.certificates is not None:
            check_new_folder(self.certificates, force=self.force)


@dataclass(frozen=True)
class Certify(Declared):
    """Decide for each sample whether any change of its inputs by at most EPS can change the predicted class.

    certified: proved that none can. falsified: one was found, and the original network confirms it.
    clean_wrong: the network is wrong without any change. unknown: neither, with the reason.

    With a PROPERTY in place of -d and -e: sat (the network violates it, with a witness), unsat (proved that it holds),
    unknown or timeout, on the first line; --time-limit is for the whole property, reading the model included.
    """

    model: Path = c.model()
    property: Path | None = option(
        None,
        PATH,
        "A VNN-LIB property (.vnnlib or .vnnlib.gz) to decide, in place of samples.",
        positional=True,
        in_file=False,
    )
    samples: RobustnessOptions | None = group(
        RobustnessOptions,
        without=("sparse", "images", "matrix"),
        when=lambda given: not ({"property", "monotone"} & set(given) or is_asked(given)),
        otherwise="beside a property, which says itself what is asked, or --everywhere: leave one or the other out; "
        "samples are given with --data",
        missing="give samples with -d DATA and a radius with -e c.EPS, or a PROPERTY",
    )
    rule: PropertyOptions | None = group(PropertyOptions, when=c.given("property"))
    way: MonotoneOptions | None = group(
        MonotoneOptions,
        when=lambda given: "monotone" in given and "property" not in given and not is_asked(given),
        otherwise="belongs to --monotone, and is not asked beside a property: leave one or the other out",
    )
    whole: EverywhereOptions | None = group(
        EverywhereOptions,
        when=lambda given: is_asked(given) and "property" not in given,
        otherwise="belongs to --everywhere: give that as well, or leave it out",
    )
    printing: c.Printing = group(c.Printing)
    watching: c.Watching = group(c.Watching)


@dataclass(frozen=True)
class ObjectiveOptions(Declared):
    """What attack --objective is asked for."""

    objective: str = option(REQUIRED, TEXT, "One of OBJECTIVES, or the name of a file with c and perhaps w.")
    eps: tuple[Eps, ...] = c.eps()
    data: DataOptions = group(DataOptions, without=("labels",))
    searches: tuple[str, ...] = c.method(
        ",".join(c.SEARCHES), several_of(c.SEARCHES, "search for an objective", c.SEARCHES), "What looks for points."
    )
    sparse: int | None = c.sparse()
    sigma: Path | None = c.sigma()
    time_limit: float = c.time_limit()
    seed: int = c.seed()
    save: Path | None = c.adversarial()
    force: bool = c.force()
    model: SearchedModel = group(SearchedModel, without=ANY_OUTPUTS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective not in c.OBJECTIVES and not Path(self.objective).is_file():
            raise OptionError(
                f"--objective must be margin, {', '.join(c.OBJECTIVES)} or a file with weights, not {self.objective}; "
                "save weights c of the outputs as .npy, .csv, or .npz with c and perhaps w for the states"
            )
        if self.save is not None:
            check_new_file(self.save, force=self.force, ending=".npz")

    @property
    def budget(self) -> Budget:
        """What one sample and radius may cost, from now on."""
        return Budget.of(self.time_limit, max_bytes=self.model.max_bytes)


def _of_margins(given: Mapping[str, Any]) -> bool:
    return bool(given.get("objective", "margin") == "margin")


@dataclass(frozen=True)
class Attack(Declared):
    """Look for inputs within EPS of each sample that the network misclassifies, and let the network confirm them.

    The attack lp is the paper's: the minimiser of an LP relaxation; where
    its bound proves that there is no such input, the sample is certified.
    mip searches all activation patterns of small networks. With --sparse
    every attack changes at most K inputs: those that matter most.

    With --objective other than margin nothing is judged: the table says how
    far the objective moves, and how far it provably cannot. pgd and lp look
    for it; no labels are needed.
    """

    model: Path = c.model()
    objective: str = option(
        "margin",
        TEXT,
        "What to look for: margin, a misclassified input; l1, the state with the least l1 norm; state, the one "
        "farthest from the sample's (l2); FILE (.npy, .csv, .npz with c and perhaps w), the largest c.y + w.x.",
        metavar="NAME|FILE",
        rank=-6,
    )
    samples: AttackedOptions | None = group(
        AttackedOptions,
        without=("certificates", "largest", "best_effort"),
        when=_of_margins,
        otherwise="goes with the objective margin: leave one or the other out",
    )
    measured: ObjectiveOptions | None = group(ObjectiveOptions, when=lambda given: not _of_margins(given))
    printing: c.Printing = group(c.Printing)
    watching: c.Watching = group(c.Watching)


@dataclass(frozen=True)
class Audit(Declared):
    """What `idl_audit.audit` is asked for: the options of certify about samples."""

    samples: RobustnessOptions = group(RobustnessOptions, without=("sparse", "images", "matrix"))


@dataclass(frozen=True)
class ArrayOptions(Declared):
    """What `idl_audit.certify` is asked for about arrays."""

    eps: Eps = c.eps(None, reader=c.ONE_EPS)
    """Never None: 1, of its ranges, where there is a perturbation and nothing else was given."""
    preprocessing: Preprocessing = group(Preprocessing, without=("scale", "mean", "std"))
    threshold: float | None = c.threshold()
    norm: NormName = c.norm()
    perturb: Perturbation | None = c.perturb()
    image_shape: tuple[int, ...] | None = c.image_shape()
    features: Path | None = c.features()
    verdicts: Options = group(CertifyVerdicts, make=CertifyVerdicts.made)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.features is not None and (self.perturb is not None or self.norm != "linf"):
            raise OptionError("features say how far each one moves; leave norm and perturb out beside them")
        given = None if self.eps is None else (self.eps,)
        object.__setattr__(self, "eps", chosen_eps(given, perturbed=self.perturb is not None)[0])
        check_norm(self.norm, self.verdicts)
        if self.perturb is not None:
            if self.norm != "linf":
                raise OptionError(f"norm {self.norm} is about balls of inputs; leave it out beside perturb")
            check_arithmetic(self.verdicts)


@dataclass(frozen=True)
class AttackedArrayOptions(ArrayOptions):
    """What `idl_audit.attack` is asked for about arrays."""

    verdicts: Options = group(AttackVerdicts, make=AttackVerdicts.made)

    def __post_init__(self) -> None:
        object.__setattr__(self, "verdicts", with_usual_attacks(self.verdicts))
        super().__post_init__()
