"""How long it takes to read a table of one's own, and how much memory, for ten million numbers: 100,000 rows of 100 columns.

Prints one row for each format: the file's size, CPU seconds and the largest memory of loading the data set, and of the first reset after
it. Each is measured in a process of its own. The memory is what the process holds at most beyond what it held before the scenario was read.

    python benchmarks/own_tables.py --markdown docs/results/own-tables.md
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

FORMATS = ("csv", "csv with gaps and words", "parquet", "npz")


def main() -> None:
    """Write the tables, and measure each."""
    parser = argparse.ArgumentParser(description="Time and memory of reading a table of one's own.")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("--markdown", type=Path, help="write the table to this file too")
    asked = parser.parse_args()
    lines = ["| format | file, MB | read, CPU s | memory, MB | first reset, CPU s | memory, MB |", "|---|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        for name in FORMATS:
            path = written(name, Path(folder), asked.rows, asked.columns)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                seconds, memory, reset, memory_of_reset = pool.apply(measured, (name, path))
            size = path.stat().st_size / 1e6
            lines.append(f"| {name} | {size:.0f} | {seconds:.1f} | {memory:.0f} | {reset:.1f} | {memory_of_reset:.0f} |")
    lines += [
        "",
        f"{asked.rows:,} rows × {asked.columns} columns, standardised. Memory: the most that the process held beyond what it held before.",
    ]
    print("\n".join(lines))
    if asked.markdown is not None:
        asked.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")


def written(name: str, folder: Path, rows: int, columns: int) -> Path:
    """A file with random numbers, and a label that depends on them."""
    random = np.random.default_rng(0)
    x = random.normal(size=(rows, columns)).round(4)
    y = (x[:, 0] + random.normal(size=rows) > 0).astype(np.int64)
    path = folder / f"own.{name.partition(' ')[0]}"
    if name == "npz":
        np.savez(path, x=x, label=y)
        return path
    names = [f"x{j}" for j in range(columns)]
    if name == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table({one: x[:, j] for j, one in enumerate(names)} | {"label": y}), path)
        return path
    with path.open("w") as file:
        file.write(",".join([*names, "label"]) + "\n")
        for row, label in zip(x, y, strict=True):
            fields = [f"{number:.4f}" for number in row]
            if " " in name:
                fields[1] = ("Rome", "Oslo", "Paris")[int(label) + int(row[1] > 0)]
                fields[2] = "" if row[2] > 1 else fields[2]
            file.write(",".join([*fields, str(label)]) + "\n")
    return path


def measured(name: str, path: Path) -> tuple[float, float, float, float]:
    """CPU seconds and memory of loading the data set, and of the first reset, in a process of its own."""
    from proxycoop.envs import Engine, scenario
    from proxycoop.envs.data import load

    Engine(scenario.load("breast_cancer"), "equal").reset([0])  # what the process needs whatever the data
    before = _most_memory()
    file = {"path": str(path), "label": "label", "missing": "fill"}
    settings = {"source": name.partition(" ")[0], "file": file, "scaling": "standardise"}
    begun = time.process_time()
    made = scenario.Scenario.model_validate({"data": settings, "reward": {"scale": 1}})
    load(made.data.source, made.data.file)
    read, memory = time.process_time() - begun, _most_memory() - before
    begun = time.process_time()
    Engine(made, "equal").reset([0])
    return read, memory, time.process_time() - begun, _most_memory() - before


def _most_memory() -> float:
    """The most memory that the process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)


if __name__ == "__main__":
    main()
