"""A plan as text to take along: Python, curl, the command line."""

from __future__ import annotations

import json
import shlex
from typing import Any

from torchpruner_dashboard.cuts.snippets import Snippet
from torchpruner_dashboard.plans.plan_choice import PlanChoice


def plan_snippets(url: str, model: str, choice: PlanChoice) -> list[Snippet]:
    """The same plan for the SDK, for curl, and for a shell."""
    return [
        Snippet("Python", "python", _python(url, model, choice)),
        Snippet("curl", "bash", _curl(url, model, choice)),
        Snippet("Shell", "bash", _shell(url, model, choice)),
    ]


def _python(url: str, model: str, choice: PlanChoice) -> str:
    if choice.measured:  # A Budget in Python wants what to measure on; the service has that.
        budget = repr(choice.budget).replace("'", '"')
    else:
        limits = ", ".join(f'{name}="{amount}"' for name, amount in choice.budget.items())
        budget = f"tp.Budget({limits})"
    options = [budget]
    if "importance" in choice.options:
        options.append(f'importance="{choice.importance}"')
    if choice.round_to > 1:
        options.append(f"round_to={choice.round_to}")
    if choice.protect:
        options.append(f"protect={list(choice.protect)!r}")
    return f"""import torchpruner_core as tp
from torchpruner_client import Client

with Client({url!r}) as client:  # api_key=... where the service wants one
    plan = client.model({model!r}).plan({", ".join(options)})

print(plan)
tp.set_cut(module, plan.result)  # module: your own nn.Module; it is changed in place
"""


def _curl(url: str, model: str, choice: PlanChoice) -> str:
    rules = {"round_to": choice.round_to, "protect": list(choice.protect)}
    body: dict[str, Any] = {"budget": choice.budget, "rules": rules}
    if "importance" in choice.options:
        body["importance"] = choice.importance
    data = json.dumps(body).replace("'", "'\\''")
    return f"""curl -s '{url}/v1/models/{model}/plans' \\
  -H 'Content-Type: application/json' \\
  -H "Authorization: Bearer $TORCHPRUNER_API_KEY" \\
  -d '{data}'
"""


def _shell(url: str, model: str, choice: PlanChoice) -> str:
    words = ["torchpruner", "plan", model, "--url", url]
    for name, amount in choice.budget.items():
        words += [f"--{name}", amount]
    if "importance" in choice.options:
        words += ["--importance", choice.importance]
    if choice.round_to > 1:
        words += ["--round-to", str(choice.round_to)]
    for name in choice.protect:
        words += ["--protect", name]
    return shlex.join([*words, "--save", "plan.json"]) + "\n"
