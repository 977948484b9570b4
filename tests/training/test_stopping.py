"""Signals that ask a training to stop: SLURM and those that pass signals on may send one twice, a person means it."""

from __future__ import annotations

import os
import signal

import pytest

from neuroloom.training import stopping
from neuroloom.training.stopping import stop_requests


@pytest.mark.parametrize(
    "sent",
    [
        (signal.SIGTERM, signal.SIGTERM),  # to all processes, and passed on
        (signal.SIGUSR1, signal.SIGTERM),  # before the time limit, and at it
        (signal.SIGTERM, signal.SIGUSR1),
    ],
)
def test_the_same_request_twice_lets_the_step_end(sent: tuple[signal.Signals, ...]) -> None:
    with stop_requests() as asked:
        for number in sent:
            os.kill(os.getpid(), number)
        assert asked.is_set()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_second_request_stops_at_once(sent: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "ECHO_SECONDS", 0.0)
    with stop_requests():
        os.kill(os.getpid(), sent)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), sent)
