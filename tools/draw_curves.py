"""Draw how VOI falls with the time in training, for several trainings, and write the numbers beside the picture.

    python tools/draw_curves.py curves.png affs=p/training/affs-… acrlsd=q/training/lsd-…,q/training/acrlsd-…

Folders with a comma between them are trained one after the other: the time of the first counts for the second. The time
is that of steps, each as long as the median of the fastest quarter of them, so that neither scores along the way nor
what else ran on the machine counts; what comes before the first step does. CURVES.tsv holds, per score, what was
trained, minutes, steps, VOI and eroded VOI.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path, help="a .png file")
    parser.add_argument("trainings", nargs="+", help="NAME=FOLDER or NAME=FOLDER,FOLDER")
    arguments = parser.parse_args()
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    lines = ["training\tminutes\tsteps\tVOI\teroded"]
    for training in arguments.trainings:
        name, _, folders = training.partition("=")
        paths = [Path(folder) for folder in folders.split(",")]
        missing = [str(path) for path in paths if not (path / "curve.jsonl").is_file()]
        if missing:
            parser.error(f"{', '.join(missing)}: no training is there (no curve.jsonl)")
        curve = scores(paths)
        if not curve:
            parser.error(f"{paths[-1]} has no scores; set `training.score_every`, and a validation volume")
        lines += ["\t".join(map(str, (name, *point))) for point in curve]
        minutes, _, plain, eroded = zip(*curve, strict=True)
        (line,) = axes.plot(minutes, plain, marker="o", markersize=3, label=name)
        axes.plot(minutes, eroded, marker="o", markersize=3, linestyle=":", color=line.get_color())
    axes.set(xlabel="minutes in training", ylabel="VOI, bits (dotted: truth eroded by one voxel)", ylim=(0, None))
    axes.set_xlim(0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(arguments.picture, dpi=150)
    arguments.picture.with_suffix(".tsv").write_text("\n".join(lines) + "\n")
    print(f"Wrote {arguments.picture} and {arguments.picture.with_suffix('.tsv')}.")


def scores(folders: list[Path]) -> list[tuple[float, int, float, float]]:
    """Minutes, steps, VOI and eroded VOI at each score of the last of some trainings."""
    before = sum(step_times(folder)[-1] for folder in folders[:-1])
    times = step_times(folders[-1])
    found = []
    for entry in entries_of(folders[-1]):
        if "voi" in entry:
            eroded = entry["voi_eroded"] if entry["voi_eroded"] is not None else float("nan")
            minutes = (before + times[entry["step"] - 1]) / 60
            found.append((round(minutes, 1), entry["step"], round(entry["voi"], 3), round(eroded, 3)))
    return found


def step_times(folder: Path) -> list[float]:
    """Seconds of training after each step."""
    stamps = [entry["seconds"] for entry in entries_of(folder) if "seconds" in entry]
    one = float(np.quantile(np.diff(stamps), 0.125)) if len(stamps) > 1 else 0.0
    return [stamps[0] + one * n for n in range(len(stamps))]


def entries_of(folder: Path) -> list[dict[str, Any]]:
    """What a training wrote down, in order."""
    return [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]


if __name__ == "__main__":
    main()
