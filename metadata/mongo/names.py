"""Names of documents, and the states by which they are told apart.

A name is unique in the collection. Queues' names are preceded by their length, so that no queue's or job's name can
look like another document's. Users' text only ever stands in values: never in a field's name, never as an operator.
"""

from __future__ import annotations

from ..job import FINAL, State

STORE = "store"  # the one document about the whole namespace: epoch, claim window

DUE, SENT, HELD = "waiting-due", "waiting-sent", "waiting-held"  # a waiting job, by where its ticket is
TOMBSTONE = "tombstone"  # what is left of a job that was forgotten
SHADOW = "window"  # nothing of a job is left but a deduplication window that it opened
WORKER, DEAD_WORKER = "worker", "dead-worker"  # a boot's row; a declared death whose row was removed
QUEUE = "queue"  # pause, watermarks, whether it is registered
SCHEDULE, IDLE = "schedule", "schedule-idle"  # one that runs next at `at`; paused, or with no run left
LOCK, FREE_LOCK = "lock", "lock-free"  # of `Leases`; one that nobody holds, since `at`
GROUP = "group"  # how many final jobs of a state and group are kept

WAITING = (DUE, SENT, HELD)
UNFINISHED = (*WAITING, State.DELAYED.value, State.WAITING_CHILDREN.value, State.ACTIVE.value)
SCHEDULES = (SCHEDULE, IDLE)
FINAL_STATES = tuple(sorted(state.value for state in FINAL))
JOBS = (*UNFINISHED, *FINAL_STATES)


def states_of(state: State) -> tuple[str, ...]:
    return WAITING if state is State.WAITING else (state.value,)


def job_name(queue: str, id: str) -> str:
    return f"j{len(queue)}:{queue}:{id}"


def laid_name(job: str) -> str:
    """Of the tombstone that is laid while the job named `job` still has its name; by index it comes after every job."""
    return f"t{job[1:]}"


def shadow_name(queue: str, number: int) -> str:
    """Of a job's windows, when its own name went to another job."""
    return f"w{len(queue)}:{queue}:{number}"


def names_left(queue: str, id: str, state: str, name: str) -> bool:
    """Whether what is left of a job may have that name, beside the job's own."""
    if state == SHADOW:
        return name.startswith(shadow_name(queue, 0)[:-1])
    return state == TOMBSTONE and name == laid_name(job_name(queue, id))


def row_name(queue: str, boot: str) -> str:
    return f"b{len(queue)}:{queue}:{boot}"


def queue_name(queue: str) -> str:
    return f"q{queue}"


def schedule_name(queue: str, id: str) -> str:
    return f"s{len(queue)}:{queue}:{id}"


def group_name(queue: str, group: str) -> str:
    """`group`: `<state>:<name of the group>`."""
    return f"g{len(queue)}:{queue}:{group}"


def lock_name(name: str) -> str:
    return f"l{name}"


def window_key(queue: str, deduplication_id: str) -> str:
    return f"{len(queue)}:{queue}:{deduplication_id}"
