"""The metadata store on Redis 6.2 or later, and what speaks like it: one Lua script for each operation of the contract.

How jobs are laid out in keys is explained at the top of `head.lua`, how a script stays all-or-nothing in `record.lua`.
"""

from .store import RedisStore

__all__ = ["RedisStore"]
