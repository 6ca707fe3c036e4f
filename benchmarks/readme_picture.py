"""Draw the README's picture, docs/images/robustness.png: shares of samples over eps, as `certify --plot` draws them.

    python -m benchmarks.readme_picture

It takes about a minute.
"""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from idl_audit.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs/images/robustness.png"
RADII = "0.01,0.02,0.03,0.04,0.05,0.06,0.08,0.1,0.12,0.15"
NODES = 100
"""Work for a sample and radius, so that every machine draws the same."""


def main() -> None:
    """Write the picture."""
    PICTURE.parent.mkdir(exist_ok=True)
    sample = ROOT / "sample_models/digits_mlp"
    line = (
        f"certify {sample}.onnx -d {sample}.npz -e {RADII} --bounds 0,1 --limit 50 --max-nodes {NODES} -q --force "
        f"--time-limit 600 --plot {PICTURE}"
    )
    result = CliRunner().invoke(app, line.split())
    if result.exit_code:
        raise SystemExit(result.stderr)
    print(result.stdout)


if __name__ == "__main__":
    main()
