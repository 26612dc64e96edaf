from __future__ import annotations

from callboard.runtime.quarantine import PASSES, WITHIN_SECONDS, Quarantine


def test_one_loss_changes_nothing() -> None:
    quarantine = Quarantine(64)
    quarantine.lost(0.0)
    assert quarantine.prefetch == 64


def test_two_losses_far_apart_change_nothing() -> None:
    quarantine = Quarantine(64)
    quarantine.lost(0.0)
    quarantine.lost(WITHIN_SECONDS + 0.1)
    assert quarantine.prefetch == 64


def test_after_two_losses_within_a_minute_messages_come_one_at_a_time_until_a_hundred_have_passed() -> None:
    quarantine = Quarantine(64)
    quarantine.lost(0.0)
    quarantine.lost(WITHIN_SECONDS)
    for _ in range(PASSES):
        assert quarantine.prefetch == 1
        quarantine.passed()
    assert quarantine.prefetch == 64


def test_a_further_loss_begins_the_count_again() -> None:
    quarantine = Quarantine(64)
    quarantine.lost(0.0)
    quarantine.lost(1.0)
    for _ in range(PASSES - 1):
        quarantine.passed()
    quarantine.lost(500.0)
    quarantine.passed()
    assert quarantine.prefetch == 1
