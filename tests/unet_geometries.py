"""Any geometry of a U-Net that is quick to compute, for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

from neuroloom.networks.architecture import UNetParameters


@st.composite
def geometries(draw: st.DrawFn, most_levels: int = 2, kernels: tuple[int, ...] = (1, 3)) -> UNetParameters:
    """A network with two heads.

    Args:
        draw: From hypothesis.
        most_levels: Of pooling.
        kernels: Extents of convolutions along an axis.
    """
    levels = draw(st.integers(1, most_levels))
    factors = st.tuples(*(st.sampled_from((1, 2, 3)) for _ in range(3)))
    extents = st.tuples(*(st.sampled_from(kernels) for _ in range(3)))
    return UNetParameters(
        in_channels=draw(st.integers(1, 2)),
        heads=(("a", 2), ("b", 1)),
        feature_maps=2,
        growth=draw(st.integers(1, 2)),
        downsampling=tuple(draw(factors) for _ in range(levels)),
        kernels=tuple(draw(extents) for _ in range(levels + 1)) if draw(st.booleans()) else (),
        upsampling=draw(st.sampled_from(("transposed", "trilinear", "nearest"))),
    )
