"""Loggers by name: `callboard.schedulers[.<name>]`, `callboard.stores.<alias>`, `callboard.executors.<alias>`."""

from __future__ import annotations

import logging


class Loggers(dict[str, logging.Logger]):
    """By a name such as `callboard.executors.default`. A class of your own overrides `__missing__`."""

    def __missing__(self, name: str) -> logging.Logger:
        logger = logging.getLogger(name)
        self[name] = logger
        return logger


ClassicLogging = Loggers
