"""The loop: it learns, it stops and goes on as if nothing had happened, and it refuses what cannot work."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neuroloom.errors import Interrupted, UserError
from neuroloom.files import hash_file, write_json
from neuroloom.networks.checkpoint import load_checkpoint
from neuroloom.project import Augmentation, Network
from neuroloom.training import loop
from neuroloom.training.job import TrainingJob
from neuroloom.training.loop import train
from neuroloom.training.score import Score

from .conftest import MakeJob, MakeVolume

AUGMENTED = Augmentation(elastic_spacing=8.0)


def curve(folder: Path, kind: str = "loss") -> list[float]:
    lines = [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
    return [line[kind] for line in lines if kind in line]


def state(folder: Path) -> dict[str, Any]:
    content = torch.load(folder / "state.pt", weights_only=True)
    del content["seconds"], content["waited"]
    return dict(content)


def assert_same(a: Any, b: Any) -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


class TestLearning:
    def test_loss_falls_on_held_out_crops(self, make_job: MakeJob, make_volume: MakeVolume, tmp_path: Path) -> None:
        job = make_job(
            setup="affs",
            iterations=80,
            learning_rate=5e-3,
            volumes=(make_volume("train"),),
            validation=(make_volume("validate"),),
            validate_every=20,
        )
        best = train(job, tmp_path / "run")
        scores = curve(tmp_path / "run", "validation")
        assert len(scores) == 4
        assert scores[-1] < 0.75 * 0.25  # a balanced guess of one half scores a quarter
        metadata = load_checkpoint(best).metadata
        assert metadata.iteration == 80 if scores[-1] == min(scores) else metadata.iteration < 80
        assert metadata.voxel_size == job.voxel_size
        assert metadata.neighborhood == job.neighborhood
        assert metadata.sigma_nm is None
        assert metadata.training["validation_loss"] == min(scores)

    def test_descriptors_then_affinities(self, make_job: MakeJob, tmp_path: Path) -> None:
        job = make_job(setup="lsd", iterations=3)
        lsd = train(job, tmp_path / "lsd")
        assert load_checkpoint(lsd).metadata.sigma_nm == job.sigma_nm
        second = job.model_copy(update={"setup": "acrlsd", "lsd_sha256": hash_file(lsd), "validation": job.volumes})
        loaded = load_checkpoint(train(second, tmp_path / "acrlsd", lsd))
        assert loaded.metadata.lsd_sha256 == hash_file(lsd)
        assert loaded.lsd is not None
        frozen = load_checkpoint(lsd).network.state_dict()
        assert_same(dict(loaded.lsd.network.state_dict()), dict(frozen))
        snapshots = {path.name for path in (tmp_path / "acrlsd" / "snapshots").iterdir()}
        assert snapshots == {"0000003.zarr", "0000003.png"}

    @pytest.mark.parametrize(
        ("setup", "network", "begins"),
        [("acrlsd", {}, True), ("aclsd", {}, False), ("acrlsd", {"feature_maps": 5}, False)],
    )
    def test_affinities_begin_with_the_weights_of_the_descriptors(
        self, make_job: MakeJob, tmp_path: Path, setup: str, network: dict[str, Any], begins: bool
    ) -> None:
        job = make_job(iterations=2)
        lsd = train(job, tmp_path / "lsd")
        # so slow that weights stay what they were at first
        size = job.network.model_copy(update=network)
        second = job.model_copy(
            update={"setup": setup, "network": size, "iterations": 1, "learning_rate": 1e-12, "weight_average": 0.0}
        )
        found = load_checkpoint(train(second, tmp_path / setup, lsd)).network.state_dict()
        expected = load_checkpoint(lsd).network.state_dict()
        name = "down.1.0.weight"
        same = found[name].shape == expected[name].shape and torch.allclose(found[name], expected[name], atol=1e-6)
        assert same == begins

    def test_descriptors_may_join_later(self, make_job: MakeJob, tmp_path: Path) -> None:
        job = make_job(iterations=2)
        lsd = train(job, tmp_path / "lsd")
        second = job.model_copy(
            update={"setup": "acrlsd", "iterations": 4, "raw_first": 2, "checkpoint_every": 1, "weight_average": 0.0}
        )
        used: list[float] = []

        def follow(done: int, total: int, words: str) -> None:
            weight = load_checkpoint(tmp_path / "later" / "last.ckpt").network.down[0][0].weight if done > 1 else None
            if weight is not None:  # of the step before
                used.append(float(weight[:, 1:].detach().abs().max()))

        train(second, tmp_path / "later", lsd, follow)
        assert used[:2] == [0.0, 0.0]
        assert used[2] > 0
        # stopped in either part, it goes on to the same weights
        for step in (1, 3):

            def stop(done: int, total: int, words: str, step: int = step) -> None:
                if done == step:
                    os.kill(os.getpid(), signal.SIGTERM)

            folder = tmp_path / f"stopped-{step}"
            with pytest.raises(Interrupted):
                train(second, folder, lsd, stop)
            train(second, folder, lsd)
            assert_same(state(folder)["network"], state(tmp_path / "later")["network"])

    @pytest.mark.parametrize(("setup", "raw_first"), [("acrlsd", 0), ("acrlsd", 2), ("aclsd", 0)])
    def test_descriptors_may_be_kept(self, make_job: MakeJob, tmp_path: Path, setup: str, raw_first: int) -> None:
        job = make_job(iterations=4)
        lsd = train(job, tmp_path / "lsd")
        second = job.model_copy(
            update={
                **{"setup": setup, "iterations": 4, "checkpoint_every": 1, "weight_average": 0.0},
                **{"raw_first": raw_first, "augmentation": AUGMENTED, "validation": job.volumes},
            }
        )
        kept = second.model_copy(update={"keep_descriptors": True})
        words: list[str] = []
        best = train(kept, tmp_path / "kept", lsd, lambda done, total, text: words.append(text))
        assert load_checkpoint(best).lsd is not None
        assert words[0].startswith("descriptors of cells: ")
        assert any("100%" in text for text in words)
        assert not (tmp_path / "kept" / "descriptors").exists()
        # what crops look up is close to what the network says of them, and counts
        train(second, tmp_path / "fresh", lsd)
        np.testing.assert_allclose(curve(tmp_path / "kept")[:2], curve(tmp_path / "fresh")[:2], rtol=0.05)
        assert curve(tmp_path / "kept")[raw_first:] != curve(tmp_path / "fresh")[raw_first:]
        # held-out crops are seen as in prediction
        if raw_first == 0:
            assert curve(tmp_path / "kept", "validation")[0] == pytest.approx(
                curve(tmp_path / "fresh", "validation")[0], rel=0.1
            )

        # stopped while they are computed, and later
        for begun in ("descriptors of cells", "loss"):
            stops: list[str] = []

            def stop(done: int, total: int, text: str, begun: str = begun, stops: list[str] = stops) -> None:
                if text.startswith(begun) and not stops:
                    stops.append(text)
                    os.kill(os.getpid(), signal.SIGTERM)

            folder = tmp_path / f"stopped-{begun[:4]}"
            with pytest.raises(Interrupted):
                train(kept, folder, lsd, stop)
            assert (folder / "descriptors").exists()
            train(kept, folder, lsd)
            assert_same(state(folder)["network"], state(tmp_path / "kept")["network"])

    def test_a_trial_computes_no_descriptors(self, make_job: MakeJob, tmp_path: Path) -> None:
        job = make_job(iterations=1)
        lsd = train(job, tmp_path / "lsd")
        kept = job.model_copy(update={"setup": "acrlsd", "keep_descriptors": True})
        words: list[str] = []
        train(kept, tmp_path / "trial", lsd, lambda done, total, text: words.append(text), trial=True)
        assert not any("descriptors" in text for text in words)

    @pytest.mark.parametrize("setup", ["mtlsd", "aclsd"])
    def test_the_other_setups(self, make_job: MakeJob, tmp_path: Path, setup: str) -> None:
        job = make_job(iterations=1)
        lsd = train(job, tmp_path / "lsd")
        best = train(job.model_copy(update={"setup": setup}), tmp_path / setup, lsd)
        assert load_checkpoint(best).metadata.setup == setup

    @pytest.mark.parametrize("setup", ["lsd", "acrlsd"])
    def test_half_precision_keeps_weights_and_loss_in_full(
        self, make_job: MakeJob, tmp_path: Path, setup: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = make_job(iterations=2)
        monkeypatch.setattr(loop, "choose_precision", lambda device, wanted: wanted)  # whether it is fast or not
        lsd = train(job, tmp_path / "lsd")
        full = train(job.model_copy(update={"setup": setup}), tmp_path / "fp32", lsd)
        half = train(job.model_copy(update={"setup": setup, "precision": "bf16"}), tmp_path / "bf16", lsd)
        (_, loss), (_, expected) = curve(tmp_path / "bf16"), curve(tmp_path / "fp32")
        assert loss != expected
        assert loss == pytest.approx(expected, rel=0.02)
        weights = load_checkpoint(half).network.state_dict()
        for name, value in load_checkpoint(full).network.state_dict().items():
            assert weights[name].dtype == torch.float32
            torch.testing.assert_close(weights[name], value, atol=5e-3, rtol=0.0)

    def test_everything_is_written(self, make_job: MakeJob, tmp_path: Path) -> None:
        job = make_job(snapshot_every=4, batch_size=2)
        seen: list[tuple[int, int, str]] = []
        train(job, tmp_path / "run", report=lambda *arguments: seen.append(arguments))
        assert [done for done, _, _ in seen] == [1, 2, 3, 4, 5, 6]
        assert all(total == 6 and words.startswith("loss ") for _, total, words in seen)
        names = {path.name for path in (tmp_path / "run").iterdir()}
        assert names == {
            "best.ckpt", "last.ckpt", "curve.jsonl", "done.json", "job.json", "snapshots", "state.pt", "tensorboard",
        }  # fmt: skip
        assert {p.name for p in (tmp_path / "run" / "snapshots").glob("*.png")} == {"0000004.png", "0000006.png"}
        assert any((tmp_path / "run" / "tensorboard").glob("events*"))
        done = json.loads((tmp_path / "run" / "done.json").read_text())
        assert (done["steps"], done["stopped_early"]) == (6, False)
        assert done["checkpoint_sha256"] == hash_file(tmp_path / "run" / "best.ckpt")
        assert TrainingJob.model_validate_json((tmp_path / "run" / "job.json").read_text()) == job

    def test_stops_on_a_plateau(self, make_job: MakeJob, make_volume: MakeVolume, tmp_path: Path) -> None:
        volume = make_volume()
        # nothing can get better: the learning rate is as good as zero
        job = make_job(
            iterations=100, learning_rate=1e-30, volumes=(volume,), validation=(volume,), validate_every=2, patience=3
        )
        train(job, tmp_path / "run")
        done = json.loads((tmp_path / "run" / "done.json").read_text())
        assert (done["steps"], done["stopped_early"]) == (8, True)

    def test_checkpoints_hold_the_average_of_the_weights(self, make_job: MakeJob, tmp_path: Path) -> None:
        job = make_job(iterations=4, checkpoint_every=1, weight_average=0.5)
        expected: dict[str, torch.Tensor] = {}

        def follow(done: int, total: int, words: str) -> None:
            # the state of the step before; the first step keeps a tenth, the second two elevenths, ...
            if done >= 2:
                weights = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["network"]
                keep = min(0.5, (done - 1) / (8 + done))
                for name, value in weights.items():
                    expected[name] = keep * expected.get(name, initial[name]) + (1 - keep) * value

        with torch.random.fork_rng():
            torch.manual_seed(job.seed)
            initial = loop.UNet(job.geometry).state_dict()
        train(job, tmp_path / "run", report=follow)
        weights = state(tmp_path / "run")["network"]
        for name, value in load_checkpoint(tmp_path / "run" / "last.ckpt").network.state_dict().items():
            keep = min(0.5, 4 / 13)
            torch.testing.assert_close(value, keep * expected[name] + (1 - keep) * weights[name])


class TestResuming:
    def test_stopped_and_resumed_equals_undisturbed(self, make_job: MakeJob, tmp_path: Path) -> None:
        job = make_job(augmentation=AUGMENTED, iterations=7)
        train(job, tmp_path / "whole")

        def stop_after_three(done: int, total: int, words: str) -> None:
            if done == 3:
                os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(Interrupted, match=r"Stopped after step 3 of 7.*Run the same command again"):
            train(job, tmp_path / "parts", report=stop_after_three)
        assert state(tmp_path / "parts")["step"] == 3
        assert not (tmp_path / "parts" / "lock").exists()
        train(job, tmp_path / "parts")
        assert_same(state(tmp_path / "parts"), state(tmp_path / "whole"))
        assert curve(tmp_path / "parts") == curve(tmp_path / "whole")
        for name in ("best.ckpt", "last.ckpt"):
            assert hash_file(tmp_path / "parts" / name) == hash_file(tmp_path / "whole" / name)

    def test_killed_and_resumed_equals_undisturbed(self, make_job: MakeJob, tmp_path: Path) -> None:
        job = make_job(augmentation=AUGMENTED, iterations=9, checkpoint_every=2)
        train(job, tmp_path / "whole")
        program = (
            "import sys, os, signal, torch; from pathlib import Path\n"
            "from neuroloom.training.job import TrainingJob; from neuroloom.training.loop import train\n"
            "torch.set_num_threads(1)\n"
            "job = TrainingJob.model_validate_json(sys.stdin.read())\n"
            "die = lambda done, total, words: os.kill(os.getpid(), signal.SIGKILL) if done == 6 else None\n"
            "train(job, Path(sys.argv[1]), report=die)\n"
        )
        killed = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "parts")], input=job.model_dump_json(), text=True
        )
        assert killed.returncode == -signal.SIGKILL
        assert state(tmp_path / "parts")["step"] == 4
        assert (tmp_path / "parts" / "lock").exists()
        train(job, tmp_path / "parts")
        assert_same(state(tmp_path / "parts"), state(tmp_path / "whole"))
        assert curve(tmp_path / "parts") == curve(tmp_path / "whole")
        assert hash_file(tmp_path / "parts" / "best.ckpt") == hash_file(tmp_path / "whole" / "best.ckpt")

    @pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGUSR1])
    def test_other_signals_stop_too(self, make_job: MakeJob, tmp_path: Path, sent: signal.Signals) -> None:
        def stop(done: int, total: int, words: str) -> None:
            os.kill(os.getpid(), sent)

        before = signal.getsignal(sent)
        with pytest.raises(Interrupted, match="after step 1 of 6"):
            train(make_job(), tmp_path / "run", report=stop)
        assert signal.getsignal(sent) == before

    def test_second_signal_stops_at_once(self, make_job: MakeJob, tmp_path: Path) -> None:
        def stop(done: int, total: int, words: str) -> None:
            if done == 3:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)

        with pytest.raises(Interrupted, match="Stopped at once"):
            train(make_job(), tmp_path / "run", report=stop)
        assert state(tmp_path / "run")["step"] == 2

    def test_one_whose_lock_was_taken_writes_nothing_more(self, make_job: MakeJob, tmp_path: Path) -> None:
        """As where SLURM has lost a node on which the training goes on, and has started it again on another."""
        before: dict[str, str] = {}

        def take(done: int, total: int, words: str) -> None:
            if done == 3:
                write_json(tmp_path / "run" / "lock", {"host": "elsewhere", "pid": 1, "run": "theirs", "beat": 1})
                before.update({name: hash_file(tmp_path / "run" / name) for name in ("state.pt", "curve.jsonl")})

        with pytest.raises(Interrupted, match="another run has taken this training over"):
            train(make_job(), tmp_path / "run", report=take)
        assert {name: hash_file(tmp_path / "run" / name) for name in before} == before
        assert len(before) == 2
        assert (tmp_path / "run" / "lock").exists()

    def test_done_is_not_done_again(self, make_job: MakeJob, tmp_path: Path) -> None:
        job = make_job(iterations=2)
        best = train(job, tmp_path / "run")
        before = hash_file(best)
        seen: list[int] = []
        assert train(job, tmp_path / "run", report=lambda done, total, words: seen.append(done)) == best
        assert (seen, hash_file(best)) == ([], before)

    def test_end_that_was_not_reached_is_made_up_for(
        self, make_job: MakeJob, make_volume: MakeVolume, tmp_path: Path
    ) -> None:
        volume = make_volume()
        job = make_job(iterations=100, learning_rate=1e-30, volumes=(volume,), validation=(volume,), patience=2)
        best = train(job, tmp_path / "run")
        (tmp_path / "run" / "done.json").unlink()
        (tmp_path / "run" / "last.ckpt").unlink()
        seen: list[int] = []
        assert train(job, tmp_path / "run", report=lambda done, total, words: seen.append(done)) == best
        assert seen == []
        assert json.loads((tmp_path / "run" / "done.json").read_text())["stopped_early"]
        assert (tmp_path / "run" / "last.ckpt").exists()

    def test_damaged_state_is_named(self, make_job: MakeJob, tmp_path: Path) -> None:
        job = make_job(iterations=2)
        train(job, tmp_path / "run")
        (tmp_path / "run" / "done.json").unlink()
        path = tmp_path / "run" / "state.pt"
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(UserError, match=r"state\.pt cannot be read.*Delete"):
            train(job, tmp_path / "run")

    def test_works_in_a_thread(self, make_job: MakeJob, tmp_path: Path) -> None:
        job = make_job(iterations=1)
        thread = threading.Thread(target=train, args=(job, tmp_path / "run"))
        thread.start()
        thread.join()
        assert (tmp_path / "run" / "done.json").exists()


class TestRefusal:
    def test_folder_that_another_run_writes(self, make_job: MakeJob, tmp_path: Path) -> None:
        (tmp_path / "run").mkdir()
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
            owner = {"host": os.uname().nodename, "pid": other.pid, "started": "now"}
            (tmp_path / "run" / "lock").write_text(json.dumps(owner))
            with pytest.raises(UserError, match=r"Another run is writing.*training of lsd"):
                train(make_job(), tmp_path / "run")
            other.communicate(b"\n")

    def test_volume_smaller_than_the_crop(self, make_job: MakeJob, make_volume: MakeVolume, tmp_path: Path) -> None:
        small = np.ones((8, 36, 44), np.uint64)
        volume = make_volume(raw=small.astype(np.uint8), labels=small)
        with pytest.raises(UserError, match=r"Volume cells of \(8, 36, 44\) voxels is smaller than a training crop"):
            train(make_job(volumes=(volume,)), tmp_path / "run")

    def test_crop_that_is_no_output(self, make_job: MakeJob, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"next that is: \(14, 12, 12\).*Correct `training\.crop`"):
            train(make_job(crop=(13, 12, 12)), tmp_path / "run")

    def test_network_that_no_memory_holds(self, make_job: MakeJob, tmp_path: Path) -> None:
        huge = Network(feature_maps=4, growth=30_000, downsampling=((2, 2, 2),))
        with pytest.raises(UserError, match=r"Training lsd takes \d+ GB .* this machine has \d+ GB\. Make `network"):
            train(make_job(network=huge), tmp_path / "run")

    def test_volume_of_another_voxel_size(self, make_job: MakeJob, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="they must agree"):
            train(make_job(voxel_size=(8.0, 8.0, 4.0)), tmp_path / "run")

    def test_setup_without_its_descriptor_network(self, make_job: MakeJob, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="acrlsd needs a trained descriptor network"):
            train(make_job(setup="acrlsd"), tmp_path / "run")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"sigma_nm": 40.0}, r"trained with sigma 24 nm, the project's `sigma_nm` is 40 nm"),
            ({"voxel_size": (9.0, 9.0, 9.0)}, r"trained on voxels of \(8\.0, 8\.0, 8\.0\) nm, the project's are \(9"),
            ({"lsd_sha256": "0" * 64}, "not the descriptor network this training began with"),
        ],
    )
    def test_descriptor_network_of_something_else(
        self, make_job: MakeJob, tmp_path: Path, change: dict[str, Any], message: str
    ) -> None:
        job = make_job(iterations=1)
        lsd = train(job, tmp_path / "lsd")
        with pytest.raises(UserError, match=message):
            train(job.model_copy(update={"setup": "acrlsd", **change}), tmp_path / "acrlsd", lsd)

    def test_affinity_network_as_descriptor_network(self, make_job: MakeJob, tmp_path: Path) -> None:
        job = make_job(iterations=1, setup="affs")
        other = train(job, tmp_path / "affs")
        with pytest.raises(UserError, match=r"is of setup 'affs'; expected a descriptor network"):
            train(job.model_copy(update={"setup": "acrlsd"}), tmp_path / "acrlsd", other)

    def test_loss_that_is_no_number(self, make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(loop, "balanced_mse", lambda prediction, *others: prediction.sum() * math.nan)
        with pytest.raises(UserError, match=r"loss of lsd became nan at step 3, with cells around voxel.*3 batches"):
            train(make_job(), tmp_path / "run")
        assert not (tmp_path / "run" / "best.ckpt").exists()
        assert not (tmp_path / "run" / "state.pt").exists()


class TestBadBatches:
    def test_a_crop_that_breaks_the_loss_is_left_out(
        self, make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = make_job(iterations=8, checkpoint_every=2)
        whole = loop.BatchMaker.make

        def poisoned(maker: Any, number: int) -> Any:
            batch = whole(maker, number)
            return replace(batch, raw=batch.raw * math.nan) if number == 5 else batch

        said: list[tuple[int, str]] = []
        with monkeypatch.context() as patch:
            patch.setattr(loop.BatchMaker, "make", poisoned)
            train(job, tmp_path / "run", report=lambda done, total, words: said.append((done, words)))
        # back to the state after step 4, then on without batch 5
        assert [done for done, _ in said] == [1, 2, 3, 4, 5, 5, 5, 7, 8]
        assert "loss nan with cells around voxel" in said[5][1]
        assert state(tmp_path / "run")["skipped"] == [5]
        assert json.loads((tmp_path / "run" / "done.json").read_text())["skipped_batches"] == [5]
        # the same as if that batch had never been there
        original = loop._Trainer._begin

        def begin(trainer: Any) -> None:
            original(trainer)
            trainer.skipped = [5]

        monkeypatch.setattr(loop._Trainer, "_begin", begin)
        train(job, tmp_path / "without")
        assert_same(state(tmp_path / "run")["network"], state(tmp_path / "without")["network"])

    def test_the_last_batch_may_be_the_bad_one(
        self, make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = loop.BatchMaker.make

        def poisoned(maker: Any, number: int) -> Any:
            batch = whole(maker, number)
            return replace(batch, raw=batch.raw * math.nan) if number == 5 else batch

        monkeypatch.setattr(loop.BatchMaker, "make", poisoned)
        train(make_job(), tmp_path / "run")
        done = json.loads((tmp_path / "run" / "done.json").read_text())
        assert (done["steps"], done["skipped_batches"], done["stopped_early"]) == (6, [5], False)

    def test_a_plateau_halves_the_rate_for_good(
        self, make_job: MakeJob, make_volume: MakeVolume, tmp_path: Path
    ) -> None:
        volume = make_volume()
        job = make_job(
            setup="affs", iterations=7, volumes=(volume,), validation=(volume,), score_every=1, schedule="plateau"
        )
        values = iter([1.0, 2.0, 2.0, 2.0, 0.5, 0.6, 0.7])
        rates: list[float] = []

        def scorer(checkpoint: Path) -> Score:
            return Score(voi=next(values), voi_eroded=None, merge_function="hist_quant_75", threshold=0.3)

        def follow(done: int, total: int, words: str) -> None:
            if words.startswith("loss") and (tmp_path / "run" / "state.pt").exists():
                rates.append(state(tmp_path / "run")["optimiser"]["param_groups"][0]["lr"])

        train(job.model_copy(update={"checkpoint_every": 1}), tmp_path / "run", report=follow, scorer=scorer)
        rates.append(state(tmp_path / "run")["optimiser"]["param_groups"][0]["lr"])
        # halved after the third score without a better one, and it stays so after a better one
        assert rates == pytest.approx([1e-3, 1e-3, 1e-3, 1e-3, 5e-4, 5e-4, 5e-4])


class TestPrecisionAndMemory:
    @pytest.mark.parametrize("change", [{"at_once": 1}, {"at_once": 2}, {"recompute": True}])
    def test_parts_and_recomputing_change_nothing_but_rounding(
        self, make_job: MakeJob, tmp_path: Path, change: dict[str, Any]
    ) -> None:
        job = make_job(batch_size=4, iterations=3, setup="mtlsd", augmentation=AUGMENTED)
        train(job, tmp_path / "whole")
        other = job.model_copy(update=change)
        assert other.fingerprint() == job.fingerprint()
        train(other, tmp_path / "other")
        assert curve(tmp_path / "other") == pytest.approx(curve(tmp_path / "whole"), rel=1e-5)
        for name, value in state(tmp_path / "whole")["network"].items():
            torch.testing.assert_close(state(tmp_path / "other")["network"][name], value, atol=1e-5, rtol=1e-4)

    def test_fp16_trains_with_a_scale_that_is_kept(
        self, make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        job = make_job(iterations=4)
        monkeypatch.setattr(loop, "choose_precision", lambda device, wanted: wanted)  # as a GPU does
        train(job, tmp_path / "fp32")
        train(job.model_copy(update={"precision": "fp16"}), tmp_path / "fp16")
        assert curve(tmp_path / "fp16") == pytest.approx(curve(tmp_path / "fp32"), rel=0.05)
        assert state(tmp_path / "fp16")["scaler"]["scale"] > 1
        assert state(tmp_path / "fp32")["scaler"] == {}

    def test_waiting_for_batches_is_told(
        self, make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = loop.BatchMaker.make

        def slow(maker: Any, number: int) -> Any:
            time.sleep(0.3)
            return whole(maker, number)

        monkeypatch.setattr(loop.BatchMaker, "make", slow)
        said: list[str] = []
        train(make_job(), tmp_path / "run", report=lambda done, total, words: said.append(words))
        assert re.fullmatch(r"loss 0\.\d+, waited \d+%", said[-1])
        done = json.loads((tmp_path / "run" / "done.json").read_text())
        assert 0.3 / done["seconds"] < done["waited_for_batches"] <= 1


class TestScoring:
    def test_the_best_checkpoint_is_the_one_of_lowest_voi(
        self, make_job: MakeJob, make_volume: MakeVolume, tmp_path: Path
    ) -> None:
        volume = make_volume()
        job = make_job(
            setup="affs", iterations=6, volumes=(volume,), validation=(volume,), score_every=2, checkpoint_every=3
        )
        seen: list[int] = []

        def scorer(checkpoint: Path) -> Score:
            step = load_checkpoint(checkpoint).metadata.iteration
            seen.append(step)
            voi = {2: 2.0, 4: 1.0, 6: 1.5}[step]
            return Score(voi=voi, voi_eroded=None, merge_function="hist_quant_75", threshold=0.3)

        best = train(job, tmp_path / "run", scorer=scorer)
        assert seen == [2, 4, 6]
        assert load_checkpoint(best).metadata.iteration == 4
        assert load_checkpoint(best).metadata.training["voi"] == 1.0
        assert curve(tmp_path / "run", "voi") == [2.0, 1.0, 1.5]
        assert json.loads((tmp_path / "run" / "done.json").read_text())["best_voi"] == 1.0

    def test_descriptors_are_judged_by_their_loss(
        self, make_job: MakeJob, make_volume: MakeVolume, tmp_path: Path
    ) -> None:
        volume = make_volume()
        job = make_job(volumes=(volume,), validation=(volume,), score_every=2)

        def scorer(checkpoint: Path) -> Score:
            raise AssertionError("descriptors give no segmentation")

        train(job, tmp_path / "run", scorer=scorer)
        assert json.loads((tmp_path / "run" / "done.json").read_text())["best_voi"] is None
