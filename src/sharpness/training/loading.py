"""A run of a study, opened in a notebook: its network with the weights of any of its checkpoints, and its data."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from sharpness.runtime import checks

if TYPE_CHECKING:
    from sharpness.data.datasets import Dataset
    from sharpness.study.run import Run
    from sharpness.training.checkpoints import Checkpoints

Checkpoint = int | Literal["best", "last"]
_SHOWN = 8  # checkpoints in a line


@dataclass(frozen=True)
class LoadedRun:
    """A run that has been trained."""

    run: Run  # its settings
    dataset: Dataset  # its examples, as it was trained on them
    files: Mapping[Checkpoint, Path]  # of every checkpoint that it reached: by step, in order, then best and last
    _folder: Path
    _study: Path | None

    def __repr__(self) -> str:
        """One line, without its data: name, checkpoints, and where their files are."""
        names = [str(name) for name in self.files]
        if len(names) > _SHOWN:
            names[_SHOWN // 2 : -_SHOWN // 2] = ["..."]
        return f"<{type(self).__name__} {self.run.name}: {', '.join(names)} in {self._folder / 'checkpoints'}>"

    @property
    def steps(self) -> list[int]:
        """The steps of its planned checkpoints: updates before them."""
        return [step for step in self.files if isinstance(step, int)]

    @property
    def epochs(self) -> list[float]:
        """The same in epochs: passes over the training examples before them."""
        return [step / self.run.steps_per_epoch for step in self.steps]

    def model(self, checkpoint: Checkpoint | None = None, *, epoch: float | None = None) -> nn.Module:
        """Build its network with the weights and buffers of a checkpoint, in evaluation mode.

        Args:
            checkpoint: one of ``steps``, "best" or "last"; None is "last".
            epoch: one of ``epochs``, in place of a checkpoint.

        Raises:
            TypeError: a checkpoint is no whole number and no word, or an epoch no number.
            ValueError: there is no such checkpoint, or both a checkpoint and an epoch are given.
            DamagedError: its file is damaged, or of another training, data set or network, or code of one's own has
                changed since.
        """
        checkpoint = self._named(checkpoint, epoch)
        from sharpness.hessian.layout import Layout
        from sharpness.hessian.loss import flatten
        from sharpness.training import belonging
        from sharpness.training.initialisation import model_of

        loaded = self._loaded(checkpoint)
        (snapshot,) = loaded.snapshots
        with _beside(self._study):
            model = model_of(self.run, self.dataset).to(snapshot.weights.device)
        belonging.check_network(loaded, self.files[checkpoint], flatten(model))
        weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
        buffers = {name: buffer for name, buffer in model.named_buffers() if buffer.is_floating_point()}
        for tensors, flat in ((weights, snapshot.weights), (buffers, snapshot.buffers)):
            views: dict[str, Tensor] = Layout.of(tensors, channels_last=True).named(flat)
            for name, tensor in tensors.items():
                tensor.copy_(views[name])
        return model.eval()

    def drawn_examples(
        self, num_examples: int, *, step: int | None = None, augment: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Draw the training examples on which measurements take the Hessian: those of kept eigenvectors.

        Args:
            num_examples: how many, from 1 to all; eigenpairs that were kept have it as
                ``provenance["num_examples"]``.
            step: of the checkpoint, where the measurement's settings say ``resample: true``.
            augment: as its settings say.

        Returns:
            Inputs [n, ...] and targets [n, ...].

        Raises:
            TypeError: ``num_examples`` or ``step`` is no whole number.
            ValueError: there are fewer training examples, ``step`` is negative, or inputs are no images to augment.
        """
        from sharpness.data import datasets
        from sharpness.runtime.streams import stream

        training = self.dataset.training
        if checks.whole_number("num_examples", num_examples, least=1) > len(training.targets):
            raise ValueError(
                f"num_examples must be at most {len(training.targets)}, the training examples of {self.run.name}, "
                f"got {num_examples}"
            )
        purpose = datasets.EXAMPLES
        if step is not None:
            purpose += f" at step {checks.whole_number('step', step, least=0)}"
        inputs, targets = datasets.drawn(training, num_examples, seed=self.run.seed, purpose=purpose)
        if augment:
            if inputs.dim() != 4:
                raise ValueError(f"augment must be False for inputs {list(inputs.shape)}, which are no images")
            inputs = datasets.augment(inputs, generator=stream(self.run.seed, f"augmentation of the {purpose}"))
        return inputs, targets

    def _named(self, checkpoint: Checkpoint | None, epoch: float | None) -> Checkpoint:
        """The key of a checkpoint in ``files``."""
        if epoch is not None:
            if checkpoint is not None:
                raise ValueError(
                    f"give a checkpoint or an epoch, not both, got checkpoint {checkpoint!r} and epoch {epoch!r}"
                )
            return self._step_at(epoch)
        if checkpoint is None:
            return "last"
        is_step = isinstance(checkpoint, Integral) and not isinstance(checkpoint, bool)
        if not is_step and not isinstance(checkpoint, str):
            raise TypeError(f'checkpoint must be a whole number, "best" or "last", got {checkpoint!r}')
        if checkpoint not in self.files:
            has = ", ".join(map(str, self.files)) or "none"
            raise ValueError(f"{self.run.name} has no checkpoint {checkpoint!r}, it has {has}")
        return checkpoint if isinstance(checkpoint, str) else int(checkpoint)

    def _step_at(self, epoch: float) -> int:
        checks.factor("epoch", epoch)
        for step, at in zip(self.steps, self.epochs, strict=True):
            if abs(at - epoch) < 0.5 / self.run.steps_per_epoch:
                return step
        has = ", ".join(f"{at:g}" for at in self.epochs) or "none"
        raise ValueError(f"{self.run.name} has no checkpoint at epoch {epoch:g}, it has {has}")

    def _loaded(self, checkpoint: Checkpoint) -> Checkpoints:
        """Load this checkpoint alone."""
        steps = [checkpoint] if isinstance(checkpoint, int) else None
        device = self.dataset.training.inputs.device
        return _checked(self.files[checkpoint], self._folder, self.dataset, device, steps, study=self._study)


