"""Local shape descriptors (LSDs): what an object looks like around each of its voxels.

For a voxel v of label l != 0, with offsets d = u - v in nm and weights w(u) = W(d) [label(u) = l], where W is a window
normalised to sum 1 (voxels outside the array have no label):

    S = sum w        m = sum w d / S        C = sum w d d' / S - m m'

    channels   0-2  mean offset       m_z m_y m_x                / sigma * 0.5 + 0.5
               3-5  variances         C_zz C_yy C_xx             / sigma^2   (at least 1e-3 nm^2)
               6-8  Pearson           zy, zx, yx                 * 0.5 + 0.5
               9    size              S

all clipped to [0, 1], and 0 where the label is 0. In two dimensions: 2 + 2 + 1 + 1 = 6 channels.

    window "gaussian"  W falls off as a Gaussian of standard deviation sigma and ends at 3 sigma on every axis
    window "sphere"    W is the same everywhere in the ellipsoid of radii sigma; mean offsets are divided by sigma / 2

Downsampled by n, the sums run over every n-th voxel along each axis, starting with the first, and are taken at those
voxels: v has the descriptor of its own label at the first voxel of its block of n^3. Where no voxel of the label is
left within the window, S is 0, and the label counts as a point at v.

    arguments   what may be asked for                 runs      labels -> runs along x -> columns of one label each
    windows     kernels and their reach               moments   columns -> descriptors, Gaussian window
    channels    moments -> channels                   sphere    columns -> descriptors, spherical window
    compute     `lsd`: an array, on all cores         matrices  `lsd_torch`: a batch, where it is; fourier: its spheres

Source: Sheridan et al., "Local shape descriptors for neuron segmentation", Nature Methods 2022,
doi:10.1038/s41592-022-01711-z.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neuroloom.training.descriptors.compute import lsd
from neuroloom.training.descriptors.windows import Window, context

if TYPE_CHECKING:
    from neuroloom.training.descriptors.matrices import lsd_by_matrices, lsd_torch

__all__ = ["Window", "context", "lsd", "lsd_by_matrices", "lsd_torch"]


def __getattr__(name: str) -> Any:
    # torch is loaded by those who use it only: the kernels also serve programs that have none
    if name in ("lsd_by_matrices", "lsd_torch"):
        from neuroloom.training.descriptors import matrices

        return getattr(matrices, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
