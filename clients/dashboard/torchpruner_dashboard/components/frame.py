"""The frame of every page: header, navigation, theme, keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nicegui import ui
from nicegui.events import KeyEventArguments

from torchpruner_dashboard.visit import Visit

PAGES = (
    ("Models", "/", "m"),
    ("Compare", "/compare", "c"),
    ("Audit", "/audit", "a"),
    ("Service", "/service", "s"),
)

KEYS = (
    ("m, c, a, s", "go to Models, Compare, Audit, Service"),
    ("/", "search"),
    ("t", "light, dark, or as the system"),
    ("?", "this list"),
    ("Tab, arrows, Enter", "move and press, as anywhere"),
    ("← → on the slider", "one slice less or more"),
)

_THEMES = {
    None: ("brightness_auto", "auto"),
    False: ("light_mode", "light"),
    True: ("dark_mode", "dark"),
}


@contextmanager
def frame(visit: Visit, title: str, here: str) -> Iterator[ui.column]:
    """Build a page's frame; the body of the ``with`` builds its content. ``here`` is its page."""
    ui.page_title(f"{title} · torchpruner")
    theme = _theme()
    help_dialog = _help_dialog()
    with ui.header(elevated=False).classes("tp-header"), ui.row().classes("tp-row tp-bar-row"):
        ui.link("Skip to the content", "#content").classes("tp-skip")
        with (
            ui.link(target="/").classes("tp-brand"),
            ui.row().classes("tp-bar-row").style("gap: 6px"),
        ):
            ui.icon("content_cut", size="20px")
            ui.html("<span>torchpruner</span>", sanitize=False)
        with ui.element("nav").props('aria-label="Pages"').style("display: flex; gap: 2px"):
            for name, target, _ in PAGES:
                link = ui.link(name, target).classes("tp-nav")
                if name == here:
                    link.classes("tp-here").props('aria-current="page"')
        ui.element("div").classes("tp-grow")
        toggle = ui.button(icon=_THEMES[theme.value][0])
        toggle.on_click(lambda: _next_theme(theme, toggle))
        toggle.props('flat round dense aria-label="Theme"').tooltip(
            "Theme: light, dark, system (t)"
        )
        keys = ui.button(icon="keyboard", on_click=help_dialog.open).classes("tp-hide-narrow")
        keys.props('flat round dense aria-label="Keyboard"').tooltip("Keyboard (?)")
        _account(visit)
    _keyboard(theme, toggle, help_dialog)
    with ui.element("div").props('id="content" tabindex="-1"').classes("tp-main"):  # noqa: SIM117
        with ui.column().classes("tp-page") as content:
            yield content


def _theme() -> ui.dark_mode:
    request = ui.context.client.request
    stored = request.cookies.get("tp-theme", "auto") if request else "auto"
    return ui.dark_mode(value={"dark": True, "light": False}.get(stored))


def _next_theme(theme: ui.dark_mode, toggle: ui.button) -> None:
    theme.value = {None: False, False: True, True: None}[theme.value]
    icon, word = _THEMES[theme.value]
    toggle.props["icon"] = icon
    ui.run_javascript(
        f"document.cookie = 'tp-theme={word}; path=/; max-age=31536000; samesite=lax'"
    )


def _account(visit: Visit) -> None:
    if not visit.session.key or visit.session.key == visit.desk.settings.shared_key:
        return

    async def leave() -> None:
        await visit.desk.sessions.log_out(visit.browser)
        ui.navigate.to("/login")

    info = visit.session.info
    with ui.button(icon="person").props('flat round dense aria-label="Account"'), ui.menu():
        if info is not None:
            ui.label(f"Tenant {info.tenant}").classes("q-pa-md")
            ui.label(f"Your key may: {', '.join(info.scopes)}").classes("q-px-md tp-soft tp-small")
        ui.menu_item("Log out", leave)


def _help_dialog() -> ui.dialog:
    with ui.dialog() as dialog, ui.card().classes("tp-card").style("max-width: 420px"):
        ui.label("Keyboard").classes("tp-h2")
        for keys, meaning in KEYS:
            with ui.row().classes("tp-row"):
                ui.html(f'<kbd class="tp-kbd">{keys}</kbd>', sanitize=False)
                ui.label(meaning)
        ui.button("Close", on_click=dialog.close).props("flat no-caps")
    return dialog


def _keyboard(theme: ui.dark_mode, toggle: ui.button, help_dialog: ui.dialog) -> None:
    targets = {key: target for _, target, key in PAGES}

    def press(event: KeyEventArguments) -> None:
        modifiers = event.modifiers
        if not event.action.keydown or modifiers.ctrl or modifiers.alt or modifiers.meta:
            return
        key = str(event.key.name)
        if key in targets:
            ui.navigate.to(targets[key])
        elif key == "t":
            _next_theme(theme, toggle)
        elif key == "?":
            help_dialog.open()
        elif key == "/":
            ui.run_javascript("document.querySelector('.tp-search input')?.focus()")

    ui.keyboard(on_key=press, repeating=False)
