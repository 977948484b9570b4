"""Augmentation: every crop is turned, mirrored, bent and shaken before the network sees it.

map         from each voxel of the result back to a place in the crop; how large the crop has to be
sampling    raw interpolated once (trilinear), labels and their roles looked up once (nearest)
kernels     the same on the processor
intensity   contrast, brightness, noise, defocus, dark and missing sections
apply       all of it, for a batch

What may happen, and how strongly, is `neuroloom.project.Augmentation`.
"""

from neuroloom.project import Augmentation
from neuroloom.training.augmentation.apply import augment
from neuroloom.training.augmentation.map import input_shape, margin

NO_AUGMENTATION = Augmentation(
    mirror=False,
    transpose=False,
    rotation=(0.0, 0.0),
    elastic_jitter=0.0,
    slip=0.0,
    shift=0.0,
    intensity_scale=(1.0, 1.0),
    intensity_shift=(0.0, 0.0),
    defocused_sections=0.0,
    dark_sections=0.0,
    missing_sections=0.0,
)
"""Nothing happens, apart from cutting the result out of the middle of the crop."""

__all__ = ["NO_AUGMENTATION", "augment", "input_shape", "margin"]
