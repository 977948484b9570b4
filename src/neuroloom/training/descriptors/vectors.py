"""Weighted sums of rows, eight voxels at a time: the innermost loop of descriptors, as vector instructions.

    out[o][x .. x + 8] = sum over n of   weights[power of o][places[n] - centre]
                                         * rows[places[n]][channel of o][x .. x + 8]

All sums of eight voxels stay in registers while n runs. A compiler finds this only for long rows: those of a neurite
are about ten voxels long. Whatever the processor has for vectors is used; without, there are eight single numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

LANES = 8
"""Voxels at a time. Rows must be as long as a multiple of it."""

_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_SPLAT = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
_ALIGNMENT = 4


def weighted_sums(outputs: Sequence[tuple[int, int]]) -> Any:
    """A function for kernels, of weights, centre, places, rows, width, x, out, out_width and out_x.

    Args:
        outputs: For each sum, which row of the weights counts and which channel of the rows.

    Returns:
        The function; its arguments are

        - weights: (powers, n) float32,
        - centre: what is subtracted from a place to find its weight,
        - places: int64, the rows that count,
        - rows: (n, channels * width) float32,
        - width: extent of a channel, a multiple of `LANES`,
        - x: the first of `LANES` voxels,
        - out: (number of sums * out_width) float32, written from `out_x` on in each of them.

        All arrays are contiguous; nothing is checked.
    """

    @intrinsic
    def sums(typing_context, weights, centre, places, rows, width, x, out, out_width, out_x):  # type: ignore[no-untyped-def]
        integers = all(isinstance(kind, types.Integer) for kind in (centre, width, x, out_width, out_x))
        arrays = [
            isinstance(kind, types.Array) and (kind.ndim, kind.dtype, kind.layout) == (axes, number, "C")
            for kind, axes, number in (
                (weights, 2, types.float32),
                (places, 1, types.int64),
                (rows, 2, types.float32),
                (out, 1, types.float32),
            )
        ]
        if not integers or not all(arrays):
            return None
        number = types.int64
        return types.void(weights, number, places, rows, number, number, out, number, number), build

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        weights, places, rows, out = (
            context.make_array(signature.args[n])(context, builder, arguments[n]) for n in (0, 2, 3, 6)
        )
        centre, width, x, out_width, out_x = (arguments[n] for n in (1, 4, 5, 7, 8))
        count = builder.extract_value(places.shape, 0)
        powers = range(max(power for power, _ in outputs) + 1)
        channels = sorted({channel for _, channel in outputs})

        def at(array: Any, index: Any, as_type: Any = None) -> Any:
            place = builder.gep(array.data, [index])
            return place if as_type is None else builder.bitcast(place, as_type.as_pointer())

        def times(number: Any, factor: int) -> Any:
            return builder.mul(ir.Constant(number.type, factor), number)

        totals = [cgutils.alloca_once(builder, _VECTOR) for _ in outputs]
        for total in totals:
            builder.store(ir.Constant(_VECTOR, [0.0] * LANES), total)
        row_length = builder.extract_value(rows.shape, 1)
        weights_length = builder.extract_value(weights.shape, 1)
        with cgutils.for_range(builder, count) as loop:
            place = builder.load(at(places, loop.index))
            offset = builder.sub(place, centre)
            begin = builder.add(builder.mul(place, row_length), x)
            factors = []
            for power in powers:
                one = builder.load(at(weights, builder.add(times(weights_length, power), offset)))
                first = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), one, ir.IntType(32)(0))
                factors.append(builder.shuffle_vector(first, first, _SPLAT))
            values = {
                channel: builder.load(at(rows, builder.add(begin, times(width, channel)), _VECTOR), align=_ALIGNMENT)
                for channel in channels
            }
            for total, (power, channel) in zip(totals, outputs, strict=True):
                product = builder.fmul(factors[power], values[channel], flags=("contract",))
                builder.store(builder.fadd(builder.load(total), product, flags=("contract",)), total)
        for number, total in enumerate(totals):
            where = at(out, builder.add(times(out_width, number), out_x), _VECTOR)
            builder.store(builder.load(total), where, align=_ALIGNMENT)
        return context.get_dummy_value()

    return sums
