"""The project file's content as frozen pydantic models: every key with its type, its default and what it means.

Lengths are in nm where the name says so, in voxels (z, y, x) otherwise.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from neuroloom.addresses import FILES, check_address
from neuroloom.project.augmentation import Augmentation
from neuroloom.project.profiles import Profile

Triple = tuple[int, int, int]
Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
NonNegativeTriple = tuple[NonNegative, NonNegative, NonNegative]
PositiveTriple = tuple[Positive, Positive, Positive]
Id = Annotated[int, Field(ge=1, lt=2**63)]
Unlabelled = Literal["background", "ignore"]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveFloat = Annotated[float, Field(gt=0.0)]
PositiveNanometres = tuple[PositiveFloat, PositiveFloat, PositiveFloat]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
NEAREST: tuple[Triple, ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
"""Offsets of the neighbours before a voxel along z, y, x."""
MergeFunction = Literal[
    "hist_quant_10",
    "hist_quant_25",
    "hist_quant_50",
    "hist_quant_75",
    "hist_quant_90",
    "hist_quant_10_initmax",
    "hist_quant_25_initmax",
    "hist_quant_50_initmax",
    "hist_quant_75_initmax",
    "hist_quant_90_initmax",
    "mean",
]

AgglomerationMethod = Literal["hierarchical", "mutex_watershed", "multicut"]
"""How fragments are put together."""


class Section(BaseModel):
    """Base of all sections: unknown keys are refused, values never change after loading."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RawVolume(Section):
    """A volume to segment."""

    name: Name = Field(description="how results of this volume are called")
    path: str = Field(description="zarr, N5, HDF5 or precomputed: a path, from this file's folder, or a URL")
    raw: str = Field(
        "volumes/raw",
        description='dataset of the image: uint8, or float32 in [0, 1]; of precomputed, the scale, "." for the finest',
    )
    tissue: str | None = Field(
        None,
        description="dataset that is not 0 where there is tissue, on the image's grid or coarser by whole factors: "
        "elsewhere nothing is predicted; blank parts of the image are left out anyway",
    )
    replace_sections: tuple[NonNegative, ...] = Field(
        (), description="sections (along z, from 0) that are damaged: no fragments are cut there"
    )


