"""The chain of a project: what it is made of, its steps in order, how long they take, and the report."""

from neuroloom.chain.artifacts import Chain
from neuroloom.chain.checks import open_project
from neuroloom.chain.steps import Step, all_steps

__all__ = ["Chain", "Step", "all_steps", "open_project"]
