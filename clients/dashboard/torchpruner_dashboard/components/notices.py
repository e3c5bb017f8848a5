"""Empty states, errors and waiting, the same on every page."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from nicegui import background_tasks, ui

from torchpruner_client import UnauthorizedError
from torchpruner_dashboard.failures import Failure, failure_of

T = TypeVar("T")

Early = asyncio.Task[T | Exception]

AGAIN = 3.0
"""Seconds after which a page asks again a service that did not answer."""

AT_ONCE = 0.1
"""Seconds that nobody notices; what takes longer shows a spinner."""


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


def passing_panel(failure: Failure, retry: Callable[[], Any]) -> None:
    """What went wrong; where that passes, ``retry`` is called after a while, and by a button at once."""
    error_panel(failure, retry if failure.passing else None)
    if failure.passing:
        ui.timer(AGAIN, retry, once=True, immediate=False)


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
    """An error of an action: its title, its detail and what to do."""
    if isinstance(error, UnauthorizedError):
        ask_for_key()
        return
    failure = failure_of(error)
    ui.notify(
        " ".join(filter(None, (f"{failure.title}: {failure.detail}", failure.advice))),
        type="negative",
        icon="error_outline",
        position="bottom",
        multi_line=True,
        close_button="Close",
        timeout=10_000,
    )


async def promptly(fetch: Callable[[], Awaitable[T]]) -> Early[T]:
    """Start to fetch what a page needs, and wait for it only as long as nobody notices.

    Await it before the page is built: what is here by then is part of the page's first delivery,
    which saves the browser a spinner and a round trip.
    """
    early: Early[T] = background_tasks.create(_outcome(fetch))
    await asyncio.wait({early}, timeout=AT_ONCE)
    return early


async def _outcome(fetch: Callable[[], Awaitable[T]]) -> T | Exception:
    try:
        return await fetch()
    except Exception as error:
        return error


async def copy(text: str, what: str) -> None:
    """Put ``text`` on the browser's clipboard and say whether that worked."""
    if await ui.run_javascript(f"return window.tpCopy({json.dumps(text)})", timeout=5.0):
        toast(f"{what} is copied", "info")
    else:
        toast("The browser does not allow copying here: select the text and press Ctrl+C", "info")


class Region(Generic[T]):
    """A part of a page that depends on the service: spinner, then content or error."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[T]],
        show: Callable[[T], None],
        waiting: str = "Loading",
    ) -> None:
        self._fetch = fetch
        self._show = show
        self._waiting = waiting

    def build(self, early: Early[T]) -> None:
        """Build it here. ``early`` is the first fetch, under way or done (:func:`promptly`)."""
        self._box = ui.column().classes("tp-stack")
        if early.done():
            self.put(early.result())
            return

        async def wait() -> None:
            self.put(await early)

        with self._box:
            spinner(self._waiting)
        ui.timer(0, wait, once=True)

    async def reload(self) -> None:
        """Fetch and show anew, with the spinner while that lasts."""
        self._box.clear()
        with self._box:
            spinner(self._waiting)
        self.put(await _outcome(self._fetch))

    def put(self, found: T | Exception) -> None:
        """Show what was found, or what went wrong."""
        if self._box.is_deleted:
            return
        # Within the box: the button that asked may be gone with what it stood in.
        with self._box:
            if isinstance(found, UnauthorizedError):
                ask_for_key()
                return
            self._box.clear()
            if isinstance(found, Exception):
                failure = failure_of(found)
                error_panel(failure, self.reload)
                if failure.passing:
                    ui.timer(AGAIN, self._try_again, once=True, immediate=False)
            else:
                self._show(found)

    async def _try_again(self) -> None:
        """Without the spinner: the error stays in sight until there is something better."""
        self.put(await _outcome(self._fetch))


def ask_for_key() -> None:
    """Go to the login page and come back afterwards."""
    ui.run_javascript(
        "window.location.href = '/login?to=' + "
        "encodeURIComponent(window.location.pathname + window.location.search)"
    )
