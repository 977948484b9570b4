"""Both networks in one module: the extents it takes, and the affinities it gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neuroloom.models.bioimageio.fused import extents, fuse
from neuroloom.networks.architecture import output_shape
from neuroloom.networks.checkpoint import Checkpoint, load_checkpoint
from neuroloom.networks.setups import SETUPS
from neuroloom.networks.unet import crop
from neuroloom.prediction.predictor import Predictor
from small_model import save_weights

ODD = {
    "feature_maps": 3,
    "growth": 2,
    "downsampling": [[1, 3, 3], [3, 1, 2]],
    "kernels": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
}
"""The descriptor network gives more than the affinity network takes: 27 is no multiple of two."""


def definition(checkpoint: Checkpoint, raw: torch.Tensor) -> torch.Tensor:
    """One network after the other, everything cut in the middle; raw in [0, 1]."""
    metadata, lsd = checkpoint.metadata, checkpoint.lsd
    values = raw * 2 - 1
    if lsd is not None:
        descriptors = (lsd.network(values) * 255).round() / 255
        sizes = extents(lsd.metadata.network, metadata.network)
        shape = [n - 2 * s for n, s in zip(descriptors.shape[-3:], sizes.surplus, strict=True)]
        parts = {"raw": crop(values, shape), "lsd": crop(descriptors, shape)}
        values = torch.cat([parts[name] for name in SETUPS[metadata.setup].inputs], dim=1)
    output = checkpoint.network(values)
    begin = 0
    for name, channels in metadata.network.heads:
        if name == "affinities":
            return output[:, begin : begin + channels]
        begin += channels
    raise AssertionError


@pytest.mark.parametrize("setup", [name for name, setup in SETUPS.items() if setup.gives_affinities])
@pytest.mark.parametrize(
    "network", [None, ODD, {**ODD, "upsampling": "trilinear"}, {**ODD, "upsampling": "nearest"}], ids=str
)
def test_it_is_the_networks_one_after_the_other(tmp_path: Path, setup: str, network: dict[str, Any] | None) -> None:
    checkpoint = load_checkpoint(save_weights(tmp_path / "best.ckpt", setup, network))
    module = fuse(checkpoint)
    sizes = extents(checkpoint.lsd.metadata.network if checkpoint.lsd else None, checkpoint.metadata.network)
    for steps in ((0, 0, 0), (0, 1, 2)):
        shape = [s + k * n for s, k, n in zip(sizes.smallest, steps, sizes.step, strict=True)]
        raw = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            found, expected = module(raw), definition(checkpoint, raw)
        assert list(found.shape[-3:]) == [n - c for n, c in zip(shape, sizes.context, strict=True)]
        # a descriptor in the middle between two of 256 values may be rounded to either
        torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)


def test_surplus_is_even_and_the_smallest_input_is_the_smallest(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(save_weights(tmp_path / "best.ckpt", "acrlsd", ODD))
    assert checkpoint.lsd is not None
    outer, inner = checkpoint.lsd.metadata.network, checkpoint.metadata.network
    sizes = extents(outer, inner)
    assert any(sizes.surplus)
    descriptors = output_shape(outer, sizes.smallest)
    given = output_shape(inner, [d - 2 * s for d, s in zip(descriptors, sizes.surplus, strict=True)])
    assert given == tuple(n - c for n, c in zip(sizes.smallest, sizes.context, strict=True))
    less = [n - s for n, s in zip(sizes.smallest, sizes.step, strict=True)]
    for axis in range(3):
        extent = [*sizes.smallest]
        extent[axis] = less[axis]
        smaller = output_shape(outer, extent)
        with pytest.raises(ValueError, match="network does not take"):
            output_shape(inner, [d - 2 * s for d, s in zip(smaller, sizes.surplus, strict=True)])


@pytest.mark.parametrize("setup", ["acrlsd", "mtlsd"])
def test_it_is_what_neuroloom_predicts(tmp_path: Path, setup: str) -> None:
    neighborhood = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (-3, 0, 0))
    path = save_weights(tmp_path / "best.ckpt", setup, neighborhood=neighborhood)
    predictor = Predictor(path, "cpu", "fp32")
    shape = (8, 10, 12)
    raw = np.random.default_rng(0).integers(0, 256, predictor.input_shape(shape), dtype=np.uint8)
    with torch.no_grad():
        found = fuse(load_checkpoint(path))(torch.from_numpy(raw)[None, None] / 255)[0].numpy()
    expected = predictor(raw, shape)
    assert found.shape == expected.shape == (4, *shape)
    assert expected.std() > 20
    assert np.abs(found * 255 - expected).max() < 2  # a descriptor may be rounded to either of two values
