"""Tables: sorted, searched, paged in the browser; rows become cards on narrow screens.

Cells are drawn by one template; a column's ``kind`` says how. Values go through Vue's escaping.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from nicegui import ui

from torchpruner_dashboard import palette

Kind = Literal["name", "text", "number", "measure", "state", "tree", "action"]


@dataclass(frozen=True, slots=True)
class Column:
    """``name`` is the key of the raw value, which sorts.

    A row may also have ``<name>_text`` (what is shown), ``<name>_sub`` (a second line),
    ``<name>_href`` (a link), ``<name>_bar`` (percent, for ``measure``) and ``<name>_percent`` (for
    ``state``). ``signs`` draws a ``state`` column's values.
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


def data_table(
    columns: Sequence[Column],
    rows: list[dict[str, Any]],
    *,
    page_size: int = 25,
    sort_by: str | None = None,
    descending: bool = False,
    selection: Literal["single", "multiple"] | None = None,
    empty: str = "Nothing to show",
) -> ui.table:
    """Return a table of ``rows``, each with a unique ``id``."""
    pagination: dict[str, Any] = {"rowsPerPage": page_size}
    if sort_by:
        pagination |= {"sortBy": sort_by, "descending": descending}
    table = ui.table(
        columns=[column.to_quasar() for column in columns],
        rows=rows,
        row_key="id",
        pagination=pagination,
        selection=selection,
    )
    table.classes("tp-table").props("flat binary-state-sort")
    table.props["rows-per-page-options"] = [10, 25, 50, 100, 0]
    table.props["no-data-label"] = empty
    table.props["no-results-label"] = "Nothing matches the search"
    table.props["hide-pagination"] = len(rows) <= page_size
    table.add_slot("body-cell", _CELL)
    return table


def set_rows(table: ui.table, rows: list[dict[str, Any]], page_size: int = 25) -> None:
    """Replace the rows; the pager shows where they need one."""
    table.props["hide-pagination"] = len(rows) <= page_size
    table.rows = rows


def search_field(table: ui.table, label: str = "Search") -> ui.input:
    """A field that filters ``table`` as one types; ``/`` reaches it from anywhere."""
    field = ui.input(label).props('dense outlined clearable debounce="100" type="search"')
    field.classes("tp-search")
    with field.add_slot("prepend"):
        ui.icon("search")
    field.bind_value_to(table, "filter", forward=lambda text: text or "")
    return field
