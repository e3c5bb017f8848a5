"""A pruned model on disk and back: a plan or a cut beside the weights, and nothing pickled.

The weights of a pruned model fit no unpruned one, and no class builds it where its layers differ. What
is missing is the cut: replayed on a fresh model of the same class, it makes the place for the weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from torchpruner_core.cut_dict import read_cut
from torchpruner_core.cut_result import CutResult
from torchpruner_core.errors import PlanError
from torchpruner_core.planning.errors import PlanMismatchError
from torchpruner_core.planning.plan import Plan
from torchpruner_core.pruning import recovery_cut, set_cut

ModelT = TypeVar("ModelT", bound=nn.Module)

PLAN_FILE = "torchpruner_plan.json"
"""The plans beside a Hugging Face model's weights."""

Cuts = Plan | Mapping[str, Any] | str | Path | Sequence[Any]
"""A plan, a cut, either as JSON values or in a file, or several in the order they were made."""


def load_pruned(
    model: ModelT,
    plan_or_cut: Cuts,
    state_dict: Mapping[str, torch.Tensor] | str | Path | None = None,
    *,
    inputs: Any = None,
    correct_forward: bool = False,
) -> ModelT:
    """Make ``model``, fresh from its class, the pruned model that was saved, and return it.

    ``plan_or_cut`` is what the model was pruned with: a ``Plan``, a ``CutResult``, their JSON values, a file
    of them, or a list where it was pruned in steps. ``state_dict`` are the pruned weights: tensors by
    name, or a ``.safetensors`` or ``torch.save`` file; without it the weights that ``model`` has are
    pruned. ``inputs`` and ``correct_forward`` are those of ``set_cut``.

    Raises ``PlanMismatchError`` where the model, or the weights, are not of the plan's model;
    ``PlanError`` where the plan cannot be read; what ``set_cut`` raises. The model is as it was then.
    """
    cuts = read_cuts(plan_or_cut)
    state = _read_state(state_dict)
    _check_model(model, cuts[0])
    done = []
    try:
        for cut in cuts:
            if cut.terminal:
                _, context = set_cut(model, cut, inputs=inputs, correct_forward=correct_forward)
                done.append((cut, context))
        if state is not None:
            _load(model, state)
    except BaseException:
        for cut, context in reversed(done):
            recovery_cut(model, cut, context)
        raise
    return model


def read_cuts(plan_or_cut: Cuts) -> list[CutResult]:
    """Return the cuts of plans or cuts given in any form, in order; raises ``PlanError``."""
    if isinstance(plan_or_cut, str | Path):
        path = Path(plan_or_cut)
        if path.is_dir():
            path = path / PLAN_FILE
        if not path.exists():
            raise PlanError(
                f"there is no plan at {path}; plan.save(path) or tp.save_pretrained write one",
                path=str(path),
            )
        try:
            plan_or_cut = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise PlanError(f"{path} is no plan: {error}", path=str(path)) from error
    if isinstance(plan_or_cut, Plan):
        return [plan_or_cut.result]
    if isinstance(plan_or_cut, Mapping):
        if "format" in plan_or_cut:
            return [Plan.from_dict(plan_or_cut).result]
        return [read_cut(plan_or_cut)]
    if isinstance(plan_or_cut, Sequence) and plan_or_cut:
        return [cut for each in plan_or_cut for cut in read_cuts(each)]
    raise PlanError(
        f"a plan is a Plan, a CutResult, their JSON values or a file of them, not {plan_or_cut!r:.60}"
    )


def _read_state(state: Any) -> dict[str, torch.Tensor] | None:
    if state is None:
        return None
    if isinstance(state, str | Path):
        path = Path(state)
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        # `weights_only` reads tensors and runs no code of the file's.
        state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        raise PlanMismatchError(
            f"the weights are tensors by name, as model.state_dict() gives them, not {type(state)}"
        )
    return dict(state)


