"""Log in with an API key, where the service wants one."""

from __future__ import annotations

from nicegui import ui

from torchpruner_client import UnauthorizedError
from torchpruner_dashboard.components.notices import error_panel
from torchpruner_dashboard.failures import Failure, failure_of
from torchpruner_dashboard.visit import Desk, Visit


def install(desk: Desk) -> None:
    @ui.page("/login", title="Log in · torchpruner")
    def page(to: str = "/") -> None:
        visit = desk.visit()
        stored = ui.context.client.request
        ui.dark_mode({"dark": True, "light": False}.get(stored.cookies.get("tp-theme", "")))
        with ui.column().classes("tp-page").style("max-width: 460px; padding-top: 12vh"):
            _form(visit, to if _is_local(to) else "/")


def _form(visit: Visit, to: str) -> None:
    with ui.column().classes("tp-card"):
        ui.html('<h1 class="tp-title">Log in</h1>', sanitize=False)
        ui.label(
            "This service wants an API key. Its operator makes one with "
            "`torchpruner-service keys create`; it starts with tp_."
        ).classes("tp-soft")
        key = ui.input("API key", password=True, password_toggle_button=True)
        key.props('outlined autofocus autocomplete="current-password"').style("width: 100%")
        result = ui.column().style("width: 100%")

        async def enter() -> None:
            button.props(add="loading")
            result.clear()
            try:
                await visit.desk.sessions.log_in(visit.browser, str(key.value or "").strip())
            except UnauthorizedError:
                _refused(result, Failure("This key is not valid", "It may be misspelt or revoked."))
            except Exception as error:
                _refused(result, failure_of(error))
            else:
                ui.navigate.to(to)
            finally:
                button.props(remove="loading")

        key.on("keydown.enter", enter)
        button = ui.button("Log in", on_click=enter).props("no-caps unelevated")
        ui.label("The key stays in the dashboard's memory until you log out.").classes(
            "tp-soft tp-small"
        )


def _refused(box: ui.column, failure: Failure) -> None:
    with box:
        error_panel(failure)


def _is_local(target: str) -> bool:
    """Whether an address stays on this site: no other host can be smuggled into a login link."""
    return target.startswith("/") and not target.startswith(("//", "/\\"))
