"""Geometry of a project's networks."""

from __future__ import annotations

from neuroloom.networks.setups import SETUPS, network_parameters
from neuroloom.networks.unet import UNetParameters
from neuroloom.project import Parameters


def setups_to_train(setup: str) -> tuple[str, ...]:
    """What is trained for a setup, in order: its descriptor network first, if it needs one."""
    return ("lsd", setup) if SETUPS[setup].needs_lsd_network else (setup,)


def geometry(parameters: Parameters, setup: str) -> UNetParameters:
    """The network that a project trains for a setup.

    Args:
        parameters: The project.
        setup: A key of `SETUPS`.
    """
    return network_parameters(setup, parameters.network, parameters.training.neighborhood)
