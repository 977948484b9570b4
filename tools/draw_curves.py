"""Draw how VOI falls with the time in training, for several trainings, and write the numbers beside the picture.

    python tools/draw_curves.py curves.png affs=p/training/affs-… acrlsd=q/training/lsd-…,q/training/acrlsd-…

Folders with a comma between them are trained one after the other: the time of the first counts for the second. Times
include the scores along the way. CURVES.tsv holds, per score, what was trained, minutes, steps, VOI and eroded VOI.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

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
        curve = scores([Path(folder) for folder in folders.split(",")])
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
    before = sum(float(json.loads((folder / "done.json").read_text())["seconds"]) for folder in folders[:-1])
    found, seconds = [], 0.0
    for line in (folders[-1] / "curve.jsonl").read_text().splitlines():
        entry = json.loads(line)
        seconds = entry.get("seconds", seconds)
        if "voi" in entry:
            eroded = entry["voi_eroded"] if entry["voi_eroded"] is not None else float("nan")
            found.append((round((before + seconds) / 60, 1), entry["step"], round(entry["voi"], 3), round(eroded, 3)))
    return found


if __name__ == "__main__":
    main()
