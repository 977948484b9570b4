"""Units of length as microscopy files write them, in nm, and what voxel sizes say."""

from __future__ import annotations

from collections.abc import Sequence

from neuroloom.errors import UserError

_NANOMETRES = {
    1e-1: ("å", "angstrom", "angstroms", "ångström"),
    1e-3: ("pm", "picometer", "picometre"),
    1.0: ("nm", "nanometer", "nanometers", "nanometre", "nanometres"),
    1e3: ("um", "µm", "μm", "\\u00b5m", "micron", "microns", "micrometer", "micrometers", "micrometre", "micrometres"),
    1e6: ("mm", "millimeter", "millimeters", "millimetre", "millimetres"),
    1e7: ("cm", "centimeter", "centimetre"),
    1e9: ("m", "meter", "metre"),
    2.54e7: ("inch", "in"),
}
_NO_LENGTH = ("", "pixel", "pixels", "px", "voxel", "voxels", "pixel unit", "reference frame", "null", "none")


def nanometres_per(unit: str, location: str) -> float | None:
    """How many nm one unit is.

    Args:
        unit: As the file writes it: "nm", "micrometer", "µm", ...
        location: The file, for messages.

    Returns:
        nm per unit, or None where the file says that it knows no length ("pixel").

    Raises:
        UserError: The unit is not known.
    """
    word = unit.strip().strip("\x00").lower()
    if word in _NO_LENGTH:
        return None
    for factor, names in _NANOMETRES.items():
        if word in names:
            return factor
    raise UserError(
        f"{location} gives its voxel size in {unit!r}, which is no known unit. Add --voxel-size Z,Y,X in nm."
    )


def are_serial_sections(voxel_size: Sequence[float]) -> bool:
    """Whether voxels are two or more times longer in z: sections were then cut and imaged one by one.

    Args:
        voxel_size: nm, z y x.
    """
    z, y, x = voxel_size
    return z >= 2 * max(y, x)
