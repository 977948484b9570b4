"""The setups as declarations: what a network sees and what it learns. A new one is one more entry of `SETUPS`.

    lsd       raw           -> descriptors
    affs      raw           -> affinities            the baseline
    mtlsd     raw           -> descriptors and affinities, losses added
    aclsd     descriptors   -> affinities            descriptors of a frozen lsd network
    acrlsd    raw and descriptors -> affinities      likewise; raw is cut to the descriptors' extent

The loss is the mean squared error over voxels that are masked in; for affinities its classes are balanced.

Source: Sheridan et al. 2022, doi:10.1038/s41592-022-01711-z.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from neuroloom.networks.architecture import UNetParameters
from neuroloom.project import NEAREST, Network
from neuroloom.volume.array import Triple

LSD_CHANNELS = 10
NEIGHBORHOOD = NEAREST
"""Offsets of the affinities to the nearest neighbours, z y x."""


@dataclass(frozen=True)
class Setup:
    """What a network sees and what it learns.

    Attributes:
        title: What it is called in the report and in help.
        inputs: "raw" and "lsd", in the order of the input's channels.
        outputs: "lsd" and "affinities", in the order of the output's channels; each is a head of the network.
    """

    title: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def needs_lsd_network(self) -> bool:
        """Whether a trained descriptor network makes part of the input."""
        return "lsd" in self.inputs

    @property
    def gives_affinities(self) -> bool:
        """Whether volumes can be segmented with it."""
        return "affinities" in self.outputs


SETUPS = {
    "lsd": Setup("descriptors", ("raw",), ("lsd",)),
    "affs": Setup("affinities from raw", ("raw",), ("affinities",)),
    "mtlsd": Setup("descriptors and affinities from raw", ("raw",), ("lsd", "affinities")),
    "aclsd": Setup("affinities from descriptors", ("lsd",), ("affinities",)),
    "acrlsd": Setup("affinities from raw and descriptors", ("raw", "lsd"), ("affinities",)),
}


def network_parameters(setup: str, network: Network, neighborhood: Sequence[Triple] = NEIGHBORHOOD) -> UNetParameters:
    """The network of a setup.

    Args:
        setup: A key of `SETUPS`.
        network: Its size, as in the project file.
        neighborhood: Offsets of the affinities in voxels, z y x.
    """
    channels = {"raw": 1, "lsd": LSD_CHANNELS, "affinities": len(neighborhood)}
    return UNetParameters(
        in_channels=sum(channels[name] for name in SETUPS[setup].inputs),
        heads=tuple((name, channels[name]) for name in SETUPS[setup].outputs),
        feature_maps=network.feature_maps,
        growth=network.growth,
        downsampling=network.downsampling,
        kernels=network.kernels,
        upsampling=network.upsampling,
    )
