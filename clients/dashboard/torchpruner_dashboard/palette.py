"""Colours that colour-blind people can tell apart, and the sign that goes with each.

The hues are Okabe and Ito's (https://jfly.uni-koeln.de/color/). Nothing is told by colour alone:
every state and role has an icon or a letter of its own too.
"""

from __future__ import annotations

from dataclasses import dataclass

ORANGE = "#e69f00"
SKY = "#56b4e9"
GREEN = "#009e73"
YELLOW = "#f0e442"
BLUE = "#0072b2"
VERMILION = "#d55e00"
PURPLE = "#cc79a7"
GREY = "#8a8f98"

SERIES = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, YELLOW, GREY)
"""Colours of charts' series, in order."""

CHART_TEXT = "#7d838d"
"""As readable on the light background as on the dark one, so that charts need not be drawn again
when the theme changes."""


@dataclass(frozen=True, slots=True)
class Sign:
    """A colour with the icon and the word that say the same."""

    colour: str
    icon: str
    word: str


STATES = {
    "ready": Sign(GREEN, "check_circle", "ready"),
    "running": Sign(BLUE, "autorenew", "running"),
    "queued": Sign(SKY, "schedule", "queued"),
    "failed": Sign(VERMILION, "error", "failed"),
    "cancelled": Sign(GREY, "cancel", "cancelled"),
}


TYPE_COLOURS = (
    ("conv", BLUE),
    ("linear", ORANGE),
    ("attention", PURPLE),
    ("norm", SKY),
    ("embedding", YELLOW),
)


def type_colour(module_type: str) -> str:
    """The colour of a module's kind in a treemap; its name is written on it too."""
    lowered = module_type.lower()
    for part, colour in TYPE_COLOURS:
        if part in lowered:
            return colour
    return GREY


def text_on(colour: str) -> str:
    """Black or white, whichever reads better on ``colour``."""
    red, green, blue = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.45 else "#ffffff"
