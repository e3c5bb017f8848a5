"""The state of the cut page as a query string, so that a cut can be sent to a colleague."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from torchpruner_client import CutRequest
from torchpruner_dashboard.cuts.index_text import indices_text, parse_indices

GRANULARITIES = ("auto", "outer", "inner", "strict")


@dataclass(frozen=True, slots=True)
class CutAddress:
    """The axis that is being looked at, the slices chosen of it, and the basket."""

    node: str = ""
    dim: int = 0
    index: tuple[int, ...] = ()
    granularity: str = "auto"
    protect_io: bool = False
    basket: tuple[CutRequest, ...] = ()

    @classmethod
    def of_query(
        cls,
        node: str = "",
        dim: int = 0,
        index: str = "",
        granularity: str = "auto",
        protect: bool = False,
        add: Sequence[str] = (),
    ) -> CutAddress:
        """Read a query's values. Raises ``ValueError`` for what is not one of ours."""
        if granularity not in GRANULARITIES:
            raise ValueError(f"granularity is one of {', '.join(GRANULARITIES)}")
        basket = tuple(_request(text) for text in add)
        return cls(node, dim, parse_indices(index), granularity, protect, basket)

    def query(self) -> str:
        """Return the query string, without the question mark; defaults are left out."""
        pairs: list[tuple[str, str]] = []
        if self.node:
            pairs += [("node", self.node), ("dim", str(self.dim))]
        if self.index:
            pairs.append(("index", _dense(self.index)))
        if self.granularity != "auto":
            pairs.append(("granularity", self.granularity))
        if self.protect_io:
            pairs.append(("protect", "true"))
        pairs += [("add", f"{r.node}:{r.dim}:{_dense(r.index)}") for r in self.basket]
        return urlencode(pairs, safe=":,")

    @property
    def current(self) -> CutRequest | None:
        """The cut that is being tried, where anything is chosen."""
        return CutRequest(self.node, self.dim, self.index) if self.node and self.index else None

    @property
    def requests(self) -> tuple[CutRequest, ...]:
        """The basket and the cut that is being tried: what is analysed together."""
        return (*self.basket, *([self.current] if self.current else []))

    @property
    def name(self) -> str:
        """The same text for the same cuts, whether they are in the basket or being tried."""
        return replace(self, node="", dim=0, index=(), basket=self.requests).query()

    def with_basket(self, basket: Sequence[CutRequest]) -> CutAddress:
        return replace(self, basket=tuple(basket))


def cut_url(model: str, node: str = "", dim: int = 0, index: Sequence[int] = ()) -> str:
    """The address of the cut page of a model."""
    query = CutAddress(node, dim, tuple(index)).query()
    return f"/models/{model}/cut{'?' if query else ''}{query}"


def _dense(index: Sequence[int]) -> str:
    return indices_text(index).replace(" ", "")


def _request(text: str) -> CutRequest:
    parts = text.rsplit(":", 2)
    if len(parts) != 3 or not parts[1].isdecimal():
        raise ValueError(f"{text!r} is not a cut; a basket's cut is written node:axis:indices")
    return CutRequest(parts[0], int(parts[1]), parse_indices(parts[2]))
