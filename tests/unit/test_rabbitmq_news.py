"""What is wrong is said when it begins, not for each try."""

from __future__ import annotations

from callboard.brokers.rabbitmq.news import AGAIN_SECONDS, MOST, News


def test_what_is_heard_at_each_try_is_new_once_however_long_it_lasts() -> None:
    news = News()
    moments = [number * AGAIN_SECONDS / 2 for number in range(100)]
    assert [news.is_new("refused", moment) for moment in moments] == [True] + [False] * 99


def test_another_reason_is_new_and_the_first_is_not_when_they_take_turns() -> None:
    news = News()
    assert [news.is_new(what, 1.0) for what in ("refused", "no answer", "refused", "no answer")] == [True, True] + [
        False
    ] * 2


def test_what_was_not_heard_of_for_a_while_is_new_again() -> None:
    news = News()
    assert [news.is_new("refused", moment) for moment in (0.0, AGAIN_SECONDS)] == [True, True]


def test_what_was_over_is_new_again_and_its_end_is_told_once() -> None:
    news = News()
    news.is_new("refused", 0.0)
    assert [news.over(), news.over()] == [True, False]
    assert news.is_new("refused", 0.0)


def test_reasons_without_end_are_not_all_remembered() -> None:
    news = News()
    reasons = [f"reason {number}" for number in range(MOST + 1)]
    assert all(news.is_new(reason, 0.0) for reason in reasons)
    assert news.is_new(reasons[0], 0.0)
    assert not news.is_new(reasons[-1], 0.0)
