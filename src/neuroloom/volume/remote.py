"""Volumes behind URLs: zarr containers on HTTP servers and in S3, Azure and Google buckets, read only.

Credentials come from the environment, as the cloud's own tools read them; a public bucket needs none.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import obstore
import zarr
from zarr.storage import ObjectStore

from neuroloom.errors import UserError

_METADATA = ("zarr.json", ".zarray", ".zattrs")


def is_url(path: str | Path) -> bool:
    """Whether a path is a URL ("https://…", "s3://…", "az://…", "gs://…")."""
    return "://" in str(path)


def open_remote(url: str, dataset: str) -> zarr.Array:
    """Open an array behind a URL.

    Args:
        url: The zarr container.
        dataset: The array's name in it.

    Raises:
        UserError: The URL cannot be reached, or there is no array.
    """
    # asked for first: zarr asks for several files at once and leaves the failures of all but one to the event loop
    if not remote_exists(url, dataset):
        raise UserError(f"{url} holds no dataset {dataset!r}. Check the URL and the name of the dataset.")
    try:
        return zarr.open_array(ObjectStore(_store(url), read_only=True), path=dataset.strip("/"), mode="r")
    except Exception as error:  # the stores of the clouds have errors of their own
        raise _unreadable(url, error) from error


def remote_exists(url: str, dataset: str) -> bool:
    """Whether there is an array behind a URL.

    Raises:
        UserError: The URL cannot be reached.
    """
    store = _store(url)
    try:
        return any(_is_there(store, f"{dataset.strip('/')}/{name}") for name in _METADATA[:2])
    except obstore.exceptions.BaseError as error:
        raise _unreadable(url, error) from error


def remote_file(array: zarr.Array, name: str) -> bytes | None:
    """One file of an array that `open_remote` opened.

    Args:
        array: The array.
        name: Of its metadata or of a chunk, such as "c/0/3/1".

    Returns:
        The file's content; None where there is none, as for a chunk of zeros.

    Raises:
        OSError: The server does not answer.
    """
    try:
        return bytes(obstore.get(array.store_path.store.store, f"{array.path}/{name}").bytes())
    except FileNotFoundError:
        return None
    except obstore.exceptions.BaseError as error:
        raise OSError(str(error)) from error


def remote_fingerprint(url: str, dataset: str) -> str:
    """Hash of the URL and the array's metadata; changed chunks under unchanged metadata are not noticed.

    Args:
        url: The zarr container.
        dataset: The array's name in it.
    """
    store = _store(url)
    digest = hashlib.sha256(f"{url} {dataset}".encode())
    for name in _METADATA:
        try:
            digest.update(bytes(obstore.get(store, f"{dataset.strip('/')}/{name}").bytes()))
        except (FileNotFoundError, obstore.exceptions.BaseError):
            continue
    return digest.hexdigest()


def _is_there(store: obstore.store.ObjectStore, name: str) -> bool:
    try:
        obstore.head(store, name)
    except FileNotFoundError:
        return False
    return True


def _unreadable(url: str, error: Exception) -> UserError:
    return UserError(
        f"{url} cannot be read ({type(error).__name__}: {str(error).splitlines()[0][:300]}). Check the URL, the "
        "network and your credentials."
    )


def _store(url: str) -> obstore.store.ObjectStore:
    try:
        return obstore.store.from_url(url, client_options={"allow_http": True}, retry_config={"max_retries": 3})
    except Exception as error:  # an unknown scheme, a malformed URL
        raise UserError(
            f"{url} is no URL that can be read ({str(error).splitlines()[0][:200]}); expected http(s), s3, az or gs."
        ) from error
