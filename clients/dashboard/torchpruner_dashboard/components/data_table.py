"""Tables: sorted, searched, paged; rows become cards on narrow screens.

Cells are drawn by one template; a column's ``kind`` says how. Values go through Vue's escaping.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from nicegui import events, ui

from torchpruner_dashboard import palette

Kind = Literal["name", "text", "number", "measure", "state", "tree", "action", "tags", "line"]


@dataclass(frozen=True, slots=True)
class Column:
    """``name`` is the key of the raw value, which sorts.

    A row may also have ``<name>_text`` (what is shown), ``<name>_sub`` (a second line),
    ``<name>_href`` (a link), ``<name>_bar`` (percent, for ``measure``) and ``<name>_percent`` (for
    ``state``). The value of ``tags`` has one a line; ``line`` is a text that has a line of its own on
    narrow screens. ``signs`` draws a ``state`` column's values.
    """

    name: str
    label: str
    kind: Kind = "text"
    sortable: bool = True
    signs: Mapping[str, palette.Sign] = field(default_factory=dict)

    def to_quasar(self) -> dict[str, Any]:
        right = self.kind in {"number", "measure"}
        return {
            "name": self.name,
            "label": self.label,
            "field": self.name,
            "kind": self.kind,
            "sortable": self.sortable and self.kind != "action",
            "align": "right" if right else "left",
            "signs": {value: asdict(sign) for value, sign in self.signs.items()},
        }


_CELL = """
<q-td :props="props"
      :class="['tp-cell-' + props.col.kind,
               props.value == null || props.value === '' ? 'tp-blank' : '']">
 <span class="tp-cell-label">{{ props.col.label }}</span>
 <div class="tp-cell-value">
  <template v-if="props.col.kind === 'state'">
    <span class="tp-state">
      <q-icon :name="(props.col.signs[props.value] ?? {}).icon"
              :style="{color: (props.col.signs[props.value] ?? {}).colour}"></q-icon>
      {{ (props.col.signs[props.value] ?? {}).word ?? props.value }}
    </span>
    <span v-if="props.row[props.col.name + '_percent'] != null" class="tp-track">
      <i :style="{width: props.row[props.col.name + '_percent'] + '%'}"></i></span>
  </template>
  <template v-else-if="props.col.kind === 'tree'">
    <span class="tp-branch" :style="{paddingLeft: 18 * props.row[props.col.name + '_depth'] + 'px'}">
      <q-btn v-if="props.row[props.col.name + '_open'] != null" flat dense round size="sm"
             :icon="props.row[props.col.name + '_open'] ? 'expand_more' : 'chevron_right'"
             :aria-expanded="props.row[props.col.name + '_open'] ? 'true' : 'false'"
             :aria-label="props.row.id" @click="$parent.$emit('toggle', props.row.id)"></q-btn>
      <span v-else class="tp-leaf"></span>
      {{ props.value }}&nbsp;
      <span class="tp-soft tp-small">{{ props.row[props.col.name + '_type'] }}</span></span>
  </template>
  <template v-else-if="props.col.kind === 'tags'">
    <a v-for="tag in (props.value ?? '').split('\\n').filter(Boolean)" :key="tag" class="tp-tag"
       :href="'/?tag=' + encodeURIComponent(tag)">{{ tag }}</a>
  </template>
  <template v-else-if="props.col.kind === 'action'">
    <a v-if="props.row[props.col.name + '_href']" :href="props.row[props.col.name + '_href']">
      {{ props.row[props.col.name + '_text'] }}</a>
    <q-btn v-else-if="props.row[props.col.name + '_text']" flat dense no-caps color="primary"
           :label="props.row[props.col.name + '_text']"
           @click.stop="$parent.$emit('action', props.row.id, props.row[props.col.name])"></q-btn>
  </template>
  <template v-else>
    <a v-if="props.row[props.col.name + '_href']" :href="props.row[props.col.name + '_href']">
      {{ props.row[props.col.name + '_text'] ?? props.value }}</a>
    <span v-else>{{ props.row[props.col.name + '_text'] ?? props.value }}</span>
    <span v-if="props.col.kind === 'measure' && props.row[props.col.name + '_bar'] != null"
          class="tp-track"><i :style="{width: props.row[props.col.name + '_bar'] + '%'}"></i></span>
  </template>
  <span v-if="props.row[props.col.name + '_sub']" class="tp-sub">
    {{ props.row[props.col.name + '_sub'] }}</span>
 </div>
