"""What light, focus and the microtome do to an image: contrast, brightness, noise, defocus, dark and missing sections.

    image -> blur, of the crop or of single sections -> contrast and brightness -> noise -> within [0, 1]

In serial sections each section has its own contrast, brightness and noise. A dark section has little of both contrast
and brightness, a missing one is black.
"""

from __future__ import annotations

import math

import torch

from neuroloom.project import Augmentation
from neuroloom.project.augmentation import DAMAGED_SECTIONS
from neuroloom.volume.units import are_serial_sections


def change_intensity(
    image: torch.Tensor, generator: torch.Generator, parameters: Augmentation, voxel_size: tuple[float, ...]
) -> None:
    """Change an image as another section, day or microscope would have.

    Args:
        image: `(z, y, x)` float32 in [0, 1]; changed in place.
        generator: Source of all random numbers, on the CPU.
        parameters: What may happen.
        voxel_size: nm per voxel along z, y, x.
    """
    serial, sections = are_serial_sections(voxel_size), image.shape[0]
    parts = sections if serial else 1

    def uniform(limits: tuple[float, float], number: int) -> torch.Tensor:
        low, high = limits
        return low + (high - low) * torch.rand(number, generator=generator, dtype=torch.float64)

    def chosen(probability: float | None, number: int) -> torch.Tensor:
        if probability is None:
            probability = DAMAGED_SECTIONS if serial else 0.0
        return torch.rand(number, generator=generator, dtype=torch.float64) < probability

    # drawn whether used or not, so that one kind of change does not alter the others
    scale, shift = uniform(parameters.intensity_scale, parts), uniform(parameters.intensity_shift, parts)
    blurred, blur = chosen(parameters.defocus, 1), uniform(parameters.defocus_sigma, 1)
    unsharp, blurs = chosen(parameters.defocused_sections, sections), uniform(parameters.defocus_sigma, sections)
    dark, darkness = chosen(parameters.dark_sections, sections), uniform(parameters.dark_scale, sections)
    missing = chosen(parameters.missing_sections, sections)
    noisy, deviation = chosen(parameters.noise, parts), uniform(parameters.noise_deviation, parts)

    if blurred:
        sigma = [float(blur) * min(voxel_size) / size for size in voxel_size]
        image.copy_(_blur(image, [0.0, *sigma[1:]] if serial else sigma))
    for z in unsharp.nonzero()[:, 0].tolist():
        image[z] = _blur(image[None, z], [0.0, float(blurs[z]), float(blurs[z])])[0]
    mean = image.mean(dim=(1, 2) if serial else (0, 1, 2)).double().cpu()
    # value -> (value - mean) * scale + mean + shift, darkened or blackened: one factor and one summand per section
    gain = torch.where(dark, darkness, 1.0) * ~missing
    summand = (mean * (1 - scale) + shift) * gain
    torch.addcmul(_column(summand, image), image, _column(scale * gain, image), out=image)
    if noisy.any():
        strength = torch.where(noisy, deviation, 0.0) * ~missing
        image += torch.randn(image.shape, generator=generator).to(image.device) * _column(strength, image)
    image.clamp_(0, 1)


def _column(values: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """A number per section, to be combined with the image."""
    return values.to(image)[:, None, None]


def _blur(image: torch.Tensor, sigma: list[float]) -> torch.Tensor:
    """Gaussian blur of `(z, y, x)`, sigma in voxels along each axis; the border is repeated outwards."""
    for axis, width in enumerate(sigma):
        if width == 0:
            continue
        radius = math.ceil(3 * width)
        kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=image.device) / width) ** 2)
        kernel /= kernel.sum()
        size = image.shape[axis]
        padded = image.index_select(axis, torch.arange(-radius, size + radius, device=image.device).clamp(0, size - 1))
        blurred = torch.zeros_like(image)
        for step, weight in enumerate(kernel.tolist()):
            blurred.add_(padded.narrow(axis, step, size), alpha=weight)
        image = blurred
    return image
