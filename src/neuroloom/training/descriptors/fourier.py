"""Moments over a spherical window by Fourier transforms, exact because they are whole numbers.

    sum over u of own(u) k(u - v)  =  inverse(transform(own) * conjugate(transform(k)))

for k = 1, z, y, x, zz, ..., yx within the sphere, in double precision, rounded to the whole numbers these sums are. The
box is as much larger than the label's as the sphere reaches, so that nothing comes round from the other side.
"""

from __future__ import annotations

from collections.abc import Sequence

import scipy.fft
import torch

from neuroloom.training.descriptors.windows import SURFACE, half_widths, sphere_radius

POWERS = ((), (0,), (1,), (2,), (0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
"""Axes whose offsets are multiplied for each moment: S, z y x, zz yy xx, zy zx yx."""


def sphere_moments(
    own: torch.Tensor,
    source: Sequence[tuple[int, int]],
    target: Sequence[tuple[int, int]],
    sigma: Sequence[float],
    flat: bool,
) -> torch.Tensor:
    """Moments over a sphere of equal weights that sum to 1.

    Args:
        own: a label's mask (z, y, x).
        source: first and last + 1 place of the mask along each axis.
        target: the same for the places where moments are wanted, a part of them.
        sigma: radii in voxels, z y x.
        flat: there is one plane only, and no z.

    Returns:
        (10, z', y', x') float64: S, z y x, zz yy xx, zy zx yx, in voxels.
    """
    half = half_widths(sigma)
    if flat:
        half = half[half.shape[0] // 2][None]
    shape, offsets = [], []
    for axis, extent in enumerate(own.shape):
        reach = 0 if flat and axis == 0 else min(sphere_radius(sigma[axis]), extent - 1)
        size = int(scipy.fft.next_fast_len(extent + reach, real=axis == 2))
        place = torch.arange(size, dtype=torch.float64, device=own.device)
        shape.append(size)
        offsets.append(
            torch.where(place > size // 2, place - size, place).reshape([-1 if a == axis else 1 for a in range(3)])
        )
    axes = (0, 1, 2)
    z, y, x = (offset / s for offset, s in zip(offsets, sigma, strict=True))
    inside = z**2 + y**2 + x**2 <= 1 + SURFACE
    mask = torch.fft.rfftn(own.double(), s=shape, dim=axes)
    wanted = tuple(slice(a - c, b - c) for (a, b), (c, _) in zip(target, source, strict=True))
    moments = []
    for power in POWERS:
        kernel = inside.double()
        for axis in power:
            kernel = kernel * offsets[axis]
        product = mask * torch.fft.rfftn(kernel, dim=axes).conj()
        moments.append(torch.fft.irfftn(product, s=shape, dim=axes)[wanted].round())
    return torch.stack(moments) / float((2 * half + 1)[half >= 0].sum())