</q-td>
"""


class DataTable:
    """All rows stay here; the browser gets the page of them that it shows.

    So a search, a sort or a change of one row costs a page's worth of traffic, not all rows.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        rows: list[dict[str, Any]],
        *,
        page_size: int = 25,
        sort_by: str | None = None,
        descending: bool = False,
        selection: Literal["single", "multiple"] | None = None,
        empty: str = "Nothing to show",
    ) -> None:
        """``rows`` have a unique ``id`` each and the keys that their :class:`Column` names."""
        self._columns = columns
        self._rows = rows
        self._text = ""
        self._pagination: dict[str, Any] = {
            "page": 1,
            "rowsPerPage": page_size,
            "sortBy": sort_by,
            "descending": descending,
            "rowsNumber": 0,
        }
        self._page_size = page_size
        self.table = ui.table(
            columns=[column.to_quasar() for column in columns],
            rows=[],
            row_key="id",
            pagination=self._pagination,
            selection=selection,
        )
        self.table.classes("tp-table").props("flat binary-state-sort")
        self.table.props["rows-per-page-options"] = [10, 25, 50, 100]
        self.table.props["no-data-label"] = empty
        self.table.add_slot("body-cell", _CELL)
        self.table.on("request", self._requested, ["pagination"])
        self.table.on_pagination_change(self._keep_count)
        self._draw()

    @property
    def selected(self) -> list[dict[str, Any]]:
        return self.table.selected

    def set_rows(self, rows: list[dict[str, Any]]) -> None:
        """Replace the rows; search, order and page stay."""
        self._rows = rows
        self._draw()

    def search(self, text: str) -> None:
        """Show the rows that have ``text`` in any of their cells."""
        self._text = text.strip().lower()
        self._pagination = {**self._pagination, "page": 1}
        self._draw()

    def csv(self) -> str:
        """All rows that the search leaves, in the order shown, raw values, with a header line."""
        return csv_text(self._columns, self._found())

    def _requested(self, event: events.GenericEventArguments) -> None:
        self._pagination = {**self._pagination, **event.args["pagination"]}
        self._draw()

    def _keep_count(self) -> None:
        """A browser that has just begun says how many rows it was first told of: that is over."""
        if self.table.pagination.get("rowsNumber") != self._pagination["rowsNumber"]:
            self.table.pagination = self._pagination

    def _draw(self) -> None:
        found = self._found()
        size = int(self._pagination.get("rowsPerPage") or self._page_size)
        last = max(1, -(-len(found) // size))
        page = min(int(self._pagination.get("page") or 1), last)
        self._pagination = {**self._pagination, "page": page, "rowsNumber": len(found)}
        shown = found[(page - 1) * size : page * size]
        if shown == self.table.rows and self._pagination == self.table.pagination:
            # Every draw costs the browser as much as the first.
            return
        self.table.pagination = self._pagination
        self.table.props["hide-pagination"] = len(found) <= self._page_size
        self.table.rows = shown

    def _found(self) -> list[dict[str, Any]]:
        """The rows that the search leaves, sorted."""
        found = [row for row in self._rows if self._matches(row)]
        name = self._pagination.get("sortBy")
        if name:
            known = [row for row in found if row.get(name) is not None]
            unknown = [row for row in found if row.get(name) is None]
            known.sort(key=lambda row: _sort_key(row[name]), reverse=self._descending)
            found = known + unknown
        return found

    @property
    def _descending(self) -> bool:
        return bool(self._pagination.get("descending"))

    def _matches(self, row: dict[str, Any]) -> bool:
        if not self._text:
            return True
        return any(
            self._text in str(row.get(key, "")).lower()
            for column in self._columns
            for key in (column.name, f"{column.name}_text", f"{column.name}_sub")
        )


class Searched(Protocol):
    """A table, or what folds the rows of one."""

    def search(self, text: str) -> None: ...

    def csv(self) -> str: ...


def csv_text(columns: Sequence[Column], rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as CSV: raw values, with a header line."""
    sink = io.StringIO()
    writer = csv.writer(sink)
    written = [column for column in columns if column.kind != "action"]
    writer.writerow(column.label for column in written)
    for row in rows:
        writer.writerow(row.get(column.name, "") for column in written)
    return sink.getvalue()


def search_field(table: Searched, label: str = "Search") -> ui.input:
    """A field that filters ``table`` as one types; ``/`` reaches it from anywhere."""
    field = ui.input(label).props('dense outlined clearable debounce="50" type="search"')
    field.classes("tp-search")
    with field.add_slot("prepend"):
        ui.icon("search")
    field.on_value_change(lambda event: table.search(str(event.value or "")))
    return field


def csv_button(table: Searched, name: str) -> ui.button:
    """A button that downloads what ``table`` shows, all pages of it, as ``name``."""
    button = ui.button(
        icon="download", on_click=lambda: ui.download.content(table.csv(), name, "text/csv")
    )
    button.props('flat round dense aria-label="Save as CSV"')
    button.tooltip("Save as CSV")
    return button


def _sort_key(value: Any) -> tuple[bool, Any]:
    """Numbers before texts; texts without regard to case."""
    return (True, value.lower()) if isinstance(value, str) else (False, value)
