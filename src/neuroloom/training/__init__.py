"""Training: crops, augmentation, targets (descriptors, affinities), loss weights, the loop, snapshots."""

import neuroloom.networks as networks  # noqa: F401  before PyTorch is loaded: see there
