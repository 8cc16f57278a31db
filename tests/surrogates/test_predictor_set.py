"""The set as a whole: accuracy, draws, determinism, and files."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from hadas.datasets.records import OutcomeMatrix
from hadas.errors import ModelError, OffTableFrequencyError
from hadas.spaces import CLOCK_TABLES, ClockDomain, ClockTable, Setting, attentivenas_space
from hadas.surrogates.accuracy import accuracy_rows, eases, logits_of, usable_accuracy
from hadas.surrogates.model_files import manifest_digest
from hadas.surrogates.predictor_set import PredictorSet


def outcomes(correct, group=None):
    blank = np.zeros(correct.shape, dtype=np.float16)
    group = np.arange(len(correct)) if group is None else group
    return OutcomeMatrix(correct, blank, blank, blank, blank.astype(np.int16), group.astype(np.int32))


def test_logits_and_their_noise_by_the_delta_method():
    correct = np.zeros((100, 3), dtype=bool)
    correct[:80, 0] = True
    correct[:, 2] = True
    logit, variance = logits_of(outcomes(correct))
    # log(0.8 / 0.2); half a sample away from 0 and 1
    np.testing.assert_allclose(logit, [1.3862943611, -5.2933048247, 5.2933048247], rtol=1e-9)
    # n / (n - 1) x p (1 - p) / n / (p (1 - p))^2, and the binomial where nothing varies
    np.testing.assert_allclose(
        variance, [100 / 99 / 16, 1 / (100 * 0.005 * 0.995), 1 / (100 * 0.005 * 0.995)]
    )


def test_copies_of_an_image_do_not_count_as_samples():
    rng = np.random.default_rng(0)
    images = rng.random((50, 1)) < 0.7
    once = logits_of(outcomes(images))[1]
    copied = logits_of(outcomes(np.repeat(images, 4, axis=0), np.repeat(np.arange(50), 4)))[1]
    np.testing.assert_allclose(copied, once, rtol=1e-9)


def answers_of_a_split(rng, skill, n_samples=400):
    """Outcomes of networks of some skill on the same samples, hard and easy ones."""
    difficulty = 1.5 * rng.standard_normal((n_samples, 1))
    return [outcomes(s + rng.standard_normal((n_samples, 1)) > difficulty) for s in skill]


def test_noise_between_networks_leaves_out_what_the_split_does_to_all_of_them():
    rng, skill = np.random.default_rng(3), np.full(12, 1.0)
    apart, own, alone = [], [], []
    for _ in range(150):
        split = answers_of_a_split(rng, skill)
        found = [logits_of(one, ease) for one, ease in zip(split, eases(split), strict=True)]
        apart.append(float(found[0][0][0] - found[1][0][0]))
        own.append(float(found[0][1][0] + found[1][1][0]))
        alone.append(float(sum(logits_of(one)[1][0] for one in split[:2])))
    # Two networks of equal skill differ by their own noise alone.
    assert np.var(apart) == pytest.approx(np.mean(own), rel=0.3)
    assert np.mean(own) < 0.7 * np.mean(alone)


def test_networks_without_common_samples_keep_all_their_noise():
    rng = np.random.default_rng(4)
    one, other = (outcomes(rng.random((50, 2)) < 0.7, np.arange(50) + start) for start in (0, 50))
    assert eases([one, other]) == [None, None]
    assert eases([one]) == [None]
    chance = outcomes(rng.random((400, 1)) < 0.7)
    others = [outcomes(rng.random((400, 1)) < 0.7) for _ in range(20)]
    known = logits_of(chance, eases([chance, *others])[0])[1]
    # What others got right by chance explains nothing.
    assert known == pytest.approx(logits_of(chance)[1], rel=0.03)


def test_accuracy_rows_follow_records_and_positions(toy):
    final, exits = accuracy_rows(toy.space, toy.accuracy_records, n_classes=10)
    positions = [r.backbone.n_blocks - toy.space.first_exit for r in toy.accuracy_records]
    assert len(final.y) == len(toy.accuracy_records)
    assert len(exits.y) == sum(positions)
    record = toy.accuracy_records[1]
    start = positions[0]
    np.testing.assert_allclose(
        expit(exits.y[start : start + positions[1]]), record.calibration.fractions[:-1]
    )
    assert expit(final.y[1]) == pytest.approx(record.calibration.fractions[-1])
    assert len(set(exits.groups[start : start + positions[1]])) == 1


def test_accuracy_records_that_do_not_belong_together_are_refused(toy):
    one, two = toy.accuracy_records[:2]
    with pytest.raises(ModelError, match=r"recipe_id.*'other', 'recipe'"):
        usable_accuracy(toy.space, [one, replace(two, recipe_id="other")])
    with pytest.raises(ModelError, match="row 1: backbone of space 'mini'"):
        usable_accuracy(attentivenas_space(), [two])
    with pytest.raises(ModelError, match="outcome columns"):
        usable_accuracy(toy.space, [replace(one, calibration=outcomes(np.ones((5, 2), dtype=bool)))])
    with pytest.raises(ModelError, match="no valid accuracy record"):
        accuracy_rows(
            toy.space,
            usable_accuracy(toy.space, [replace(one, valid=False, reason="no memory", calibration=None)]),
            n_classes=10,
        )


def test_exit_fractions_of_unseen_backbones(fitted, toy):
    prediction = fitted.exit_fractions(toy.unseen)
    true = np.concatenate([toy.true_fractions(toy.space, b)[:-1] for b in toy.unseen])
    assert prediction.mean.shape == (len(true), 1)
    assert prediction.units == ("logit",)
    error = expit(prediction.mean[:, 0]) - true
    assert np.sqrt(np.mean(error**2)) < 0.05
    inside = np.abs(prediction.mean[:, 0] - np.log(true / (1 - true))) < 2.6 * prediction.sd_total[:, 0]
    assert inside.mean() > 0.9


def test_the_curve_over_exits_is_learned_from_three_backbones(toy):
    """What all backbones share must not drown in what tells them apart."""
    predictors = PredictorSet.fit(
        toy.space, toy.table, toy.accuracy_records[:3], toy.cost_records[:3], n_classes=10, seed=0,
        candidates=("gp",),
    )  # fmt: skip
    true = np.concatenate([toy.true_fractions(toy.space, b)[:-1] for b in toy.unseen])
    predicted = expit(predictors.exit_fractions(toy.unseen).mean[:, 0])
    assert np.corrcoef(predicted, true)[0, 1] > 0.8


def test_final_accuracy_of_unseen_backbones(fitted, toy):
    prediction = fitted.final_accuracy(toy.unseen)
    true = np.array([toy.true_fractions(toy.space, b)[-1] for b in toy.unseen])
    assert prediction.mean.shape == (len(toy.unseen), 1)
    known = np.array([record.calibration.fractions[-1] for record in toy.accuracy_records])
    by_mean = np.sqrt(np.mean((known.mean() - true) ** 2))
    # Ten backbones in a space of 2e9 teach little, but more than their mean does.
    assert np.sqrt(np.mean((expit(prediction.mean[:, 0]) - true) ** 2)) < 0.9 * by_mean
    off = np.log(true / (1 - true)) - prediction.mean[:, 0]
    assert (np.abs(off) < 3.3 * prediction.sd_total[:, 0]).all()


def test_draws_have_the_interface_s_shapes_and_ranges(fitted, toy):
    draws = fitted.draws(7, seed=1)
    final = draws.final_accuracy(toy.unseen)
    assert final.shape == (7, len(toy.unseen))
    exits = draws.exit_fractions(toy.unseen)
    assert [e.shape for e in exits] == [(7, fitted.workload(b).n_positions) for b in toy.unseen]
    for values in (final, *exits):
        assert ((values > 0) & (values < 1)).all()
    alone = draws.exit_fractions(toy.unseen[2:3])[0]
    np.testing.assert_allclose(alone, exits[2], rtol=1e-7)


def test_cost_draws_centre_on_the_means_and_share_latency(fitted, toy):
    stages = list(fitted.workload(toy.unseen[0]).unit_stages())
    settings = [toy.table.settings[(11 * i) % len(toy.table)] for i in range(len(stages))]
    latency_ms, energy_mj = fitted.draws(600, seed=2).stage_costs(stages, settings)
    for i, (stage, setting) in enumerate(zip(stages, settings, strict=True)):
        mean = fitted.stage_costs([stage], [setting])
        assert np.median(latency_ms[:, i]) == pytest.approx(mean.latency_ms[0, 0], rel=0.05)
        assert np.median(energy_mj[:, i]) == pytest.approx(mean.energy_mj[0, 0], rel=0.05)
    # Energy over latency is power, drawn independently of latency.
    power_w = energy_mj / latency_ms
    for i in range(len(stages)):
        assert abs(np.corrcoef(np.log(power_w[:, i]), np.log(latency_ms[:, i]))[0, 1]) < 0.25
    # The same pair twice, and in another batch, is the same number.
    twice, _ = fitted.draws(600, seed=2).stage_costs([stages[3], stages[3]], [settings[3]] * 2)
    np.testing.assert_array_equal(twice[:, 0], twice[:, 1])
    np.testing.assert_allclose(twice[:, 0], latency_ms[:, 3], rtol=1e-7)


def test_noisy_draws_are_wider_and_cover_new_measurements(fitted, toy):
    records = toy.costs(toy.unseen, 9)
    pairs = [
        (stage, record.actual, cost)
        for record in records
        for stage, cost in zip(
            fitted.workload(record.backbone).stages([p for p, _ in record.heads]), record.stages, strict=True
        )
    ]
    stages, settings, costs = (list(part) for part in zip(*pairs, strict=True))
    noisy = fitted.draws(200, seed=3, include_noise=True).stage_costs(stages, settings)
    clean = fitted.draws(200, seed=3).stage_costs(stages, settings)
    measured = (
        np.array([c.latency_ms.value for c in costs]),
        np.array([c.energy_mj.value for c in costs]),
    )
    for with_noise, without, y in zip(noisy, clean, measured, strict=True):
        assert np.median(np.log(with_noise).std(axis=0)) > np.median(np.log(without).std(axis=0))
        low, high = np.quantile(with_noise, [0.05, 0.95], axis=0)
        assert 0.75 < np.mean((low <= y) & (y <= high)) <= 1.0
    # Noise belongs to the row and the seed, not to the batch.
    again = fitted.draws(200, seed=3, include_noise=True).stage_costs(stages[5:6], settings[5:6])
    np.testing.assert_allclose(again[0][:, 0], noisy[0][:, 5], rtol=1e-7)


def test_summary_scores_all_candidates(fitted, toy):
    quantities = {summary.quantity: summary for summary in fitted.summary}
    assert list(quantities) == ["final_accuracy", "exit_fractions", "log_latency", "log_power"]
    for summary in fitted.summary:
        assert summary.n_groups == len(toy.measured)
    for name in ("final_accuracy", "exit_fractions"):
        summary = quantities[name]
        assert [score.model for score in summary.scores] == ["gp", "xgb"]
        best = max(summary.scores, key=lambda score: score.score)
        assert summary.chosen == best.model or best.score - summary.scores[0].score < 0.021
    # Segments with blocks between are sums, which one kind of model alone learns from.
    assert quantities["log_latency"].chosen == "gp-sum"
    assert quantities["log_latency"].n_rows == sum(len(r.stages) for r in toy.cost_records)


def test_the_same_records_and_seed_give_the_same_set(toy):
    def fit():
        return PredictorSet.fit(
            toy.space, toy.table, toy.accuracy_records[:4], toy.cost_records[:12], n_classes=10, seed=4,
            candidates=("gp",),
        )  # fmt: skip

    one, two = fit(), fit()
    np.testing.assert_array_equal(one.exit_fractions(toy.unseen).mean, two.exit_fractions(toy.unseen).mean)
    stages = one.workload(toy.unseen[0]).unit_stages()
    np.testing.assert_array_equal(
        one.stage_costs(stages, toy.table.settings).energy_mj,
        two.stage_costs(stages, toy.table.settings).energy_mj,
    )
    np.testing.assert_array_equal(
        one.draws(3, 1).final_accuracy(toy.unseen), two.draws(3, 1).final_accuracy(toy.unseen)
    )
    assert one.summary == two.summary


def test_one_record_of_each_is_enough_to_start(toy):
    predictors = PredictorSet.fit(
        toy.space, toy.table, toy.accuracy_records[:1], toy.cost_records[:1], n_classes=10, seed=0
    )
    assert np.isfinite(predictors.final_accuracy(toy.unseen).mean).all()
    assert np.isfinite(predictors.network_cost(toy.unseen, toy.table.default)[0]).all()
    assert all(summary.scores == () for summary in predictors.summary)


def test_unknown_candidates_and_off_table_settings_are_refused(fitted, toy):
    with pytest.raises(ModelError, match=r"no predictor 'forest'; known: \['gp', 'xgb'"):
        PredictorSet.fit(
            toy.space,
            toy.table,
            toy.accuracy_records,
            toy.cost_records,
            n_classes=10,
            seed=0,
            candidates=("forest",),
        )
    stages = fitted.workload(toy.unseen[0]).unit_stages()
    with pytest.raises(OffTableFrequencyError):
        fitted.stage_costs(stages, [Setting((("gpu", 10**9), ("emc", 1_866_000_000)))])


@pytest.fixture(scope="module", params=["gp", "xgb"])
def saved(request, toy, tmp_path_factory):
    predictors = PredictorSet.fit(
        toy.space, toy.table, toy.accuracy_records[:5], toy.cost_records[:12], n_classes=10, seed=2,
        candidates=(request.param,),
    )  # fmt: skip
    directory = tmp_path_factory.mktemp("models") / "set"
    predictors.save(directory)
    return predictors, directory


def test_loaded_predictors_say_the_same_bit_for_bit(saved, toy):
    predictors, directory = saved
    loaded = PredictorSet.load(directory, toy.space, toy.table)
    stages = predictors.workload(toy.unseen[0]).unit_stages()
    for one, two in (
        (predictors.final_accuracy(toy.unseen), loaded.final_accuracy(toy.unseen)),
        (predictors.exit_fractions(toy.unseen), loaded.exit_fractions(toy.unseen)),
    ):
        np.testing.assert_array_equal(one.mean, two.mean)
        np.testing.assert_array_equal(one.sd_total, two.sd_total)
    one, two = (p.stage_costs(stages, toy.table.settings) for p in (predictors, loaded))
    np.testing.assert_array_equal(one.latency_ms, two.latency_ms)
    np.testing.assert_array_equal(one.energy_mj, two.energy_mj)
    settings = toy.table.settings[: len(stages)]
    draws = [p.draws(4, 5, include_noise=True).stage_costs(stages, settings) for p in (predictors, loaded)]
    np.testing.assert_array_equal(draws[0][1], draws[1][1])
    assert loaded.summary == predictors.summary
    assert loaded.provenance == predictors.provenance


def test_files_for_something_else_are_refused(saved, toy):
    _, directory = saved
    with pytest.raises(ModelError, match="made for space 'mini', not for 'attentivenas'"):
        PredictorSet.load(directory, attentivenas_space(), toy.table)
    with pytest.raises(ModelError, match="clock table 'tx2-pascal-gpu', not for 'tx2-denver-cpu'"):
        PredictorSet.load(directory, toy.space, CLOCK_TABLES["tx2-denver-cpu"])
    gpu, emc = toy.table.domains
    other = ClockTable(toy.table.name, (ClockDomain("gpu", gpu.frequencies_hz[:-1]), emc))
    with pytest.raises(ModelError, match=r"another form of clock table.*\['gpu'\]"):
        PredictorSet.load(directory, toy.space, other)
    with pytest.raises(ModelError, match="their order"):
        PredictorSet.load(directory, toy.space, ClockTable(toy.table.name, (emc, gpu)))


def test_damaged_files_are_named(saved, toy, tmp_path):
    _, directory = saved

    def broken(name, content):
        copy = tmp_path / f"copy{len(list(tmp_path.iterdir()))}"
        copy.mkdir()
        for file in directory.iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
        if content is None:
            (copy / name).unlink()
        else:
            (copy / name).write_bytes(content((copy / name).read_bytes()))
        return copy

    def edited(change):
        def edit(data):
            manifest = json.loads(data)
            change(manifest)
            manifest["manifest_sha256"] = manifest_digest(manifest)  # as an attacker would
            return json.dumps(manifest).encode()

        return edit

    tensors = sorted(directory.glob("*.safetensors"))[0].name
    for name, content, message in (
        (tensors, lambda data: data[:-8], f"{tensors}: altered or cut short"),
        (tensors, None, f"{tensors}: cannot read"),
        ("predictors.json", None, "predictors.json: cannot read"),
        ("predictors.json", lambda data: data[:50], "predictors.json: not a predictor manifest"),
        ("predictors.json", lambda data: b'{"format": "other"}', "not a predictor manifest"),
        ("predictors.json", edited(lambda m: m.update(feature_version=0)), "feature_version 0; this release"),
        ("predictors.json", edited(lambda m: m.pop("physics")), "damaged or incomplete.*physics"),
        (
            "predictors.json",
            edited(lambda m: m["models"]["log_latency"]["state"].update(kind="os.system")),
            "no predictor 'os",
        ),
    ):
        with pytest.raises(ModelError, match=message) as caught:
            PredictorSet.load(broken(name, content), toy.space, toy.table)
        assert "the next fit writes it anew" in str(caught.value)


def test_manifest_cannot_reach_outside_its_directory(saved, toy, tmp_path):
    _, directory = saved
    copy = tmp_path / "escape"
    copy.mkdir()
    for file in directory.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    manifest = json.loads((copy / "predictors.json").read_text())
    manifest["models"]["log_latency"]["state"]["boosters"] = ["../../secret"]
    manifest["manifest_sha256"] = manifest_digest(manifest)
    (copy / "predictors.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="leaves the directory"):
        PredictorSet.load(copy, toy.space, toy.table)


def test_numbers_of_any_size_are_saved(saved):
    _, directory = saved
    text = (directory / "predictors.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
