"""Bodies that strangers might send, as strategies of hypothesis: bytes, JSON, and messages of ours with a part that is
wrong, written as text so that what no encoder would write can be in them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st
from msgspec import Struct

SUBMIT, JOBS, CONTROL, EVENTS, DEAD = "submit", "jobs", "control", "events", "dead"


class Case(Struct, frozen=True):
    exchange: str
    body: bytes
    headers: dict[str, str] = {}
    reply_to: str | None = None


WEIRD = [
    *("null", "true", "-1", "0", "1.5", "1e400", "-1e999", "NaN", "Infinity", "-Infinity", "1e-400", "-0"),
    *("9223372036854775808", "18446744073709551616", "1" + "0" * 5000, "0." + "9" * 5000),
    *('""', '"\\u0000"', '"\\ud800"', '"\\udfff\\ud800"', '"\\ud83d\\ude00"', '"' + "x" * 500 + '"', '"\x00"', '"\\x"'),
    *('"../../etc/passwd"', '"__import__"', '"os.system"', '"*"', '"#"', '"{}"', '"$where"', '"\\u202e\\u0007"'),
    *("[]", "{}", '{"$gt": ""}', "[[]]", "[" * 70 + "]" * 70, "[" * 2000, '{"a":' * 100 + "1" + "}" * 100),
    *('{"a":1,"a":2}', '[{"b":[{"c":1,"c":2}]}]', "[" + "1," * 10_001 + "1]", '"' + "y" * 300_000 + '"'),
    *(
        '"' + "z" * 70_000 + ':"',
        '"' + "1" * 100_000 + '"',
        '"' + "\\u0001" * 40_000 + '"',
        '{"' + "k" * 90_000 + '":1}',
    ),
    *('"2030-01-31T09:00:00"', '"2030-13-31T09:00:00Z"', '"9999-12-31T23:59:59+23:59"', '"0001-01-01T00:00:00+14:00"'),
]

HEADERS: list[dict[str, str]] = [
    *([{}] * 10),
    {"callboard-message-id": "m-1", "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"},
    {"callboard-message-id": "\x01" * 30_000},
    {"callboard-message-id": "7" * 300, "traceparent": "\\" * 20_000},
    {"callboard-message-id": "a:b", "x-death": "none", "callboard-reason": "forged", "callboard-letter": "x" * 9000},
]
REPLY_TO = [None, None, "amq.gen-nobody", "amq.rabbitmq.reply-to.nobody", "callboard.dead", "x" * 255]

WRONGS = ["nothing", "nothing", "nothing", "nothing", "replace", "replace", "replace", "double", "leave out", "add"]

text = st.text(max_size=20).map(json.dumps)
json_text = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
).map(json.dumps)
value = st.sampled_from(WEIRD) | json_text | text


def _object(members: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f"{json.dumps(name)}:{content}" for name, content in members) + "}"


@st.composite
def mutated(draw: st.DrawFn, members: dict[str, Any]) -> str:
    """The object with one member replaced, doubled, left out or added; now and then none."""
    parts = [(name, json.dumps(content)) for name, content in members.items()]
    index = draw(st.integers(0, len(parts) - 1))
    match draw(st.sampled_from(WRONGS)):
        case "replace":
            parts[index] = (parts[index][0], draw(value))
        case "double":
            parts.append((parts[index][0], draw(value)))
        case "leave out":
            del parts[index]
        case "add":
            parts.append((draw(st.text(max_size=10)), draw(value)))
    return _object(parts)


@st.composite
def job(draw: st.DrawFn) -> str:
    members: dict[str, Any] = {"task": "work", "args": [0, False], "id": f"fuzz-{draw(st.uuids())}"}
    optional = {
        "kwargs": {}, "queue": "images", "delay": 0, "run_at": 1, "priority": 3, "retries": 1, "backoff": 1,
        "timeout": 5, "ttl": 60, "deduplication": {"id": f"d-{draw(st.uuids())}"}, "meta": {"a": 1}, "depends_on": None,
    }  # fmt: skip
    for name in draw(st.lists(st.sampled_from(sorted(optional)), max_size=4, unique=True)):
        if not (name == "delay" and "run_at" in members) and not (name == "run_at" and "delay" in members):
            members[name] = optional[name]
    return draw(mutated(members))


@st.composite
def submission(draw: st.DrawFn) -> str:
    if draw(st.booleans()):
        return draw(job())
    return "[" + ",".join(draw(st.lists(job() | value, max_size=4))) + "]"


@st.composite
def bundle(draw: st.DrawFn) -> str:
    ticket = {
        "id": f"ticket-{draw(st.uuids())}", "queue": "images", "task": "work", "created_at": 1_790_000_000_000,
        "dispatch": 1, "args": [0, False], "kwargs": {}, "priority": 5, "retries": 1, "backoff": 1, "timeout": 1000,
        "meta": {}, "expires_at": None, "traceparent": "x", "v": 1,
    }  # fmt: skip
    tickets = "[" + ",".join(draw(st.lists(mutated(ticket), min_size=1, max_size=3))) + "]"
    outer = {"v": 1, "epoch": "fuzz", "at": 1_790_000_000_000}
    inner = draw(mutated(outer) | st.just(json.dumps(outer)))
    return inner[:-1] + ',"jobs":' + tickets + "}"


command = mutated({"v": 1, "command": "cancel", "queue": "elsewhere", "jobs": ["a"]})
event = mutated({"v": 1, "events": [{"event": "completed", "job": "a", "queue": "q", "task": "t", "at": 1}]})


@st.composite
def _case(draw: st.DrawFn, exchange: str, body: st.SearchStrategy[str]) -> Case:
    """Mostly whole, at times cut off, or plain bytes."""
    way = draw(st.integers(0, 9))
    headers, reply_to = draw(st.sampled_from(HEADERS)), draw(st.sampled_from(REPLY_TO))
    if way == 0:
        return Case(exchange, draw(st.binary(max_size=100)), headers, reply_to)
    encoded = draw(body).encode(errors="surrogatepass")
    return Case(exchange, encoded[: -draw(st.integers(1, 200))] if way == 1 else encoded, headers, reply_to)


cases = (
    _case(SUBMIT, submission())
    | _case(SUBMIT, submission())
    | _case(SUBMIT, json_text)
    | _case(JOBS, bundle())
    | _case(JOBS, json_text)
    | _case(CONTROL, command)
    | _case(EVENTS, event)
    | _case(DEAD, json_text)
)
