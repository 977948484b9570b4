"""Connecting with the master, from an address that no other worker of it has had.

daisy 2.0 never forgets the address (host and port) of a connection that has ended: of a later connection from there it
takes every block for lost, within half a second, and hands it out again. Systems give a port again only after many
others, or by chance, but what such a worker does is all in vain. So workers claim their addresses in a folder that they
share; one that has got an address of another connects again.
"""

from __future__ import annotations

from pathlib import Path

import daisy.v2
import psutil

CLAIMS = "addresses"
"""The folder, beside the master's logs; or what daisy's context calls so, where that is without logs."""


def connect() -> daisy.v2.Client:
    """Connect with the master that the environment names.

    Returns:
        The connection; not connected if the master has ended.

    Raises:
        OSError: The master cannot be reached, or nothing can be written beside its logs.
    """
    context = daisy.v2.Context.from_env()
    claims = Path(context.get(CLAIMS) or Path(context["logdir"]) / CLAIMS)
    claims.mkdir(parents=True, exist_ok=True)
    tried: list[daisy.v2.Client] = []  # kept as long, so that the system gives others
    addresses: set[str] = set()
    while True:
        tried.append(daisy.v2.Client(context))
        new = _own_addresses(int(context["port"])) - addresses
        if not tried[-1].connected or all(_claim(claims / address) for address in new):
            return tried[-1]
        addresses |= new


def _claim(file: Path) -> bool:
    try:
        file.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _own_addresses(port: int) -> set[str]:
    """Where this process's connections with a port of the master come from, as names of files."""
    connections = psutil.Process().net_connections("tcp")
    return {f"{c.laddr.ip}-{c.laddr.port}".replace(":", ".") for c in connections if c.raddr and c.raddr.port == port}
