"""Model files that somebody else wrote: whatever is in them, loading says no in words or predicts the same."""

import hashlib
import json
import pickle
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from hadas.errors import ModelError
from hadas.surrogates.model_files import manifest_digest
from hadas.surrogates.predictor_set import PredictorSet
from hadas.surrogates.ubjson import check_booster, read_ubjson

KINDS = ("gp", "xgb", "gp-sum")


@pytest.fixture(scope="module", params=KINDS)
def saved(request, toy, tmp_path_factory):
    """A small saved set; ``gp-sum``: its costs learned from rows of prefix programs."""
    costs = toy.cost_records[:5]
    if request.param == "gp-sum":
        costs = [toy.prefix_record(record) for record in costs]
    predictors = PredictorSet.fit(
        toy.space, toy.table, toy.accuracy_records[:3], costs, n_classes=10, seed=2,
        candidates=("xgb" if request.param == "xgb" else "gp",),
    )  # fmt: skip
    directory = tmp_path_factory.mktemp("hostile") / "set"
    predictors.save(directory)
    return predictors, directory


def copy_of(directory, tmp_path):
    target = tmp_path / f"copy{len(list(tmp_path.iterdir()))}"
    shutil.copytree(directory, target)
    return target


def forge(directory, name, data):
    """Put other bytes into a file and sign them, as an attacker would."""
    (directory / name).write_bytes(data)
    path = directory / "predictors.json"
    manifest = json.loads(path.read_text())
    manifest["sha256"][name] = hashlib.sha256(data).hexdigest()
    manifest["manifest_sha256"] = manifest_digest(manifest)
    path.write_text(json.dumps(manifest))


def refused(directory, toy):
    with pytest.raises(ModelError) as caught:
        PredictorSet.load(directory, toy.space, toy.table)
    assert "the next fit writes it anew" in str(caught.value)
    return str(caught.value)


