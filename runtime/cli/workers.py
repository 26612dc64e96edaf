"""`callboard workers`: who serves which queues."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ...metadata.contract import QueueControl, WorkerRow, Workers
from ..worker_info import Info, decode_info
from .failures import tell
from .options import AsJson, Broker, Given, Namespace, StoreUrl, opened_store
from .screen import count_text, print_json, safe, show, table


def workers(
    as_json: AsJson = False, broker: Broker = None, store: StoreUrl = None, namespace: Namespace = None
) -> None:
    """Worker processes: where they are, what they serve and how many jobs they run.

    A worker that was killed is listed until its lease has run out and its jobs have been given to others.

    Exit codes: 0 done, 2 usage or configuration, 69 store unavailable.
    """
    rows = asyncio.run(_rows(Given(broker=broker, store=store, namespace=namespace)))
    found = summaries(rows)
    if as_json:
        print_json(found)
        return
    made = table(
        "worker",
        "host",
        "pid",
        "slots",
        "active",
        "lag",
        "queues",
        right=("pid", "slots", "active", "lag"),
        whole=("queues",),
    )
    for worker in found:
        made.add_row(
            safe(worker["worker"][:8]),
            safe(worker["host"]),
            safe(worker["pid"]),
            safe(worker["concurrency"]),
            count_text(worker["active"], "yellow"),
            safe(None if worker["loop_lag"] is None else f"{worker['loop_lag'] * 1000:.0f} ms"),
            safe(", ".join(worker["queues"])),
        )
    if found:
        show(made)
    else:
        tell("no worker is known: callboard run worker --help")


def summaries(rows: Iterable[WorkerRow]) -> list[dict[str, Any]]:
    """One entry a worker, from its rows in the queues; what it tells about itself is None where it can't be read."""
    grouped: dict[str, list[WorkerRow]] = {}
    for row in rows:
        grouped.setdefault(row.boot, []).append(row)
    return [_summary(boot, of_one) for boot, of_one in sorted(grouped.items(), key=lambda item: _place(item[1]))]


def _summary(boot: str, rows: Sequence[WorkerRow]) -> dict[str, Any]:
    info = _info(rows)
    return {
        "worker": boot,
        "host": info.host if info else None,
        "pid": info.pid if info else None,
        "python": info.python if info else None,
        "concurrency": info.concurrency if info else None,
        "queues": sorted(row.queue for row in rows),
        "active": sum(row.active for row in rows),
        "copies_refused": info.copies_refused if info else None,
        "late_finishes": info.late_finishes if info else None,
        "loop_lag": info.loop_lag if info else None,
    }


def _place(rows: Sequence[WorkerRow]) -> tuple[str, int, str]:
    info = _info(rows)
    return (info.host, info.pid, rows[0].boot) if info else ("", 0, rows[0].boot)


def _info(rows: Sequence[WorkerRow]) -> Info | None:
    try:
        return decode_info(rows[0].info)
    except msgspec.DecodeError:  # of another version
        return None


async def _rows(given: Given) -> Sequence[WorkerRow]:
    async with opened_store(given) as store:
        names = await store.get(QueueControl).queues()
        return await store.get(Workers).workers(names) if names else ()
