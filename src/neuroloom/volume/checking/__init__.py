"""The doctor: what is right and wrong with volumes, and what settings they suggest."""

from neuroloom.volume.checking.check import check_volumes

__all__ = ["check_volumes"]
