"""The smallest consistent cut that contains what was asked.

A component is removed whole. A view then demands that what is removed from its whole is a union of
blocks: removing an index of a factor removes its block, and a slice of the whole can go only with
one of its factors' indices. Which one is the choice that ``granularity`` decides.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from torchpruner_core.analysis.coupling import ClassView, Coupling
from torchpruner_core.errors import AmbiguousCutError, CutError, EmptyAxisError, OpaqueAxisError

Granularity = Literal["auto", "outer", "inner", "strict"]
GRANULARITIES: tuple[str, ...] = get_args(Granularity)

Bool = NDArray[np.bool_]
Components = NDArray[np.int32]

DEPTH_LIMIT = 4
"""Choices met while the cost of a choice is computed are weighed to this depth; below it, the
completion that removes fewer slices of the view's own whole is taken."""


MANY_CLASSES = 64
"""From here on it is quicker to count the slices of all classes at once than one by one."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One choice: the view, the factor taken, the best other one, and what each removes."""

    view: ClassView
    taken: int
    rejected: int
    taken_cost: int | None
    other_cost: int | None


@dataclass(slots=True)
class Removal:
    """What is removed so far: components, and the classes they reach."""

    removed: Bool
    classes: set[int] = field(default_factory=set)
    decisions: list[Decision] = field(default_factory=list)

    def copy(self) -> Removal:
        """Return a removal to go on from; what it decides is its own."""
        return Removal(self.removed.copy(), set(self.classes))


