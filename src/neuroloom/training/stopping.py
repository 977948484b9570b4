"""Stopping between two steps: a signal asks, the loop answers when its state is whole.

An exception in the middle of a step would leave weights and optimiser of two different steps behind, and the run that
goes on from them would not be the one that was stopped.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

ECHO_SECONDS = 5.0
"""In which a SIGTERM may come again without being meant."""


@contextlib.contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Let Ctrl-C, SIGTERM and SIGUSR1 set an event; a second Ctrl-C or SIGTERM raises KeyboardInterrupt at once.

    SIGUSR1 is what SLURM is asked to send some minutes before the time limit (`#SBATCH --signal=USR1@300`). A SIGTERM
    that follows within `ECHO_SECONDS` is the same request: SLURM tells every process, and those that started others
    pass it on.

    Only the main thread hears signals; in others the event is never set.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    first: float | None = None

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal first
        asked.set()
        if number == signal.SIGUSR1:
            return
        now = time.monotonic()
        if first is not None and (number == signal.SIGINT or now - first > ECHO_SECONDS):
            raise KeyboardInterrupt
        first = now if first is None else first

    # whoever listens to the wake-up descriptor would answer too
    descriptor = signal.set_wakeup_fd(-1)
    previous = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(descriptor)
