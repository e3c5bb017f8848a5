"""Why a plan cannot be made, or not read.

::

    PlanError
    ├── BudgetError            a budget that means nothing
    ├── InfeasibleBudgetError  a budget that no plan under these rules meets
    ├── ScoresError            scores that are not numbers, or not of this model
    ├── RuleError              ``round_to``, ``protect`` and the like, out of range or unknown
    ├── NothingToPruneError    no group is left that a plan may touch
    ├── MeasurementError       the pruned model could not be timed
    ├── PlanMismatchError      a plan, or a cut, that was made for another model
    └── PlanCancelledError     the caller's ``progress`` asked to stop
"""

from __future__ import annotations

from torchpruner_core.errors import PlanError


class BudgetError(PlanError):
    """A budget that means nothing: zero, above the model's own cost, of an unknown unit."""

    slug = "invalid-budget"
    title = "The budget is not valid"


class InfeasibleBudgetError(PlanError):
    """No plan under these rules meets the budget.

    ``fields``: ``budget`` (its name), ``asked`` and ``nearest`` (in the budget's unit), ``blocked_by``
    (reasons with the number of groups each holds back).
    """

    slug = "infeasible-budget"
    title = "The budget cannot be met"


class ScoresError(PlanError):
    """Scores that are not finite numbers, of a wrong length, or of axes the model cannot shorten."""

    slug = "invalid-scores"
    title = "The scores are not valid"


class RuleError(PlanError):
    """A rule of a plan that is out of range, or names nothing in the model."""

    slug = "invalid-rule"
    title = "The plan's rules are not valid"


class NothingToPruneError(PlanError):
    """Every group is protected, frozen or too narrow."""

    slug = "nothing-to-prune"
    title = "There is nothing that the plan may prune"


class MeasurementError(PlanError):
    """The model, or the pruned model, could not be timed."""

    slug = "measurement-failed"
    title = "The latency could not be measured"


class PlanMismatchError(PlanError):
    """A plan, or a cut, that was made for a model with other names or shapes."""

    slug = "plan-mismatch"
    title = "The plan was made for another model"


class PlanCancelledError(PlanError):
    """The caller's ``progress`` returned ``False``: nothing was changed."""

    slug = "plan-cancelled"
    title = "The plan was cancelled"
