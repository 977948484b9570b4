"""What a checkpoint says of its network."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from neuroloom import __version__
from neuroloom.networks.architecture import UNetParameters
from neuroloom.volume.array import Nanometres, Triple


class Metadata(BaseModel):
    """What a network is and what it was trained for.

    Attributes:
        setup: A key of `SETUPS`.
        network: Its geometry.
        voxel_size: nm per voxel it was trained on, z y x.
        sigma_nm: Size of the descriptors' window; None for setups without descriptors.
        neighborhood: Offsets of the affinities, z y x; empty for `lsd`.
        raw_range: What raw 0 and 1 (uint8: 0 and 255) become before the network.
        iteration: Training steps so far.
        lsd_sha256: Content of the descriptor checkpoint this one was trained with.
        neuroloom: Version that wrote it.
        training: Losses, scores, and what else is worth knowing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    setup: str
    network: UNetParameters
    voxel_size: Nanometres
    sigma_nm: float | None
    neighborhood: tuple[Triple, ...] = ()
    raw_range: tuple[float, float] = (-1.0, 1.0)
    iteration: int
    lsd_sha256: str | None = None
    neuroloom: str = __version__
    training: dict[str, Any] = {}
