"""Module pruners under the manual's name; see :mod:`torchpruner_core.pruning.module_pruners`."""

from torchpruner_core.pruning.module_pruners import *  # noqa: F403
from torchpruner_core.pruning.module_pruners import __all__  # noqa: F401
