"""Checkpoints: weights with all that prediction needs, in one file that holds no code.

An AcrLSD checkpoint carries its frozen descriptor network too, so that the two can never be mixed up.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from neuroloom.errors import UserError
from neuroloom.files import write_bytes
from neuroloom.networks.metadata import Metadata
from neuroloom.networks.unet import UNet

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """A network read from a file.

    Attributes:
        metadata: What it is.
        network: With its weights, in evaluation mode.
        lsd: The descriptor network's checkpoint, for setups that need one.
        sha256: The file's content.
    """

    metadata: Metadata
    network: UNet
    lsd: Checkpoint | None
    sha256: str


def save_checkpoint(
    path: Path,
    metadata: Metadata,
    weights: Mapping[str, torch.Tensor],
    lsd: Checkpoint | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write a checkpoint atomically.

    Args:
        path: The file.
        metadata: What the network is.
        weights: Its state.
        lsd: The descriptor network that goes with it.
        dtype: What weights are stored as; `load_checkpoint` gives float32 whatever it is.

    Raises:
        UserError: The disk is full or the folder cannot be written.
    """
    content: dict[str, Any] = {"neuroloom_checkpoint": FORMAT, **_pack(metadata, weights, dtype)}
    if lsd is not None:
        content["lsd"] = {**_pack(lsd.metadata, lsd.network.state_dict(), dtype), "sha256": lsd.sha256}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())


def export_checkpoint(path: Path, to: Path, dtype: torch.dtype = torch.bfloat16) -> None:
    """Write a copy of a checkpoint with its weights in half precision: half the size.

    Args:
        path: The checkpoint.
        to: The copy.
        dtype: torch.bfloat16 (the range of float32) or torch.float16 (three more binary digits, up to 65504).

    Raises:
        UserError: It is missing, damaged, or a weight is too large for the number format.
    """
    loaded = load_checkpoint(path)
    for part in (loaded, loaded.lsd):
        for name, weight in part.network.state_dict().items() if part else ():
            if not bool(torch.isfinite(weight.to(dtype)).all()):
                raise UserError(f"{path}: {name} holds values too large for {dtype}. Export it as torch.bfloat16.")
    save_checkpoint(to, loaded.metadata, loaded.network.state_dict(), loaded.lsd, dtype)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: The file.

    Raises:
        UserError: It is missing, damaged, or no checkpoint of ours.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; name the checkpoint in it, such as {path / 'best.ckpt'}.")
    if not path.is_file():
        raise UserError(f"The checkpoint {path} does not exist. Train first, or name the right file.")
    raw = path.read_bytes()
    sha256 = hashlib.sha256(raw).hexdigest()
    try:
        content = load_tensors(raw)
    except Exception as error:  # PyTorch raises many types; all of them mean that the bytes are not what was written
        raise UserError(
            f"The checkpoint {path} cannot be read ({type(error).__name__}): it is damaged, or no checkpoint. "
            "Put a copy back, or train again."
        ) from error
    del raw  # large networks: each copy of the weights that is not there counts
    if not isinstance(content, dict) or "neuroloom_checkpoint" not in content:
        raise UserError(f"{path} is a PyTorch file, but no checkpoint of neuroloom. Name a best.ckpt or last.ckpt.")
    if content["neuroloom_checkpoint"] > FORMAT:
        raise UserError(f"{path} was written by a newer neuroloom (format {content['neuroloom_checkpoint']}). Update.")
    try:
        lsd = None
        if "lsd" in content:
            lsd = Checkpoint(*_unpack(content["lsd"]), lsd=None, sha256=str(content["lsd"]["sha256"]))
        return Checkpoint(*_unpack(content), lsd=lsd, sha256=sha256)
    except (ValidationError, KeyError, AttributeError, RuntimeError) as error:
        raise UserError(
            f"The checkpoint {path} is incomplete: its weights do not fit its description. Train again."
        ) from error


def load_tensors(raw: bytes, device: torch.device | str = "cpu") -> Any:
    """What `torch.save` wrote, with every byte verified: PyTorch itself takes flipped bits for weights.

    Args:
        raw: The file's content.
        device: Where tensors shall lie.

    Raises:
        Exception: Of many types, when the bytes are damaged or hold anything but tensors and plain values.
    """
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"the checksum of {damaged} is wrong")
    return torch.load(io.BytesIO(raw), map_location=device, weights_only=True)


def _pack(metadata: Metadata, weights: Mapping[str, torch.Tensor], dtype: torch.dtype) -> dict[str, Any]:
    cpu = {name: weight.detach().to("cpu", dtype, copy=True).contiguous() for name, weight in weights.items()}
    return {"metadata": metadata.model_dump_json(), "weights": cpu}


def _unpack(content: dict[str, Any]) -> tuple[Metadata, UNet]:
    metadata = Metadata.model_validate_json(content["metadata"])
    with torch.device("meta"):
        network = UNet(metadata.network)
    weights = content["weights"]
    network.load_state_dict({name: _laid_out(weights.pop(name)) for name in list(weights)}, assign=True)
    return metadata, network.eval()


def _laid_out(weight: torch.Tensor) -> torch.Tensor:
    """In float32; the weights of a convolution as convolutions take them."""
    order = torch.channels_last_3d if weight.dim() == 5 else torch.contiguous_format
    return weight.to(torch.float32, memory_format=order)
