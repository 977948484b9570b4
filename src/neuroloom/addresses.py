"""Addresses of graph stores: what they may look like, and keeping passwords out of files and messages.

files                              a folder beside each step's results, the default
sqlite:graph.sqlite                one file, from the project's folder; sqlite:///data/graph.sqlite: from the root
postgresql://host:5432/database    user and password from NEUROLOOM_POSTGRES, or as libpq finds them
mongodb://host/database            user and password from NEUROLOOM_MONGODB
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from neuroloom.errors import UserError

FILES = "files"
EXPECTED = '"files", "sqlite:FILE", "postgresql://HOST/DATABASE" or "mongodb://HOST/DATABASE"'
VARIABLES = {"postgresql": "NEUROLOOM_POSTGRES", "mongodb": "NEUROLOOM_MONGODB"}
"""Environment variables that hold an address with user and password, by scheme."""
_SAME = {"postgres": "postgresql", "mongodb+srv": "mongodb"}
_SECRET = re.compile(r"(?<=://)[^/@\s]*(?:/[^/@\s]*)*@|(?<=password=)[^&\s]+", re.IGNORECASE)


def scheme_of(address: str) -> str:
    """ "files", "sqlite", "postgresql" or "mongodb", or "" for what is none of them."""
    if address == FILES:
        return FILES
    scheme, colon, _ = address.partition(":")
    scheme = _SAME.get(scheme, scheme)
    return scheme if colon and scheme in ("sqlite", *VARIABLES) else ""


def check_address(address: str) -> str:
    """The address, if it is one and holds no credentials.

    Raises:
        ValueError: It is none, or holds a user or a password; the message does not repeat them.
    """
    scheme = scheme_of(address)
    if not scheme:
        raise ValueError(f"expected {EXPECTED}")
    if scheme == "sqlite" and not sqlite_path(address):
        raise ValueError('a file is missing; expected "sqlite:FILE"')
    if scheme in VARIABLES:
        try:
            parts = urlsplit(address)
            inside = [key.lower() for key, _ in parse_qsl(parts.query, keep_blank_values=True)]
        except ValueError:
            raise ValueError(f"this is no address; expected {EXPECTED}") from None
        if "@" in address or {"user", "password", "passfile", "sslpassword"} & {*inside}:
            raise ValueError(
                f"it holds a user or a password, which would end up in results and logs; take them out and put the "
                f"whole address into the environment variable {VARIABLES[scheme]}"
            )
        if not parts.path.strip("/"):
            raise ValueError(f"the database is missing; expected {EXPECTED}")
    return address


def sqlite_path(address: str) -> str:
    """The file of `sqlite:FILE` or `sqlite:///FILE`."""
    return re.sub(r"^sqlite:(//)?(?=/)|^sqlite:", "", address)


def without_secrets(text: str) -> str:
    """A text with what may be a user and a password taken out."""
    return _SECRET.sub("***", text)


def with_credentials(address: str, scheme: str) -> str | None:
    """What the environment says of a server, if it is of this address's server.

    Args:
        address: Without credentials.
        scheme: "postgresql" or "mongodb".

    Returns:
        The variable's content, or that of the file it names (`@FILE`); None where it is not set.

    Raises:
        UserError: The file cannot be read, or the variable is of another server: a password is never sent to a server
            that it is not for.
    """
    variable = VARIABLES[scheme]
    secret = os.environ.get(variable, "")
    if not secret:
        return None
    if secret.startswith("@"):
        try:
            secret = Path(secret[1:]).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(
                f"The file that the environment variable {variable} names cannot be read ({error})."
            ) from None
    try:
        asked, given = urlsplit(address), urlsplit(secret)
    except ValueError:
        asked = given = urlsplit("")
    if scheme_of(secret) != scheme or not given.netloc or ("@" in secret and "@" not in given.netloc):
        raise UserError(
            f"The environment variable {variable} holds no address; expected {scheme}://USER:PASSWORD@HOST with "
            "special characters as %40 and the like, or @FILE with a file that holds one."
        )
    ours, theirs = (parts.netloc.rpartition("@")[2].lower() for parts in (asked, given))
    if ours and _with_port(ours, scheme) != _with_port(theirs, scheme):
        raise UserError(
            f"The graph is to be kept on {ours}, but {variable} holds credentials for {theirs}. Make them agree; a "
            "password is sent to no other server."
        )
    return secret


def _with_port(hosts: str, scheme: str) -> str:
    usual = {"postgresql": "5432", "mongodb": "27017"}[scheme]
    return ",".join(host if re.search(r":\d+$", host) else f"{host}:{usual}" for host in hosts.split(","))
