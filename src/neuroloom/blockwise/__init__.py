"""What a stage is, and running its blocks: frozen models, fingerprints, daisy, done-markers."""

from neuroloom.blockwise.run import run_stage
from neuroloom.blockwise.stage import Block, Source, Stage

__all__ = ["Block", "Source", "Stage", "run_stage"]
