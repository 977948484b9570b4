"""Writers of the formats that volumes are read from where they lie; each returns path and dataset."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tensorstore
import zarr
from numpy.typing import NDArray

SIZE, OFFSET = (40.0, 8.0, 4.0), (80.0, -16.0, 12.0)
"""nm, z y x."""

Chunks = Sequence[int]


def write_hdf5(folder: Path, data: NDArray[Any], chunks: Chunks) -> tuple[str, str]:
    """Channels in front; attributes as CREMI writes them."""
    with h5py.File(folder / "a.h5", "w") as file:
        spatial = [min(c, s) for c, s in zip(chunks, data.shape[-3:], strict=True)]
        node = file.create_dataset("volumes/raw", data.shape, data.dtype, chunks=(*data.shape[:-3], *spatial))
        if data.any():
            node[:] = data
        node.attrs["resolution"], node.attrs["offset"] = SIZE, OFFSET
    return str(folder / "a.h5"), "volumes/raw"


def write_n5(folder: Path, data: NDArray[Any], chunks: Chunks) -> tuple[str, str]:
    """Dimensions x, y, z and channel; the voxel at (x, y, z) is data[z, y, x]."""
    spec = {
        "driver": "n5",
        "kvstore": {"driver": "file", "path": str(folder / "a.n5" / "em" / "s0")},
        "metadata": {
            "dataType": data.dtype.name,
            "dimensions": list(data.shape[::-1]),
            "blockSize": [*chunks[::-1], *data.shape[:-3]],
            "compression": {"type": "gzip"},
        },
    }
    tensorstore.open(spec, create=True).result()[...].write(data.T).result()
    edit_json(folder / "a.n5" / "em" / "s0" / "attributes.json", resolution=SIZE[::-1], offset=OFFSET[::-1])
    edit_json(folder / "a.n5" / "attributes.json", n5="2.5.1")
    return str(folder / "a.n5"), "em/s0"


def write_precomputed(
    folder: Path, data: NDArray[Any], chunks: Chunks, sharding: dict[str, Any] | None = None
) -> tuple[str, str]:
    """Two scales, the coarse one first and empty; voxel offset x, y, z."""
    path = folder / "image"
    for key, factor in (("coarse", 2), ("8_8_8", 1)):
        channels = data.shape[0] if data.ndim == 4 else 1
        shape = [-(-s // factor) for s in data.shape[:-4:-1]]
        scale: dict[str, Any] = {
            "key": key,
            "size": shape,
            "resolution": [v * factor for v in SIZE[::-1]],
            "chunk_size": list(chunks[::-1]),
            "voxel_offset": [round(o / s / factor) for o, s in zip(OFFSET[::-1], SIZE[::-1], strict=True)],
            "encoding": "raw",
        }
        if sharding:
            scale["sharding"] = sharding
        spec = {
            "driver": "neuroglancer_precomputed",
            "kvstore": {"driver": "file", "path": str(path)},
            "multiscale_metadata": {"data_type": data.dtype.name, "num_channels": channels, "type": "image"},
            "scale_metadata": scale,
        }
        store = tensorstore.open(spec, create=True).result()
        if factor == 1:
            store[...].write(data.T if data.ndim == 4 else data.T[..., np.newaxis]).result()
    return str(path), "8_8_8"


def write_zarr(folder: Path, data: NDArray[Any], chunks: Chunks, form: int = 3) -> tuple[str, str]:
    """As other programs write it."""
    array = zarr.open_group(str(folder / "a.zarr"), mode="w", zarr_format=form).create_array(
        "volumes/raw",
        shape=data.shape,
        chunks=(*data.shape[:-3], *(min(c, s) for c, s in zip(chunks, data.shape[-3:], strict=True))),
        dtype=data.dtype,
    )
    array[:] = data
    array.attrs.update(resolution=SIZE, offset=OFFSET)
    return str(folder / "a.zarr"), "volumes/raw"


def write_zarr2(folder: Path, data: NDArray[Any], chunks: Chunks) -> tuple[str, str]:
    """zarr v2, as other programs write it."""
    return write_zarr(folder, data, chunks, 2)


Writer = Callable[[Path, NDArray[Any], Chunks], tuple[str, str]]
DIRECT: tuple[Writer, ...] = (write_hdf5, write_n5, write_precomputed)
WRITERS: tuple[Writer, ...] = (*DIRECT, write_zarr, write_zarr2)


def edit_json(file: Path, **values: Any) -> None:
    """Add values to a JSON object, in a file that may not be there yet."""
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**content, **values}))
