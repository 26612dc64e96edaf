"""The open door: what a submission becomes, on the memory broker and on RabbitMQ."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from callboard import Callboard
from callboard.brokers.message import Delivery, Message, Receipt
from callboard.brokers.topology import Queue, Topology
from callboard.metadata.contract import Inspection
from callboard.runtime.clock import SystemClock
from callboard.runtime.dead_letter import DeadLetter, Filter
from callboard.runtime.dead_queue import DeadQueue
from callboard.runtime.testing import running
from callboard.runtime.wire import decode_body
from path.place import Place

PATIENCE_SECONDS = 60.0


class Stranger:
    """A producer that knows AMQP and nothing else. `reply_to` is a queue of its own, as an allowed prefix names it."""

    def __init__(self, app: Callboard) -> None:
        self.app = app
        self.broker = app.connections.broker
        self.names = app.connections.names
        self.reply_to = f"replies-{app.settings.namespace}"
        self.dead = DeadQueue(self.broker, self.names, SystemClock(), lifetime=None)
        self._replies: asyncio.Queue[Delivery] = asyncio.Queue()

    async def open(self) -> None:
        await self.broker.declare(Topology(queues=(Queue(self.reply_to, exclusive=True),)))
        await self.broker.consume(self.reply_to, self._replies.put_nowait, prefetch=100)

    async def submit(
        self, body: Any, *, routing_key: str = "emails", exchange: str | None = None, **properties: Any
    ) -> None:
        encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
        message = Message(
            exchange=self.names.submit if exchange is None else exchange,
            routing_key=routing_key,
            body=encoded,
            **properties,
        )
        assert list(await self.broker.publish([message], timeout=10)) == [Receipt.CONFIRMED]

    async def ask(self, body: Any, **properties: Any) -> dict[str, Any]:
        """Submit, and wait for the reply."""
        await self.submit(body, reply_to=self.reply_to, correlation_id="c-1", **properties)
        async with asyncio.timeout(PATIENCE_SECONDS):
            delivery = await self._replies.get()
        delivery.ack()
        assert delivery.correlation_id == "c-1"
        reply: dict[str, Any] = json.loads(delivery.body)
        return reply

    async def letters(self, count: int) -> list[DeadLetter]:
        """All there are, once there are so many."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                depth = await self.broker.depth(self.names.dead)
                if depth is not None and depth.ready >= count:
                    break
                await asyncio.sleep(0.02)
        found: list[DeadLetter] = []

        def see(letter: DeadLetter, _: Delivery) -> bool:
            found.append(letter)
            return True

        await self.dead.look(see)
        return found


@pytest.fixture
async def app(place: Place) -> AsyncIterator[Callboard]:
    async with place.open(intake_reply_prefixes=("replies-",), intake_queue_limit=3) as app:

        @app.task(name="add", queue="emails")
        async def add(a: int, b: int = 1) -> int:
            return a + b

        yield app


@pytest.fixture
async def stranger(app: Callboard) -> AsyncIterator[Stranger]:
    stranger = Stranger(app)
    await stranger.open()
    async with running(app, actors=["worker", "intake", "delayed-scanner"], queues=["emails"]):
        yield stranger


async def test_a_submission_becomes_a_job_that_runs(app: Callboard, stranger: Stranger) -> None:
    reply = await stranger.ask({"task": "add", "args": [1], "kwargs": {"b": 2}, "id": "one"})

    assert reply == {"ok": True, "jobs": [{"id": "one", "status": "created"}]}
    assert await app.queue("emails").handle("one").result(PATIENCE_SECONDS) == 3


async def test_the_same_id_is_the_same_job(app: Callboard, stranger: Stranger) -> None:
    await stranger.ask({"task": "add", "args": [1], "id": "one"})
    again = await stranger.ask({"task": "add", "args": [7], "id": "one"})

    assert again == {"ok": True, "jobs": [{"id": "one", "status": "existing"}]}
    assert await app.queue("emails").handle("one").result(PATIENCE_SECONDS) == 2


async def test_without_an_id_the_message_id_counts_and_for_arrays_its_number_too(stranger: Stranger) -> None:
    named = {"callboard-message-id": "order-7"}
    first = await stranger.ask({"task": "add", "args": [1]}, headers=named)
    again = await stranger.ask({"task": "add", "args": [1]}, headers=named)
    array = await stranger.ask([{"task": "add", "args": [1]}, {"task": "add", "args": [1], "id": "own"}], headers=named)

    assert first["jobs"] == [{"id": "order-7", "status": "created"}]
    assert again["jobs"] == [{"id": "order-7", "status": "existing"}]
    assert [job["id"] for job in array["jobs"]] == ["order-7.0", "own"]


