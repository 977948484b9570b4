"""How zarr reads and writes the chunks of a region in a folder: a few threads, each with its share of the chunks.

    zarr's own way   each chunk is handed to a thread for its file, to another for its codecs, and then copied by a
                     third; handing over is a seventh to a third of the processor time of reading
    here             each thread takes chunk after chunk and does all of it

Which chunks a region has and where they lie, shards and their index stay zarr's. Chunks of other stores, for which it
pays to wait together, and of codecs that cannot be called from a thread, go zarr's own way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import zarr
from zarr.core.codec_pipeline import BatchedCodecPipeline, fill_value_or_default
from zarr.registry import register_pipeline
from zarr.storage import LocalStore, StorePath

from neuroloom.cores import usable_cores

Item = tuple[Any, Any, Any, Any, bool]
"""A chunk: where its bytes are, its array spec, the part of it, the place of that in the region, whether it is all."""


class SharedOut(BatchedCodecPipeline):
    """Codecs of an array, applied in as many threads as there are processors."""

    async def read(self, batch_info: Iterable[Item], out: Any, drop_axes: tuple[int, ...] = ()) -> None:
        """Read chunks into a region; see `zarr.abc.codec.CodecPipeline.read`."""
        items = list(batch_info)
        if drop_axes or not self._takes(items):
            await super().read(items, out, drop_axes)
            return
        stored = await _in_memory(items)

        def read_one(number: int) -> None:
            where, spec, part, place, _ = items[number]
            encoded = _get(where, spec) if stored is None else stored[number]
            out[place] = fill_value_or_default(spec) if encoded is None else self._decoded(encoded, spec)[part]

        await _share_out(read_one, len(items))

    async def write(self, batch_info: Iterable[Item], value: Any, drop_axes: tuple[int, ...] = ()) -> None:
        """Write a region into chunks; see `zarr.abc.codec.CodecPipeline.write`."""
        items = list(batch_info)
        if drop_axes or not self._takes(items):
            await super().write(items, value, drop_axes)
            return
        stored = await _in_memory(items)
        made: dict[int, Any] = {}

        def write_one(number: int) -> None:
            where, spec, part, place, complete = items[number]
            if complete and value.shape and value[place].shape == spec.shape:
                chunk = value[place]  # zarr would copy it
            else:
                encoded = None
                if not complete:
                    encoded = _get(where, spec) if stored is None else stored[number]
                before = None if encoded is None else self._decoded(encoded, spec)
                chunk = self._merge_chunk_array(before, value, place, spec, part, complete, drop_axes)
            empty = not spec.config.write_empty_chunks and chunk.all_equal(fill_value_or_default(spec))
            made[number] = None if empty else self._encoded(chunk, spec)
            if stored is None:
                _put(where, made.pop(number))

        await _share_out(write_one, len(items))
        for number in sorted(made):
            where = items[number][0]
            await (where.delete() if made[number] is None else where.set(made[number]))

    def _takes(self, items: list[Item]) -> bool:
        """Whether these codecs can be called from threads, and the chunks are in a folder or in memory; no shards."""
        return (
            not self.array_array_codecs
            and not self.supports_partial_decode
            and all(hasattr(codec, "_decode_sync") and hasattr(codec, "_encode_sync") for codec in self)
            and all(not isinstance(where, StorePath) or isinstance(where.store, LocalStore) for where, *_ in items)
        )

    def _decoded(self, encoded: Any, spec: Any) -> Any:
        for codec in reversed(self.bytes_bytes_codecs):
            encoded = codec._decode_sync(encoded, spec)
        return self.array_bytes_codec._decode_sync(encoded, spec)

    def _encoded(self, chunk: Any, spec: Any) -> Any:
        encoded = self.array_bytes_codec._encode_sync(chunk, spec)
        for codec in self.bytes_bytes_codecs:
            encoded = codec._encode_sync(encoded, spec)
        return encoded


async def _in_memory(items: list[Item]) -> list[Any] | None:
    """The bytes of chunks in a shard, which zarr holds already; None for those in files."""
    if any(isinstance(where, StorePath) for where, *_ in items):
        return None
    return [await where.get(prototype=spec.prototype) for where, spec, *_ in items]


def _get(where: StorePath, spec: Any) -> Any:
    return where.store.get_sync(where.path, prototype=spec.prototype)


def _put(where: StorePath, encoded: Any) -> None:
    if encoded is None:
        where.store.delete_sync(where.path)
    else:
        where.store.set_sync(where.path, encoded)


async def _share_out(work: Callable[[int], None], count: int) -> None:
    """Call `work` with 0 … count - 1 in threads; when this returns or raises, none of them is running any more."""
    left = iter(range(count))

    def thread(left: Iterator[int]) -> None:
        for number in left:
            work(number)

    threads = min(count, usable_cores())
    ended = await asyncio.gather(*(asyncio.to_thread(thread, left) for _ in range(threads)), return_exceptions=True)
    for error in ended:
        if error is not None:
            raise error


def use_shared_out() -> None:
    """Have zarr use it in this process, unless it was told to use another."""
    if zarr.config.get("codec_pipeline.path").rsplit(".", 1)[-1] == BatchedCodecPipeline.__name__:
        register_pipeline(SharedOut)
        zarr.config.set({"codec_pipeline.path": f"{SharedOut.__module__}.{SharedOut.__qualname__}"})
