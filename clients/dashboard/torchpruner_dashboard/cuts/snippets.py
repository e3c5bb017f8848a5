"""A cut as text to take along: Python, curl, JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass

from torchpruner_client import CutResult
from torchpruner_dashboard.cuts.cut_address import CutAddress
from torchpruner_dashboard.cuts.index_text import indices_text


@dataclass(frozen=True, slots=True)
class Snippet:
    """``language`` is what the highlighter calls it."""

    title: str
    language: str
    text: str


def snippets(url: str, model: str, address: CutAddress, result: CutResult | None) -> list[Snippet]:
    """The same joint cut for the SDK, for curl, and its result as JSON where there is one."""
    found = [
        Snippet("Python", "python", python_text(url, model, address)),
        Snippet("curl", "bash", curl_text(url, model, address)),
    ]
    if result is not None:
        found.append(Snippet("JSON", "json", json.dumps(result.to_dict(), indent=1)))
    return found


def python_text(url: str, model: str, address: CutAddress) -> str:
    """A program that asks for the cut and replays it on the user's own module."""
    lines = []
    for request in address.requests:
        lines.append(
            f"            CutRequest({request.node!r}, {request.dim}, "
            f"{_python_indices(request.index)}),"
        )
    options = f'granularity="{address.granularity}"'
    if address.protect_io:
        options += ", protect_io=True"
    body = "\n".join(lines)
    return f"""from torchpruner_client import Client, CutRequest
from torchpruner_core import set_cut

with Client({url!r}) as client:  # api_key=... where the service wants one
    model = client.model({model!r})
    result = model.cut_analysis_many(
        [
{body}
        ],
        {options},
    )

set_cut(module, result)  # module: your own nn.Module; it is changed in place
"""


def curl_text(url: str, model: str, address: CutAddress) -> str:
    """A shell command that asks for the cut."""
    body = {
        "cuts": [request.to_dict() for request in address.requests],
        "granularity": address.granularity,
        "protect_io": address.protect_io,
    }
    data = json.dumps(body).replace("'", "'\\''")
    return f"""curl -s '{url}/v1/models/{model}/cut-analysis' \\
  -H 'Content-Type: application/json' \\
  -H "Authorization: Bearer $TORCHPRUNER_API_KEY" \\
  -d '{data}'
"""


def _python_indices(index: tuple[int, ...]) -> str:
    text = indices_text(index)
    if "," not in text and "-" in text:
        first, _, last = text.partition("-")
        return f"tuple(range({first}, {int(last) + 1}))"
    return repr(index)
