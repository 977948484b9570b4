"""Ask for memory before it is needed: for kernels that jump about in arrays, and know early where to."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

_BYTES = ir.IntType(8).as_pointer()
_NUMBER = ir.IntType(32)


@intrinsic
def prefetch(typing_context, array, index):  # type: ignore[no-untyped-def]
    """Begin to load one element of a contiguous array, to be written; any index will do, nothing waits for it."""
    if not isinstance(array, types.Array) or not isinstance(index, types.Integer):
        return None

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        place = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        function = builder.module.declare_intrinsic(
            "llvm.prefetch", [_BYTES], ir.FunctionType(ir.VoidType(), [_BYTES, _NUMBER, _NUMBER, _NUMBER])
        )
        to_write, stays, is_data = _NUMBER(1), _NUMBER(3), _NUMBER(1)
        pointer = builder.bitcast(builder.gep(place, [arguments[1]]), _BYTES)
        builder.call(function, [pointer, to_write, stays, is_data])
        return context.get_dummy_value()

    return types.void(array, types.int64), build
