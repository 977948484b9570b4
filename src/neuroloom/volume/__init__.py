"""Room 1: an array with a place in space (nm); open, create, convert, check, sample data."""

from neuroloom.volume.array import Volume, create_volume, open_volume

__all__ = ["Volume", "create_volume", "open_volume"]
