"""What goes into the networks of the five setups and what comes out."""

from __future__ import annotations

import pytest

from neuroloom.networks.setups import SETUPS, network_parameters
from neuroloom.project import Network


@pytest.mark.parametrize(
    ("setup", "channels", "heads"),
    [
        ("lsd", 1, (("lsd", 10),)),
        ("affs", 1, (("affinities", 3),)),
        ("mtlsd", 1, (("lsd", 10), ("affinities", 3))),
        ("aclsd", 10, (("affinities", 3),)),
        ("acrlsd", 11, (("affinities", 3),)),
    ],
)
def test_channels_are_the_published_ones(setup: str, channels: int, heads: tuple[tuple[str, int], ...]) -> None:
    geometry = network_parameters(setup, Network())
    assert geometry.in_channels == channels
    assert geometry.heads == heads


def test_size_and_neighbourhood_are_taken_over() -> None:
    kernels = ((1, 3, 3), (3, 3, 3))
    network = Network(feature_maps=7, growth=2, downsampling=((1, 3, 3),), kernels=kernels, upsampling="nearest")
    geometry = network_parameters("acrlsd", network, ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (-3, 0, 0)))
    assert geometry.heads == (("affinities", 4),)
    assert (geometry.feature_maps, geometry.growth, geometry.downsampling) == (7, 2, ((1, 3, 3),))
    assert geometry.upsampling == "nearest"
    assert geometry.kernels == kernels


def test_only_setups_fed_with_descriptors_need_their_network() -> None:
    assert {name for name, setup in SETUPS.items() if setup.needs_lsd_network} == {"aclsd", "acrlsd"}
