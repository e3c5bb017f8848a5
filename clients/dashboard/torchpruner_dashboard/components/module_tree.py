"""The module tree with parameters and FLOPs as bars in the rows."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from torchpruner_dashboard import formatting
from torchpruner_dashboard.cuts.cut_address import cut_url
from torchpruner_dashboard.model_graphs import ModelOutline

_ROW = """
<div class="tp-tree-row">
  <span class="tp-tree-name">{{ props.node.label }}
    <span class="tp-soft tp-small">{{ props.node.type }}</span></span>
  <span class="tp-tree-value">{{ props.node.params }}
    <span v-if="props.node.params" class="tp-track"><i
      :style="{width: props.node.params_bar + '%'}"></i></span></span>
  <span class="tp-tree-value">{{ props.node.flops }}
    <span v-if="props.node.flops" class="tp-track"><i class="tp-second"
      :style="{width: props.node.flops_bar + '%'}"></i></span></span>
  <span><a v-if="props.node.cut" :href="props.node.cut" @click.stop>Cut</a></span>
</div>
"""


def module_tree(model: str, outline: ModelOutline) -> None:
    """A tree that opens two levels; a search opens what it finds."""
    nodes = tree_nodes(model, outline)
    with ui.row().classes("tp-row"):
        field = ui.input("Search modules").props('dense outlined clearable debounce="150"')
        field.classes("tp-search")
        every = ui.button("Open all").props("flat no-caps dense")
        none = ui.button("Close all").props("flat no-caps dense")
    with ui.column().classes("tp-card"):
        with ui.element("div").classes("tp-tree-row tp-tree-head"):
            for text in ("Module", "Parameters", "FLOPs", ""):
                ui.label(text)
        tree = ui.tree(nodes, label_key="search").classes("tp-tree").props("dense")
        tree.props("no-connectors")
        tree.add_slot("default-header", _ROW)
        tree.expand([name for name in outline.modules if name.count(".") < 1])

    every.on_click(lambda: tree.expand())
    none.on_click(lambda: tree.collapse())

    def find(text: str) -> None:
        tree.props["filter"] = text
        if text:
            lowered = text.lower()
            found = [name for name in outline.modules if lowered in name.lower()]
            opened = {part for name in found[:60] for part in _ancestors(name)}
            tree.expand(list(opened))

    field.on_value_change(lambda event: find(str(event.value or "")))


def tree_nodes(model: str, outline: ModelOutline) -> list[dict[str, Any]]:
    """The modules as nested nodes, parameters as leaves; those of no module under the root."""
    modules = outline.modules
    total_params = max((record.params for record in modules.values()), default=0)
    total_flops = max((record.flops for record in modules.values()), default=0)
    nodes: dict[str, dict[str, Any]] = {}
    for name, record in modules.items():
        axes = outline.axes.get(name)
        tensor = outline.is_tensor(name)
        nodes[name] = {
            "id": name,
            "search": f"{name} {record.type}",
            "label": name.rpartition(".")[2] if name != "self" else "self",
            "type": record.type,
            "params": formatting.count(record.params) if record.params else "",
            "params_bar": formatting.share(record.params, total_params),
            "flops": "" if tensor or not record.flops else formatting.flops(record.flops),
            "flops_bar": formatting.share(record.flops, total_flops),
            "cut": cut_url(model, axes[0].node, axes[0].dim) if axes else None,
            "children": [],
        }
    roots: list[dict[str, Any]] = []
    for name, record in modules.items():
        parent = nodes.get(record.parent or "")
        (roots if parent is None else parent["children"]).append(nodes[name])
    return roots


def _ancestors(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]
