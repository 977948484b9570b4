"""`python -m benchmarks NAME [--json] [--quick] [--data DIR]`, from the root of the repository."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

from benchmarks.results import Disagreement, as_json, as_table
from benchmarks.volumes import Options
from neuroloom.errors import UserError

NAMES = (
    "lsd",
    "training",
    "prediction",
    "teravoxel",
    "fragments",
    "agglomeration",
    "forest",
    "relabel",
    "graph",
    "blocks",
    "blockwise",
)


def main(arguments: list[str] | None = None) -> int:
    """Run one benchmark; 0 if both sides agree, 1 if not, 2 if it cannot be run here."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--json", action="store_true", help="as the last line, one JSON object with the results")
    parser.add_argument("--quick", action="store_true", help="small and rough: does it run?")
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("NEUROLOOM_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"),
        help="folder with fib25-train.zarr and fib25-val.zarr; without them, made tissue is used",
    )
    chosen = parser.parse_args(arguments)
    try:
        results = importlib.import_module(f"benchmarks.{chosen.name}").run(Options(Path(chosen.data), chosen.quick))
    except Disagreement as difference:
        print(f"The results differ: {difference}", file=sys.stderr)
        return 1
    except UserError as mistake:
        print(mistake, file=sys.stderr)
        return 2
    print(as_table(results))
    if chosen.json:
        print(as_json(chosen.name, results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
