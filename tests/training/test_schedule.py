"""Learning rates."""

from __future__ import annotations

import pytest

from neuroloom.training.schedule import learning_rate


class TestLearningRate:
    def test_rises_then_falls_to_a_fiftieth(self) -> None:
        rates = [learning_rate(step, 1000, 2.0) for step in range(1000)]
        top = rates.index(max(rates))
        assert rates[:top] == sorted(rates[:top])
        assert rates[top:] == sorted(rates[top:], reverse=True)
        assert 0 < rates[0] < 0.1
        assert max(rates) == pytest.approx(2.0, rel=1e-3)
        assert rates[-1] == pytest.approx(2.0 / 50, rel=0.01)

    @pytest.mark.parametrize("steps", [1, 2, 5])
    def test_short_trainings_have_one_too(self, steps: int) -> None:
        assert all(0 < learning_rate(step, steps, 1.0) <= 1 for step in range(steps))

    def test_a_plateau_halves_it(self) -> None:
        assert [learning_rate(500, 1000, 1.0, "plateau", plateaus) for plateaus in range(3)] == [1, 0.5, 0.25]
        assert learning_rate(0, 1000, 1.0, "plateau", 7) == learning_rate(0, 1000, 1.0)