def load_run(
    path: str | os.PathLike[str],
    *,
    study: str | os.PathLike[str] | None = None,
    data: str | os.PathLike[str] | None = None,
    device: torch.device | str = "cpu",
) -> LoadedRun:
    """Open the folder of a run, ``results/<study>/runs/<run>``.

    Args:
        path: the folder.
        study: the study's file, if the run's network, data or loss are one's own: they are named relative to it.
        data: the prepared data set; None is that in ``results/data``, beside the study.
        device: of the examples and of the networks.

    Raises:
        ModuleNotFoundError: what the pipeline needs is not installed.
        ValueError: torch has no such device here.
        FileNotFoundError: it is no run's folder, or its data or the study's file are missing.
        DamagedError: a file is damaged, or belongs to another run or data set, or code of one's own has changed since.
    """
    try:
        from sharpness.training.initialisation import dataset_of
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"load_run needs {error.name}: run pip install '.[workflow]' in the project's folder",
            name=error.name,
        ) from None
    folder, device = Path(path), _device(device)
    checkpoints = {name: folder / "checkpoints" / f"{name}.safetensors" for name in ("best", "last")}
    if not (folder / "run.yaml").is_file() or not checkpoints["last"].is_file():
        raise FileNotFoundError(
            f"{folder} is no folder of a run that has been trained: it lacks run.yaml or checkpoints"
        )
    if study is not None and not Path(study).is_file():
        raise FileNotFoundError(
            f"study must be the study's file, such as mine/study.yaml, got {study}, which is no file"
        )
    # A notebook may move to another folder before it asks for a network.
    folder, place = folder.absolute(), None if study is None else Path(study).absolute()
    checkpoints = {name: path.absolute() for name, path in checkpoints.items()}
    run = _run_of(checkpoints["last"])
    with _beside(place):
        prepared = _prepared(run, folder) if data is None else Path(data).absolute()
        if not prepared.is_file():
            raise FileNotFoundError(
                f"{prepared}, the prepared data of {run.name}, is missing: give {_lacking(run, study)}"
            )
        dataset = dataset_of(run, prepared, device)
    files: dict[Checkpoint, Path] = _planned(folder)
    files |= {name: file for name, file in checkpoints.items() if file.is_file()}  # type: ignore[misc]
    _checked(checkpoints["last"], folder, dataset, device, [], study=place)
    return LoadedRun(run, dataset, files, folder, place)


