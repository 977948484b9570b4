"""How the learning rate changes: a short warm-up, then down.

cosine    |  /\\            plateau   |  /-----+            halves each time `PLATEAU` scores in a row
          | /  `-.                  | /      +---+         brought nothing better
          |/       `--.._           |/           +----
"""

from __future__ import annotations

import math

WARM_UP = 50
"""Steps over which the learning rate rises."""
LAST_RATE = 0.02
"""Learning rate at the end of a cosine, as a share of the highest."""
PLATEAU = 3
"""Scores without a better one after which the learning rate halves."""


def learning_rate(step: int, steps: int, highest: float, schedule: str = "cosine", plateaus: int = 0) -> float:
    """The learning rate of a step.

    Args:
        step: From 0.
        steps: In all.
        highest: Learning rate after the warm-up.
        schedule: "cosine" or "plateau".
        plateaus: How often `PLATEAU` scores in a row brought nothing better.
    """
    warm_up = min(WARM_UP, max(1, steps // 10))
    if step < warm_up:
        return highest * (step + 1) / warm_up
    if schedule == "plateau":
        return highest * 0.5**plateaus
    progress = (step - warm_up) / max(1, steps - warm_up)
    return highest * (LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * progress)))
