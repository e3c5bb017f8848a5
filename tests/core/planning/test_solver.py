"""The solver keeps at least 99 % of what the best plan keeps, on networks small enough to know that."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.core.planning.milp import least_loss
from tests.core.planning.nets import Residual, graph_of, mlp
from torchpruner_core.planning.planner import Planner
from torchpruner_core.planning.rules import Rules
from torchpruner_core.planning.scores import Scores

NETWORKS = {
    "chain": (mlp(16, 12, 14, 10, 6), (torch.zeros(1, 16),)),
    "long chain": (mlp(20, 16, 12, 16, 12, 16, 10), (torch.zeros(1, 20),)),
    "residual": (Residual(8, 12, 10), (torch.zeros(1, 3, 6, 6),)),
}
DRAWS = {
    "uniform": lambda random, size: random.random(size),
    "constant": lambda random, size: np.ones(size),
    "log-normal": lambda random, size: random.lognormal(size=size),
    "nearly equal": lambda random, size: np.abs(random.normal(1, 0.2, size)),
}


@pytest.fixture(scope="module", params=list(NETWORKS))
def graph(request):
    return graph_of(*NETWORKS[request.param]).solved


@pytest.mark.parametrize("draw", list(DRAWS))
@pytest.mark.parametrize(
    "options", [{}, {"round_to": 4}, {"max_cut": 0.75}, {"normalize": "mean"}], ids=str
)
def test_the_plan_keeps_99_percent_of_the_best_plans_score(graph, draw, options):
    random = np.random.default_rng(1)
    weights = [
        (name, 0)
        for name, node in graph.nodes.items()
        if node.kind == "parameter" and len(node.shape) > 1
    ]
    scores = Scores({axis: DRAWS[draw](random, graph.nodes[axis[0]].shape[0]) for axis in weights})
    planner = Planner(graph, scores, Rules(scope="global", **options))
    resources = {"flops": planner.costs["flops"]}
    problem = planner.problem(resources)
    for share in (0.75, 0.5, 0.25):
        limit = share * planner.full_costs["flops"]
        if not problem.meets(problem.choices.last, {"flops": limit}):
            continue

        rows = planner.rows(resources, {"flops": limit}, lambda stage, done: None)

        worth = problem.choices.worth
        kept = worth - problem.choices.lost(rows)
        assert problem.costs(rows)["flops"] <= limit
        assert kept >= 0.99 * (worth - least_loss(problem, "flops", limit))
