"""Networks whose code counts or addresses channels by itself: every cut is right or refused."""

from __future__ import annotations

import pytest

from benchmarks.zoo import adversarial
from benchmarks.zoo.examine import examine
from benchmarks.zoo.specimen import Specimen

SPECIMENS = list(adversarial.specimens())


def test_there_are_networks_of_every_kind() -> None:
    assert len(SPECIMENS) >= 60
    assert len({specimen.family for specimen in SPECIMENS}) == len(adversarial.KINDS)


@pytest.mark.parametrize("specimen", SPECIMENS[::3], ids=lambda s: s.key)
def test_no_cut_is_wrong(specimen: Specimen) -> None:
    row = examine(specimen, lambda unfinished: None)
    assert row["built"] and row["cuts"] and not row["error"], row["error"]
    wrong = [cut for cut in row["cuts"] if cut["status"] == "wrong"]
    assert not wrong, wrong