def _check_model(model: nn.Module, cut: CutResult) -> None:
    tensors = {f"self.{name}": tensor for name, tensor in _tensors(model).items()}
    for name in cut.terminal:
        shape = cut.shapes.get(name)
        if name in cut.literals or shape is None:
            continue
        if name not in tensors:
            raise PlanMismatchError(
                f"the plan cuts {name}, and this {type(model).__name__} has no such tensor; it was "
                "made for another class, or for other settings of it",
                node=name,
            )
        if tuple(tensors[name].shape) != tuple(shape):
            raise PlanMismatchError(
                f"the plan was made for {name} of the shape {list(shape)}, and this "
                f"{type(model).__name__} has {list(tensors[name].shape)}: build it with the settings "
                "it had before it was pruned",
                node=name,
                expected=list(shape),
                received=list(tensors[name].shape),
            )


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    found = dict(model.named_parameters(remove_duplicate=False))
    return found | dict(model.named_buffers(remove_duplicate=False))


def _load(model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    own = model.state_dict()
    for name, tensor in state.items():
        if name in own and own[name].shape != tensor.shape:
            raise PlanMismatchError(
                f"the weights have {name} of the shape {list(tensor.shape)}, and after the plan the "
                f"model has {list(own[name].shape)}: they are not those of this plan",
                node=name,
                expected=list(own[name].shape),
                received=list(tensor.shape),
            )
    extra = [name for name in state if name not in own]
    # A tied tensor is stored under one of its names only.
    stored = {_storage(tensor) for name, tensor in _tensors(model).items() if name in state}
    missing = [
        name
        for name in own
        if name not in state and _storage(_tensors(model).get(name, own[name])) not in stored
    ]
    if extra or missing:
        told = f"has no {missing[0]}" if missing else f"has {extra[0]}, which the model lacks"
        raise PlanMismatchError(
            f"the weights are not those of this model: the file {told}",
            missing=missing[:10],
            extra=extra[:10],
        )
    on_meta = any(tensor.is_meta for tensor in own.values())
    model.load_state_dict(dict(state), strict=False, assign=on_meta)


def _storage(tensor: torch.Tensor) -> Any:
    return id(tensor)


def save_pretrained(model: Any, folder: str | Path, plan_or_cut: Cuts, **options: Any) -> Path:
    """Save a pruned Hugging Face model with its plan beside the weights; return the folder.

    Calls ``model.save_pretrained(folder, **options)`` and writes ``torchpruner_plan.json``.
    :func:`load_pretrained` reads both. Raises ``PlanError`` for a model without ``save_pretrained``.
    """
    if not hasattr(model, "save_pretrained"):
        raise PlanError(
            f"{type(model).__name__} has no save_pretrained; save model.state_dict() with safetensors "
            "and the plan with plan.save(path), and read them with tp.load_pruned"
        )
    cuts = read_cuts(plan_or_cut)
    target = Path(folder)
    model.save_pretrained(target, **options)
    whole = (
        [plan_or_cut.to_dict()] if isinstance(plan_or_cut, Plan) else [c.to_dict() for c in cuts]
    )
    text = json.dumps(whole, separators=(",", ":"))
    (target / PLAN_FILE).write_text(text, encoding="utf-8")
    return target


def load_pretrained(model_class: Any, folder: str | Path) -> Any:
    """Return the pruned model that :func:`save_pretrained` wrote, in evaluation mode.

    ``model_class`` is the model's class (``LlamaForCausalLM``) or an ``Auto`` class. Where the folder's
    config describes the pruned sizes, it is loaded as any other; where no config can, the model is built
    as it was before and the plan replayed.

    Raises ``PlanError`` where the folder has no plan, ``PlanMismatchError`` where it is another model's.
    """
    path = Path(folder)
    cuts = read_cuts(path)
    weights = _shards(path)
    model = _built(model_class, path)
    names = {f"self.{name}": tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    first = {name: tuple(shape) for name, shape in cuts[0].shapes.items() if name in names}
    if any(names[name] != shape for name, shape in first.items()):
        return model_class.from_pretrained(path)  # the config follows the cut
    return load_pruned(model, cuts, weights).eval()


def _built(model_class: Any, path: Path) -> Any:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path)
    build = getattr(model_class, "from_config", None) or model_class._from_config
    return build(config)


def _shards(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise PlanError(f"there are no .safetensors weights in {path}", path=str(path))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}
