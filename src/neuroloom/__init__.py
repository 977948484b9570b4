"""neuroloom: from a few hand-segmented blocks of microscopy to every neuron in the volume."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuroloom.training.descriptors import lsd

# Threads of one convolution wait for each other some hundred times a step. By default they do so by spinning, and take
# the core from the very thread they wait for as soon as anything else runs, such as the thread that prepares batches:
# steps then take 2 to 4 times longer. Read by the OpenMP of PyTorch when it is loaded, so it has to be set before.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__version__ = "0.1.0"

__all__ = ["__version__", "lsd"]


def __getattr__(name: str) -> Any:
    # loaded when it is used, so that `import neuroloom`, and the command line with it, stay fast
    if name == "lsd":
        from neuroloom.training.descriptors import lsd

        return lsd
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
