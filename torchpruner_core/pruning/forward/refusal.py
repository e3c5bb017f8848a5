"""What a person is told whose ``forward()`` cannot follow a cut: which constant, where, and the ways on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from torchpruner_core.capture.meta_shapes import UNALIGNED, WHOLE_BYTES
from torchpruner_core.cut_dict import operator_owner
from torchpruner_core.errors import LiteralInForwardError
from torchpruner_core.pruning.forward.arithmetic import SHAPING
from torchpruner_core.pruning.forward.rehearsal import Outcome, Stage, sizes_after
from torchpruner_core.pruning.forward.trace import Call

Change = tuple[list[int], list[int]]
"""What a constant was, and what it becomes."""

_BOUNDS = {"starts": "start", "ends": "stop"}


def refusal(
    stage: Stage, reason: str, correct_forward: bool, outcome: Outcome | None = None
) -> LiteralInForwardError:
    """Return the error for a cut that no change of attributes, or of calls where allowed, lets follow.

    ``outcome`` is the rehearsal that got furthest; without one there was none.
    """
    blamed = _blamed(stage, outcome)
    operator = _operator(stage, blamed, outcome)
    # A call that says a shape holds the constant itself; another only suffers from it.
    if operator is not None and not (blamed and _says_a_shape(outcome)):
        owner = operator_owner(operator)[0]
    else:
        owner = blamed or next(iter(stage.plan.stale), "self")
    module = stage.plan.local.modules.get(owner)
    kind = "?" if module is None else type(module).__name__
    constants = _before_and_after(stage, operator, outcome)
    said = ", ".join(f"'{key}' from {old} to {new}" for key, (old, new) in constants.items())
    origin = outcome.origin if outcome is not None else None
    where = f" ({origin})" if origin is not None else ""
    ways = [
        "Make the number an attribute or take it from a shape",
        f"register how {kind} follows a cut with torchpruner_core.module_pruner_reg.regist({kind}, "
        "YourPruner)",
    ]
    if UNALIGNED in reason:
        return LiteralInForwardError(
            f"the pruned model does not run in the forward() of {owner} ({kind}): {reason}{where}. Nothing "
            f"was changed. {_aligned(stage)}, or use the pruned ONNX model",
            module=owner,
            operator=operator,
        )
    if not correct_forward:
        ways.append("let set_cut correct the call as it runs (correct_forward=True)")
    elif outcome is not None:
        where += f"; {_uncorrected(outcome)}"
    return LiteralInForwardError(
        f"the cut changes {said or 'a size'} of {operator or owner}, in the forward() of {owner} "
        f"({kind}), {reason}{where}. Nothing was changed. {', '.join(ways)}, or use the pruned ONNX model",
        module=owner,
        operator=operator,
        constant=next(iter(constants), None),
        expected={key: new for key, (_, new) in constants.items()},
        received={key: old for key, (old, _) in constants.items()},
    )


def _aligned(stage: Stage) -> str:
    size = next((t.tensor.element_size() for t in stage.plan.targets), 4)
    return (
        f"Cut a multiple of {max(1, WHOLE_BYTES // size)} slices, since PyTorch's grouped product of experts "
        f"takes rows of whole {WHOLE_BYTES} bytes, or multiply experts one by one "
        "(model.set_experts_implementation('eager') in transformers)"
    )


def _uncorrected(outcome: Outcome) -> str:
    """Say what of the forward ``correct_forward`` could not correct."""
    call = outcome.failing
    holds = (
        f"neither the call of {call.function} nor one before it holds" if call else "no call holds"
    )
    return (
        f"correct_forward=True could not mend it, since {holds} a number whose correction makes the "
        "forward right"
    )


def _says_a_shape(outcome: Outcome | None) -> bool:
    call = outcome.failing if outcome is not None else None
    return call is not None and call.function in SHAPING


def _blamed(stage: Stage, outcome: Outcome | None) -> str:
    """Return the module whose code is at fault, as far as the rehearsal that got furthest tells."""
    if outcome is None:
        return ""
    module = stage.plan.local.modules.get(outcome.module)
    mine = any(operator_owner(name)[0] == outcome.module for name in stage.plan.untaken)
    if outcome.origin is None or (module is not None and _is_of_torch(module) and mine):
        return outcome.module
    return outcome.origin.module


def _is_of_torch(module: nn.Module) -> bool:
    return type(module).__module__.startswith("torch.nn.")


def _operator(stage: Stage, blamed: str, outcome: Outcome | None) -> str | None:
    """Return the changed operator that a refusal is about, if it can be told.

    Of the ones nearest to the failure, going up, that which makes the failing call's shape.
    """
    untaken = stage.plan.untaken
    if outcome is None:
        return next(iter(untaken), None)
    for call in _calls_at_fault(outcome):
        for name in _nearest(untaken, [*_upwards(blamed), *_upwards(call.module)]):
            if _fits(stage, call, untaken[name]):
                return name
    if outcome.call is not None and _says_a_shape(outcome):
        # The constant is in this very call: an operator of another module is not it.
        return next(_nearest(untaken, [blamed, outcome.call.module]), None)
    return next(_nearest(untaken, _upwards(blamed)), None) or next(iter(untaken), None)


def _nearest(untaken: Iterable[str], modules: Iterable[str]) -> Iterator[str]:
    """Yield operators in the order of the modules that own them."""
    for module in modules:
        yield from (name for name in untaken if operator_owner(name)[0] == module)


def _calls_at_fault(outcome: Outcome) -> Iterator[Call]:
    """Yield calls, as they were before the cut, that may hold the constant, the likeliest first."""
    if outcome.call is not None and _says_a_shape(outcome):
        yield outcome.call
    for old, _ in outcome.suspects:
        yield old


def _upwards(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]


def _fits(stage: Stage, call: Call, change: dict[str, Any]) -> bool:
    """Tell whether a changed operator may be the one that a call makes."""
    return any(True for key, amount in change.items() for _ in _exact(stage, call, key, amount))


def _before_and_after(
    stage: Stage, operator: str | None, outcome: Outcome | None
) -> dict[str, tuple[Any, Any]]:
    """Return each constant's old and new value, as far as the forward's own calls tell them."""
    told: dict[str, tuple[Any, Any]] = {}
    if operator is None:
        return told
    owner = operator_owner(operator)[0]
    calls = [] if outcome is None else list(_calls_at_fault(outcome))
    calls += [c for c in stage.before.calls if c.module == owner and c.function in SHAPING]
    for key, amount in stage.plan.untaken[operator].items():
        exact = (made for call in calls for made in _exact(stage, call, key, amount))
        likely = (made for call in calls for made in _values(call, key, amount))
        found = next(exact, None) or next(likely, None)
        told[key] = found or ("its value", f"{amount} less")
    return told


def _exact(stage: Stage, call: Call, key: str, amount: int | list[int]) -> Iterator[Change]:
    """Yield what a constant of a call was and becomes, where the cut is known to change it so."""
    for old, new in _values(call, key, amount):
        if key in _BOUNDS or tuple(new) in stage.allowed.becomes(tuple(old)):
            yield old, new


def _values(call: Call, key: str, amount: int | list[int]) -> Iterator[Change]:
    """Yield what an operator's constant may have been in a call, and is with ``amount`` taken off."""
    if not isinstance(amount, list):
        return
    made: Iterable[tuple[int, ...]] = call.shapes[:1]
    if key in _BOUNDS:
        made = [_bounds(call, _BOUNDS[key])]
    elif key == "split":
        made = sizes_after(call, [0] * len(amount))
    for old in made:
        if len(old) == len(amount) and all(x > y for x, y in zip(old, amount, strict=True)):
            yield list(old), [x - less for x, less in zip(old, amount, strict=True)]


def _bounds(call: Call, end: str) -> tuple[int, ...]:
    """Return where the slices that a call names start, or stop."""
    value = call.place.value if call.place is not None else ()
    entries = value if isinstance(value, tuple) else (value,)
    found = [getattr(entry, end) for entry in entries if isinstance(entry, slice)]
    return tuple(bound for bound in found if type(bound) is int)
