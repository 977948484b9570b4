"""A threshold cuts the merge forest; what still hangs together is a segment.

    fragments   3 --0.1-- 5 --0.4-- 8      threshold 0.28  ->  3 -> 3, 5 -> 3, 8 -> 8
                                           threshold 0.40  ->  3 -> 3, 5 -> 3, 8 -> 3

A segment is called by the smallest id of its fragments. RAISING the threshold merges more.

What is too small to be a piece of a neurite (an orphan) goes on to merge above the threshold until it is large enough;
two segments that are both large, which only a false merge would join this late, stop to merge below it:

    score    0 ------ large_threshold ------ threshold ------ 1
    joins      all           |   not two large   |   orphans     the edges are taken by ascending score, and sizes are
                                                                 those of the segments as they are at that moment

A table is written twice: `lut-<threshold>.npz`, the form of the field, and `lut-<threshold>.arrow`, two columns that
are mapped into memory as they lie on the disk. Of these, a block reads its own rows only, and workers share one copy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, get_args

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import ipc

from neuroloom.agglomeration.forest import Forest
from neuroloom.errors import UserError
from neuroloom.files import write_atomic
from neuroloom.fragments import labels
from neuroloom.fragments.sets import find_root

KEY = "fragment_segment_lut"
COLUMNS = ("fragment", "segment")
Form = Literal["npz", "arrow"]


@dataclass(frozen=True)
class SizeRules:
    """How small and large segments merge otherwise than the threshold says.

    Attributes:
        orphans: Voxels; while a segment has fewer, it goes on to merge above the threshold. 0: none does.
        large: Voxels; two segments that both have as many merge up to `large_threshold` only. 0: no two are large.
        large_threshold: Merge score; of no effect where the threshold itself is lower.

    Raises:
        ValueError: A segment could be an orphan and large at once.
    """

    orphans: int = 0
    large: int = 0
    large_threshold: float = 0.0

    def __post_init__(self) -> None:
        if 0 < self.large < self.orphans:
            raise ValueError(f"segments of {self.large} voxels would be large, and orphans below {self.orphans}")


AS_CUT = SizeRules()
"""All segments are as the threshold cuts them."""


def lookup_table(forest: Forest, threshold: float, rules: SizeRules = AS_CUT) -> NDArray[np.uint64]:
    """Which segment each fragment belongs to: connected components of the edges with score <= threshold.

    Rules are followed edge by edge, lowest score first. The merge forest is enough for it: an edge that is not in it
    closes a circle of lower ones. If a rule kept two segments of that circle apart, both were large; and so are, at
    the higher score, the two that the edge joins.

    Args:
        forest: The merge forest.
        threshold: Compared in the scores' own precision (float32), so that a score of 0.28 is within 0.28.
        rules: For small and for large segments.

    Returns:
        `(2, n)`: fragments, ascending; and their segments.
    """
    limits = np.float32(threshold), np.float32(rules.large_threshold)
    smallest = _components(forest.size, forest.u, forest.v, forest.score, *limits, rules.orphans, rules.large)
    return np.stack([forest.nodes, forest.nodes[smallest]])


def lookup_name(threshold: float, form: Form = "npz") -> str:
    """The file name of a threshold's lookup table: the threshold written out, so that no two share one.

    Args:
        threshold: Of the table.
        form: Of the file.

    Example:
        >>> lookup_name(0.28)
        'lut-0.28.npz'
    """
    # + 0.0 turns -0.0 into the equal 0.0
    return f"lut-{float(threshold) + 0.0!r}.{form}"


def has_lookup(folder: Path, threshold: float) -> bool:
    """Whether a folder holds both files of a lookup table."""
    return all((folder / lookup_name(threshold, form)).exists() for form in get_args(Form))


def save_lookup(table: NDArray[np.uint64], folder: Path, threshold: float) -> Path:
    """Write both files of a lookup table to `folder`, atomically.

    Args:
        table: `(2, n)`.
        folder: Where the tables lie.
        threshold: Names the files.

    Returns:
        The npz file.

    Raises:
        UserError: The disk is full or the folder cannot be written.
    """
    columns = pa.table(dict(zip(COLUMNS, table, strict=True)))

    def write_arrow(file: IO[bytes]) -> None:
        # not compressed, so that it can be mapped
        with ipc.new_file(file, columns.schema) as writer:
            writer.write_table(columns)

    path = folder / lookup_name(threshold)
    write_atomic(folder / lookup_name(threshold, "arrow"), write_arrow)
    write_atomic(path, lambda file: np.savez(file, fragment_segment_lut=table))
    return path


def load_lookup(folder: Path, threshold: float) -> NDArray[np.uint64]:
    """Read a lookup table into memory.

    Args:
        folder: Where the tables lie.
        threshold: Of the table.

    Returns:
        `(2, n)`: fragments, ascending; and their segments.

    Raises:
        UserError: It is missing or damaged.
    """
    path = folder / lookup_name(threshold)
    with _explained(path):
        with np.load(path, allow_pickle=False) as content:
            table = content[KEY]
        if table.dtype != np.uint64 or table.ndim != 2 or table.shape[0] != 2:
            raise ValueError(f"{KEY} is {table.dtype} of shape {table.shape}; expected uint64 (2, n)")
    return table


def map_lookup(folder: Path, threshold: float) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Map a lookup table into memory: rows are read when they are looked at, and kept once for all processes.

    Args:
        folder: Where the tables lie.
        threshold: Of the table.

    Returns:
        `(n,)`: fragments, ascending; and `(n,)`: their segments. Both can only be read.

    Raises:
        UserError: It is missing or damaged.
    """
    path = folder / lookup_name(threshold, "arrow")
    with _explained(path):
        table = ipc.open_file(pa.memory_map(str(path))).read_all()
        if table.schema != pa.schema([(name, pa.uint64()) for name in COLUMNS]):
            raise ValueError(f"its columns are {table.schema}; expected {' and '.join(COLUMNS)} as uint64")
        if table.num_rows == 0:
            return np.empty(0, np.uint64), np.empty(0, np.uint64)
        fragments, segments = (table[name].chunk(0).to_numpy(zero_copy_only=True) for name in COLUMNS)
    return fragments, segments


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a table is read into a `UserError`."""
    try:
        yield
    except FileNotFoundError as error:
        there = sorted(p.stem.removeprefix("lut-") for p in path.parent.glob(f"lut-*{path.suffix}"))
        raise UserError(
            f"{path} does not exist; there are tables for the thresholds {', '.join(there) or 'none'}. Choose one of "
            "them, or add this one to the project's thresholds."
        ) from error
    except Exception as error:  # zipfile, numpy, zlib and Arrow each raise their own
        raise UserError(f"{path} is no lookup table ({error}). Delete it and run segmentation again.") from error


def relabel(
    fragments: NDArray[np.uint64], table: NDArray[np.uint64] | tuple[NDArray[np.uint64], NDArray[np.uint64]]
) -> NDArray[np.uint64]:
    """Replace fragments by their segments; 0 stays 0.

    Args:
        fragments: Any shape.
        table: Fragments, ascending; and their segments, as `load_lookup` or `map_lookup` gives them.

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
def _components(
    node_size: Any, u: Any, v: Any, score: Any, threshold: np.float32, strict: np.float32, orphans: int, large: int
) -> Any:
    """The smallest node of every node's component; edges come by ascending score."""
    parent, size = np.arange(len(node_size)), node_size.copy()
    for i in range(len(u)):
        a, b = find_root(parent, u[i]), find_root(parent, v[i])
        smaller = min(size[a], size[b])
        if score[i] > threshold and smaller >= orphans:
            continue
        if large > 0 and score[i] > strict and smaller >= large:
            continue
        # the smaller root stays, so a root is the smallest of its tree
        a, b = min(a, b), max(a, b)
        parent[b] = a
        size[a] += size[b]
    for i in range(len(parent)):
        parent[i] = find_root(parent, i)
    return parent
