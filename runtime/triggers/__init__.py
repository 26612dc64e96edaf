"""Triggers: when a schedule occurs, as values; and what becomes of occurrences that were late or overlap.

`contract` says what a trigger is; start there.
"""

from .at import At
from .codec import STAMP, StoredTrigger, decode_policy, decode_trigger, encode_policy, encode_trigger
from .combined import AllOf, AnyOf
from .contract import Tally, Trigger, TriggerInvalid
from .cron import Cron
from .daylight import Daylight, Missing, Repeated
from .every import Every
from .occurrences import fires_at, latest_until, preview
from .policy import Admission, Fate, Overlap, Plan, Policy

__all__ = [
    "STAMP",
    "Admission",
    "AllOf",
    "AnyOf",
    "At",
    "Cron",
    "Daylight",
    "Every",
    "Fate",
    "Missing",
    "Overlap",
    "Plan",
    "Policy",
    "Repeated",
    "StoredTrigger",
    "Tally",
    "Trigger",
    "TriggerInvalid",
    "decode_policy",
    "decode_trigger",
    "encode_policy",
    "encode_trigger",
    "fires_at",
    "latest_until",
    "preview",
]
