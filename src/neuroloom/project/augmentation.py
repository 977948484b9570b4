"""What may happen to a training crop, and how strongly: the section `[training.augmentation]` of the project file.

Defaults are the published values for isotropic volumes (Sheridan et al. 2022, doi:10.1038/s41592-022-01711-z). Serial
sections (voxels 2 or more times longer in z) are cut and imaged one by one, and each may be lost, dark or out of focus:
where the file says nothing, that happens now and then to serial sections, and never to others.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _ordered(values: tuple[float, float]) -> tuple[float, float]:
    if values[0] > values[1]:
        raise ValueError(f"the smallest of [{values[0]:g}, {values[1]:g}] is larger than the largest")
    return values


Probability = Annotated[float, Field(ge=0.0, le=1.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Range = Annotated[tuple[float, float], AfterValidator(_ordered)]
PositiveRange = Annotated[tuple[NotNegative, NotNegative], AfterValidator(_ordered)]

DAMAGED_SECTIONS = 0.02
"""Probability of each kind of damage to a serial section, where the project file says nothing."""


class Augmentation(BaseModel):
    """What happens to training crops at random, so that the network has seen more than there is."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mirror: bool = Field(True, description="flip each axis with probability one half")
    transpose: bool = Field(True, description="exchange axes of equal voxel size")
    rotation: Range = Field(
        (0.0, 90.0), description="smallest and largest angle in degrees; only in planes of equal voxel size"
    )
    elastic_spacing: float = Field(
        40.0, gt=0.0, description="distance of the control points, in voxels of the finest axis (the same nm on all)"
    )
    elastic_jitter: float = Field(
        2.0, ge=0.0, description="standard deviation of their displacement, in voxels of the finest axis; 0: none"
    )
    slip: Probability = Field(0.01, description="probability that a section is displaced on its own")
    shift: Probability = Field(0.01, description="probability that a section and all that follow are displaced")
    largest_misalignment: int = Field(1, ge=0, description="largest such displacement in y and x, in voxels")
    intensity_scale: Range = Field((0.9, 1.1), description="factor of the contrast; serial sections: of each section")
    intensity_shift: Range = Field(
        (-0.1, 0.1), description="added to the brightness (0 black, 1 white); serial sections: of each"
    )
    noise: Probability = Field(0.0, description="probability that a crop gets Gaussian noise; serial sections: each")
    noise_deviation: PositiveRange = Field((0.0, 0.1), description="its standard deviation (0 black, 1 white)")
    defocus: Probability = Field(0.0, description="probability that a whole crop is out of focus")
    defocused_sections: Probability | None = Field(
        None, description=f"probability that a section is out of focus; default: {DAMAGED_SECTIONS} in serial sections"
    )
    defocus_sigma: PositiveRange = Field((0.5, 2.0), description="Gaussian blur of both, in voxels of the finest axis")
    dark_sections: Probability | None = Field(
        None, description=f"probability that a section is dark; default: {DAMAGED_SECTIONS} in serial sections"
    )
    dark_scale: PositiveRange = Field((0.1, 0.5), description="factor of a dark section's brightness and contrast")
    missing_sections: Probability | None = Field(
        None, description=f"probability that a section is black; default: {DAMAGED_SECTIONS} in serial sections"
    )
