"""Made tissue with exact truth: skeletons -> cells -> truth and image, block by block."""

from neuroloom.volume.sample.blocks import SampleParameters, make_block, write_sample

__all__ = ["SampleParameters", "make_block", "write_sample"]
