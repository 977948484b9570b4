"""Training: crops, augmentation, targets (descriptors, affinities), loss weights, the loop, snapshots."""
