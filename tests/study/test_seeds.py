"""What a study measures first."""

import numpy as np
import pytest
import yaml

from hadas.study.config import template
from hadas.study.loop import Study
from hadas.study.seeds import seed_backbones


def backbones_of(directory, **learning):
    document = yaml.safe_load(template("study.yaml", "smoke"))
    document["learning"] |= learning
    path = directory / "study.yaml"
    path.write_text(yaml.safe_dump(document))
    parts = Study.open(path).parts
    return parts.space, seed_backbones(parts, 5)


@pytest.mark.parametrize(("asked", "found"), [(5, 5), (28, 27)])
def test_neighbours_of_the_smallest_take_the_place_of_random_seeds(tmp_path, asked, found):
    """All 27 where more are asked for: every gene of the mini space that has a second choice."""
    space, seeds = backbones_of(tmp_path, seed_backbones=40, seed_neighbours=asked)
    assert len(set(seeds)) == len(seeds) == 40
    assert {space.smallest, space.largest, *space.presets.values()} <= set(seeds)
    apart = np.array([np.abs(space.encode(own) - space.encode(space.smallest)).sum() for own in seeds])
    assert (apart == 1).sum() == found


def test_neighbours_never_make_more_seeds_than_are_asked_for(tmp_path):
    space, seeds = backbones_of(tmp_path, seed_backbones=6, seed_neighbours=28)
    assert len(set(seeds)) == 6
    assert {space.smallest, space.largest} <= set(seeds)