class Closure:
    """Answers which components must go with those that were asked for.

    ``parameters`` lists, for each tensor with parameters, the class of each axis; the cost of a
    completion is the number of their elements that it removes.
    """

    def __init__(self, coupling: Coupling, parameters: Sequence[tuple[int, ...]]) -> None:
        self.coupling = coupling
        self.parameters = parameters
        self.parameters_of_class: dict[int, list[int]] = {}
        for position, classes in enumerate(parameters):
            for owner in dict.fromkeys(classes):
                self.parameters_of_class.setdefault(owner, []).append(position)

    def close(self, components: Components, granularity: Granularity) -> Removal:
        """Return the closure of ``components``.

        Raises ``OpaqueAxisError``, ``EmptyAxisError`` or, under ``strict``, ``AmbiguousCutError``.
        """
        removal = Removal(np.zeros(len(self.coupling.component_reason), dtype=np.bool_))
        self._extend(removal, components, granularity, depth=0)
        return removal

    def indices(self, removal: Removal, owner: int) -> NDArray[np.int64]:
        """Return the sorted indices of a class that are removed, shape ``(k,)``."""
        return np.flatnonzero(removal.removed[self.coupling.components_of(owner)])

    def params_removed(self, removal: Removal) -> int:
        """Return how many parameter elements ``removal`` takes away."""
        return self.params_without(self._left(removal))

    def params_without(self, left: Mapping[int, int]) -> int:
        """Return how many parameter elements go where ``left`` slices of some classes are left."""
        length = self.coupling.class_length
        total = 0
        positions = {p for c in left for p in self.parameters_of_class.get(c, ())}
        for position in positions:
            before = after = 1
            for owner in self.parameters[position]:
                size = int(length[owner])
                before *= size
                after *= left.get(owner, size)
            total += before - after
        return total

    def _left(self, removal: Removal) -> dict[int, int]:
        """Return how many slices of each reached class are left."""
        coupling = self.coupling
        if len(removal.classes) > MANY_CLASSES:
            ends = np.zeros(len(coupling.component) + 1, dtype=np.int64)
            np.cumsum(~removal.removed[coupling.component], out=ends[1:])
            stops = np.append(coupling.class_start[1:], len(coupling.component))
            kept = ends[stops] - ends[coupling.class_start]
            return {owner: int(kept[owner]) for owner in removal.classes}
        left = {}
        for owner in removal.classes:
            mask = removal.removed[coupling.components_of(owner)]
            left[owner] = len(mask) - int(np.count_nonzero(mask))
        return left

    def _extend(
        self, removal: Removal, components: Components, granularity: Granularity, depth: int
    ) -> None:
        views: deque[int] = deque()
        pending: dict[int, None] = {}
        self._remove(removal, components, views)
        while True:
            while views:
                position = views.popleft()
                if self._force(removal, position, views):
                    pending[position] = None
            while pending and not views:
                position = next(iter(pending))
                del pending[position]
                if self._force(removal, position, views):
                    chosen = self._decide(removal, position, granularity, depth)
                    self._remove(removal, chosen, views)
                    views.append(position)
            if not views and not pending:
                break
        self._check_not_empty(removal)

    def _remove(self, removal: Removal, components: Components, views: deque[int]) -> None:
        fresh = components[~removal.removed[components]]
        if not len(fresh):
            return
        reasons = self.coupling.component_reason[fresh]
        if (reasons >= 0).any():
            reason = self.coupling.reasons[int(reasons[reasons >= 0][0])]
            raise OpaqueAxisError(
                f"the cut reaches an axis that cannot be pruned: {reason}", reason=reason
            )
        removal.removed[fresh] = True
        kind, classes = self.coupling.kinds
        reached: set[int] = set()
        for number in np.unique(kind[fresh]).tolist():
            reached.update(classes[number])
        removal.classes |= reached
        of_class = self.coupling.views_of_class
        for owner in reached:
            views.extend(v for v in of_class.get(owner, ()) if v not in views)

    def _masks(self, removal: Removal, view: ClassView) -> tuple[Bool, Bool]:
        """Return what is removed of the whole, and what its factors' removals imply."""
        shape = tuple(int(self.coupling.class_length[f]) for f in view.factors)
        whole = removal.removed[self.coupling.components_of(view.whole)].reshape(shape)
        implied = np.zeros(shape, dtype=np.bool_)
        for axis, factor in enumerate(view.factors):
            gone = removal.removed[self.coupling.components_of(factor)]
            if gone.any():
                implied |= gone.reshape([-1 if k == axis else 1 for k in range(len(shape))])
        return whole, implied

    def _force(self, removal: Removal, position: int, views: deque[int]) -> bool:
        """Remove the blocks that factors imply; return whether slices of the whole are left over."""
        view = self.coupling.views[position]
        whole, implied = self._masks(removal, view)
        missing = implied & ~whole
        if missing.any():
            components = self.coupling.components_of(view.whole)[missing.ravel()]
            self._remove(removal, components, views)
        return bool((whole & ~implied).any())

    def _decide(
        self, removal: Removal, position: int, granularity: Granularity, depth: int
    ) -> Components:
        """Return the components to remove so that the view's whole is a union of blocks again."""
        view = self.coupling.views[position]
        whole, implied = self._masks(removal, view)
        if whole.all():
            raise EmptyAxisError(
                "the cut would remove every slice of an axis", operator=view.operator
            )
        aligned, remainder = self._aligned(view, whole, implied)
        if not remainder.any():
            return np.concatenate(aligned)
        options = []
        for axis, factor in enumerate(view.factors):
            index = remainder.any(axis=tuple(k for k in range(remainder.ndim) if k != axis))
            options.append(np.unique(self.coupling.components_of(factor)[index]))
        taken = self._choose(removal, view, aligned, options, granularity, depth)
        return np.concatenate([*aligned, options[taken]])

    def _aligned(
        self, view: ClassView, whole: Bool, implied: Bool
    ) -> tuple[list[Components], Bool]:
        """Return the components of blocks removed entirely, and what they do not account for."""
        covered = implied.copy()
        found = []
        for axis, factor in enumerate(view.factors):
            full = whole.all(axis=tuple(k for k in range(whole.ndim) if k != axis))
            if full.any():
                found.append(np.unique(self.coupling.components_of(factor)[full]))
                covered |= full.reshape([-1 if k == axis else 1 for k in range(whole.ndim)])
        return found, whole & ~covered

    def _choose(
        self,
        removal: Removal,
        view: ClassView,
        aligned: list[Components],
        options: list[Components],
        granularity: Granularity,
        depth: int,
    ) -> int:
        last = len(options) - 1
        wanted = {"outer": 0, "inner": last}.get(granularity)
        if wanted is not None and depth > 0:
            return wanted
        if depth >= DEPTH_LIMIT:
            length = self.coupling.class_length
            block = [int(length[view.whole] // length[factor]) for factor in view.factors]
            return min(range(len(options)), key=lambda k: block[k] * len(options[k]))
        nested: Granularity = granularity if wanted is not None else "auto"
        costs: list[int | None] = []
        failures: list[CutError] = []
        for option in options:
            trial = removal.copy()
            try:
                self._extend(trial, np.concatenate([*aligned, option]), nested, depth + 1)
                costs.append(self.params_removed(trial))
            except (OpaqueAxisError, EmptyAxisError) as error:
                costs.append(None)
                failures.append(error)
        feasible = [k for k, cost in enumerate(costs) if cost is not None]
        if granularity == "strict":
            raise AmbiguousCutError(
                f"the request is neither whole blocks nor whole strides of an axis of "
                f"{int(self.coupling.class_length[view.whole])} slices; removing blocks "
                f"{_elements(costs[0])}, removing strides {_elements(costs[last])}; align the "
                f"indices, or ask for granularity 'outer', 'inner' or 'auto'",
                operator=view.operator,
                factors=[int(self.coupling.class_length[f]) for f in view.factors],
                outer_cost=costs[0],
                inner_cost=costs[last],
            )
        if not feasible:
            raise failures[0]
        ranked = sorted(feasible, key=lambda k: (costs[k] or 0, k))
        taken = ranked[0] if wanted is None else wanted
        if costs[taken] is None:
            raise failures[0]
        rejected = next(
            (k for k in ranked if k != taken), next(k for k in range(len(options)) if k != taken)
        )
        removal.decisions.append(Decision(view, taken, rejected, costs[taken], costs[rejected]))
        return taken

    def _check_not_empty(self, removal: Removal) -> None:
        for owner, left in self._left(removal).items():
            if not left:
                raise EmptyAxisError(
                    "the cut would remove every slice of an axis; leave at least one",
                    axis_class=owner,
                )


def _elements(cost: int | None) -> str:
    return "is impossible" if cost is None else f"takes {cost} parameter elements"
