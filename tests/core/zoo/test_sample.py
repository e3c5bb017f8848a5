"""A sample of the zoo: each architecture is cut in five places and compared with the masked original."""

from __future__ import annotations

import pytest

from benchmarks.zoo.catalogue import sample
from benchmarks.zoo.examine import examine
from benchmarks.zoo.specimen import Specimen


@pytest.mark.parametrize("specimen", sample()[::2], ids=lambda s: s.key)
def test_every_cut_of_an_architecture_equals_the_masked_original(specimen: Specimen) -> None:
    check(specimen)


def check(specimen: Specimen) -> None:
    """Examine one specimen and fail where a cut is wrong, refused, shows nothing or stops the training."""
    row = examine(specimen, lambda unfinished: None)
    assert row["built"], row["error"]
    assert not row["error"]
    assert len(row["cuts"]) >= 2
    bad = [cut for cut in row["cuts"] if cut["status"] != "equal"]
    assert not bad, bad
    crashed = [cut for cut in row["cuts"] if cut.get("later") == "crashes"]
    assert not crashed, crashed
