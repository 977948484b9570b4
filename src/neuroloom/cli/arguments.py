"""Numbers typed on the command line: "8,8,8" as three numbers, with one sentence when they are not."""

from __future__ import annotations

from neuroloom.errors import UserError


def floats(text: str, option: str) -> tuple[float, float, float]:
    """Three numbers, z y x, written "40,4,4"; a single number stands for all three.

    Raises:
        UserError: They are not one or three numbers.
    """
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) == 1:
        values *= 3
    if len(values) != 3:
        raise UserError(f"{option} {text}: expected three numbers for z, y, x, such as {option} 40,4,4.")
    return values[0], values[1], values[2]


def integers(text: str, option: str) -> tuple[int, int, int]:
    """Three whole numbers, z y x, written "64,128,128"; a single number stands for all three.

    Raises:
        UserError: They are not one or three whole numbers.
    """
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) == 1:
        values *= 3
    if len(values) != 3:
        raise UserError(f"{option} {text}: expected three whole numbers for z, y, x, such as {option} 64,128,128.")
    return values[0], values[1], values[2]
