"""An address that leads nowhere: say so in the dashboard's own words."""

from __future__ import annotations

from fastapi import Response
from nicegui import ui

from torchpruner_dashboard.components.frame import frame
from torchpruner_dashboard.components.notices import empty_state
from torchpruner_dashboard.visit import Desk


def install(desk: Desk) -> None:
    """Register last: it takes every address that no other page has."""

    @ui.page("/{path:path}")
    async def page(path: str, response: Response) -> None:
        response.status_code = 404
        ui.page_title("No such page · torchpruner")
        with (
            frame(desk.visit(), "No such page", ""),
            empty_state(
                "There is no page at this address",
                "The link may be old, or a letter is missing. The models page lists what there is.",
                "explore_off",
            ),
        ):
            ui.button("All models", on_click=lambda: ui.navigate.to("/")).props(
                "unelevated no-caps"
            )