class Bomb:
    """What a pickle runs when it is loaded."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def test_a_pickle_is_not_loaded(saved, toy, tmp_path):
    _, directory = saved
    for name in sorted(path.name for path in directory.iterdir() if path.suffix != ".json")[:3]:
        copy = copy_of(directory, tmp_path)
        forge(copy, name, pickle.dumps(Bomb()))
        assert name in refused(copy, toy)


def test_every_array_of_another_shape_or_with_numbers_that_are_none_is_refused(saved, toy, tmp_path):
    """One array at a time, in files that are signed."""
    predictors, directory = saved
    kinds = {quantity.model.kind: name for name, quantity in predictors.quantities.items()}
    for path in (directory / f"{name}.safetensors" for name in kinds.values()):
        arrays = load_tensors(path.read_bytes())
        for key, array in arrays.items():
            if array.size == 0:
                continue
            spoiled = array.copy()
            spoiled.reshape(-1)[0] = np.nan
            longer = np.concatenate([array, array])
            for forged in (spoiled, array.astype(np.float32), longer, array.reshape(-1)[:0]):
                copy = copy_of(directory, tmp_path)
                forge(copy, path.name, save_tensors({**arrays, key: np.ascontiguousarray(forged)}))
                refused(copy, toy)
                shutil.rmtree(copy)


def test_a_missing_array_is_refused(saved, toy, tmp_path):
    _, directory = saved
    path = directory / "log_latency.safetensors"
    arrays = load_tensors(path.read_bytes())
    for key in arrays:
        copy = copy_of(directory, tmp_path)
        forge(copy, path.name, save_tensors({k: a for k, a in arrays.items() if k != key}))
        refused(copy, toy)
        shutil.rmtree(copy)


def test_a_header_that_announces_more_than_there_is_is_refused(saved, toy, tmp_path):
    _, directory = saved
    copy = copy_of(directory, tmp_path)
    name = "log_latency.safetensors"
    data = bytearray((copy / name).read_bytes())
    data[:8] = (2**62).to_bytes(8, "little")
    forge(copy, name, bytes(data))
    assert "not a safetensors file" in refused(copy, toy)


def test_a_link_is_not_followed(saved, toy, tmp_path):
    _, directory = saved
    copy = copy_of(directory, tmp_path)
    (copy / "log_latency.safetensors").unlink()
    (copy / "log_latency.safetensors").symlink_to(directory / "log_latency.safetensors")
    assert "a link" in refused(copy, toy)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_changed_byte_goes_unnoticed(saved, toy, tmp_path_factory, data):
    """Nothing signed anew: any other byte, anywhere, is refused; white space between fields changes nothing."""
    predictors, directory = saved
    name = data.draw(st.sampled_from(sorted(path.name for path in directory.iterdir())))
    content = bytearray((directory / name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    copy = tmp_path_factory.mktemp("mutated") / "set"
    shutil.copytree(directory, copy)
    (copy / name).write_bytes(content)
    try:
        loaded = PredictorSet.load(copy, toy.space, toy.table)
    except ModelError:
        return
    stages = predictors.workload(toy.unseen[0]).unit_stages()[:2]
    for one, two in (
        (predictors.final_accuracy(toy.unseen).mean, loaded.final_accuracy(toy.unseen).mean),
        (
            predictors.stage_costs(stages, toy.table.settings[:2]).latency_ms,
            loaded.stage_costs(stages, toy.table.settings[:2]).latency_ms,
        ),
    ):
        np.testing.assert_array_equal(one, two)


@pytest.fixture(scope="module")
def booster():
    import xgboost

    rng = np.random.default_rng(0)
    x = rng.random((60, 3))
    trained = xgboost.train(
        {"nthread": 1, "max_depth": 3, "base_score": 0.0}, xgboost.DMatrix(x, label=x[:, 0], nthread=1), 4
    )
    return bytes(trained.save_raw("ubj"))


def test_a_booster_of_ours_passes_and_reads_as_xgboost_says(booster):
    import xgboost

    check_booster(booster)
    model = xgboost.Booster({"nthread": 1})
    model.load_model(bytearray(booster))
    trees = read_ubjson(booster)["learner"]["gradient_booster"]["model"]["trees"]
    said = json.loads(bytes(model.save_raw("json")))["learner"]["gradient_booster"]["model"]["trees"]
    for mine, theirs in zip(trees, said, strict=True):
        for field in ("left_children", "right_children", "split_indices", "split_conditions"):
            np.testing.assert_allclose(mine[field], theirs[field], rtol=1e-6)


def test_forged_trees_are_refused_before_xgboost_reads_them(booster):
    """A child or a feature out of range would make XGBoost read foreign memory."""
    model = read_ubjson(booster)["learner"]["gradient_booster"]["model"]
    for field, value in (("left_children", 10_000), ("right_children", 0), ("split_indices", 77)):
        old = np.asarray(model["trees"][0][field])
        new = old.copy()
        new[0] = value
        marker = field.encode() + b"["
        at = booster.index(old.tobytes(), booster.index(marker))
        forged = booster[:at] + new.tobytes() + booster[at + old.nbytes :]
        assert forged != booster
        with pytest.raises(ValueError, match="tree"):
            check_booster(forged)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_ubjson_of_any_bytes_ends_in_a_value_or_a_refusal(booster, data):
    """Lengths are those of the bytes that are there, so nothing takes more memory than the file has."""
    content = bytearray(booster)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(content)))
    try:
        check_booster(bytes(content[:end]))
    except (ValueError, KeyError, TypeError, IndexError):
        return


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[", b"{", b"[" * 5000, b"[$D#L\x7f\xff\xff\xff\xff\xff\xff\xff", b"[#L\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"[$Z#l\x7f\xff\xff\xff", b"Sl\x7f\xff\xff\xff", b"{i\x01aZ}x", b"[#i\xff", b"SU\x01\xff",
    ],
)  # fmt: skip
def test_bytes_that_are_no_ubjson_are_refused(data):
    with pytest.raises(ValueError, match=r"byte|nested|announced|decode|unknown"):
        read_ubjson(data)
