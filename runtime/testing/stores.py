"""The conformance suite of metadata stores: a store that passes it keeps the contract.

    from callboard.runtime.testing.stores import store_conformance

    TestMyStore = store_conformance("mine://...")     # a store that is installed, by its entry point

    class TestMyStore(StoreConformance):              # or more by hand
        async def make_store(self): return MyStore.from_url("mine://...", namespace=uuid4().hex)

See `StoreSuite` for what else a subclass may supply: a second store on the same data, cleaning up, a look for leaks;
and `FaultConformance.make_cut` for a store whose exchanges with its server get lost, each operation's at each place.
Needs pytest and pytest-asyncio (the extra `test`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import ClassVar
from uuid import uuid4

import pytest

pytest.register_assert_rewrite(
    *(
        f"{__package__}.{name}"
        for name in (
            "store_scene",
            "store_enqueue",
            "store_deduplication",
            "store_claim",
            "store_guards",
            "store_overtaken",
            "store_finish",
            "store_cancel",
            "store_delays",
            "store_recovery",
            "store_leases",
            "store_queues",
            "store_repeats",
            "store_schedules",
            "store_ends",
            "store_faults",
            "store_standing",
            "store_timetable",
        )
    )
)

# After the registration, so that failed assertions are explained: pytest rewrites a module when it is first imported.
from ...metadata.contract import Store  # noqa: E402
from ..registry import make_store  # noqa: E402
from .line import Line, Side  # noqa: E402
from .store_cancel import CancelConformance  # noqa: E402
from .store_claim import ClaimConformance  # noqa: E402
from .store_deduplication import DeduplicationConformance  # noqa: E402
from .store_delays import DelayConformance  # noqa: E402
from .store_ends import EndsConformance  # noqa: E402
from .store_enqueue import EnqueueConformance  # noqa: E402
from .store_faults import Cut, Cutter, FaultConformance  # noqa: E402
from .store_finish import FinishConformance  # noqa: E402
from .store_guards import GuardConformance  # noqa: E402
from .store_leases import LeaseConformance  # noqa: E402
from .store_overtaken import OvertakenConformance  # noqa: E402
from .store_queues import QueueConformance  # noqa: E402
from .store_recovery import RecoveryConformance  # noqa: E402
from .store_repeats import RepeatConformance  # noqa: E402
from .store_schedules import ScheduleConformance  # noqa: E402
from .store_standing import StandingConformance  # noqa: E402

__all__ = ["Cut", "Cutter", "Line", "Side", "StoreConformance", "store_conformance"]


@pytest.mark.asyncio
class StoreConformance(
    EnqueueConformance,
    DeduplicationConformance,
    ClaimConformance,
    GuardConformance,
    OvertakenConformance,
    FinishConformance,
    CancelConformance,
    DelayConformance,
    RecoveryConformance,
    LeaseConformance,
    QueueConformance,
    RepeatConformance,
    ScheduleConformance,
    StandingConformance,
    EndsConformance,
    FaultConformance,
):
    """One test, one sentence of `metadata/contract.py`; after each, an audit of the queues that it touched."""


def store_conformance(
    url: str, *, cut: Callable[[str, float, AsyncExitStack], Awaitable[Cut]] | None = None
) -> type[StoreConformance]:
    """The suite on the store that an entry point `callboard.stores` of any installed distribution has for this URL.

    Each test takes a namespace of its own, `conformance-...`, which stays: give it a server that may be thrown away.
    `cut` makes another store of that namespace that waits so many seconds for an answer, behind a `Line` that the
    stack closes, so that each exchange of each operation is lost once; without it each operation is said twice.
    ConfigurationError, from each test: there is no such store.
    """

    class ByUrl(StoreConformance):
        _namespaces: ClassVar[dict[Store, str]] = {}

        async def make_store(self) -> Store:
            namespace = f"conformance-{uuid4().hex}"
            store = make_store(url, namespace=namespace)
            self._namespaces[store] = namespace
            return store

        async def make_peer(self, store: Store) -> Store | None:
            return make_store(url, namespace=self._namespaces[store]) if store.shared else None

        async def make_cut(self, store: Store, stack: AsyncExitStack) -> Cut | None:
            return await cut(self._namespaces[store], self.time_limit, stack) if cut else None

        async def discard(self, store: Store) -> None:
            del self._namespaces[store]

    return ByUrl
