"""Ctrl-C and SIGTERM, heard although compiled code waits."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

from neuroloom.errors import Interrupted


@contextlib.contextmanager
def interruptible(at_once: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into `Interrupted`, so that locks are released and nothing is lost.

    Args:
        at_once: Called, in another thread, as soon as one of them is heard.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # SIGINT, too: a shell has what it starts in the background ignore it
    previous = {heard: signal.signal(heard, signal.default_int_handler) for heard in (signal.SIGTERM, signal.SIGINT)}
    # daisy waits in compiled code that only looks for SIGINT; a thread that reads the wake-up descriptor hears
    # SIGTERM at once and passes it on.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    previous_descriptor = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_pass_on_sigterm, args=(reader, at_once), daemon=True).start()
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted("Stopped. What was finished is kept; run the same command again to go on.") from error
    finally:
        signal.set_wakeup_fd(previous_descriptor)
        for heard, handler in previous.items():
            signal.signal(heard, handler)
        os.close(writer)  # ends the thread


def _pass_on_sigterm(reader: int, at_once: Callable[[], None]) -> None:
    while received := os.read(reader, 64):
        if signal.SIGTERM in received or signal.SIGINT in received:
            at_once()
        if signal.SIGTERM in received:
            os.kill(os.getpid(), signal.SIGINT)
    os.close(reader)
