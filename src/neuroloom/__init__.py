"""neuroloom: from a few hand-segmented blocks of microscopy to every neuron in the volume."""

import os

# Threads of one convolution wait for each other some hundred times a step. By default they do so by spinning, and take
# the core from the very thread they wait for as soon as anything else runs, such as the thread that prepares batches:
# steps then take 2 to 4 times longer. Read by the OpenMP of PyTorch when it is loaded, so it has to be set before.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

__version__ = "0.1.0"
