"""What a project is made of: every training, stage and score, where it lies, and making it.

A thing's identity is the fingerprint of its parameters and inputs. The fingerprint of a prediction holds the content of
its checkpoint, so it is known once training is done; those of everything after follow from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from neuroloom.agglomeration.forest import load_forest
from neuroloom.agglomeration.stage import Agglomerate
from neuroloom.blockwise import Source, Stage, Unread, Work, run_stages
from neuroloom.chain import estimates
from neuroloom.chain.networks import geometry, setups_to_train
from neuroloom.chain.running import HERE, Running
from neuroloom.chain.scoring import ChainScorer, ScoredVolume, scored_shape
from neuroloom.chain.training_task import TrainingTask
from neuroloom.chain.weights import (
    factor_of,
    given_descriptors,
    given_ensemble,
    given_model,
    given_start,
    lsd_geometry,
    trained_voxel_size,
    weights_problems,
)
from neuroloom.cluster.training import SLURM, TrainingWatcher
from neuroloom.cores import usable_cores
from neuroloom.errors import UserError
from neuroloom.evaluation.thresholds import Evaluation, evaluate_thresholds
from neuroloom.files import hash_json, lock, read_json, write_text
from neuroloom.fragments.stage import Fragments
from neuroloom.models import ForeignModel, Weights, find_card, find_weights, is_path
from neuroloom.networks.architecture import UNetParameters
from neuroloom.networks.setups import NEIGHBORHOOD, SETUPS
from neuroloom.prediction import Predict, default_block, foreign_block
from neuroloom.prediction.planning import GRAIN, prediction_workers
from neuroloom.prediction.resampling import Resampling
from neuroloom.prediction.tiles import round_up
from neuroloom.project import (
    LabelledVolume,
    Project,
    RawVolume,
    StageName,
    TrainingLength,
    TrainJob,
)
from neuroloom.segmentation import SizeRules, contacts, lookup_tables
from neuroloom.segmentation.stage import Segment
from neuroloom.training.job import TrainingJob, TrainingVolume
from neuroloom.training.truth import is_one_of
from neuroloom.volume import open_volume
from neuroloom.volume.array import Triple, volume_fingerprint

if TYPE_CHECKING:
    from neuroloom.training.crop_pictures import PicturedCrops

Progress = Callable[[float, int, str], None]
"""Called with units done, units in all, and a few words."""
S = TypeVar("S", bound=Stage)
STAGES: dict[type[Stage], StageName] = {
    Predict: "predict",
    Fragments: "fragments",
    Agglomerate: "agglomerate",
    Segment: "segment",
}
"""What commands and profiles call stages."""


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        folder: Where it lies.
        checkpoint: The best checkpoint.
        sha256: Its content.
        summary: What training wrote at its end: steps, seconds, losses.
    """

    folder: Path
    checkpoint: Path
    sha256: str
    summary: dict[str, Any]


