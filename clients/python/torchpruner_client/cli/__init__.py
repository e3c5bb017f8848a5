"""``torchpruner``: the client at a shell. Every command takes ``--json`` for other programs."""

from torchpruner_client.cli import cuts, models, notes, plans
from torchpruner_client.cli.app import app
from torchpruner_client.cli.options import parse_index, parse_input

__all__ = ["app", "cuts", "models", "notes", "parse_index", "parse_input", "plans"]
