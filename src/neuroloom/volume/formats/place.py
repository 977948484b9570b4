"""A folder, on a disk or behind a URL: its small files, which files there are, and how tensorstore reads it."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from neuroloom.errors import UserError
from neuroloom.volume.remote import CACHE_BYTES, are_remote_files, is_url, read_remote_file


@dataclass(frozen=True)
class Place:
    """A folder or its URL.

    Attributes:
        root: The path or URL.
    """

    root: str

    def read_json(self, name: str) -> dict[str, Any] | None:
        """A JSON object in a file; None where there is no such file, or it holds something else.

        Raises:
            UserError: The URL cannot be reached.
        """
        if is_url(self.root):
            content = read_remote_file(self.root, name)
        else:
            file = Path(self.root) / name
            content = file.read_bytes() if file.is_file() else None
        try:
            value = json.loads(content) if content is not None else None
        except ValueError:
            return None
        return value if isinstance(value, dict) else None

    def exist(self, names: Sequence[str]) -> list[bool]:
        """Which of some files there are.

        Raises:
            UserError: The URL cannot be reached.
        """
        if not is_url(self.root):
            return [os.path.isfile(f"{self.root}/{name}") for name in names]
        return are_remote_files(self.root, names)

    def open(self, driver: str, name: str, **options: Any) -> Any:
        """Open an array by tensorstore; chunks of one behind a URL are kept in memory, up to `CACHE_BYTES`.

        Args:
            driver: tensorstore's name of the format.
            name: The folder within this place.
            options: Of the driver.

        Raises:
            UserError: tensorstore does not reach this kind of URL.
        """
        import tensorstore  # most volumes are zarr, which is read without it

        spec = {"driver": driver, "kvstore": _kvstore(self.root, name), **options}
        if not is_url(self.root):
            return tensorstore.open(spec, read=True).result()
        # neighbouring blocks open the volume again: what was read before shall count as fresh
        spec |= {"recheck_cached_data": False}
        return tensorstore.open(spec, read=True, context=_remote_context(CACHE_BYTES)).result()


@functools.lru_cache(maxsize=1)
def _remote_context(limit: int) -> Any:
    """One for all volumes of the process, so that they share one bounded cache."""
    import tensorstore

    retries = {f"{kind}_request_retries": {"max_retries": 4} for kind in ("http", "s3", "gcs")}
    return tensorstore.Context({"cache_pool": {"total_bytes_limit": limit}, **retries})


def _kvstore(root: str, name: str) -> dict[str, Any]:
    if not is_url(root):
        return {"driver": "file", "path": f"{root}/{name}".rstrip("/") + "/"}
    url = urlsplit(root)
    path = "/".join(part for part in (url.path.strip("/"), name) if part) + "/"
    if url.scheme in ("http", "https"):
        return {"driver": "http", "base_url": f"{url.scheme}://{url.netloc}", "path": f"/{path}"}
    if url.scheme in ("gs", "gcs"):
        return {"driver": "gcs", "bucket": url.netloc, "path": path}
    if url.scheme in ("s3", "s3a"):
        found: dict[str, Any] = {"driver": "s3", "bucket": url.netloc, "path": path}
        # the same variables of the environment as zarr's
        if endpoint := os.environ.get("AWS_ENDPOINT_URL") or os.environ.get("AWS_ENDPOINT"):
            found["endpoint"] = endpoint
        if region := os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"):
            found["aws_region"] = region
        if os.environ.get("AWS_SKIP_SIGNATURE", "").lower() in ("1", "true"):
            found["aws_credentials"] = {"type": "anonymous"}
        return found
    raise UserError(
        f"{root}: N5 and precomputed volumes are read from http(s), s3 and gs, not from {url.scheme}. Name its https "
        "address if the container is public, or copy it to a disk; zarr is read from there, too."
    )
