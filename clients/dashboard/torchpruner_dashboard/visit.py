"""What every page needs to know of the one visit it is built for."""

from __future__ import annotations

from dataclasses import dataclass

from nicegui import app

from torchpruner_dashboard.downloads import Downloads
from torchpruner_dashboard.sessions import Session, Sessions
from torchpruner_dashboard.settings import DashboardSettings


@dataclass(frozen=True)
class Desk:
    """What all visits share."""

    settings: DashboardSettings
    sessions: Sessions
    downloads: Downloads

    def visit(self) -> Visit:
        """The visit of the page that is being built."""
        browser = str(app.storage.browser["id"])
        return Visit(self, browser, self.sessions.of(browser))


@dataclass(frozen=True)
class Visit:
    """One page in one browser."""

    desk: Desk
    browser: str
    session: Session
