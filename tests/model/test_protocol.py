"""The job protocol under every order of events: as designed it loses and repeats nothing; each clause is necessary.

The numbers of worlds are those of the protocol's own table: if one changes, the model no longer says the same.
"""

from __future__ import annotations

import pytest

from model.protocol import Rules
from model.search import Verdict, explore


@pytest.mark.slow
def test_as_designed_nothing_is_lost_repeated_or_changed() -> None:
    assert explore(Rules()) == sound(worlds=278_280)


@pytest.mark.soak  # of the clauses below it is no part, and takes as long as three of them
def test_reconciling_hides_nothing() -> None:
    assert explore(Rules(reconcile=False)) == sound(worlds=132_805)


def test_published_must_name_its_dispatch() -> None:
    verdict = explore(Rules(published_names_dispatch=False, reconcile=False, faults=2))

    assert (verdict.worlds, verdict.lost) == (62_064, 1_254)
    assert "crash" not in verdict.ways["lost"], "lost without any fault at all"


def test_finish_must_be_fenced() -> None:
    verdict = explore(Rules(finish_is_fenced=False, faults=2))

    assert (verdict.worlds, verdict.finished_twice, verdict.final_changed) == (123_624, 7_654, 21_352)


def test_the_claim_must_come_before_the_ack() -> None:
    verdict = explore(Rules(ack_after_claim=False, reconcile=False, faults=2))

    assert (verdict.worlds, verdict.lost) == (150_890, 1_505)


def test_unknown_ids_must_be_adopted_where_the_message_goes_first() -> None:
    rules = Rules(order="message-first", yes_after="broker", adopt_unknown=False, reconcile=False, faults=2)

    assert (explore(rules).worlds, explore(rules).lost) == (10_658, 18)


def test_the_outbox_must_be_cleared_after_the_publish() -> None:
    verdict = explore(Rules(clear_outbox_after_publish=False, reconcile=False, faults=2, yes_after="store"))

    assert (verdict.worlds, verdict.lost) == (44_722, 1)
    assert verdict.ways["lost"] == "enqueue > published > producer crashes"


@pytest.mark.soak  # half a million worlds; the simulation and the contract show the same each time
def test_a_worker_must_remember_what_it_has_claimed() -> None:
    verdict = explore(Rules(remember_claims=False, faults=2))

    assert (verdict.worlds, verdict.started_twice) == (556_143, 330_163)


def sound(*, worlds: int) -> Verdict:
    return Verdict(worlds=worlds, lost=0, finished_twice=0, started_twice=0, final_changed=0, ways={})
