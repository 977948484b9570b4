"""Split a volume with truth for training weights: a block of it is held back and never learned from.

    python tools/hold_back.py fib25-train.zarr FOLDER --begin 320,152,320 --shape 200,200,200

    FOLDER/train.zarr       image, labels, and a mask that is 0 in the block
    FOLDER/held-back.zarr   the block alone; labels are its connected components

So checkpoint and threshold can be chosen on tissue that the network has not learned, and whatever volume is scored in
the end has chosen nothing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import zarr
from scipy import ndimage

ARRAYS = {"raw": "volumes/raw", "labels": "volumes/labels/neuron_ids", "mask": "volumes/labels/mask"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volume", type=Path, help="zarr group with volumes/raw, volumes/labels/neuron_ids and /mask")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--begin", type=_triple, required=True, help="first voxel of the block, z,y,x")
    parser.add_argument("--shape", type=_triple, required=True, help="its extent in voxels, z,y,x")
    arguments = parser.parse_args()

    if not arguments.volume.is_dir():
        parser.error(f"{arguments.volume} is no folder; expected a zarr group")
    source = zarr.open_group(arguments.volume, mode="r")
    missing = [name for name in ARRAYS.values() if name not in source]
    if missing:
        parser.error(f"{arguments.volume} has no {', '.join(missing)}")
    shape = source[ARRAYS["raw"]].shape
    if any(b < 0 or n < 1 or b + n > size for b, n, size in zip(arguments.begin, arguments.shape, shape, strict=True)):
        parser.error(f"the block {arguments.begin} + {arguments.shape} does not lie in the volume's {shape} voxels")
    arrays = {kind: source[name][:] for kind, name in ARRAYS.items()}
    block = tuple(slice(b, b + n) for b, n in zip(arguments.begin, arguments.shape, strict=True))
    held_back = {kind: values[block].copy() for kind, values in arrays.items()}
    held_back["labels"] = connected(held_back["labels"])
    arrays["mask"][block] = 0
    attributes = {"resolution": list(source[ARRAYS["raw"]].attrs["resolution"]), "offset": [0, 0, 0]}
    _write(arguments.folder / "train.zarr", arrays, attributes)
    _write(arguments.folder / "held-back.zarr", held_back, attributes)
    print(f"{arguments.folder}: train.zarr, and held-back.zarr of {held_back['mask'].sum()} labelled voxels")


def connected(labels: np.ndarray) -> np.ndarray:
    """Connected components (faces) of equal labels `(z, y, x)`; 0 stays 0."""
    result = np.zeros(labels.shape, np.uint64)
    last = 0
    ids = np.unique(labels)
    dense = np.searchsorted(ids, labels) + 1
    for number, region in enumerate(ndimage.find_objects(dense), start=1):
        if ids[number - 1] == 0:
            continue
        parts, count = ndimage.label(dense[region] == number)
        result[region][parts > 0] = (parts[parts > 0] + last).astype(np.uint64)
        last += count
    return result


def _write(path: Path, arrays: dict[str, np.ndarray], attributes: dict[str, list[int]]) -> None:
    group = zarr.open_group(path, mode="w", zarr_format=2)
    for kind, values in arrays.items():
        array = group.create_array(
            ARRAYS[kind], shape=values.shape, dtype=values.dtype, chunks=tuple(min(64, n) for n in values.shape)
        )
        array[:] = values
        array.attrs.update(attributes)


def _triple(text: str) -> tuple[int, ...]:
    values = tuple(int(part) for part in text.split(","))
    if len(values) != 3:
        raise argparse.ArgumentTypeError(f"{text}: expected three numbers, z,y,x")
    return values


if __name__ == "__main__":
    main()
