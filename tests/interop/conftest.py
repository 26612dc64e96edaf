from __future__ import annotations

from path.conftest import app, place

__all__ = ["app", "place"]
