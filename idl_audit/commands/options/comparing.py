"""What compare is asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from idl_audit.commands.options import common as c
from idl_audit.commands.options.reading import DataOptions, SearchedModel
from idl_audit.commands.options.robustness import CertifyVerdicts
from idl_audit.data.numbers import Eps
from idl_audit.values.errors import OptionError
from idl_audit.values.files import check_new_folder
from idl_audit.values.options import Declared, group

if TYPE_CHECKING:
    from idl_audit.decide.ladder import Options


@dataclass(frozen=True)
class CompareOptions(Declared):
    """How two networks are compared."""

    eps: tuple[Eps, ...] = c.eps()
    data: DataOptions = group(DataOptions, without=("labels",))
    verdicts: Options = group(CertifyVerdicts, without=("method", "arithmetic"), make=CertifyVerdicts.made)
    sigma: Path | None = c.sigma()
    certificates: Path | None = c.file(
        "Write what proves agreement, and the bounds of differences, into this folder, for `verify`.", metavar="DIR"
    )
    force: bool = c.force()
    model: SearchedModel = group(SearchedModel)
    jobs: int = c.jobs("Samples compared at the same time, in processes.")
    journal: Path | None = c.file(
        "File that takes the samples as they are compared.", typed=False, in_file=False, in_environment=False
    )
    """Whoever writes the report removes it (`drop_journal`)."""
    resume: bool = c.resume(
        "Go on from the samples that an interrupted run with the same -o has compared (OUTPUT.journal)."
    )
    """Files of the earlier run may be written again."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resume and self.journal is None:
            raise OptionError("--resume goes on from the journal beside the report; name the report with -o FILE")
        if self.certificates is not None:
            check_new_folder(self.certificates, force=self.force or self.resume)
            object.__setattr__(self, "verdicts", replace(self.verdicts, record=True))


@dataclass(frozen=True)
class Compare(Declared):
    """Decide for each sample whether two networks give the same class wherever its inputs change by at most EPS.

    For networks that were pruned, quantised, exported anew or trained further. certified: proved that no such input
    has two classes. falsified: one was found, and both networks themselves confirm it. unknown: neither, with the
    reason. Beside it stands how far apart their outputs are: the largest |y - y'| that was seen, and a bound that is
    proved for the whole set. No labels are needed.
    """

    model: Path = c.model()
    second: Path = c.model(help="The network that it is compared with: the same inputs and outputs.")
    asked: CompareOptions = group(CompareOptions)
    printing: c.Printing = group(c.Printing)