async def test_every_member_is_found_on_the_record(app: Callboard, stranger: Stranger) -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    members = {
        "task": "add", "args": [1], "kwargs": {"b": 2}, "id": "full", "queue": "emails", "delay": 3600, "priority": 2,
        "retries": 4, "backoff": {"type": "fixed", "delay": 2}, "timeout": 1.5, "ttl": 7200, "meta": {"k": "v"},
        "deduplication": {"id": "d", "ttl": 60},
    }  # fmt: skip
    await stranger.ask(members, headers={"traceparent": traceparent})

    info = await app.queue("emails").get_job("full")
    assert info is not None
    assert info.run_at is not None
    assert info.expires_at is not None
    assert (info.state, info.args, info.kwargs, info.priority, info.meta) == ("delayed", [1], {"b": 2}, 2, {"k": "v"})
    assert (info.run_at - info.created_at).total_seconds() == 3600
    assert (info.expires_at - info.created_at).total_seconds() == 7200
    assert info.deduplication_id == "d"


@pytest.mark.parametrize("run_at", ["2020-01-31T09:00:00Z", "2020-01-31t09:00:00.123456789+02:00", 1_580_000_000.5])
async def test_a_moment_is_unix_seconds_or_rfc_3339(app: Callboard, stranger: Stranger, run_at: object) -> None:
    await stranger.ask({"task": "add", "args": [1], "id": "past", "run_at": run_at})
    assert await app.queue("emails").handle("past").result(PATIENCE_SECONDS) == 2


async def test_of_an_array_the_good_jobs_run_and_the_others_are_put_aside(app: Callboard, stranger: Stranger) -> None:
    good, bad = b'{"task":"add","args":[1],"id":"a"}', b'{"task":"add","id":"b","retries":-1}'
    body = b"[" + good + b", " + bad + b', 7, {"task":"add","args":[2],"id":"d"}]'
    reply = await stranger.ask(body)

    assert reply["ok"] is False
    assert [job["status"] for job in reply["jobs"]] == ["created", "refused", "refused", "created"]
    assert reply["error"] == reply["jobs"][1]["error"]
    assert (reply["error"]["code"], reply["error"]["path"]) == ("invalid-member", "/1/retries")
    assert [await app.queue("emails").handle(name).result(PATIENCE_SECONDS) for name in ("a", "d")] == [2, 3]
    letters = await stranger.letters(2)
    assert [(one.body, one.path) for one in letters] == [
        (bad, "/1/retries"),
        (b"7", "/2"),
    ]


