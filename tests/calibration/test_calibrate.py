"""`coreml.calibrate`: which weights it looks at, samples, functions, states, interruptions, other models."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from coreml_helpers import quiet

from corepress import coreml
from corepress.calibration.model_runs import ModelRuns
from corepress.calibration.second_moments import SecondMoments
from corepress.calibration.unfinished import folder_of

torch = pytest.importorskip("torch")
pytest.importorskip("coremltools")


@pytest.fixture
def weights(rng):
    return [rng.standard_normal(shape).astype(np.float32) / 4 for shape in ((16, 12), (8, 16))]


@pytest.fixture
def network(save, mb, weights):
    def body(x):
        hidden = mb.relu(x=mb.linear(x=x, weight=weights[0], name="first"))
        return mb.linear(x=hidden, weight=weights[1], name="y")

    return save(body, inputs={"x": ((3, 12), "float32")})


@pytest.fixture
def samples(rng):
    return [{"x": rng.standard_normal((3, 12)).astype(np.float32)} for _ in range(9)]


def calibrate(path, samples, *arguments, **options):
    return coreml.calibrate(path, samples, *arguments, **({"weight_threshold": 0, "candidates": [4]} | options))


def named(statistics, shape):
    (found,) = [each for each in statistics.weights.values() if each.shape == shape]
    return found


def same(first, second):
    assert first.weights.keys() == second.weights.keys()
    for name, each in first.weights.items():
        other = second.weights[name]
        np.testing.assert_array_equal(each.hessian, other.hessian)
        assert each.sensitivities == other.sensitivities
        assert (each.count, each.reason) == (other.count, other.reason)


def test_every_fourth_sample_is_kept(network, samples):
    found = calibrate(network, samples)
    assert found.sample_count == 9
    np.testing.assert_array_equal([each["x"] for each in found.kept], [samples[3]["x"], samples[7]["x"]])
    assert named(found, (16, 12)).count == 7 * 3
    assert not found.notes


def test_of_few_samples_none_is_kept(network, samples):
    found = calibrate(network, samples[:3])
    assert not found.kept
    assert "only 3 samples" in found.notes[0]
    assert all(each.sensitivities for each in found.weights.values())


@pytest.mark.parametrize("source", ["generator", "file", "folder", "iterable"])
def test_sources_of_samples(network, samples, tmp_path, source):
    class Iterable:
        def __iter__(self):
            return iter(samples)

    if source == "file":
        given = tmp_path / "samples.npz"
        np.savez(given, x=np.stack([each["x"] for each in samples]))
    elif source == "folder":
        given = tmp_path / "samples"
        given.mkdir()
        for index, each in enumerate(samples):
            np.savez(given / f"{index}.npz", **each)
    else:
        given = (each for each in samples) if source == "generator" else Iterable()
    same(calibrate(network, given, memory_limit=1), calibrate(network, samples, memory_limit=1))


def test_passes_are_as_many_as_memory_takes(network, samples, monkeypatch):
    passes = []
    original = SecondMoments._sum_up

    def count(self, name, group, *rest):
        passes.append([each.name for each in group])
        return original(self, name, group, *rest)

    monkeypatch.setattr(SecondMoments, "_sum_up", count)
    small = calibrate(network, samples, memory_limit=1)
    assert [len(each) for each in passes] == [1, 1]
    passes.clear()
    same(small, calibrate(network, samples))
    assert [len(each) for each in passes] == [2]


def test_a_weight_that_several_operations_use(save, mb, rng):
    weight = rng.standard_normal((12, 12)).astype(np.float32)

    def body(x):
        shared = mb.const(val=weight, name="shared")
        return mb.linear(x=mb.relu(x=mb.linear(x=x, weight=shared)), weight=shared)

    path = save(body, inputs={"x": ((5, 12), "float32")})
    samples = [{"x": rng.standard_normal((5, 12)).astype(np.float32)} for _ in range(3)]
    found = named(calibrate(path, samples), (12, 12))
    first = np.concatenate([each["x"] for each in samples]).astype(np.float64)
    vectors = np.concatenate([first, np.maximum(first @ weight.T, 0)])
    assert found.count == len(vectors)
    np.testing.assert_allclose(found.hessian[0, 0], vectors.T @ vectors / len(vectors), rtol=1e-4, atol=1e-4)


def test_weights_without_second_moments_are_told(save, mb, rng):
    table, factor, tied = (rng.standard_normal(shape).astype(np.float32) for shape in ((20, 12), (5, 12), (30, 12)))

    def body(ids, x):
        words = mb.add(x=mb.gather(x=table, indices=ids, axis=0), y=mb.mul(x=x, y=factor))
        both = mb.const(val=tied, name="tied")
        return mb.linear(x=mb.add(x=words, y=mb.gather(x=both, indices=ids, axis=0)), weight=both)

    path = save(body, inputs={"ids": ((5,), "int32"), "x": ((5, 12), "float32")})
    samples = [
        {"ids": rng.integers(0, 20, 5).astype(np.int32), "x": rng.standard_normal((5, 12)).astype(np.float32)}
        for _ in range(5)
    ]
    found = calibrate(path, samples)
    reasons = {found.weights[name].shape: reason for name, reason in found.unreached.items()}
    assert reasons == {
        (20, 12): "its rows are looked up by gather",
        (5, 12): "it is the y of mul",
        (30, 12): "its rows are looked up by gather",
    }
    for each in found.weights.values():
        assert each.sensitivities
        assert each.reached


def test_a_branch_that_no_sample_takes(save, mb, rng):
    weight, other = rng.standard_normal((2, 12, 12)).astype(np.float32)

    def body(x):
        return mb.cond(
            pred=mb.greater(x=mb.reduce_sum(x=x), y=np.float32(1e6)),
            _true_fn=lambda: mb.linear(x=x, weight=weight),
            _false_fn=lambda: mb.linear(x=x, weight=other),
        )

    path = save(body, inputs={"x": ((5, 12), "float32")})
    samples = [{"x": rng.standard_normal((5, 12)).astype(np.float32)} for _ in range(5)]
    found = calibrate(path, samples)
    assert list(found.unreached.values()) == ["no sample reached it"]
    (unreached,) = found.unreached
    assert not found.weights[unreached].reached
    (reached,) = found.reached
    assert found.weights[reached].count == 20
    report = coreml.compress(
        path, path.parent / "out.mlpackage", {"palettize": {"nbits": 4}}, calibration=found, weight_threshold=0
    )
    assert report.compressed == 2
    assert any("1 weight, " in note and "no sample reached it" in note for note in report.notes)


@pytest.mark.filterwarnings("ignore:Implicitly cleaning up", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_functions_are_calibrated_one_by_one_and_merged(save, mb, rng, tmp_path):
    shared, own = rng.standard_normal((2, 12, 12)).astype(np.float32)

    def first(x):
        return mb.linear(x=x, weight=shared)

    def second(x):
        return mb.linear(x=mb.linear(x=x, weight=own), weight=shared)

    import coremltools as ct

    path = tmp_path / "both.mlpackage"
    descriptor = ct.utils.MultiFunctionDescriptor()
    for name, body in (("main", first), ("f1", second)):
        descriptor.add_function(str(save(body, inputs={"x": ((5, 12), "float32")}, name=name)), "main", name)
    descriptor.default_function_name = "main"
    with quiet():
        ct.utils.save_multifunction(descriptor, str(path))
        gc.collect()  # the temporary folders that it leaves to its models
    samples = [{"x": rng.standard_normal((5, 12)).astype(np.float32)} for _ in range(5)]
    one = calibrate(path, samples)
    other = calibrate(path, samples, function_name="f1")
    assert (one.function_name, other.function_name) == ("main", "f1")
    assert one.weights.keys() == other.weights.keys()
    merged = one.merge(other)
    merged.require_package(path)
    assert sorted(each.count for each in merged.weights.values()) == [20, 40]
    assert len(merged.reached) == len(merged.weights)


def test_sequences_share_a_state(save, mb, rng):
    weight = rng.standard_normal((12, 12)).astype(np.float32) / 4

    def body(x, total):
        value = mb.add(x=mb.read_state(input=total), y=x)
        updated = mb.coreml_update_state(state=total, value=value)
        return mb.linear(x=mb.cast(x=updated, dtype="fp32"), weight=weight)

    path = save(body, inputs={"x": ((5, 12), "float16"), "total": ((5, 12), "float16")}, states=("total",))
    sequences = [[{"x": rng.standard_normal((5, 12)).astype(np.float16)} for _ in range(3)] for _ in range(5)]
    found = calibrate(path, sequences, probes=2)
    sums = [np.cumsum([step["x"].astype(np.float32) for step in each], axis=0) for each in sequences]
    vectors = np.concatenate([sums[index].reshape(-1, 12) for index in (0, 1, 2, 4)])
    (only,) = found.weights.values()
    assert only.count == len(vectors)
    np.testing.assert_allclose(only.hessian[0, 0], vectors.T @ vectors / len(vectors), rtol=1e-3, atol=1e-2)
    assert len(found.kept[0]) == 3
    assert next(iter(only.sensitivities.values())).gradients == 2


@pytest.mark.parametrize("stage", ["second moments", "sensitivities"])
def test_an_interrupted_calibration_continues(network, samples, tmp_path, monkeypatch, stage):
    whole = calibrate(network, samples, tmp_path / "whole")
    monkeypatch.setattr("corepress.calibration.unfinished.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("corepress.calibration.unfinished.CHECKPOINT_SHARE", 0)
    output = tmp_path / "part"
    seen = []

    def interrupt(progress):
        seen.append(progress)
        if progress.stage == stage and sum(each.stage == stage for each in seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(network, samples, output, progress=interrupt)
    assert not output.exists()
    assert folder_of(output).is_dir()
    runs = []
    original = ModelRuns.forward
    monkeypatch.setattr(ModelRuns, "forward", lambda self, *rest: (runs.append(1), original(self, *rest))[1])
    found = calibrate(network, samples, output)
    same(whole, found)
    assert output.read_bytes() == (tmp_path / "whole").read_bytes()
    assert not folder_of(output).exists()
    # The third report of the first stage comes before the second of 7 samples is kept; 2 are run for their outputs.
    assert len(runs) == (6 + 2 if stage == "second moments" else 0)


def test_other_samples_begin_anew(network, samples, tmp_path, monkeypatch):
    monkeypatch.setattr("corepress.calibration.unfinished.CHECKPOINT_SECONDS", 0.0)
    output = tmp_path / "part"

    def interrupt(progress):
        if progress.stage == "sensitivities":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(network, samples, output, progress=interrupt)
    same(calibrate(network, samples[:8], output), calibrate(network, samples[:8]))


def test_nothing_else_is_written(network, samples, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    calibrate(network, samples, folder / "s", memory_limit=1)
    assert [each.name for each in folder.iterdir()] == ["s"]
    with pytest.raises(FileExistsError, match="overwrite=True"):
        calibrate(network, samples, folder / "s")
    calibrate(network, samples, folder / "s", overwrite=True)


def test_a_folder_of_somebody_else_is_left_alone(network, samples, tmp_path):
    folder = folder_of(tmp_path / "s")
    folder.mkdir()
    (folder / "mine").touch()
    with pytest.raises(FileExistsError, match="no calibration made it"):
        calibrate(network, samples, tmp_path / "s")
    assert (folder / "mine").exists()


def test_the_same_samples_give_the_same_statistics(network, samples):
    same(calibrate(network, samples), calibrate(network, samples))
    assert (
        named(calibrate(network, samples, seed=1), (16, 12)).sensitivities
        != named(calibrate(network, samples), (16, 12)).sensitivities
    )


def test_compressing_with_saved_statistics_is_the_same_everywhere(network, samples, tmp_path):
    calibrate(network, samples, tmp_path / "s", importance=True)
    for use in ("error_feedback", "diagonal", "fisher"):
        files = []
        for number in range(2):
            path = tmp_path / f"{use}{number}.mlpackage"
            options = {"weight_threshold": 0, "calibration_use": use, "num_threads": 1 + number}
            report = coreml.compress(network, path, {"palettize": {"nbits": 2}}, calibration=tmp_path / "s", **options)
            assert report.compressed == 2
            assert not report.notes
            files.append((path / "Data/com.apple.CoreML/weights/weight.bin").read_bytes())
        assert files[0] == files[1]


def test_statistics_of_another_model_are_refused(network, samples, save, mb, weights, tmp_path):
    found = calibrate(network, samples)
    weights[0][0, 0] += 1

    def body(x):
        hidden = mb.relu(x=mb.linear(x=x, weight=weights[0], name="first"))
        return mb.linear(x=hidden, weight=weights[1], name="y")

    other = save(body, inputs={"x": ((3, 12), "float32")}, name="other")
    for call in (
        lambda: coreml.compress(other, tmp_path / "o.mlpackage", {"palettize": {"nbits": 4}}, calibration=found),
        lambda: coreml.plan(other, {"palettize": {"nbits": 4}}, calibration=found),
        lambda: found.require_package(other),
    ):
        with pytest.raises(ValueError, match=r"another model than .*first_weight"):
            call()
    assert not (tmp_path / "o.mlpackage").exists()


def test_options_are_checked(network, samples):
    for options, message in (
        ({"probes": 0}, "probes is 0"),
        ({"block_columns": -1}, "block_columns is -1"),
        ({"memory_limit": 0}, "memory_limit is 0"),
        ({"candidates": "nonsense"}, "no set 'nonsense'"),
        ({"function_name": "f9"}, "f9"),
        ({"device": "nowhere"}, "nowhere"),
    ):
        with pytest.raises(ValueError, match=message):
            calibrate(network, samples, **options)
    with pytest.raises(ValueError, match="y"):
        calibrate(network, [{"y": samples[0]["x"]}])
    with pytest.raises(ValueError, match="no samples"):
        calibrate(network, [])
    with pytest.raises(TypeError, match="calibration must be"):
        coreml.plan(network, {"palettize": {"nbits": 4}}, calibration=3)
    with pytest.raises(ValueError, match="calibration_use is 'magic'"):
        coreml.plan(
            network, {"palettize": {"nbits": 4}}, calibration=calibrate(network, samples), calibration_use="magic"
        )


def test_progress_ends_at_all(network, samples):
    seen = []
    calibrate(network, samples, progress=seen.append)
    assert seen[-1].done == seen[-1].total > 0
    assert [each.done for each in seen] == sorted(each.done for each in seen)
    assert [*dict.fromkeys(each.stage.partition(" (")[0] for each in seen)] == [
        "loading",
        "second moments",
        "outputs",
        "candidates",
        "sensitivities",
    ]


def test_the_model_is_left_alone(network, samples):
    before = {each: each.read_bytes() for each in network.rglob("*") if each.is_file()}
    calibrate(network, samples)
    assert {each: each.read_bytes() for each in network.rglob("*") if each.is_file()} == before


def outputs_error(path, compressed, samples):
    (output,) = coreml.compare(path, compressed, inputs=samples, precision="float32").outputs
    return output.snr_db


def test_joint_steps_are_candidates_and_use_second_moments(network, samples, tmp_path):
    steps = [{"prune": {"target_sparsity": 0.4}}, {"palettize": {"nbits": 3}}]
    found = calibrate(network, samples, candidates=[steps, 3])
    for each in found.weights.values():
        joint, plain = each.sensitivities.values()
        assert 0 < plain.mean < joint.mean
    snr = {}
    for name, given in (("without", None), ("with", found)):
        path = tmp_path / f"{name}.mlpackage"
        report = coreml.compress(network, path, steps, calibration=given, weight_threshold=0)
        assert not report.notes
        snr[name] = outputs_error(network, path, samples)
    assert snr["with"] > snr["without"] + 0.5


def test_steps_without_a_use_for_second_moments_are_listed(network, samples, tmp_path):
    found = calibrate(network, samples)
    config = {"palettize": {"nbits": 4, "mode": "uniform"}}
    report = coreml.compress(network, tmp_path / "o.mlpackage", config, calibration=found, weight_threshold=0)
    assert report.compressed == 2
    assert "2 weights" in report.notes[0]
    assert "mode 'uniform'" in report.notes[0]
    later = [{"prune": {"threshold": 0.05}}, {"palettize": {"nbits": 4}}]
    report = coreml.compress(network, tmp_path / "p.mlpackage", later, calibration=found, weight_threshold=0)
    assert not report.notes
