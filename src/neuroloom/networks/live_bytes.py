"""How much memory tensors take, counted while operations make them."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten
_LIKE_FIRST = {_aten.mul.Tensor, _aten.add.Tensor, _aten.sigmoid.default}
_IN_PLACE = {_aten.div_.Tensor, _aten.round_.default, _aten.clamp_.default, _aten.relu_.default}
_UPSAMPLING = {_aten.upsample_trilinear3d.vec, _aten.upsample_nearest3d.vec}  # the last argument is the factors
"""Operations on one tensor whose result is plain. Asked for it, PyTorch loads its compiler, which takes seconds."""


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is on, counts the memory of all tensors that operations make and that are still there; views share it.

    On the device "meta" nothing is computed, and counting takes no memory and next to no time.

    Attributes:
        most: Bytes that were there at once.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0
        self._now = 0
        self._users: Counter[int] = Counter()
        self._known: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # the compiler again: it would be loaded only to stay clear of this

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count what it made."""
        result = _plain_result(func, args, kwargs or {})
        if result is None:
            result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor) and id(tensor) not in self._known:
                storage = tensor.untyped_storage()
                place, size = storage._cdata, storage.nbytes()
                self._known.add(id(tensor))
                if not self._users[place]:
                    self._now += size
                self._users[place] += 1
                weakref.finalize(tensor, self._gone, id(tensor), place, size)
        self.most = max(self.most, self._now)
        return result

    def _gone(self, tensor: int, place: int, size: int) -> None:
        self._known.remove(tensor)
        self._users[place] -= 1
        if not self._users[place]:
            self._now -= size


def _plain_result(func: Any, args: Any, kwargs: Any) -> torch.Tensor | None:
    """What an operation gives, without running it; None if only running it tells."""
    first = args[0] if args else None
    others = [value for value in args[1:] if isinstance(value, torch.Tensor)]
    if not isinstance(first, torch.Tensor) or not first.is_meta or others:
        return None
    if func in _IN_PLACE:
        return kwargs.get("out", first)
    if func in _UPSAMPLING and args[1] is None:
        extents = (int(size * factor) for size, factor in zip(first.shape[2:], args[-1], strict=True))
        return first.new_empty((*first.shape[:2], *extents))
    return torch.empty_like(first) if func in _LIKE_FIRST else None