def _device(given: torch.device | str) -> torch.device:
    try:
        device = torch.device(given)
        torch.zeros(1, device=device).item()
    except (RuntimeError, TypeError, AssertionError):  # the last where torch was built without CUDA
        raise ValueError(f"device must be one that torch has here, such as 'cpu', got {given!r}") from None
    return device


def _lacking(run: Run, study: str | os.PathLike[str] | None) -> str:
    from sharpness.data import arrays

    named = arrays.is_own(run.data) and study is None
    return "study=, the study's file, beside which its data are" if named else "data=, its path"


def _run_of(path: Path) -> Run:
    from sharpness.training.checkpoints import load_checkpoints

    return load_checkpoints(path, device=torch.device("cpu"), steps=[]).run


def _planned(folder: Path) -> dict[Checkpoint, Path]:
    """Map every step of the planned checkpoints to its file, in order."""
    from sharpness.training.checkpoints import steps_in

    chunks = (path for path in (folder / "checkpoints").glob("*.safetensors") if path.stem.isdecimal())
    found: dict[int, Path] = {step: path for path in chunks for step in steps_in(path)}
    return {step: found[step] for step in sorted(found)}


def _prepared(run: Run, folder: Path) -> Path:
    from sharpness.study.paths import prepared

    project = folder.absolute().parents[3]
    return project / prepared(run.data, project)


def _checked(
    path: Path, folder: Path, dataset: Dataset, device: torch.device, steps: list[int] | None, *, study: Path | None
) -> Checkpoints:
    """Load checkpoints, and check that they belong to the run in ``folder``, to its data and to the user's code."""
    from sharpness.training import belonging
    from sharpness.training.checkpoints import load_checkpoints

    loaded = load_checkpoints(path, device=device, steps=steps)
    belonging.check_training(loaded, path, run=loaded.run.name, record=folder / "run.yaml")
    belonging.check_data(loaded, path, digest=dataset.digest, data=folder.absolute().parents[2] / "data")
    if loaded.run.own_code:
        _check_own_code(loaded, path, folder=folder, study=study)
    return loaded


def _check_own_code(checkpoints: Checkpoints, path: Path, *, folder: Path, study: Path | None) -> None:
    """Check that checkpoints were trained with the user's own code as it is now.

    Raises:
        DamagedError: it has changed since.
        OwnError: a file does not exist or cannot be parsed.
    """
    from sharpness.runtime import own
    from sharpness.runtime.definitions import OwnError
    from sharpness.runtime.sealed import DamagedError

    references = checkpoints.run.own_code
    theirs = checkpoints.environment.get("own_code", "unknown")
    try:
        with _beside(study):
            named = dict.fromkeys(str(own.path_of(each) or each) for each in references)
            versions = _versions(references, project=folder.absolute().parents[3].resolve())
    except OwnError as error:
        raise OwnError(f"{error}: give study=, the study's file") if study is None else error from None
    for ours in versions:
        if ours != theirs:
            raise DamagedError(
                f"{path} was trained with the version {theirs} of {', '.join(named)} and what they import, here it is "
                f"{ours}: put the files of that version back, as version control has them, and restart Python"
            )


def _versions(references: tuple[str, ...], *, project: Path) -> tuple[str, str]:
    """The version of the user's code that this Python has imported, if it has, and that of the files as they are."""
    from sharpness.runtime import closure, own

    def as_in_a_job(file: str) -> str:
        return file if Path(file).is_absolute() else os.path.relpath(file, project)

    # Jobs hash files in the order of their paths, which are from the project's folder on.
    files = sorted(own.sources(*references), key=as_in_a_job)
    digests = (hashlib.sha256(Path(file).read_bytes()).digest() for file in files)
    return closure.digest_of_files(files)[:12], hashlib.sha256(b"".join(digests)).hexdigest()[:12]


@contextmanager
def _beside(study: Path | None) -> Iterator[None]:
    from sharpness.runtime import own

    with nullcontext() if study is None else own.beside(study):
        yield
