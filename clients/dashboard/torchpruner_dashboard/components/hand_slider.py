"""A slider that stays where the hand put it."""

from __future__ import annotations

from nicegui import ui


class HandSlider(ui.slider):
    """Keeps what the hand does: the server's echo would pull it back to an earlier step."""

    LOOPBACK = False
