"""Augmenting a batch: each sample is mapped, sampled and changed in its own way."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from neuroloom.networks.setups import LSD_CHANNELS
from neuroloom.project import Augmentation
from neuroloom.training.augmentation.intensity import change_intensity
from neuroloom.training.augmentation.map import draw_map
from neuroloom.training.augmentation.sampling import sample_descriptors, sample_image, sample_labels
from neuroloom.training.windows import Window
from neuroloom.volume.array import Triple


def augment(
    raw: Sequence[Window],
    labels: Sequence[Window],
    roles: Sequence[Window],
    generators: Sequence[torch.Generator],
    parameters: Augmentation,
    voxel_size: tuple[float, ...],
    raw_shape: Triple,
    label_shape: Triple,
    device: torch.device,
    descriptors: Sequence[Window] | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Augment a batch, each sample in its own way.

    Raw and labels have the same voxel size and the same centre, in the crop as in the result.

    Args:
        raw: Of each sample, uint8 or float32 in [0, 1], best of the `input_shape` of `raw_shape`.
        labels: Integers, best of the `input_shape` of `label_shape`; their extents may differ from those of raw by even
            numbers only, since otherwise the centres are half a voxel apart.
        roles: uint8, what each label is good for, of the same regions.
        generators: Of each sample, source of its random numbers, on the CPU, so that every device sees the same crops.
        parameters: What may happen.
        voxel_size: nm per voxel along z, y, x.
        raw_shape: The wanted extent of raw in voxels, z, y, x.
        label_shape: The wanted extent of the labels; may be smaller or larger than raw's, by even numbers.
        device: Where the results shall be; other than the processor, samples are made there.
        descriptors: Kept ones of the regions of raw, if there are any (see `training.kept`).

    Returns:
        raw `(b, 1, *raw_shape)` float32 in [0, 1], labels `(b, *label_shape)` int64, and roles `(b, *label_shape)`
        uint8; the latter two are 0 where a voxel comes from outside the crop or its volume, and raw is mirrored there.
        Descriptors `(b, 10, *raw_shape)` float32 in [0, 1], or None.

    Raises:
        ValueError: The shapes do not fit together.
    """
    z, y, x = (max(a, b) for a, b in zip(raw_shape, label_shape, strict=True))
    number = len(raw)
    new_raw = torch.empty((number, 1, *raw_shape), device=device)
    new_labels = torch.empty((number, *label_shape), dtype=torch.int64, device=device)
    new_roles = torch.empty((number, *label_shape), dtype=torch.uint8, device=device)
    new_descriptors = None
    if descriptors is not None:
        new_descriptors = torch.empty((number, LSD_CHANNELS, *raw_shape), device=device)
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        samples = zip(raw, labels, roles, generators, strict=True)
        for sample, (image, truth, role, generator) in enumerate(samples):
            _check(image.shape, truth.shape, raw_shape, label_shape)
            places = draw_map(generator, parameters, voxel_size, (z, y, x), image.shape)
            sample_image(image, places, new_raw[sample, 0])
            change_intensity(new_raw[sample, 0], generator, parameters, voxel_size)
            sample_labels(truth, role, places, new_labels[sample], new_roles[sample])
            if descriptors is not None and new_descriptors is not None:
                sample_descriptors(descriptors[sample], places, new_descriptors[sample])
    return new_raw, new_labels, new_roles, new_descriptors


def _check(raw: Triple, labels: Triple, raw_shape: Triple, label_shape: Triple) -> None:
    for of_raw, of_labels in ((raw, labels), (raw_shape, label_shape)):
        if any((a - b) % 2 for a, b in zip(of_raw, of_labels, strict=True)):
            raise ValueError(
                f"raw {of_raw} and labels {of_labels} have no common centre: their extents must differ by even numbers"
            )
