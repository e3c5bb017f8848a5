"""Reads server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html) line by
line."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class EventReader:
    """Feed it lines; it returns ``(event, data)`` when one is complete."""

    _event: str = "message"
    _data: list[str] = field(default_factory=list)

    def line(self, text: str) -> tuple[str, dict[str, Any]] | None:
        if text == "":
            event, data = self._event, "\n".join(self._data)
            self._event, self._data = "message", []
            return (event, json.loads(data)) if data else None
        name, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._event = value
        elif name == "data":
            self._data.append(value)
        return None
