"""Geometry of a project's networks."""

from __future__ import annotations

from neuroloom.networks.architecture import UNetParameters
from neuroloom.networks.setups import SETUPS, network_parameters
from neuroloom.project import Parameters, Training


def setups_to_train(setup: str, training: Training) -> tuple[str, ...]:
    """What is trained for a setup, in order: its descriptor network first, if it needs one and is not given one."""
    trains_lsd = SETUPS[setup].needs_lsd_network and training.descriptors is None
    return ("lsd", setup) if trains_lsd else (setup,)


def geometry(parameters: Parameters, setup: str) -> UNetParameters:
    """The network that a project trains for a setup.

    Args:
        parameters: The project.
        setup: A key of `SETUPS`.
    """
    return network_parameters(setup, parameters.network, parameters.training.neighborhood)
