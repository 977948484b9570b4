"""Writing a model as a bioimage.io package: a zip file of format 0.5 that other programs read and run.

rdf.yaml               what the model is: tensors and their extents, licence, authors, what to cite
README.md              the same for people
weights.pt             all networks as one TorchScript module
test-input.npy         float32 `(1, 1, z, y, x)`, 0 ... 255      test-output.npy   float32 `(1, c, z', y', x')`
neuroloom.ckpt         our checkpoint, for `neuroloom models import`
neuroloom.json         its SHA-256
"""

from __future__ import annotations

import json
import math
import re
import tempfile
import textwrap
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from neuroloom import __version__
from neuroloom.errors import UserError
from neuroloom.files import write_bytes
from neuroloom.models.bioimageio.fused import Extents, extents, fuse
from neuroloom.models.card import Card
from neuroloom.models.registry import Weights
from neuroloom.networks.checkpoint import Checkpoint, load_checkpoint
from neuroloom.networks.setups import SETUPS

CHECKPOINT, IDENTITY = "neuroloom.ckpt", "neuroloom.json"
"""Names of our own files in the package."""

TEST_EXTENT = 8
"""Voxels, at least, by which the test input is larger than the smallest."""


def export_package(weights: Weights, card: Card, text: str, to: Path) -> None:
    """Write a checkpoint as a bioimage.io package.

    Args:
        weights: The checkpoint.
        card: Licence, authors, what to cite.
        text: Further text for people, markdown.
        to: The zip file.

    Raises:
        UserError: It gives no affinities, bioimageio.spec is not installed, or refuses what the card says.
    """
    spec = _spec()
    setup = weights.metadata.setup
    if setup not in SETUPS or not SETUPS[setup].gives_affinities:
        raise UserError(f"{weights.path} is of setup {setup!r}, which gives no affinities; export an affinity network.")
    if to.suffix != ".zip":
        raise UserError(f"{to} does not end with .zip, as packages of bioimage.io do. Choose such a name.")
    loaded = load_checkpoint(weights.path)
    module = fuse(loaded)
    sizes = extents(loaded.lsd.metadata.network if loaded.lsd else None, loaded.metadata.network)
    raw = example([s + math.ceil(TEST_EXTENT / n) * n for s, n in zip(sizes.smallest, sizes.step, strict=True)])
    with tempfile.TemporaryDirectory(prefix="neuroloom-export-") as name:
        folder = Path(name)
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            affinities = module(torch.from_numpy(raw) / 255).numpy()
            torch.jit.save(module, folder / "weights.pt")
        np.save(folder / "test-input.npy", raw)
        np.save(folder / "test-output.npy", affinities)
        (folder / CHECKPOINT).write_bytes(weights.path.read_bytes())
        (folder / IDENTITY).write_text(json.dumps({"sha256": weights.sha256, "neuroloom": __version__}) + "\n")
        (folder / "README.md").write_text(_read_me(weights, card, text, sizes), encoding="utf-8")
        try:
            described = _describe(spec, folder, loaded, weights, card, sizes, to.stem)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"] if "[" not in str(part))
            remedy = "Correct the card." if place else "Try `pip install neuroloom[bioimageio]`, whose versions fit."
            reason = textwrap.shorten(first["msg"].removeprefix("Value error, "), 160, placeholder=" …").rstrip(".")
            raise UserError(
                f"bioimage.io does not take this model: {place or 'its libraries fail'}: {reason}. {remedy}"
            ) from error
        package = folder / "package.zip"
        spec.save_bioimageio_package(described, output_path=package)
        write_bytes(to, package.read_bytes())


def example(shape: list[int]) -> NDArray[np.float32]:
    """A made image to try a model on: blurred noise, always the same.

    Args:
        shape: Extent in voxels, z y x.

    Returns:
        `(1, 1, z, y, x)`, whole numbers from 0 to 255.
    """
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(0).normal(size=shape), 1.5)
    scaled = (noise - noise.min()) / (noise.max() - noise.min())
    return np.round(scaled * 255).astype(np.float32)[None, None]


def _spec() -> Any:
    try:
        import bioimageio.spec
    except ImportError as error:
        raise UserError(
            "Packages of bioimage.io need its own libraries. Install them with `pip install neuroloom[bioimageio]`."
        ) from error
    return bioimageio.spec


