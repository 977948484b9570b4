"""Sizes of labels and of their connected pieces, slab by slab.

    slab k     | a a . b |      pieces of each slab are found on their own; pieces that meet in the planes on both
    slab k+1   | a . . b |      sides of a border, with the same label, are one (26 neighbours)

A piece that ends at the border of what is labelled may go on outside; one that does not is whole as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import cc3d
import fastremap
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components


@dataclass(frozen=True)
class Pieces:
    """Connected pieces of labels.

    Attributes:
        label: `(n,)` uint64, the label of each piece.
        size: `(n,)` int64, its voxels.
        at_border: `(n,)` bool, whether it touches the border of the region or an unlabelled part.
        inside: Voxels where the mask is 1.
        labelled: Voxels of those that have a label.
        total: All voxels.
    """

    label: NDArray[np.uint64]
    size: NDArray[np.int64]
    at_border: NDArray[np.bool_]
    inside: int
    labelled: int
    total: int

    @property
    def by_label(self) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.bool_]]:
        """Ids, sorted, their voxels, and whether any of their pieces is at the border."""
        ids, index = np.unique(self.label, return_inverse=True)
        sizes = np.zeros(len(ids), np.int64)
        border = np.zeros(len(ids), bool)
        np.add.at(sizes, index, self.size)
        np.logical_or.at(border, index, self.at_border)
        return ids, sizes, border


def measure_pieces(slabs: Iterable[tuple[NDArray[np.uint64], NDArray[Any] | None]]) -> Pieces:
    """Find the connected pieces of all labels of one region.

    Args:
        slabs: Labels `(z, y, x)` and mask of the same shape (None for 1 everywhere), slab below slab, from the first
            plane of the region to the last.

    Returns:
        The pieces of all labels other than 0, where the mask is 1.
    """
    labels_of, sizes, borders = [np.zeros(1, np.uint64)], [np.zeros(1, np.int64)], [np.zeros(1, bool)]
    pairs: list[NDArray[np.int64]] = []
    last: tuple[NDArray[np.uint64], NDArray[np.int64]] | None = None
    count = inside = labelled = total = 0
    for labels, mask in slabs:
        if mask is not None:
            labels = np.where(mask != 0, labels, np.uint64(0))
        # numbers of this slab alone, 1 to n; `count` pieces came before
        found = cc3d.connected_components(np.ascontiguousarray(labels), connectivity=26)
        size = np.bincount(found.ravel())
        pieces = len(size) - 1
        label = np.zeros(pieces + 1, np.uint64)
        label[found] = labels
        border = np.zeros(pieces + 1, bool)
        for face in (found[:, 0], found[:, -1], found[:, :, 0], found[:, :, -1], *_cut_by_mask(found, mask)):
            border[face] = True
        if last is None:
            border[found[0]] = True
        else:
            pairs.append(_meetings(*last, labels[0], _renumbered(found[0], count)))
        labels_of.append(label[1:])
        sizes.append(size[1:])
        borders.append(border[1:])
        last = labels[-1].copy(), _renumbered(found[-1], count)
        count += pieces
        total += labels.size
        inside += labels.size if mask is None else int(np.count_nonzero(mask))
        labelled += int(size[1:].sum())
    border = np.concatenate(borders)
    if last is not None:
        touching = np.unique(last[1])
        border[touching[touching > 0]] = True
    joined = np.concatenate(pairs) if pairs else np.zeros((0, 2), np.int64)
    graph = coo_matrix((np.ones(len(joined), bool), (joined[:, 0], joined[:, 1])), shape=(count + 1,) * 2)
    number, piece = connected_components(graph, directed=False)
    all_sizes, all_borders = np.zeros(number, np.int64), np.zeros(number, bool)
    np.add.at(all_sizes, piece, np.concatenate(sizes))
    np.logical_or.at(all_borders, piece, border)
    all_labels = np.zeros(number, np.uint64)
    all_labels[piece] = np.concatenate(labels_of)
    real = all_sizes > 0
    return Pieces(all_labels[real], all_sizes[real], all_borders[real], inside, labelled, total)


def _renumbered(found: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Numbers of one slab's pieces as numbers among all pieces."""
    return np.where(found > 0, found.astype(np.int64) + count, 0)


def _cut_by_mask(found: NDArray[Any], mask: NDArray[Any] | None) -> list[NDArray[Any]]:
    """Numbers of the pieces that touch a voxel outside the mask."""
    if mask is None or mask.all():
        return []
    return [found[ndimage.binary_dilation(mask == 0, np.ones((3, 3, 3), bool))]]


def _meetings(
    labels_above: NDArray[np.uint64],
    pieces_above: NDArray[np.int64],
    labels: NDArray[np.uint64],
    pieces: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Pairs of pieces that touch across the border of two slabs, with the same label."""
    height, width = labels.shape
    most = int(pieces.max()) + 1
    met = []
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            here = (slice(max(0, dy), height + min(0, dy)), slice(max(0, dx), width + min(0, dx)))
            there = (slice(max(0, -dy), height + min(0, -dy)), slice(max(0, -dx), width + min(0, -dx)))
            same = (labels_above[here] == labels[there]) & (labels[there] != 0)
            # both numbers in one, so that they can be made unique fast
            met.append(fastremap.unique(pieces_above[here][same] * most + pieces[there][same]))
    pairs = np.unique(np.concatenate(met))
    return np.stack([pairs // most, pairs % most], axis=1)


def combine(parts: Iterable[Pieces]) -> Pieces:
    """Pieces of several regions together; a neuron in two regions has a piece in each."""
    listed = list(parts)
    return Pieces(
        np.concatenate([p.label for p in listed]),
        np.concatenate([p.size for p in listed]),
        np.concatenate([p.at_border for p in listed]),
        sum(p.inside for p in listed),
        sum(p.labelled for p in listed),
        sum(p.total for p in listed),
    )
