"""What a stage is, and running its blocks: frozen models, fingerprints, daisy, done-markers."""

from neuroloom.blockwise.intermediate import Unread
from neuroloom.blockwise.run import run_stage, run_stages
from neuroloom.blockwise.stage import Block, Source, Stage
from neuroloom.blockwise.work import Work

__all__ = ["Block", "Source", "Stage", "Unread", "Work", "run_stage", "run_stages"]
