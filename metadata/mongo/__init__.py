"""The metadata store on MongoDB 5.0 or later, standalone or replica set: one collection, single-document guards.

How jobs are laid out in documents is explained at the top of `record.py`, how a call becomes one read and one guarded
write at the top of `work.py`, and why a claim cannot slip past a pause or a declared death at the top of `window.py`.
"""

from .store import MongoStore

__all__ = ["MongoStore"]
