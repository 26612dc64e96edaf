"""The conformance suite of metadata stores: a store that passes it keeps the contract.

    from callboard.runtime.testing.stores import StoreConformance

    class TestMyStore(StoreConformance):
        async def make_store(self): return MyStore.from_url("mine://...", namespace=uuid4().hex)

See `StoreSuite` for what else a subclass may supply: a second store on the same data, cleaning up, a look for leaks.
Needs pytest and pytest-asyncio (the extra `test`).
"""

from __future__ import annotations

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
            "store_queues",
            "store_leases",
            "store_repeats",
            "store_schedules",
            "store_timetable",
        )
    )
)

# After the registration, so that failed assertions are explained: pytest rewrites a module when it is first imported.
from .store_cancel import CancelConformance  # noqa: E402
from .store_claim import ClaimConformance  # noqa: E402
from .store_deduplication import DeduplicationConformance  # noqa: E402
from .store_delays import DelayConformance  # noqa: E402
from .store_enqueue import EnqueueConformance  # noqa: E402
from .store_finish import FinishConformance  # noqa: E402
from .store_guards import GuardConformance  # noqa: E402
from .store_overtaken import OvertakenConformance  # noqa: E402
from .store_queues import QueueConformance  # noqa: E402
from .store_recovery import RecoveryConformance  # noqa: E402
from .store_repeats import RepeatConformance  # noqa: E402
from .store_leases import LeaseConformance  # noqa: E402
from .store_schedules import ScheduleConformance  # noqa: E402

__all__ = ["StoreConformance"]


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
    QueueConformance,
    RepeatConformance,
    ScheduleConformance,
):
    LeaseConformance,
    """One test, one sentence of `metadata/contract.py`; after each, an audit of the queues that it touched."""
