"""What the doctor knows and what it says: plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from neuroloom.cluster.answers import Failed
from neuroloom.cluster.slurm import JobState

Severity = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What it is: "node", "project", "network", ...
        severity: "problem": must be put right before a real job.
        what: What was found.
        fix: The sentence that puts it right; empty where nothing is to be done.
    """

    name: str
    severity: Severity
    what: str
    fix: str = ""


@dataclass(frozen=True)
class Place:
    """A folder or file that workers read or write.

    Attributes:
        path: As workers are told it.
        content: What tells it from others of that path (`probe.content_of`); None where a token was left.
    """

    path: str
    content: str | None = None


@dataclass(frozen=True)
class Here:
    """The machine that neuroloom runs on.

    Attributes:
        profile: The profile's name.
        places: Folders and files that nodes should see, the project's folder first.
        token: What was left in those without content.
        python: Its version.
        neuroloom: version and code, as `probe` tells them.
        packages: Versions by name.
        ahead_of_disk: Seconds by which the clock is ahead of the disk's.
    """

    profile: str
    places: tuple[Place, ...]
    token: str
    python: str
    neuroloom: dict[str, str]
    packages: dict[str, str | None]
    ahead_of_disk: float


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        address: Where it was to reach this machine.
        refused: Why it was not even submitted; empty if it was.
        state: What SLURM says of it last.
        seconds: From its submission until it ran; None if it never did.
        reason: Why it waits, in SLURM's word.
        setup: What its script tells of a set-up line that failed.
        python: Likewise, of a Python that did.
        probe: What its node found out; empty if nothing came.
        by_network: Whether anything came over the network.
        by_file: Whether anything came by a file.
        read_back: What was read here of the token that it wrote, by the path of the place.
        log: Where its log is kept now; empty if there is none.
    """

    address: str
    refused: str = ""
    state: JobState | None = None
    seconds: float | None = None
    reason: str = ""
    setup: Failed | None = None
    python: Failed | None = None
    probe: dict[str, Any] = field(default_factory=dict)
    by_network: bool = False
    by_file: bool = False
    read_back: dict[str, str] = field(default_factory=dict)
    log: str = ""

    @property
    def node(self) -> str:
        """Where it ran; empty if it did not, or nobody says."""
        failed = self.python or self.setup
        known = self.state.node if self.state is not None else ""
        return str(self.probe.get("node") or (failed.node if failed else "") or known)
