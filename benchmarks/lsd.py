"""Targets of descriptors: `neuroloom.lsd` on all cores against `lsds`, which computes in one process.

Both get the same labels and give descriptors of all of them: what is not in the array is not context for either. They
have to agree where single precision permits it; a direct sum in double precision at random voxels says whose error is
larger.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import neuroloom
from benchmarks.peers import ask, environment
from benchmarks.results import Disagreement, Result, alternate
from benchmarks.volumes import VOXEL_SIZE, Options, tissue

REQUIREMENTS = ("lsds==0.1.3", "gunpowder==1.4.4")
SIGMA = 80.0
"""nm."""
CHECKED = 200
"""Voxels at which both are compared with the definition."""

OURS_AT_MOST = 1e-4
"""Largest error of ours against the definition."""
PEER_AT_MOST = {"mean offset": 1e-4, "variance": 1e-3, "Pearson": 5e-3, "size": 1e-5}
"""Largest difference between the two where nothing cancels: the peer's variances are differences of squares of
coordinates of a thousand nm, in single precision."""
LEAST_VARIANCE, LEAST_SIZE = 0.04, 0.01
"""What counts as "nothing cancels": a spread of a fifth of sigma on every axis, and a hundredth of the window."""

GROUPS = {"mean offset": slice(0, 3), "variance": slice(3, 6), "Pearson": slice(6, 9), "size": slice(9, 10)}


def run(options: Options) -> list[Result]:
    """Compare speed at full resolution and on every second voxel.

    Raises:
        Disagreement: Descriptors differ by more than the bounds above.
    """
    python = environment("lsds", REQUIREMENTS)
    what, _, labels = tissue(options, "fib25-val", 40 if options.quick else 156)
    labels = np.ascontiguousarray(labels[tuple(slice(size // 2 * 2) for size in labels.shape)])
    print(f"{what}, {len(np.unique(labels[labels != 0]))} labels, sigma {SIGMA:g} nm, voxels of {VOXEL_SIZE[0]:g} nm")
    neuroloom.lsd(labels[:16, :16, :16], SIGMA, VOXEL_SIZE)  # compile

    results = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        np.save(folder / "labels.npy", labels)
        for downsample in (1, 2):

            def ours(downsample: int = downsample) -> float:
                start = time.perf_counter()
                neuroloom.lsd(labels, SIGMA, VOXEL_SIZE, downsample)
                return time.perf_counter() - start

            def peer(downsample: int = downsample) -> float:
                answer = ask(
                    python,
                    Path(__file__).parent / "peer_scripts" / "lsds_targets.py",
                    folder,
                    sigma=SIGMA,
                    voxel_size=VOXEL_SIZE,
                    downsample=downsample,
                )
                print(f"lsds, downsample {downsample}: {answer['seconds']:.1f} s", file=sys.stderr, flush=True)
                return float(answer["seconds"])

            mine, theirs = alternate(ours, peer, 1 if options.quick else 3)
            found = neuroloom.lsd(labels, SIGMA, VOXEL_SIZE, downsample)
            compare(labels, downsample, found, np.load(folder / "descriptors.npy"))
            where = "full resolution" if downsample == 1 else f"downsample {downsample}"
            results.append(Result(f"LSD targets, {where}", tuple(mine), tuple(theirs), "s"))
    return results


def compare(labels: NDArray[np.integer], downsample: int, ours: NDArray[np.float32], peer: NDArray[np.float32]) -> None:
    """Print how far both are from each other and from the definition.

    Args:
        labels: (z, y, x).
        downsample: Descriptors are of every n-th voxel.
        ours, peer: (10, z, y, x).

    Raises:
        Disagreement: By more than the bounds above.
    """
    fair = (labels != 0) & (ours[3:6].min(0) >= LEAST_VARIANCE) & (ours[9] >= LEAST_SIZE)
    voxels = np.argwhere((labels != 0) & (ours[9] > 0))
    voxels = voxels[np.random.default_rng(0).choice(len(voxels), min(CHECKED, len(voxels)), replace=False)]
    at = (slice(None), *voxels.T)
    truth = np.stack([definition(labels, voxel, downsample) for voxel in voxels], axis=1)
    my_errors, peer_errors = np.abs(ours[at] - truth), np.abs(peer[at] - truth)
    print(
        f"downsample {downsample}: largest differences; ours - peer at the {fair.mean():.0%} of voxels where nothing "
        f"cancels, and from the definition at {len(voxels)} random voxels"
    )
    problems = []
    for name, group in GROUPS.items():
        difference = float(np.abs(ours[group] - peer[group])[:, fair].max(initial=0))
        mine, theirs = float(my_errors[group].max()), float(peer_errors[group].max())
        larger = "the peer's is larger" if theirs > mine else "ours is larger"
        print(f"  {name:12} ours - peer {difference:.1e}   ours {mine:.1e}   peer {theirs:.1e}   {larger}")
        if difference > PEER_AT_MOST[name]:
            problems.append(f"{name} by {difference:.1e}, more than {PEER_AT_MOST[name]:g}, from the peer's")
        if mine > OURS_AT_MOST:
            problems.append(f"{name} by {mine:.1e}, more than {OURS_AT_MOST:g}, from the definition")
    if problems:
        raise Disagreement(f"with downsample {downsample}, " + "; ".join(problems))


def definition(labels: NDArray[np.integer], voxel: NDArray[np.integer], downsample: int) -> NDArray[np.float64]:
    """The descriptor (10) of one voxel, summed directly in double precision."""
    step = VOXEL_SIZE[0] * downsample
    radius = int(3 * SIGMA / step + 0.5)
    coarse = labels[::downsample, ::downsample, ::downsample]
    centre = voxel // downsample
    low, high = np.maximum(centre - radius, 0), np.minimum(centre + radius + 1, coarse.shape)
    own = coarse[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] == labels[tuple(voxel)]
    offsets = (np.argwhere(own) + low - centre) * step
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) * step / SIGMA) ** 2).sum()
    weights = np.exp(-0.5 * (offsets**2).sum(1) / SIGMA**2) / kernel**3
    size = weights.sum()
    mean = weights @ offsets / size
    covariance = (weights[:, None] * (offsets - mean)).T @ (offsets - mean) / size
    variance = np.maximum(np.diag(covariance), 1e-3)
    pearson = [covariance[a, b] / np.sqrt(variance[a] * variance[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
    values = [mean / SIGMA * 0.5 + 0.5, variance / SIGMA**2, np.array(pearson) * 0.5 + 0.5, [size]]
    return np.clip(np.concatenate(values), 0, 1)
