"""The other half of the sample, in a file of its own so that two processes can share the work."""

from __future__ import annotations

import pytest

from benchmarks.zoo.catalogue import sample
from benchmarks.zoo.specimen import Specimen
from tests.core.zoo.test_sample import check


@pytest.mark.parametrize("specimen", sample()[1::2], ids=lambda s: s.key)
def test_every_cut_of_an_architecture_equals_the_masked_original(specimen: Specimen) -> None:
    check(specimen)
