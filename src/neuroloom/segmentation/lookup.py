"""A threshold cuts the merge forest; what still hangs together is a segment.

    fragments   3 --0.1-- 5 --0.4-- 8      threshold 0.28  ->  3 -> 3, 5 -> 3, 8 -> 8
                                           threshold 0.40  ->  3 -> 3, 5 -> 3, 8 -> 3

A segment is called by the smallest id of its fragments. RAISING the threshold merges more.

What is too small to be a piece of a neurite (an orphan) goes on to merge above the threshold until it is large enough.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from neuroloom.agglomeration.forest import Forest, find_root
from neuroloom.errors import UserError
from neuroloom.files import write_atomic
from neuroloom.fragments import labels

KEY = "fragment_segment_lut"


def lookup_table(forest: Forest, threshold: float, orphans: int = 0) -> NDArray[np.uint64]:
    """Which segment each fragment belongs to: connected components of the edges with score <= threshold.

    Then, as long as a segment of fewer than `orphans` voxels has an edge left, that of the lowest score of all these
    merges.

    Args:
        forest: The merge forest.
        threshold: Compared in the scores' own precision (float32), so that a score of 0.28 is within 0.28.
        orphans: In voxels; 0 leaves all segments as the threshold has cut them.

    Returns:
        `(2, n)`: fragments, ascending; and their segments.
    """
    smallest = _components(forest.size, forest.u, forest.v, forest.score, np.float32(threshold), orphans)
    return np.stack([forest.nodes, forest.nodes[smallest]])


def lookup_name(threshold: float) -> str:
    """The file name of a threshold's lookup table: the threshold written out, so that no two share one.

    Example:
        >>> lookup_name(0.28)
        'lut-0.28.npz'
    """
    # + 0.0 turns -0.0 into the equal 0.0
    return f"lut-{float(threshold) + 0.0!r}.npz"


def save_lookup(table: NDArray[np.uint64], folder: Path, threshold: float) -> Path:
    """Write a lookup table to `folder`, atomically.

    Args:
        table: `(2, n)`.
        folder: Where the tables lie.
        threshold: Names the file.

    Returns:
        The file.

    Raises:
        UserError: The disk is full or the folder cannot be written.
    """
    path = folder / lookup_name(threshold)
    write_atomic(path, lambda file: np.savez(file, fragment_segment_lut=table))
    return path


def load_lookup(folder: Path, threshold: float) -> NDArray[np.uint64]:
    """Read a lookup table.

    Args:
        folder: Where the tables lie.
        threshold: Of the table.

    Returns:
        `(2, n)`: fragments, ascending; and their segments.

    Raises:
        UserError: It is missing or damaged.
    """
    path = folder / lookup_name(threshold)
    try:
        with np.load(path, allow_pickle=False) as content:
            table = content[KEY]
    except FileNotFoundError as error:
        there = sorted(p.name.removeprefix("lut-").removesuffix(".npz") for p in folder.glob("lut-*.npz"))
        raise UserError(
            f"{path} does not exist; there are tables for the thresholds {', '.join(there) or 'none'}. Choose one of "
            "them, or add this one to the project's thresholds."
        ) from error
    except Exception as error:  # zipfile, numpy and zlib each raise their own
        raise UserError(f"{path} is no lookup table ({error}). Delete it and run segmentation again.") from error
    if table.dtype != np.uint64 or table.ndim != 2 or table.shape[0] != 2:
        raise UserError(
            f"{path}: {KEY} is {table.dtype} of shape {table.shape}; expected uint64 (2, n). Delete it and run "
            "segmentation again."
        )
    return table


def relabel(fragments: NDArray[np.uint64], table: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Replace fragments by their segments; 0 stays 0.

    Args:
        fragments: Any shape.
        table: `(2, n)`: fragments, ascending; and their segments.

    Returns:
        Segments, of the shape of `fragments`.

    Raises:
        UserError: A fragment is not in the table.
    """
    try:
        return labels.relabel(fragments, table[0], table[1])
    except KeyError as error:
        raise UserError(
            f"Fragment {error.args[0]} is not in the lookup table of {len(table[0])} fragments: the table belongs to "
            "other fragments. Run agglomeration and segmentation again."
        ) from error


@numba.njit(cache=True)
def _components(node_size: Any, u: Any, v: Any, score: Any, threshold: np.float32, orphans: int) -> Any:
    """The smallest node of every node's component; edges come by ascending score."""
    parent, size = np.arange(len(node_size)), node_size.copy()
    for i in range(len(u)):
        a, b = find_root(parent, u[i]), find_root(parent, v[i])
        if score[i] > threshold and size[a] >= orphans and size[b] >= orphans:
            continue
        # the smaller root stays, so a root is the smallest of its tree
        a, b = min(a, b), max(a, b)
        parent[b] = a
        size[a] += size[b]
    for i in range(len(parent)):
        parent[i] = find_root(parent, i)
    return parent
