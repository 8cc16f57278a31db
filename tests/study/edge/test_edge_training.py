"""What a study trains, what it finds in its store, and what it tries again."""

from dataclasses import replace

import pytest

from hadas.datasets.quantized_records import QuantizedRecord
from hadas.errors import StudyError
from hadas.study.edge import EdgeStudy
from hadas.study.edge.training import Trained

from .conftest import fill_layer_costs, new_study


def silent(*_: object) -> None:
    pass


@pytest.fixture(scope="module")
def begun(tmp_path_factory) -> EdgeStudy:
    """A study with its shared start, and nothing trained."""
    directory = tmp_path_factory.mktemp("training")
    study = EdgeStudy.open(new_study(directory, learning={"seeds": 5, "rounds": 0}))
    fill_layer_costs(directory)
    study.begin()
    return study


def failure(study: EdgeStudy, letters: str, row_no: int, *, passing: bool) -> QuantizedRecord:
    network = study.parts.space.network(letters, bits=4, head_bits=4)
    return QuantizedRecord(
        "other/networks", row_no, network, study.parts.recipe.recipe_id, study.parts.data.split_id, None, None,
        valid=False, reason="it failed", passing=passing, start_id=study.trained.start_id,
    )  # fmt: skip


def again(study: EdgeStudy) -> Trained:
    """The trained networks as the next run of the command sees them."""
    return Trained(study.parts, "study/networks")


def test_a_fault_of_the_machine_is_tried_again_and_one_of_the_network_is_not(begun):
    passing, own = failure(begun, "A", 0, passing=True), failure(begun, "B", 1, passing=False)
    for row in (passing, own):
        begun.parts.rows.add(row)
    trained = again(begun)
    trained.train([passing.network, own.network], "test", silent)
    assert trained.reason(passing.network) == ""
    assert trained.reason(own.network) == "it failed"
    (row,) = begun.parts.rows.records("study/networks")
    assert row.network == passing.network
    # Whoever comes next finds the success.
    next_run = again(begun)
    next_run.train([passing.network, own.network], "test", silent)
    assert len(begun.parts.rows.records("study/networks")) == 1


def test_what_fails_again_is_left_to_the_next_run(begun, monkeypatch):
    first = failure(begun, "C", 2, passing=True)
    begun.parts.rows.add(first)
    asked = []

    def fail_again(networks, progress, *, session, first_row):
        asked.append([network.trained_id for network in networks])
        yield replace(first, session=session, row_no=first_row, reason="again")

    monkeypatch.setattr(begun.parts.meter, "measure", fail_again)
    trained = again(begun)
    for _ in range(2):
        trained.train([first.network], "test", silent)
        assert trained.reason(first.network) == "again"
    assert asked == [[first.network.trained_id]]
    again(begun).train([first.network], "test", silent)
    assert len(asked) == 2


def test_rows_that_were_tuned_from_another_start_are_not_taken(begun):
    strange = replace(failure(begun, "D", 3, passing=False), start_id="another")
    begun.parts.rows.add(strange)
    trained = again(begun)
    trained.find([strange.network])
    assert not trained.has(strange.network.trained_id)


def test_a_study_goes_on_from_the_start_that_it_began_with_alone(begun):
    start = begun.parts.meter.start().path
    kept = start.read_bytes()
    other = EdgeStudy.open(
        new_study(begun.directory / "other", accuracy={"n_workers": 1, "recipe": {"seed": 1}})
    )
    start.write_bytes(other.parts.meter.start().path.read_bytes())
    try:
        study = EdgeStudy.open(begun.path)
        with pytest.raises(StudyError, match=r"another shared start .*Bring the folder 'weights'"):
            study.run()
    finally:
        start.write_bytes(kept)
