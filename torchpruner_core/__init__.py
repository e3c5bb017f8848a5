"""Structured pruning of any neural network: what else must go, and what does it save?

The public names below are imported where they are first used, so ``import torchpruner_core``
imports neither torch nor onnx nor onnxruntime.
"""

# ruff: noqa: F401  (the imports under TYPE_CHECKING give the lazy names their types)

from __future__ import annotations

from typing import TYPE_CHECKING

from torchpruner_core.lazy import lazy_names

_PUBLIC = {
    "CutResult": "cut_result",
    "CutRequest": "cut_result",
    "Choice": "cut_result",
    "TensorSpec": "cut_result",
    "TorchPrunerError": "errors",
    "SolvedGraph": "analysis.solved_graph",
    "Group": "analysis.groups",
    "ONNXGraph": "onnx_graph",
    "DataNode": "graph.nodes",
    "Module": "graph.modules",
    "OperatorNode": "operators.base",
    "Mask": "graph.mask",
    "operator_register": "operators.registry",
    "operator_reg": "operators.registry",
    "solve_onnx": "importing.solving",
    "export_onnx": "exporting",
    "strip_weights": "importing.wire",
    "prune_onnx": "onnx_pruning",
    "prune_onnx_file": "onnx_pruning",
    "masked_onnx": "onnx_pruning",
    "set_cut": "pruning.cut",
    "recovery_cut": "pruning.cut",
    "set_zero": "pruning.zero",
    "recovery_zero": "pruning.zero",
    "merge_cut_dict": "cut_dict",
    "set_cut_optimizer": "pruning.optimizer",
    "recovery_optimizer": "pruning.optimizer",
    "verify_cut": "pruning.oracle",
    "VerifyReport": "pruning.oracle",
    "plan": "planning.plan",
    "Plan": "planning.plan",
    "Budget": "planning.budget",
    "Rules": "planning.rules",
    "Scores": "planning.scores",
    "InfeasibleBudgetError": "planning.errors",
    "OnnxRuntime": "runtimes.onnx_runtime",
    "load_pruned": "checkpoints",
    "save_pretrained": "checkpoints",
    "load_pretrained": "checkpoints",
    "ReplayError": "errors",
    "CutMismatchError": "errors",
    "LiteralInForwardError": "errors",
    "CutContext": "pruning.context",
    "recover": "recovery.recover",
    "Recovery": "recovery.recover",
    "module_pruner_reg": "module_pruner",
    "get_object": "model_tools",
    "set_object": "model_tools",
    "get_names_by_class": "model_tools",
    "get_name_groups_by_classes": "model_tools",
    "replace_object_by_names": "model_tools",
    "replace_object_by_name_groups": "model_tools",
    "replace_object_by_class": "model_tools",
    "activate_function_module": "function_module",
    "deactivate_function_module": "function_module",
    "function_module_activate": "function_module",
    "init_function_module": "function_module",
}

_MODULES = (
    "capture",
    "errors",
    "function_module",
    "importance",
    "model_tools",
    "module_pruner",
    "operator",
)

__all__ = sorted([*_PUBLIC, *_MODULES])

__getattr__, __dir__ = lazy_names(__name__, _PUBLIC, _MODULES)

if TYPE_CHECKING:
    from torchpruner_core import (
        capture,
        errors,
        function_module,
        importance,
        model_tools,
        module_pruner,
        operator,
    )
    from torchpruner_core.analysis.groups import Group
    from torchpruner_core.analysis.solved_graph import SolvedGraph
    from torchpruner_core.checkpoints import load_pretrained, load_pruned, save_pretrained
    from torchpruner_core.cut_dict import merge_cut_dict
    from torchpruner_core.cut_result import Choice, CutRequest, CutResult, TensorSpec
    from torchpruner_core.errors import (
        CutMismatchError,
        LiteralInForwardError,
        ReplayError,
        TorchPrunerError,
    )
    from torchpruner_core.exporting import export_onnx
    from torchpruner_core.function_module import (
        activate_function_module,
        deactivate_function_module,
        function_module_activate,
        init_function_module,
    )
    from torchpruner_core.graph.mask import Mask
    from torchpruner_core.graph.modules import Module
    from torchpruner_core.graph.nodes import DataNode
    from torchpruner_core.importing.solving import solve_onnx
    from torchpruner_core.importing.wire import strip_weights
    from torchpruner_core.model_tools import (
        get_name_groups_by_classes,
        get_names_by_class,
        get_object,
        replace_object_by_class,
        replace_object_by_name_groups,
        replace_object_by_names,
        set_object,
    )
    from torchpruner_core.module_pruner import module_pruner_reg
    from torchpruner_core.onnx_graph import ONNXGraph
    from torchpruner_core.onnx_pruning import masked_onnx, prune_onnx, prune_onnx_file
    from torchpruner_core.operators.base import OperatorNode
    from torchpruner_core.operators.registry import operator_reg, operator_register
    from torchpruner_core.planning.budget import Budget
    from torchpruner_core.planning.errors import InfeasibleBudgetError
    from torchpruner_core.planning.plan import Plan, plan
    from torchpruner_core.planning.rules import Rules
    from torchpruner_core.planning.scores import Scores
    from torchpruner_core.pruning.context import CutContext
    from torchpruner_core.pruning.cut import recovery_cut, set_cut
    from torchpruner_core.pruning.optimizer import recovery_optimizer, set_cut_optimizer
    from torchpruner_core.pruning.oracle import VerifyReport, verify_cut
    from torchpruner_core.pruning.zero import recovery_zero, set_zero
    from torchpruner_core.recovery.recover import Recovery, recover
    from torchpruner_core.runtimes.onnx_runtime import OnnxRuntime
