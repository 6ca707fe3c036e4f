"""demo: a small network with samples of its own, its verdicts, proofs and adversarial inputs, in one folder."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final

from idl_audit.commands.certify import audit_robustness
from idl_audit.commands.options.robustness import Audit
from idl_audit.commands.shared.preflight import Teller
from idl_audit.commands.shared.progress import Watcher
from idl_audit.report.schema import Report
from idl_audit.values.files import check_new_folder, make_folder, write_whole
from idl_audit.values.options import build

MODEL: Final = "digits_mlp.onnx"
DATA: Final = "digits_mlp.npz"
FILES: Final = (MODEL, f"{MODEL}.data", DATA)
"""What comes with the package: 5,018 parameters that read 8 x 8 pictures of digits, and samples."""
SHAPE: Final = (8, 8)
ASKED: Final = {"eps": "0.02,0.05,0.1", "bounds": "0,1", "limit": 20}
"""What is asked: some seconds of work, with verdicts of every kind."""


def audit_demo(folder: Path, *, force: bool, watch: Watcher, tell: Teller) -> Report:
    """Put the network into a folder, decide its samples there, and return the report; proofs lie beside it.

    Raises:
        OptionError: where the folder holds something and `force` does not allow to lose it, or cannot be written.
    """
    check_new_folder(folder, force=force)
    make_folder(folder)
    for name in FILES:
        content = files("idl_audit.commands").joinpath("demo_files", name).read_bytes()
        write_whole(folder / name, lambda file, content=content: file.write(content))  # type: ignore[misc]
    places = {"data": folder / DATA, "certificates": folder / "proofs", "save": folder / "adversarial.npz"}
    asked = build(Audit, {**ASKED, **places, "force": force}).samples
    return audit_robustness("certify", folder / MODEL, asked, watch=watch, tell=tell)
