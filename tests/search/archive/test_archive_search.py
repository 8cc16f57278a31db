import dataclasses

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from hadas.errors import InfeasibleError, SpaceError, StudyError
from hadas.search.archive import ArchiveSettings, archive_search, seed_genomes
from hadas.search.archive.searching import all_genomes


@pytest.fixture(scope="module")
def whole(six_genes):
    """(729, 2) the truth."""
    return all_genomes(six_genes)


@pytest.fixture(scope="module")
def exact(whole):
    from .conftest import energy_mj_of, error_of

    return np.stack([error_of(whole), energy_mj_of(whole)], axis=1)


def test_a_killed_search_goes_on_to_the_same_result_without_evaluating_anything_twice(
    six_genes, small, known_world
):
    in_one_go = archive_search(six_genes, known_world(), small, 1)
    killed = known_world(stop_after=14)
    with pytest.raises(KeyboardInterrupt):
        archive_search(six_genes, killed, small, 1)
    assert len(killed.kept) == 14
    again = archive_search(six_genes, dataclasses.replace(killed, stop_after=None, backwards=True), small, 1)
    assert again == in_one_go
    assert len(killed.kept) == len(in_one_go.evaluations) == 8 + 4 * 4
