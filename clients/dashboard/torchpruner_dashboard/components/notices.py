"""Empty states, errors and waiting, the same on every page."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from nicegui import background_tasks, ui

from torchpruner_client import UnauthorizedError
from torchpruner_dashboard.failures import Failure, failure_of

T = TypeVar("T")


def empty_state(title: str, text: str, icon: str = "inbox") -> ui.column:
    """Nothing is here yet: say what to do first. Buttons can be added inside."""
    with ui.column().classes("tp-card tp-empty") as column:
        ui.icon(icon, size="40px").classes("tp-soft")
        ui.label(title).classes("tp-h2")
        ui.label(text).classes("tp-soft")
    return column


def error_panel(failure: Failure, retry: Callable[[], Any] | None = None) -> ui.column:
    """What went wrong, in plain words, and a button where trying again can help."""
    with ui.column().classes("tp-card tp-error").props('role="alert"') as column:
        with ui.row().classes("tp-row"):
            ui.icon("error_outline", size="22px")
            ui.label(failure.title).classes("tp-h2")
        ui.label(_sentence(failure.detail)).classes("tp-wrap")
        if failure.advice:
            ui.label(failure.advice).classes("tp-soft")
        if retry is not None:
            ui.button("Try again", icon="refresh", on_click=retry).props("outline no-caps")
    return column


def _sentence(text: str) -> str:
    """The service's details begin in lower case, as an exception's text does."""
    return text if text.startswith("http") else f"{text[:1].upper()}{text[1:]}"


def spinner(text: str) -> ui.column:
    """Something is being fetched."""
    with ui.column().classes("tp-spinner").props('role="status"') as column:
        ui.spinner(size="32px")
        ui.label(text).classes("tp-soft")
    return column


def toast(text: str, kind: str = "positive") -> None:
    """A short word that needs no answer."""
    icons = {"positive": "check_circle", "negative": "error_outline", "info": "info"}
    ui.notify(text, type=kind, icon=icons.get(kind), position="bottom")  # type: ignore[arg-type]


def toast_failure(error: BaseException) -> None:
    """An error of an action: its title and detail."""
    failure = failure_of(error)
    ui.notify(
        f"{failure.title}: {failure.detail}",
        type="negative",
        icon="error_outline",
        position="bottom",
        multi_line=True,
        close_button="Close",
        timeout=10_000,
    )


class Region(Generic[T]):
    """A part of a page that is fetched after the page is there: spinner, then content or error."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[T]],
        show: Callable[[T], Any],
        waiting: str = "Loading",
    ) -> None:
        self._fetch = fetch
        self._show = show
        self._waiting = waiting
        self._box = ui.column().classes("tp-stack")
        with self._box:
            spinner(waiting)
        # Asked for while the browser still loads the page, shown when it is connected: the page
        # itself never waits for the service.
        self._early: asyncio.Task[T | Exception] | None = background_tasks.create(self._ask())
        ui.timer(0, self._fill, once=True)

    async def reload(self) -> None:
        """Fetch and show anew, with the spinner while that lasts."""
        self._box.clear()
        with self._box:
            spinner(self._waiting)
        await self._fill()

    async def _ask(self) -> T | Exception:
        try:
            return await self._fetch()
        except Exception as error:
            return error

    async def _fill(self) -> None:
        early, self._early = self._early, None
        found = await (early or self._ask())
        if self._box.is_deleted:
            return
        # Within the box: the button that asked may be gone with what it stood in.
        with self._box:
            if isinstance(found, UnauthorizedError):
                ask_for_key()
                return
            self._box.clear()
            if isinstance(found, Exception):
                error_panel(failure_of(found), self.reload)
                return
            shown = self._show(found)
            if isinstance(shown, Awaitable):
                await shown


def ask_for_key() -> None:
    """Go to the login page and come back afterwards."""
    ui.run_javascript(
        "window.location.href = '/login?to=' + "
        "encodeURIComponent(window.location.pathname + window.location.search)"
    )
