"""Descriptors in a gunpowder pipeline: the node `AddLocalShapeDescriptor` of `lsds`, with our kernel.

    request   descriptors of a roi   ->   labels of the roi and its context
    process   labels                 ->   descriptors, and where they count

It takes the arguments of the original node and gives the same targets, so that a training script changes one line:

    from neuroloom.exchange.gunpowder_node import AddLocalShapeDescriptor

gunpowder 1.4 wants a zarr below 3, the rest of neuroloom one above: this module needs gunpowder, numpy and numba only.
"""

from __future__ import annotations

from collections.abc import Iterable

import gunpowder as gp
import numpy as np

from neuroloom.training.descriptors import Window, context, lsd


class AddLocalShapeDescriptor(gp.BatchFilter):
    """Adds local shape descriptors of a segmentation to each batch.

    Args:
        segmentation: Key of the labels, `(z, y, x)` or `(y, x)`, 0 = background.
        descriptor: Key of what is added, `(10, z, y, x)` or `(6, y, x)` float32 in [0, 1].
        lsds_mask: Key of an array of the same shape that is 1 where descriptors count and 0 elsewhere: in the
            background, or, with `labels_mask`, where that is 0.
        labels_mask: Key of a mask of the labels.
        unlabelled: Key of an array that is 0 where nobody has labelled; does not count either.
        sigma: Standard deviation of the Gaussian, or radius of the sphere, in the units of the voxel size (nm); one, or
            one per axis.
        mode: "gaussian" or "sphere".
        components: The channels wanted, in ascending order, as a string such as "0129" or as numbers; all by default.
        downsample: Compute on every n-th voxel along each axis, counted from the first of the requested roi.

    Raises:
        ValueError: When the pipeline is built, if sigma, mode, components or downsample make no sense.
    """

    def __init__(
        self,
        segmentation: gp.ArrayKey,
        descriptor: gp.ArrayKey,
        lsds_mask: gp.ArrayKey | None = None,
        labels_mask: gp.ArrayKey | None = None,
        unlabelled: gp.ArrayKey | None = None,
        sigma: float | Iterable[float] = 5.0,
        mode: Window = "gaussian",
        components: Iterable[int | str] | None = None,
        downsample: int = 1,
    ) -> None:
        self.segmentation, self.descriptor, self.lsds_mask = segmentation, descriptor, lsds_mask
        self.masks = [key for key in (labels_mask, unlabelled) if key is not None]
        self.background_counts = labels_mask is not None
        self.sigma = tuple(sigma) if isinstance(sigma, Iterable) else float(sigma)
        self.mode, self.downsample = mode, downsample
        self.components = None if components is None else [int(channel) for channel in components]

    def setup(self) -> None:
        """Announce what is added."""
        spec = self.spec[self.segmentation].copy()
        spec.dtype = np.float32
        self.voxel_size = spec.voxel_size
        dimensions = len(self.voxel_size)
        if isinstance(self.sigma, tuple):
            # as the original, which takes three for two axes as well
            self.sigma = self.sigma[:dimensions]
        # what makes no sense is refused here rather than by a worker in the middle of the night
        reach = context(self.sigma, self.voxel_size, self.downsample, self.mode)
        lsd(np.zeros((1,) * dimensions, np.uint8), self.sigma, self.voxel_size, components=self.components)
        self.context = gp.Coordinate(reach) * self.voxel_size
        self.provides(self.descriptor, spec)
        if self.lsds_mask is not None:
            self.provides(self.lsds_mask, spec.copy())
        self.enable_autoskip()

    def prepare(self, request: gp.BatchRequest) -> gp.BatchRequest:
        """Ask for labels with context, and for masks."""
        roi = self._roi(request)
        needed = gp.BatchRequest()
        needed[self.segmentation] = gp.ArraySpec(roi.grow(self.context, self.context))
        for key in self.masks:
            needed[key] = gp.ArraySpec(roi)
        return needed

    def process(self, batch: gp.Batch, request: gp.BatchRequest) -> gp.Batch:
        """Add descriptors, and where they count."""
        roi = self._roi(request)
        # others may have asked for more: the grid of every n-th voxel begins where ours does
        labels = batch[self.segmentation].crop(roi.grow(self.context, self.context))
        inner = ((roi - labels.spec.roi.offset) / self.voxel_size).to_slices()
        descriptors = lsd(labels.data, self.sigma, self.voxel_size, self.downsample, inner, self.components, self.mode)
        spec = self.spec[self.descriptor].copy()
        spec.roi = roi
        added = gp.Batch()
        added[self.descriptor] = gp.Array(descriptors, spec)
        if self.lsds_mask is not None and self.lsds_mask in request:
            counts = np.ones(roi.shape / self.voxel_size, np.float32)
            if not self.background_counts:
                counts[labels.data[inner] == 0] = 0
            for key in self.masks:
                counts = counts * batch[key].crop(roi).data
            added[self.lsds_mask] = gp.Array(np.broadcast_to(counts, descriptors.shape).astype(np.float32), spec.copy())
        return added

    def _roi(self, request: gp.BatchRequest) -> gp.Roi:
        key = self.descriptor if self.descriptor in request else self.lsds_mask
        return request[key].roi