@pytest.mark.parametrize(
    ("body", "code", "path", "said"),
    [
        ({"args": [1]}, "missing-member", "/task", "task is missing"),
        ({"task": 5}, "invalid-member", "/task", "not 5"),
        ({"task": "a b"}, "invalid-member", "/task", "'a b'"),
        ({"task": "add", "argz": []}, "unknown-member", "/argz", "'argz'"),
        ({"task": "add", "args": {}}, "invalid-member", "/args", "array, not {}"),
        ({"task": "add", "kwargs": []}, "invalid-member", "/kwargs", "object, not []"),
        ({"task": "add", "args": ["x"]}, "invalid-arguments", "/args/0", "got 'x'"),
        ({"task": "add", "args": [1], "kwargs": {"c": 2}}, "invalid-arguments", "/kwargs/c", "got 2"),
        ({"task": "add", "args": [1], "id": "12"}, "invalid-member", "/id", "'12'"),
        ({"task": "add", "args": [1], "id": 12}, "invalid-member", "/id", "not 12"),
        ({"task": "add", "args": [1], "id": "a\x00"}, "invalid-member", "/id", r"'a\x00'"),
        ({"task": "add", "args": [1], "queue": "a b"}, "invalid-member", "/queue", "'a b'"),
        ({"task": "add", "args": [1], "queue": "other"}, "queue-mismatch", "/queue", "'other'"),
        ({"task": "add", "args": [1], "priority": 11}, "invalid-member", "/priority", "not 11"),
        ({"task": "add", "args": [1], "delay": -1}, "invalid-member", "/delay", "-1"),
        ({"task": "add", "args": [1], "delay": 1, "run_at": 1}, "invalid-member", "", "not both"),
        ({"task": "add", "args": [1], "run_at": "2030-01-31T09:00:00"}, "invalid-member", "/run_at", "offset"),
        ({"task": "add", "args": [1], "run_at": "2030-02-31T09:00:00Z"}, "invalid-member", "/run_at", "2030-02-31"),
        ({"task": "add", "args": [1], "retries": 1.5}, "invalid-member", "/retries", "float"),
        ({"task": "add", "args": [1], "backoff": {"type": "x"}}, "invalid-member", "/backoff", "'x'"),
        ({"task": "add", "args": [1], "timeout": 0}, "invalid-member", "/timeout", "0"),
        ({"task": "add", "args": [1], "ttl": "1"}, "invalid-member", "/ttl", "'1'"),
        ({"task": "add", "args": [1], "meta": [1]}, "invalid-member", "/meta", "[1]"),
        ({"task": "add", "args": [1], "deduplication": "d"}, "invalid-member", "/deduplication", "'d'"),
        ({"task": "add", "args": [1], "depends_on": ["a"]}, "unsupported", "/depends_on", "not supported yet"),
        (b"nope", "not-json", "", "'nope'"),
        (b"[]", "no-jobs", "", "no job"),
        (b'{"task":"add","task":"add"}', "duplicate-member", "/task", "twice"),
        (b'{"task":"add","args":[18446744073709551616]}', "number-too-large", "/args/0", "64 bits"),
        (b'{"task":"add","args":["\\ud800"]}', "lone-surrogate", "/args/0", "surrogate"),
        (b'{"task":"add","args":[' + b"[" * 70 + b"]" * 70 + b"]}", "too-deep", "", "the limit is 64"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_told_with_its_place_and_put_aside(
    stranger: Stranger, body: Any, code: str, path: str, said: str
) -> None:
    reply = await stranger.ask(body)

    assert reply["ok"] is False
    assert "jobs" not in reply
    assert (reply["error"]["code"], reply["error"]["path"]) == (code, path)
    assert said in reply["error"]["message"]
    (letter,) = await stranger.letters(1)
    assert (letter.reason, letter.path, letter.detail) == (code, path, reply["error"]["message"])
    assert letter.body == (body if isinstance(body, bytes) else json.dumps(body).encode())
    assert (letter.exchange, letter.routing_key) == (stranger.names.submit, "emails")
    assert letter.properties["correlation_id"] == "c-1"


async def test_another_content_type_is_refused(stranger: Stranger) -> None:
    pickled = b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94."
    reply = await stranger.ask(pickled, content_type="application/x-python-serialize")
    assert reply["error"]["code"] == "content-type"


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=UTF-8", ""])
async def test_json_may_be_called_json_or_nothing(stranger: Stranger, content_type: str) -> None:
    assert (await stranger.ask({"task": "add", "args": [1]}, content_type=content_type))["ok"] is True


async def test_an_empty_routing_key_lets_the_body_say_the_queue(app: Callboard, stranger: Stranger) -> None:
    reply = await stranger.ask([{"task": "add", "args": [1], "queue": "emails", "id": "a"}], routing_key="")
    assert reply["ok"] is True
    assert await app.queue("emails").handle("a").result(PATIENCE_SECONDS) == 2


async def test_a_routing_key_that_names_no_queue_is_refused(stranger: Stranger) -> None:
    reply = await stranger.ask({"task": "add", "args": [1]}, routing_key="a b")
    assert (reply["error"]["code"], reply["error"]["path"]) == ("invalid-member", "routing_key")


async def test_strangers_cannot_make_queues_without_end(stranger: Stranger) -> None:
    replies = [await stranger.ask({"task": "add", "args": [1]}, routing_key=f"new-{number}") for number in range(4)]

    assert [reply["ok"] for reply in replies] == [True, True, False, False]
    assert replies[2]["error"]["code"] == "too-many-queues"
    assert (await stranger.ask({"task": "add", "args": [1]}))["ok"] is True


async def test_nothing_is_published_to_a_queue_that_a_stranger_may_not_name(
    app: Callboard, stranger: Stranger, caplog: pytest.LogCaptureFixture
) -> None:
    mine = "own-" + app.settings.namespace
    await stranger.broker.declare(Topology(queues=(Queue(mine, exclusive=True),)))
    for reply_to in (mine, stranger.names.job_queue("emails"), stranger.names.dead, "x" * 255):
        await stranger.submit({"task": "add", "args": [1]}, reply_to=reply_to)
    await stranger.ask({"task": "add", "args": [1], "id": "last"})

    assert await app.queue("emails").handle("last").result(PATIENCE_SECONDS) == 2
    for name in (mine, stranger.names.dead):
        depth = await stranger.broker.depth(name)
        assert depth is not None
        assert depth.ready == 0
    assert len([record for record in caplog.records if "no reply to" in record.getMessage()]) == 1


async def test_an_unknown_task_is_parked_and_its_state_and_reason_are_seen(app: Callboard, stranger: Stranger) -> None:
    await stranger.ask({"task": "not.here", "id": "early"})
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (info := await app.queue("emails").get_job("early")) is None or info.parked_at is None:
            await asyncio.sleep(0.02)
    assert info.state == "delayed"
    assert info.history[-1].reason == "no worker of queue 'emails' knows the task 'not.here'"


async def test_a_requeued_letter_comes_as_it_was_and_under_its_id(app: Callboard, stranger: Stranger) -> None:
    body = {"task": "late", "args": [4]}
    await stranger.submit(body, content_type="text/plain", headers={"callboard-message-id": "late-1"})
    await stranger.letters(1)

    assert (await stranger.dead.requeue(Filter(reasons=("content-type",)), limit=10, rate=1000)).sent == 1
    (letter,) = await stranger.letters(1)  # its content type has not changed
    assert (letter.reason, letter.properties["message_id"]) == ("content-type", "late-1")


@pytest.mark.parametrize("body", [b"nope", b'{"task":"add","args":[1]}'])
async def test_headers_that_would_grow_in_a_letter_hold_nothing_up(stranger: Stranger, body: bytes) -> None:
    reply = await stranger.ask(body, headers={"callboard-message-id": "\x01" * 32_000})
    assert reply["ok"] is False
    (letter,) = await stranger.letters(1)
    assert letter.body == body
    assert (await stranger.ask({"task": "add", "args": [1]}))["ok"] is True


async def test_what_rabbitmq_put_aside_comes_back_under_its_own_id_or_a_new_one(
    app: Callboard, stranger: Stranger
) -> None:
    body = {"task": "add", "args": [1]}
    death = [{"reason": "delivery_limit", "queue": stranger.names.intake, "exchange": stranger.names.submit}]
    named = {"callboard-message-id": "order-7", "x-death": death}
    for headers in (named, named, {"x-death": death}, {"x-death": death}):
        await stranger.submit(body, exchange=stranger.names.dead, headers=headers)
    letters = await stranger.letters(4)
    assert [letter.id for letter in letters[:2]] == ["order-7", "order-7"]

    assert (await stranger.dead.requeue(Filter(), limit=10, rate=1000)).sent == 4
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await app.queue("emails").queue_counts()).completed < 3:
            await asyncio.sleep(0.02)
    assert (await stranger.ask(body, headers={"callboard-message-id": "order-7"}))["jobs"][0]["status"] == "existing"
    assert (await app.queue("emails").queue_counts()).completed == 3


async def test_a_letter_that_amqp_cannot_carry_back_does_not_hold_up_the_others(stranger: Stranger) -> None:
    for key in ("\ufffd" * 80, "emails"):
        await stranger.submit(b"nope", routing_key=key)
    long = {
        "callboard-reason": "forged",
        "callboard-routing-key": "k" * 300,
        "callboard-exchange": stranger.names.submit,
    }
    await stranger.submit(b"nope", exchange=stranger.names.dead, headers=long)
    await stranger.letters(3)

    done = await stranger.dead.requeue(Filter(), limit=10, rate=1000)
    assert done.sent == 1
    assert sorted(why[:12] for _, why in done.refused) == ["AMQP allows ", "its routing "]


async def test_what_is_refused_again_is_requeued_once_and_no_faster_than_asked_for(stranger: Stranger) -> None:
    for number in range(3):
        await stranger.submit(b"%d" % number)
    before = {letter.id for letter in await stranger.letters(3)}
    began = time.monotonic()
    # Slower than the intake, which puts each aside again while the next one waits.
    done = await stranger.dead.requeue(Filter(reasons=("wrong-type",)), limit=10, rate=10)
    assert time.monotonic() - began >= 0.2

    after = await stranger.letters(3)
    assert (done.sent, sorted(letter.body for letter in after)) == (3, [b"0", b"1", b"2"])
    assert before.isdisjoint(letter.id for letter in after)


async def test_looking_takes_nothing_away(stranger: Stranger) -> None:
    for number in range(5):
        await stranger.submit(b"%d" % number)
    first = await stranger.letters(5)
    for _ in range(25):  # more often than RabbitMQ 4 would let a letter come back
        assert {letter.id for letter in await stranger.letters(5)} == {letter.id for letter in first}


async def test_letters_are_deleted_by_what_is_said_of_them(stranger: Stranger) -> None:
    await stranger.submit(b"nope")
    await stranger.submit(b"7")
    await stranger.submit(b"8", routing_key="other")
    await stranger.letters(3)

    assert await stranger.dead.delete(Filter(reasons=("wrong-type",), routing_key="other"), limit=10) == 1
    assert await stranger.dead.delete(Filter(containing="nop"), limit=10) == 1
    assert [letter.body for letter in await stranger.letters(1)] == [b"7"]


async def test_a_stored_payload_is_read_again_as_it_was(app: Callboard, stranger: Stranger) -> None:
    await stranger.ask({"task": "add", "args": [1], "id": "one"}, headers={"traceparent": "bad"})
    (job,) = await app.connections.store.get(Inspection).get("emails", ["one"])
    assert job is not None
    body = decode_body(job.payload)
    assert (body.id, body.traceparent, msgspec.json.decode(body.args)) == ("one", None, [1])
