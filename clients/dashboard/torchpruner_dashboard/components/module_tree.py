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
        tree = ui.tree(nodes, label_key="id").classes("tp-tree").props("dense")
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
    """The modules as nested nodes; empty values are left out, since a page has thousands.

    A parameter is a node only where its module has other modules too: elsewhere it would repeat
    its module's row.
    """
    modules = outline.modules
    total_params = max((record.params for record in modules.values()), default=0)
    total_flops = max((record.flops for record in modules.values()), default=0)
    nodes: dict[str, dict[str, Any]] = {}
    for name, record in modules.items():
        tensor = outline.is_tensor(name)
        if tensor and not _has_modules(outline, record.parent or ""):
            continue
        node: dict[str, Any] = {"id": name, "label": name.rpartition(".")[2], "type": record.type}
        if record.params:
            node["params"] = formatting.count(record.params)
            node["params_bar"] = round(formatting.share(record.params, total_params), 1)
        if record.flops and not tensor:
            node["flops"] = formatting.flops(record.flops)
            node["flops_bar"] = round(formatting.share(record.flops, total_flops), 1)
        axes = outline.axes.get(name)
        if axes:
            node["cut"] = cut_url(model, axes[0].node, axes[0].dim)
        nodes[name] = node
    roots: list[dict[str, Any]] = []
    for name, node in nodes.items():
        parent = nodes.get(modules[name].parent or "")
        (roots if parent is None else parent.setdefault("children", [])).append(node)
    return roots


def _has_modules(outline: ModelOutline, name: str) -> bool:
    record = outline.modules.get(name)
    return record is not None and len(record.children) > len(record.parameters)


def _ancestors(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]