def _describe(
    spec: Any, folder: Path, loaded: Checkpoint, weights: Weights, card: Card, sizes: Extents, name: str
) -> Any:
    v0_5 = spec.model.v0_5
    metadata = loaded.metadata

    def file(name: str) -> Any:
        return v0_5.FileDescr(source=folder / name)

    space = [
        (axis, size, step, context, scale)
        for axis, size, step, context, scale in zip(
            "zyx", sizes.smallest, sizes.step, sizes.context, metadata.voxel_size, strict=True
        )
    ]
    inputs = v0_5.InputTensorDescr(
        id=v0_5.TensorId("raw"),
        description="Image of 8 bits, 0 to 255",
        axes=[
            v0_5.BatchAxis(),
            v0_5.ChannelAxis(channel_names=[v0_5.Identifier("raw")]),
            *(
                v0_5.SpaceInputAxis(
                    id=v0_5.AxisId(axis),
                    size=v0_5.ParameterizedSize(min=size, step=step),
                    unit="nanometer",
                    scale=scale,
                )
                for axis, size, step, _, scale in space
            ),
        ],
        # not uint8: what is named here is also what values are turned into after the scaling
        data=v0_5.IntervalOrRatioDataDescr(type="float32", range=(0.0, 255.0)),
        preprocessing=[v0_5.ScaleLinearDescr(kwargs=v0_5.ScaleLinearKwargs(gain=1 / 255, offset=0.0))],
        test_tensor=file("test-input.npy"),
    )
    outputs = v0_5.OutputTensorDescr(
        id=v0_5.TensorId("affinities"),
        description="1 where a voxel and its neighbour belong to the same neurite",
        axes=[
            v0_5.BatchAxis(),
            v0_5.ChannelAxis(channel_names=[v0_5.Identifier(_channel(o)) for o in metadata.neighborhood]),
            *(
                v0_5.SpaceOutputAxis(
                    id=v0_5.AxisId(axis),
                    size=v0_5.SizeReference(tensor_id=v0_5.TensorId("raw"), axis_id=v0_5.AxisId(axis), offset=-context),
                    unit="nanometer",
                    scale=scale,
                )
                for axis, _, _, context, scale in space
            ),
        ],
        data=v0_5.IntervalOrRatioDataDescr(type="float32", range=(0.0, 1.0)),
        test_tensor=file("test-output.npy"),
    )
    with spec.ValidationContext(perform_io_checks=True):
        return v0_5.ModelDescr(
            name=_name(name),
            description=card.description,
            # as plain values, so that a mistake is told with the field's name
            authors=[author.model_dump() for author in card.authors],
            cite=[citation.model_dump() for citation in card.citations if citation.doi],
            license=card.license,
            documentation=file("README.md"),
            tags=["neuron-segmentation", "affinities", "electron-microscopy", "connectomics", "3d", "unet"],
            inputs=[inputs],
            outputs=[outputs],
            weights=v0_5.WeightsDescr(
                torchscript=v0_5.TorchscriptWeightsDescr(
                    source=folder / "weights.pt", pytorch_version=v0_5.Version(torch.__version__.partition("+")[0])
                )
            ),
            attachments=[file(CHECKPOINT), file(IDENTITY)],
            config=v0_5.Config(
                bioimageio=v0_5.BioimageioConfig(
                    architecture_type="3D U-Net", model_parameter_count=weights.parameters, task="segmentation"
                )
            ),
        )


def _channel(offset: tuple[int, int, int]) -> str:
    """An offset as a word: (-1, 0, 0) is "z_minus_1", (0, -5, 4) is "y_minus_5_x_plus_4"."""
    words = [f"{axis}_{'minus' if o < 0 else 'plus'}_{abs(o)}" for axis, o in zip("zyx", offset, strict=True) if o]
    return "_".join(words)


def _name(stem: str) -> str:
    return f"neuroloom {re.sub('[^A-Za-z0-9_+-]+', '-', stem)}"[:64]


def _read_me(weights: Weights, card: Card, text: str, sizes: Extents) -> str:
    metadata = weights.metadata
    listed = "\n".join(
        f"- {citation.text}" + (f" https://doi.org/{citation.doi}" if citation.doi else "")
        for citation in card.citations
    )
    voxel_size = " x ".join(f"{v:g}" for v in metadata.voxel_size)
    score = "No score is known." if card.voi is None else f"VOI, split + merge: {card.voi:g} bits."
    return f"""\
# {card.description}

Setup `{metadata.setup}` of neuroloom: {SETUPS[metadata.setup].title}.

- **In:** raw, 0 to 255, `(batch, 1, z, y, x)`, voxels of {voxel_size} nm (z, y, x).
- **Out:** affinities to the neighbours at {", ".join(str(list(o)) for o in metadata.neighborhood)} (z, y, x),
  `(batch, {len(metadata.neighborhood)}, z, y, x)`, smaller by {list(sizes.context)} voxels, from the middle of raw.
- `{CHECKPOINT}` is the checkpoint for neuroloom: `neuroloom models import` takes it out.

## Training

{card.trained_on or "Not stated."}

## Validation

{score} {card.voi_convention or ""}

On other data: segment a block with truth with neuroloom (`prediction.model`), and score it with `neuroloom evaluate`.

## To cite

{listed or "Not stated."}

{text}
"""