class Chain:
    """Everything of a project that can be done; nothing is kept in memory that files do not tell.

    Args:
        project: A checked project.
        running: Where blocks are run, and networks trained.
    """

    def __init__(self, project: Project, running: Running = HERE) -> None:
        self.project = project
        self.parameters = project.parameters
        self.running = running

    # volumes

    @property
    def setup(self) -> str:
        """What volumes are segmented with."""
        model = given_model(self.project)
        if isinstance(model, ForeignModel):
            return "somebody else's network"
        return self.parameters.training.setup if model is None else model.metadata.setup

    @property
    def setups(self) -> tuple[str, ...]:
        """What is trained, in order; nothing where weights are given."""
        return () if given_model(self.project) else setups_to_train(self.setup, self.parameters.training)

    @property
    def networks(self) -> tuple[UNetParameters, ...]:
        """Geometry of the networks that predict, in the order they run; none of somebody else's is known."""
        model = given_model(self.project)
        if isinstance(model, ForeignModel):
            return ()
        if model is not None:
            return tuple(part.network for part in model.networks)
        last = geometry(self.parameters, self.setup)
        return (lsd_geometry(self.project), last) if SETUPS[self.setup].needs_lsd_network else (last,)

    @property
    def members(self) -> tuple[tuple[UNetParameters, ...], ...]:
        """`networks` of all weights whose affinities are averaged; none where one of them is somebody else's."""
        others = given_ensemble(self.project)
        if not self.networks or any(isinstance(other, ForeignModel) for other in others):
            return ()
        known = (tuple(part.network for part in other.networks) for other in others if isinstance(other, Weights))
        return (self.networks, *known)

    @property
    def validation_volumes(self) -> tuple[LabelledVolume, ...]:
        """Volumes that choose the threshold."""
        return self.parameters.volumes.validate_

    @property
    def volumes(self) -> tuple[RawVolume, ...]:
        """All volumes that are segmented: validation first."""
        return (*self.parameters.volumes.validate_, *self.parameters.volumes.predict)

    def is_trained_on(self, volume: RawVolume) -> bool:
        """Whether the image of a volume is one that the project's networks learn from."""
        if self.parameters.prediction.model is not None:
            return False
        learned = {(self.project.locate(known.path), known.raw) for known in self.parameters.volumes.train}
        return (self.project.locate(volume.path), volume.raw) in learned

    def volume(self, name: str) -> RawVolume:
        """A volume to segment by its name.

        Raises:
            UserError: There is none of that name.
        """
        for volume in self.volumes:
            if volume.name == name:
                return volume
        names = ", ".join(volume.name for volume in self.volumes)
        raise UserError(f"{self.project.file} has no volume {name!r} to segment; it has {names or 'none'}.")

    def raw(self, volume: RawVolume) -> Source:
        """A volume's raw with its fingerprint."""
        return self._source(volume, volume.raw)

    def in_xy(self, volume: RawVolume) -> bool:
        """Whether voxels of a volume are so much longer along z that it is looked at section by section."""
        z, y, x = self.raw(volume).open().voxel_size
        return z >= 2 * max(y, x)

    def _source(self, volume: RawVolume, dataset: str) -> Source:
        path = self.project.locate(volume.path)
        return Source(path=path, dataset=dataset, fingerprint=_fingerprint(path, dataset))

    def baseline(self) -> Chain | None:
        """The same project straight from raw to affinities for about as long, or None where it is not wanted."""
        training = self.parameters.training
        if not training.baseline or training.setup == "affs" or not self.setups:
            return None
        length = TrainingLength(iterations=estimates.baseline_iterations(self.project))
        changed = training.model_copy(update={"setup": "affs", "affinities": length, "baseline": False, "start": None})
        project = Project(self.project.folder, self.parameters.model_copy(update={"training": changed}))
        return Chain(project, self.running)

    # training

    def job(self, setup: str) -> TrainingJob | None:
        """What training a setup means, or None while the descriptor network it needs is not trained."""
        settings = self.parameters.training
        lsd = self._descriptor_weights() if SETUPS[setup].needs_lsd_network else None
        if SETUPS[setup].needs_lsd_network and lsd is None:
            return None
        length = settings.length(setup)
        start = given_start(self.project, setup)
        return TrainingJob(
            setup=setup,
            network=self.parameters.network,
            voxel_size=self.parameters.voxel_size,
            sigma_nm=settings.sigma_nm,
            # a descriptor network does not depend on them
            neighborhood=settings.neighborhood if SETUPS[setup].gives_affinities else NEIGHBORHOOD,
            crop=settings.crop,
            batch_size=settings.batch_size,
            at_once=settings.at_once,
            recompute=settings.recompute,
            iterations=length.iterations,
            # given weights know descriptors already; others take no notice of them until they come
            raw_first=round(settings.descriptors_after * length.iterations)
            if SETUPS[setup].inputs == ("raw", "lsd") and start is None
            else 0,
            keep_descriptors=settings.keep_descriptors and SETUPS[setup].needs_lsd_network,
            learning_rate=settings.learning_rate,
            schedule=settings.schedule,
            seed=settings.seed,
            augmentation=settings.augmentation,
            volumes=tuple(self._training_volume(volume) for volume in self.parameters.volumes.train),
            validation=tuple(self._training_volume(volume) for volume in self.validation_volumes),
            validate_every=settings.validate_every,
            score_every=settings.score_every if self.scored_in_training(setup) else 0,
            snapshot_every=settings.snapshot_every,
            checkpoint_every=settings.checkpoint_every,
            patience=settings.patience,
            lsd_sha256=lsd[1] if lsd else None,
            start_sha256=start.sha256 if start else None,
            device=self.parameters.resources.device,
            precision=self.parameters.resources.precision,
        )

    def training_folder(self, setup: str) -> Path | None:
        """Where a setup is trained, or None while the descriptor network it needs is not trained."""
        job = self.job(setup)
        return None if job is None else self.project.training_folder(setup, job.fingerprint())

    def trained(self, setup: str) -> Trained | None:
        """A finished training, or None."""
        folder = self.training_folder(setup)
        if folder is None or not (folder / "done.json").exists():
            return None
        done = read_json(folder / "done.json")
        return Trained(folder, folder / done["checkpoint"], done["checkpoint_sha256"], done)

    def train(self, setup: str, progress: Progress, trial: bool = False) -> None:
        """Train a setup, or go on with it: here, or as a job of a cluster.

        Args:
            setup: One of the project's.
            progress: Called after every step, or now and then.
            trial: Only the time of steps counts, not what is learned.

        Raises:
            UserError: The descriptor network it needs is not trained, or the project has no use for it.
        """
        if given_model(self.project) is not None:
            raise UserError(
                f"{self.project.file} predicts with given weights (`prediction.model`), so nothing is trained. Take "
                "that line out to train, or set `training.start` to train on from them."
            )
        if setup == "lsd" and self.parameters.training.descriptors is not None:
            raise UserError(
                f"{self.project.file} uses a given descriptor network (`training.descriptors`), so none is trained. "
                "Take that line out to train one."
            )
        job, folder = self.job(setup), self.training_folder(setup)
        if job is None or folder is None:
            raise UserError(f"Setup {setup} needs a trained descriptor network. Run `neuroloom train lsd` first.")
        if self.running.train_job is not None:
            self._train_as_job(job, folder.resolve(), self.running.train_job, progress)
            return
        from neuroloom.training.launch import train_on_devices  # loads PyTorch

        lsd = self._descriptor_weights() if SETUPS[setup].needs_lsd_network else None
        start = given_start(self.project, setup)
        scorer = self._scorer() if job.score_every else None
        frozen, begin = lsd[0] if lsd else None, start.path if start else None
        train_on_devices(job, folder, frozen, progress, begin, scorer, trial, self.running.take_over)

    def _train_as_job(self, job: TrainingJob, folder: Path, wanted: TrainJob, progress: Progress) -> None:
        if wanted.processes > job.batch_size:
            asked = f"{wanted.nodes} x {wanted.gpus} GPUs" if wanted.gpus else f"{wanted.nodes} machines"
            raise UserError(
                f"The profile trains on {asked}, which cannot share a step of `training.batch_size` = "
                f"{job.batch_size}. Set it to {wanted.processes} or more, or ask for fewer."
            )
        task = TrainingTask(
            project=self.project.folder.resolve(),
            parameters=self.parameters,
            setup=job.setup,
            fingerprint=job.fingerprint(),
        )
        description = folder / SLURM / "training.json"
        write_text(description, task.model_dump_json(by_alias=True, indent=2))
        arguments = ["-m", "neuroloom.chain.training_job", str(description)]
        watcher = TrainingWatcher(folder, job.setup, job.iterations, wanted, arguments, progress)
        watcher.train(self.running.take_over)

    def scored_in_training(self, setup: str) -> bool:
        """Whether the best checkpoint of a setup is the one of lowest VOI on the validation volumes."""
        return bool(self.validation_volumes) and SETUPS[setup].gives_affinities

    @property
    def scored_shapes(self) -> list[Triple]:
        """Extents in voxels of the pieces that are scored while a network trains."""
        return [scored_shape(self.raw(volume).open().shape) for volume in self.validation_volumes]

    def _scorer(self) -> ChainScorer:
        volumes = [ScoredVolume(self.raw(v), self.truth(v)) for v in self.validation_volumes]
        z, y, x = self.parameters.voxel_size
        resources = self.parameters.resources
        return ChainScorer(volumes, resources.device, resources.precision, by_section=z >= 2 * max(y, x))

    def start_from(self, setup: str, name_or_path: str) -> None:
        """Write into the project what its trainings start from.

        Args:
            setup: What will be trained with it.
            name_or_path: A shipped model, or a checkpoint as seen from the current folder.

        Raises:
            UserError: The setup is not one of the project's, there are no such weights, or they do not fit.
        """
        if setup not in self.setups:
            raise UserError(
                f"--from is for the networks of the project ({', '.join(self.setups) or 'none'}), and {setup} is not "
                f"among them. Set `training.setup` in {self.project.file}."
            )
        weights = find_weights(name_or_path)
        start = str(weights.path) if is_path(name_or_path) else name_or_path
        wanted = self.parameters.training.model_copy(update={"start": start})
        changed = Project(self.project.folder, self.parameters.model_copy(update={"training": wanted}))
        for _, message in weights_problems(changed):
            raise UserError(message)
        if setup not in {part.setup for part in weights.networks}:
            raise UserError(f"{weights.path} holds no network of setup {setup}; name other weights.")
        if start != self.parameters.training.start:
            self.project = self.project.start_from(start)
            self.parameters = self.project.parameters

    def draw_crops(self, number: int, seed: int | None = None) -> PicturedCrops:
        """Draw crops as the first training sees them, into the project's pictures.

        Args:
            number: How many crops.
            seed: For other crops than those that training begins with.

        Raises:
            UserError: A volume does not fit, or the picture cannot be written.
        """
        job = self.job(self.setups[0])
        assert job is not None  # the first training needs no other
        if seed is not None:
            job = job.model_copy(update={"seed": seed})
        from neuroloom.training.crop_pictures import write_crop_pictures  # loads PyTorch

        return write_crop_pictures(job, number, self.project.folder / "pictures" / "crops.png")

    def _training_volume(self, volume: LabelledVolume) -> TrainingVolume:
        path = self.project.locate(volume.path)
        arrays = [volume.raw, volume.labels, *([volume.mask] if volume.mask else [])]
        return TrainingVolume(
            name=volume.name,
            path=path,
            raw=volume.raw,
            labels=volume.labels,
            mask=volume.mask,
            unlabelled=volume.unlabelled,
            zero_ids=volume.zero_ids,
            ignore_ids=volume.ignore_ids,
            weight=volume.weight,
            fingerprint=hash_json([_fingerprint(path, name) for name in arrays]),
        )

    def _descriptor_weights(self) -> tuple[Path, str] | None:
        """File and content of the descriptor network's checkpoint, given or trained; None while it is not trained."""
        given = given_descriptors(self.project)
        if given is not None:
            return given.path, given.sha256
        trained = self.trained("lsd")
        return None if trained is None else (trained.checkpoint, trained.sha256)

    def weights(self) -> tuple[Path, str] | None:
        """File and content of the checkpoint that volumes are predicted with, or None while it is not trained."""
        model = given_model(self.project)
        if model is not None:
            return model.path, model.sha256
        trained = self.trained(self.setup)
        return None if trained is None else (trained.checkpoint, trained.sha256)

    # stages

    def predict(self, volume: RawVolume) -> Predict | None:
        """The prediction of a volume, or None while its network is not trained."""
        weights = self.weights()
        if weights is None:
            return None
        checkpoint, sha256 = weights
        raw = self.raw(volume)
        shape = raw.open().shape
        settings, ensemble = self.parameters.prediction, given_ensemble(self.project)
        stage = Predict(
            folder=Path(),
            shape=shape,
            block_shape=settings.block or self._default_block(volume),
            raw=raw,
            tissue=None if volume.tissue is None else self._source(volume, volume.tissue),
            checkpoint=checkpoint,
            checkpoint_sha256=sha256,
            ensemble=tuple(other.path for other in ensemble),
            ensemble_sha256=tuple(other.sha256 for other in ensemble),
            resample=settings.resample,
            missing_chunks=settings.missing_chunks,
            zarr_format=settings.zarr_format,
            mirrors=settings.mirrors,
            device=self.parameters.resources.device,
            precision=self.parameters.resources.precision,
            memory_gb=self.parameters.resources.memory_gb,
        )
        return self._placed(stage, volume, "affinities")

    def _default_block(self, volume: RawVolume) -> Triple:
        raw, trained = self.raw(volume).open(), trained_voxel_size(self.project)
        settings, others = self.parameters.prediction, given_ensemble(self.project)
        resampling = Resampling.between(raw.voxel_size, trained) if settings.resample else None
        shape = raw.shape if resampling is None else resampling.shape(raw.shape)
        model = given_model(self.project)
        if isinstance(model, ForeignModel):
            block = foreign_block(shape, model)
        else:
            block = default_block(shape, self.networks, settings.mirrors * (1 + len(others)))
        for other in others:
            block = round_up(block, factor_of(other))
        return block if resampling is None else resampling.block(block, raw.shape, GRAIN)

    def fragments(self, volume: RawVolume) -> Fragments | None:
        """The fragments of a volume, or None while its network is not trained."""
        predict = self.predict(volume)
        if predict is None:
            return None
        settings = self.parameters.fragments
        stage = Fragments(
            folder=Path(),
            shape=predict.shape,
            block_shape=settings.block,
            context=settings.context,
            affinities=predict.output,
            mask=predict.predicted,
            in_xy=self.in_xy(volume) if settings.in_xy is None else settings.in_xy,
            threshold=settings.threshold,
            min_seed_distance=settings.min_seed_distance,
            fill=settings.fill,
            filter_fragments=settings.filter_fragments,
            epsilon_agglomerate=settings.epsilon_agglomerate,
            replace_sections=volume.replace_sections,
            store=self.project.graph_store,
        )
        return self._placed(stage, volume, "fragments")

    def agglomerate(self, volume: RawVolume) -> Agglomerate | None:
        """The agglomeration of a volume, or None while its network is not trained."""
        fragments = self.fragments(volume)
        if fragments is None:
            return None
        settings = self.parameters.agglomeration
        stage = Agglomerate(
            folder=Path(),
            shape=fragments.shape,
            block_shape=settings.block,
            context=settings.context,
            affinities=fragments.affinities,
            fragments=fragments.output,
            fragments_graph=fragments.graph_place,
            method=settings.method,
            merge_function=settings.merge_function,
            bias=settings.bias,
            long_range_bias=settings.long_range_bias,
            long_range=settings.long_range,
            store=self.project.graph_store,
        )
        return self._placed(stage, volume, "agglomeration")

    def segment(
        self, volume: RawVolume, threshold: float | None = None, materialize: bool | None = None
    ) -> Segment | None:
        """The segmentation of a volume, or None while its network is not trained or no threshold is chosen.

        Args:
            volume: One that is segmented.
            threshold: The project's if None.
            materialize: Whether the segmentation is written, not only its table; as the project has it if None.
        """
        agglomerate = self.agglomerate(volume)
        threshold = self.project.threshold if threshold is None else threshold
        if agglomerate is None or threshold is None:
            return None
        written = self.parameters.segmentation.materialize if materialize is None else materialize
        stage = Segment(
            folder=Path(),
            shape=agglomerate.shape,
            # a table has no blocks
            block_shape=self.parameters.fragments.block if written else agglomerate.shape,
            fragments=agglomerate.fragments,
            forest=agglomerate.forest,
            edges=agglomerate.graph_place,
            threshold=threshold,
            **asdict(self._size_rules),
            enclosed=self.parameters.segmentation.enclosed,
            materialize=written,
        )
        return self._placed(stage, volume, "segmentation")

    def _placed(self, stage: S, volume: RawVolume, step: str) -> S:
        folder = self.project.result_folder(volume.name, step, stage.fingerprint())
        return stage.model_copy(update={"folder": folder})

    # evaluation

    def evaluation_file(self, volume: LabelledVolume) -> Path | None:
        """Where the scores of a validation volume lie, or None while its network is not trained."""
        agglomerate = self.agglomerate(volume)
        if agglomerate is None:
            return None
        path = self.project.locate(volume.path)
        identity = {
            "agglomeration": agglomerate.fingerprint(),
            "truth": [_fingerprint(path, name) for name in (volume.labels, volume.mask) if name],
            "not_scored": sorted({*volume.zero_ids, *volume.ignore_ids}),
            "thresholds": self._scored_thresholds,
            **asdict(self._size_rules),
            "enclosed": self.parameters.segmentation.enclosed,
            "version": 2,
        }
        return self.project.evaluation_file(volume.name, hash_json(identity))

    @property
    def _size_rules(self) -> SizeRules:
        settings = self.parameters.segmentation
        return SizeRules(settings.orphans, settings.large, settings.large_threshold or 0.0)

    @property
    def _scored_thresholds(self) -> tuple[float, ...]:
        """All that are tried, and one that is set."""
        settings = self.parameters.segmentation
        fixed = () if settings.threshold == "auto" else (settings.threshold,)
        return tuple(sorted({*settings.thresholds, *fixed}))

    def evaluation(self, volume: LabelledVolume) -> Evaluation | None:
        """The scores of a validation volume, or None while they are not computed."""
        file = self.evaluation_file(volume)
        if file is None or not file.exists():
            return None
        scores = Evaluation.model_validate_json(file.read_text())
        return scores.model_copy(update={"used_threshold": self.project.threshold})

    def evaluate(self, volume: LabelledVolume, progress: Progress) -> None:
        """Score a validation volume at every threshold.

        Raises:
            UserError: Its agglomeration is not done, or edges are not where they should be.
        """
        agglomerate, file = self.agglomerate(volume), self.evaluation_file(volume)
        if agglomerate is None or file is None or not agglomerate.is_done():
            raise UserError(f"{volume.name} is not agglomerated yet. Run `neuroloom agglomerate {volume.name}` first.")
        with lock(file.with_suffix(".lock"), f"evaluation of {volume.name}"):
            progress(0, 3, "reading")
            truth = self.truth(volume)
            fragments = agglomerate.fragments.open().read()
            forest = load_forest(agglomerate.forest_file)
            progress(1, 3, "scoring")
            settings, rules = self.parameters.segmentation, self._size_rules
            touching = None
            if settings.enclosed > 0:
                graph = agglomerate.graph_place.open_whole("edges", "outside")
                touching = contacts(forest, self._scored_thresholds[0], graph.areas(), graph.read_outside(), rules)
            tables = lookup_tables(forest, self._scored_thresholds, touching, settings.enclosed, rules)
            evaluation = evaluate_thresholds(fragments, truth, tables, only_xy=self.in_xy(volume))
            progress(2, 3, "writing")
            write_text(file, evaluation.model_dump_json(indent=1))
            progress(3, 3, f"VOI sum {evaluation.best.plain.voi_sum:.3f}")

    def truth(self, volume: LabelledVolume) -> np.ndarray[Any, Any]:
        """The truth of a volume, `(z, y, x) uint64`, 0 where it is masked out or no neuron."""
        path = self.project.locate(volume.path)
        labels = open_volume(path, volume.labels).read().astype(np.uint64)
        if volume.mask is not None:
            labels[open_volume(path, volume.mask).read() == 0] = 0
        if volume.zero_ids or volume.ignore_ids:
            labels[is_one_of(labels, [*volume.zero_ids, *volume.ignore_ids])] = 0
        return labels

    def choose_threshold(self) -> None:
        """Write the threshold of the lowest VOI sum over all validation volumes into the project.

        Raises:
            UserError: A validation volume is not evaluated.
        """
        evaluations = [self.evaluation(volume) for volume in self.validation_volumes]
        done = [evaluation for evaluation in evaluations if evaluation is not None]
        if len(done) < len(evaluations):
            raise UserError("Not all validation volumes are evaluated. Run `neuroloom evaluate` first.")
        threshold, because = choose(dict(zip((v.name for v in self.validation_volumes), done, strict=True)))
        settings = self.parameters.segmentation
        if (settings.chosen_threshold, settings.chosen_because) != (threshold, because):
            self.project = self.project.choose_threshold(threshold, because)
            self.parameters = self.project.parameters

    @property
    def choice_is_current(self) -> bool:
        """Whether the project holds the threshold that its evaluations choose."""
        evaluations = {volume.name: self.evaluation(volume) for volume in self.validation_volumes}
        done = {name: evaluation for name, evaluation in evaluations.items() if evaluation is not None}
        settings = self.parameters.segmentation
        return len(done) == len(evaluations) and choose(done) == (settings.chosen_threshold, settings.chosen_because)

    # running

    def check_threshold(self, what: str = "Segmenting") -> None:
        """Make sure that there is, or will be, a threshold to segment with.

        Args:
            what: Needs it.

        Raises:
            UserError: There is none, and no volume to choose it on.
        """
        if not self.volumes or self.project.threshold is not None or self.validation_volumes:
            return
        model = self.parameters.prediction.model
        card = None if model is None else find_card(model, self.project.folder)
        advised = None if card is None else card.settings.as_values().get("segmentation", {}).get("threshold")
        hint = "" if advised is None else f"; the card of {model} advises {advised:g}"
        raise UserError(
            f"{what} needs a threshold, and there is no validation volume to choose it on. Add "
            f"[[volumes.validate]] with truth, or set `segmentation.threshold` in {self.project.file}{hint}."
        )

    @property
    def stages_overlap(self) -> bool:
        """Whether prediction, fragments and agglomeration run at the same time, block by block.

        Not where all of them would share this machine's cores: that saves no time, and takes more memory.
        """
        if self.running.is_elsewhere or self.running.delete_intermediate:
            return True
        return any(not name.startswith("cpu") for name in prediction_workers(self.parameters.resources.device))

    def run_stage(self, stage: Stage | None, what: str, progress: Progress, only: frozenset[int] | None = None) -> None:
        """Do what is missing of a stage.

        Args:
            stage: One of this project's; None if it cannot be known yet.
            what: It is called in messages.
            progress: Called when blocks finish.
            only: Numbers of the blocks that are wanted; None for all.

        Raises:
            UserError: What comes before it is not done.
        """
        if stage is None and self.weights() is not None:
            self.check_threshold(what)
        if stage is None:
            raise UserError(
                f"{what} needs a trained network. Run `neuroloom train`, or `neuroloom run` for everything."
            )
        self.run_stages([(stage, progress, only)])

    def run_stages(self, stages: Sequence[tuple[Stage, Progress, frozenset[int] | None]]) -> None:
        """Do what is missing of stages of one volume, at the same time if there are several.

        Args:
            stages: In the order in which they read one another, each with what is called when blocks finish, and
                numbers of the blocks that are wanted.
        """
        works = [self._work(stage, progress, only) for stage, progress, only in stages]
        run_stages(works, self.running.take_over, self.affinities_read(self.volume(stages[0][0].folder.parent.name)))

    def _work(self, stage: Stage, progress: Progress, only: frozenset[int] | None) -> Work:
        name = STAGES[type(stage)]
        workers = self.running.local_workers(name) or self.parameters.resources.workers or usable_cores()
        if isinstance(stage, Predict):
            workers = len(prediction_workers(stage.device))  # a network itself uses all cores, or a GPU
        return Work(
            stage,
            workers,
            lambda done, total: progress(done, total, "blocks"),
            self.running.supply(name, f"neuroloom-{name}"),
            only,
            self.running.lead(name, workers),
        )

    def to_edges(self, volume: RawVolume) -> tuple[Stage, ...]:
        """The stages that may run at the same time, in order; none while the network is not trained."""
        stages = self.predict(volume), self.fragments(volume), self.agglomerate(volume)
        return tuple(stage for stage in stages if stage is not None)

    def affinities_read(self, volume: RawVolume) -> Unread | None:
        """Affinities, and all that read them; None while the network is not trained."""
        predict, readers = self.predict(volume), self.to_edges(volume)[1:]
        return None if predict is None else Unread(predict, readers, self.running.delete_intermediate)


def choose(evaluations: dict[str, Evaluation]) -> tuple[float, str]:
    """The threshold of the lowest VOI sum, averaged over the volumes; of equal ones the lowest.

    Args:
        evaluations: By name of the volume; all of the same thresholds.

    Returns:
        The threshold, and one sentence why.
    """
    sums: dict[float, list[float]] = {}
    for evaluation in evaluations.values():
        for entry in evaluation.thresholds:
            sums.setdefault(entry.threshold, []).append(entry.plain.voi_sum)
    threshold = min(sums, key=lambda t: (float(np.mean(sums[t])), t))
    names = ", ".join(evaluations)
    because = (
        f"lowest VOI sum (split + merge, truth 0 ignored), {np.mean(sums[threshold]):.3f} bits on {names}, of "
        f"{len(sums)} thresholds from {min(sums):g} to {max(sums):g}"
    )
    if len(sums) > 1 and threshold in (min(sums), max(sums)):
        because += "; it is the end of the list: try thresholds beyond it"
    return threshold, because


@lru_cache(maxsize=256)
def _fingerprint(path: str, dataset: str) -> str:
    """`volume_fingerprint`, computed once in a process: nobody edits volumes while a command runs."""
    return volume_fingerprint(path, dataset)