class LabelledVolume(RawVolume):
    """A volume with truth, to train on or to choose the threshold on."""

    labels: str = Field("volumes/labels/neuron_ids", description="dataset of the truth: uint64, 0 = background")
    mask: str | None = Field(None, description="dataset that is 1 where the truth may be used; leave out if everywhere")
    unlabelled: Unlabelled = Field(
        "background", description='what label 0 means: "background", no neuron, or "ignore", not painted (sparse truth)'
    )
    zero_ids: tuple[Id, ...] = Field((), description="labels that are background too, such as glia and blood vessels")
    ignore_ids: tuple[Id, ...] = Field((), description="labels of which nothing is learned, such as damaged tissue")
    weight: PositiveFloat | None = Field(
        None, description="how often crops come from this volume; default: its number of labelled voxels"
    )

    @field_validator("ignore_ids")
    @classmethod
    def _ids_have_one_meaning(cls, values: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        both = sorted({*values} & {*info.data.get("zero_ids", ())})
        if both:
            raise ValueError(f"{', '.join(map(str, both))} cannot be both in zero_ids and in ignore_ids")
        return values


class Volumes(Section):
    """Which volumes are used for what."""

    train: tuple[LabelledVolume, ...] = Field((), description="hand-segmented blocks to train on")
    validate_: tuple[LabelledVolume, ...] = Field(
        (), alias="validate", description="hand-segmented blocks never trained on: they choose checkpoint and threshold"
    )
    predict: tuple[RawVolume, ...] = Field((), description="volumes to segment")

    @model_validator(mode="after")
    def _names_are_unique(self) -> Volumes:
        seen: set[str] = set()
        for volume in (*self.validate_, *self.predict):
            if volume.name in seen:
                raise ValueError(f"two volumes are called {volume.name!r}; results would overwrite each other")
            seen.add(volume.name)
        return self


class Network(Section):
    """The valid U-Net, the same for descriptors and affinities."""

    feature_maps: Positive = Field(12, description="feature maps of the first level")
    growth: Positive = Field(3, description="each level has this many times the maps of the level above")
    downsampling: tuple[PositiveTriple, ...] = Field(
        ((2, 2, 2), (2, 2, 2)), min_length=1, description="max-pool factors between levels, z y x"
    )
    kernels: tuple[PositiveTriple, ...] = Field(
        (), description="extents of each level's convolutions, z y x, odd; default: 3 3 3 on all levels"
    )
    upsampling: Literal["transposed", "trilinear", "nearest"] = Field("transposed", description="how levels grow again")

    @field_validator("kernels")
    @classmethod
    def _one_for_each_level(cls, kernels: tuple[Triple, ...], info: ValidationInfo) -> tuple[Triple, ...]:
        levels = len(info.data.get("downsampling", ())) + 1
        if kernels and levels > 1 and len(kernels) != levels:
            raise ValueError(
                f"{len(kernels)} given; expected {levels}, one for each level (one more than `downsampling` has)"
            )
        if any(extent % 2 == 0 for kernel in kernels for extent in kernel):
            raise ValueError("an even extent is given; expected odd ones such as [1, 3, 3]")
        return kernels

    @property
    def factor(self) -> Triple:
        """Voxels by which the prediction may be moved without changing it, z y x."""
        z, y, x = (math.prod(level[axis] for level in self.downsampling) for axis in range(3))
        return z, y, x


class TrainingLength(Section):
    """How long one of the two networks is trained."""

    iterations: Positive = Field(description="training steps")
    minutes: float | None = Field(None, gt=0, description="written by `train --minutes`: what the steps were to take")


class Training(Section):
    """Both trainings."""

    setup: str = Field(
        "acrlsd",
        description='"acrlsd": descriptors first, then affinities from both; "affs": straight from raw; or any other '
        "setup that gives affinities",
    )
    neighborhood: tuple[Triple, ...] = Field(
        NEAREST, description="offsets of the affinities in voxels, z y x; the three nearest first, then any others"
    )
    start: str | None = Field(
        None,
        description="weights to start from: name of a model (`neuroloom models`) or path of a checkpoint of the same "
        "network; default: random ones",
    )
    descriptors: str | None = Field(
        None,
        description="a descriptor network to use as it is, instead of training one: name of a model or path of a "
        "checkpoint that has one; it may be of another size",
    )
    sigma_nm: PositiveFloat = Field(80.0, description="size of the window of the local shape descriptors, in nm")
    crop: PositiveTriple = Field((64, 64, 64), description="network output of one training crop, in voxels")
    batch_size: Positive = Field(1, description="crops per step")
    at_once: Positive | None = Field(
        None, description="crops computed at once, a divisor of batch_size: fewer take less memory; default: all"
    )
    recompute: bool = Field(False, description="a tenth to a fifth less memory, 1.4 times the time")
    learning_rate: PositiveFloat = Field(1e-3, le=1.0, description="of Adam, after warm-up")
    schedule: Literal["cosine", "plateau"] = Field(
        "cosine", description='"cosine": falls to a fiftieth; "plateau": halves after three scores without a better one'
    )
    seed: int = Field(0, ge=0, description="of everything random in training")
    lsd: TrainingLength = Field(TrainingLength(iterations=2000), description="the descriptor network")
    affinities: TrainingLength = Field(TrainingLength(iterations=2000), description="the affinity network")
    descriptors_after: float = Field(
        0.0,
        ge=0.0,
        lt=1.0,
        description="share of the affinity network's steps before descriptors join the image; such steps are faster",
    )
    keep_descriptors: bool = Field(
        False,
        description="the descriptor network sees the training volumes once, before the affinity network's first step, "
        "and crops look its output up: faster steps, 11 bytes of disk per voxel",
    )
    baseline: bool = Field(
        False, description="also train the same network straight from raw, for about as long, and compare"
    )
    augmentation: Augmentation = Field(Augmentation(), description="what happens to training crops at random")
    validate_every: Positive = Field(200, description="iterations between losses on held-out crops")
    score_every: int = Field(
        500,
        ge=0,
        description="iterations between scores of the whole chain on a piece of each validation volume (up to 256 "
        "voxels each way, around the middle of what is labelled): the checkpoint of lowest VOI is kept; 0: that of the "
        "lowest loss",
    )
    snapshot_every: Positive = Field(500, description="iterations between pictures to look at")
    checkpoint_every: Positive = Field(200, description="iterations between states that a stopped run goes on from")
    patience: Positive | None = Field(None, description="stop after this many scores without a better one")

    @staticmethod
    def length_key(setup: str) -> str:
        """The key that says how long a setup is trained."""
        return "lsd" if setup == "lsd" else "affinities"

    def length(self, setup: str) -> TrainingLength:
        """How long a setup is trained."""
        length: TrainingLength = getattr(self, self.length_key(setup))
        return length

    @model_validator(mode="after")
    def _parts_are_whole(self) -> Training:
        if self.at_once is not None and self.batch_size % self.at_once:
            raise ValueError(f"`at_once` is {self.at_once}; expected a divisor of `batch_size`, {self.batch_size}")
        return self

    @field_validator("neighborhood")
    @classmethod
    def _nearest_first(cls, offsets: tuple[Triple, ...]) -> tuple[Triple, ...]:
        if offsets[:3] != NEAREST:
            raise ValueError(
                f"it begins with {_listed(offsets[:3])}; expected {_listed(NEAREST)} first, because fragments are cut "
                "from these three"
            )
        for number, offset in enumerate(offsets):
            if offset == (0, 0, 0):
                raise ValueError("the offset [0, 0, 0] is no neighbour; leave it out")
            if offset in offsets[:number]:
                raise ValueError(f"the offset {list(offset)} is given twice; leave one out")
        return offsets


class Prediction(Section):
    """Affinities for whole volumes."""

    model: str | None = Field(
        None,
        description="predict with given weights and train nothing: name of a model (`neuroloom models`), path of a "
        "checkpoint, or of a file that declares somebody else's network",
    )
    ensemble: tuple[str, ...] = Field(
        (), description="more weights, named likewise, whose affinities are averaged with those of the network"
    )
    resample: bool = Field(
        False,
        description="volumes of other voxels than the network's are resampled for it, and affinities back; affinities "
        "of nearest neighbours only",
    )
    block: PositiveTriple | None = Field(
        None,
        description="voxels of one block; multiples of the network's factor; default: as large as pays and the machine "
        "is not at it for long",
    )

    missing_chunks: Literal["zero", "abort"] = Field(
        "zero",
        description='what chunks of the image that have no file are: "zero", as programs leave out chunks of zeros '
        '(they are told all the same), or lost: "abort"',
    )
    zarr_format: Literal[2, 3] = Field(
        3, description="of affinities: 3, a block in a file; 2 for programs that do not read it, a chunk in a file"
    )
    mirrors: Literal[1, 2, 4, 8, 16, 48] = Field(
        1,
        description="predictions that are averaged: of the volume and of mirror images of it; 16: also with y and x "
        "exchanged, 48: with all axes exchanged; more find borders better, and take so many times longer",
    )


class Fragments(Section):
    """Affinities to supervoxels."""

    in_xy: bool | None = Field(
        None, description="section by section; default: only where voxels are 2 or more times longer in z"
    )
    min_seed_distance: Positive = Field(10, description="voxels between two fragments' centres, at least")
    threshold: Fraction = Field(0.5, description="mean affinity above which a voxel lies inside a neurite")
    fill: bool = Field(True, description="flood the background too, since neurites touch")
    filter_fragments: Fraction = Field(0.0, description="drop fragments of lower mean affinity; 0 keeps all")
    epsilon_agglomerate: Fraction = Field(0.0, description="merge at once up to this score; 0 merges nothing")
    block: PositiveTriple = Field((256, 256, 256), description="voxels of one block")
    context: NonNegativeTriple = Field((20, 20, 20), description="voxels read around a block")


class Agglomeration(Section):
    """Supervoxels to scored edges."""

    method: AgglomerationMethod = Field(
        "hierarchical",
        description='"hierarchical": what is most alike merges first, up to the threshold; "mutex_watershed": what '
        'repels each other never merges; "multicut": what costs least in all (pip install neuroloom[multicut])',
    )
    merge_function: MergeFunction = Field(
        "hist_quant_75", description="how the score of two fragments is computed; hierarchical only"
    )
    bias: Fraction = Field(
        0.2,
        description="mean affinity of two fragments above which they attract, and below which they repel; not "
        "hierarchical",
    )
    long_range_bias: Fraction = Field(
        0.3, description="likewise of affinities of more than one voxel, where they take part"
    )
    long_range: bool = Field(
        False,
        description="affinities of more than one voxel take part as well, those after the first three of "
        "`training.neighborhood`; `context` must reach as far",
    )
    block: PositiveTriple = Field((256, 256, 256), description="voxels of one block; multiples of the fragments' block")
    context: NonNegativeTriple = Field((64, 64, 64), description="voxels read around a block")


def _default_thresholds() -> tuple[float, ...]:
    return tuple(round(0.02 * i, 2) for i in range(1, 46))


class Segmentation(Section):
    """Scored edges to segments. Raising the threshold merges more."""

    thresholds: tuple[Fraction, ...] = Field(
        default_factory=_default_thresholds, min_length=1, description="merge scores tried on the validation volumes"
    )
    threshold: Fraction | Literal["auto"] = Field(
        "auto", description='"auto": the one of lowest VOI on the validation volumes (below), or a number'
    )
    orphans: int = Field(
        0,
        ge=0,
        le=10**12,
        description="voxels; a smaller segment joins the neighbour it would merge with first, above the threshold; "
        "0: none does",
    )
    large: int = Field(
        0,
        ge=0,
        le=10**15,
        description="voxels; two segments of at least so many merge only up to `large_threshold`; 0: as all others",
    )
    large_threshold: Fraction | None = Field(
        None, description="stricter merge score, of two segments that are both `large`"
    )
    enclosed: Fraction = Field(
        0.8,
        description="a segment inside the volume (a mitochondrion) joins the one that has this share of its surface; "
        "0: none does",
    )
    materialize: bool = Field(
        True, description="write the segmentation; false: only the table of fragments, which the viewer applies"
    )
    chosen_threshold: Fraction | None = Field(None, description="written by the evaluation; used by auto")
    chosen_because: str | None = Field(None, description="written by the evaluation")

    @field_validator("enclosed")
    @classmethod
    def _belongs_to_one(cls, value: float) -> float:
        if 0 < value <= 0.5:
            raise ValueError(
                "expected 0, or more than 0.5 and up to 1, since half a surface could belong to two segments"
            )
        return value

    @model_validator(mode="after")
    def _sizes_fit(self) -> Segmentation:
        if (self.large > 0) != (self.large_threshold is not None):
            raise ValueError("`large` and `large_threshold` belong together: give both, or leave both out")
        if 0 < self.large < self.orphans:
            raise ValueError(
                f"`large` is {self.large} and `orphans` {self.orphans}: a segment could be both. Make `large` the "
                "larger of the two"
            )
        return self

    @field_validator("thresholds")
    @classmethod
    def _sorted(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sorted(set(values)))


class Graph(Section):
    """Where fragments and their edges are kept."""

    store: str = Field(
        FILES,
        description='"files": beside the results; "sqlite:FILE", "postgresql://HOST/DATABASE" or '
        '"mongodb://HOST/DATABASE", user and password from the environment (NEUROLOOM_POSTGRES, NEUROLOOM_MONGODB)',
    )

    @field_validator("store")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        return check_address(value)


class Resources(Section):
    """What this machine gives."""

    workers: Positive | None = Field(None, description="processes for fragments and agglomeration; default: all cores")
    device: str = Field(
        "auto", description='"auto" (all GPUs, else the processor), "cpu", "cuda:1", or several: "cuda:0,cuda:1"'
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 where the processor or GPU has it; processors take fp32 for what they have not"
    )
    memory_gb: PositiveFloat | None = Field(
        None,
        description="memory for what networks see at once in prediction; default: a third of the machine's and 8 at "
        "most, or most of a GPU's",
    )

    @field_validator("device")
    @classmethod
    def _names_devices(cls, value: str) -> str:
        if not all(name.strip() for name in value.split(",")):
            raise ValueError(f"a device has no name in {value!r}; leave out the comma that is too many")
        return value


class Parameters(Section):
    """The whole file."""

    voxel_size: PositiveNanometres = Field(description="nm per voxel, z y x, of all volumes")
    volumes: Volumes
    network: Network = Network()
    training: Training = Training()
    prediction: Prediction = Prediction()
    fragments: Fragments = Fragments()
    agglomeration: Agglomeration = Agglomeration()
    segmentation: Segmentation = Segmentation()
    graph: Graph = Graph()
    resources: Resources = Resources()
    cluster: str | None = Field(
        None, description="file of cluster profiles that projects share; default: cluster.toml beside this file"
    )
    profiles: dict[Name, Profile] = Field({}, description="where the workers of stages come from, by name: `run --on`")


def _listed(offsets: tuple[Triple, ...]) -> str:
    return ", ".join(str(list(offset)) for offset in offsets) or "nothing"


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation holds, `A` of `tuple[A, ...]` or `A | None`, or None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for argument in get_args(annotation) if (found := model_in(argument))), None)
