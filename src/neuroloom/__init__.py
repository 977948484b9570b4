"""neuroloom: from a few hand-segmented blocks of microscopy to every neuron in the volume."""

__version__ = "0.1.0"
