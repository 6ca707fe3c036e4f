"""Write reports/columns.md: what reading samples of 784 numbers costs, in memory and time, format by format.

    python -m benchmarks.columns [--out DIR]

Each part reads all samples in the order of the file, a few megabytes at a time, in a process of its own. The Parquet
files have one row group, the hardest case for memory; a table has 784 columns, a list one.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.measuring import ROOT, machine, run_part
from benchmarks.scale import peak

P = 784
COUNTS = (20_000, 60_000)
PACKAGES = ("numpy", "pyarrow")


def pixels(n: int) -> np.ndarray:
    """Return n samples."""
    return np.random.default_rng(0).integers(0, 256, (n, P)).astype(np.float32) / 255


def parquet_list(path: Path, n: int) -> None:
    """Write a column of lists and one of labels."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = pa.FixedSizeListArray.from_arrays(pa.array(pixels(n).reshape(-1)), P)
    pq.write_table(pa.table({"inputs": column, "label": np.arange(n) % 10}), path, row_group_size=n)


def parquet_table(path: Path, n: int) -> None:
    """Write a column for each number."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {f"f{k}": column for k, column in enumerate(pixels(n).T)}
    pq.write_table(pa.table({**columns, "label": np.arange(n) % 10}), path, row_group_size=n)


def arrow_stream(path: Path, n: int) -> None:
    """Write record batches of a thousand rows, as Hugging Face's datasets does."""
    import pyarrow as pa

    column = pa.FixedSizeListArray.from_arrays(pa.array(pixels(n).reshape(-1)), P)
    found = pa.table({"inputs": column, "label": np.arange(n) % 10})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, found.schema) as writer:
        writer.write_table(found, max_chunksize=1000)


def npz(path: Path, n: int) -> None:
    """Write two arrays."""
    with path.open("wb") as stream:
        np.savez(stream, inputs=pixels(n), labels=np.arange(n) % 10)


KINDS: dict[str, tuple[str, Callable[[Path, int], None]]] = {
    "parquet-list": ("Parquet, a column of lists", parquet_list),
    "parquet-table": ("Parquet, 784 columns", parquet_table),
    "arrow": ("Arrow's stream, batches of 1,000", arrow_stream),
    "npz": (".npz", npz),
}


def reading(path: Path) -> dict[str, float]:
    """Read all samples of a file."""
    from idl_audit.data.samples import stream_samples

    start = time.process_time()
    found = stream_samples(path, input_shape=(1, P), n_classes=10)
    opened = time.process_time() - start
    total = math.fsum(samples.inputs.sum() for _, samples in found.parts())
    return {"seconds": time.process_time() - start, "opened": opened, "peak_mb": peak(), "n": found.n, "total": total}


def lines() -> Iterator[str]:
    """Measure and yield the table."""
    yield f"| | {COUNTS[0]:,} samples | {COUNTS[1]:,} samples | each of the more | processor time a sample |"
    yield "|---|---:|---:|---:|---:|"
    for name, (title, write) in KINDS.items():
        found = []
        for n in COUNTS:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / name
                write(path, n)
                found.append(run_part("benchmarks.columns", name, 1, more=["--file", str(path)]))
        small, large = found
        more = (large["peak_mb"] - small["peak_mb"]) / (COUNTS[1] - COUNTS[0]) * 1e3
        each = (large["seconds"] - small["seconds"]) / (COUNTS[1] - COUNTS[0]) * 1e6
        yield f"| {title} | {small['peak_mb']:.0f} MB | {large['peak_mb']:.0f} MB | {more:.2f} kB | {each:.0f} µs |"


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=tuple(KINDS))
    parser.add_argument("--file", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "reports")
    given = parser.parse_args()
    if given.part is not None:
        print(json.dumps(reading(given.file)))
        return
    note = (
        f"Peak memory of the process and its processor time while it reads samples of {P} numbers, hash included; a "
        f"sample is {P * 8 / 1e3:.1f} kB as float64. The files are of one row group."
    )
    head = ["# Samples in columns", "", "Made by `python -m benchmarks.columns`.", "", machine(1, PACKAGES), "", note]
    (given.out / "columns.md").write_text("\n".join([*head, "", *lines(), ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
