"""Weights small enough for tests: random networks of the size of `small_project`, and shipped models made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from neuroloom.files import write_text
from neuroloom.networks.checkpoint import export_checkpoint, load_checkpoint, save_checkpoint
from neuroloom.networks.metadata import Metadata
from neuroloom.networks.setups import NEIGHBORHOOD, SETUPS, network_parameters
from neuroloom.networks.unet import UNet
from neuroloom.project import Network
from small_project import VALUES, VOXEL_SIZE

CARD = """\
description = "Random weights, for tests"
license = "CC0-1.0"
trained_on = "nothing"
voi = 4.25
voi_convention = "made up"

[[authors]]
name = "Ada Lovelace"
orcid = "0000-0002-1825-0097"

[[citations]]
text = "Sheridan et al. 2022, Local shape descriptors for neuron segmentation"
doi = "10.1038/s41592-022-01711-z"
"""


def save_weights(
    path: Path,
    setup: str,
    network: dict[str, Any] | None = None,
    seed: int = 0,
    lsd_network: dict[str, Any] | None = None,
    **metadata: Any,
) -> Path:
    """A checkpoint of random weights, with its descriptor network if it needs one.

    Args:
        path: The file.
        setup: A key of `SETUPS`.
        network: As the section [network].
        seed: Of the weights.
        lsd_network: Of its descriptor network, where that is of another size.
        metadata: What is other than in `small_project`.
    """
    lsd = None
    if SETUPS[setup].needs_lsd_network:
        part = save_weights(path.with_suffix(".lsd"), "lsd", lsd_network or network, seed + 1, **metadata)
        lsd = load_checkpoint(part)
        part.unlink()
    values: dict[str, Any] = {
        "voxel_size": VOXEL_SIZE,
        "sigma_nm": None if setup == "affs" else VALUES["training"]["sigma_nm"],
        "neighborhood": NEIGHBORHOOD,
        "iteration": 1,
        **metadata,
    }
    neighborhood = values["neighborhood"]
    if not SETUPS[setup].gives_affinities:
        values["neighborhood"] = ()
    size = Network.model_validate(network or VALUES["network"])
    values["network"] = network_parameters(setup, size, neighborhood)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        weights = UNet(values["network"]).state_dict()
    weights["head.weight"] *= 30  # so that what comes out is not one half everywhere
    path.parent.mkdir(parents=True, exist_ok=True)
    found = Metadata.model_validate({"setup": setup, "lsd_sha256": lsd.sha256 if lsd else None, **values})
    save_checkpoint(path, found, weights, lsd)
    return path


def ship(folder: Path, name: str, checkpoint: Path, card: str = CARD, text: str = "") -> Path:
    """A shipped model in a folder that stands for the package's.

    Returns:
        The model's folder.
    """
    write_text(folder / name / "model.toml", card)
    if text:
        write_text(folder / name / "card.md", text)
    export_checkpoint(checkpoint, folder / name / "weights.ckpt")
    return folder / name
