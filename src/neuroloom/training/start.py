"""Fine-tuning: a training that starts from given weights of the same network instead of random ones."""

from __future__ import annotations

from pathlib import Path

from neuroloom.errors import UserError
from neuroloom.networks.checkpoint import load_checkpoint
from neuroloom.networks.unet import UNet
from neuroloom.training.job import TrainingJob


def start_from(network: UNet, job: TrainingJob, path: Path) -> None:
    """Take over the weights of a checkpoint; head and all.

    Args:
        network: Where the weights go.
        job: What is trained; a descriptor network starts from the one that an affinity network's checkpoint carries.
        path: The checkpoint.

    Raises:
        UserError: The file is not the one that the job names, or holds another network.
    """
    loaded = load_checkpoint(path)
    if loaded.sha256 != job.start_sha256:
        raise UserError(f"{path} is not the file this training was to start from. Put the right file back.")
    part = loaded.lsd if loaded.lsd is not None and job.setup == "lsd" else loaded
    if part.metadata.setup != job.setup or part.metadata.network != network.geometry:
        raise UserError(
            f"{path} holds a network of setup {part.metadata.setup!r} that is not the one to be trained "
            f"({job.setup!r}); only a network of the same setup and size can start from it."
        )
    network.load_state_dict(part.network.state_dict())
