"""A saved model as a directory that says what it is and proves that it is whole.

    manifest.json        what the model is, what it learnt from, how good it is
    weights.safetensors  the model's own files (or members/0, members/1 ...: an ensemble)
    card.md              the same for a person

The manifest holds size and sha256 of every file of the model, and a sha256 of itself.
card.md may be edited by hand.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import platform
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from epitaxy.card import write_card
from epitaxy.errors import ArtifactError, PluginError, UnknownComponentError
from epitaxy.hookspecs import GROUP
from epitaxy.receipts import RECEIPTS
from epitaxy.replacing import beside, put_in_place, recover
from epitaxy.spec import Spec

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset
    from epitaxy.protocols import Model
    from epitaxy.registry import Registry
    from epitaxy.run import Run

FORMAT = "epitaxy-artifact"
VERSION = 1
MANIFEST, CARD, MEMBERS = "manifest.json", "card.md", "members"
_PACKAGES = ("epitaxy", "torch", "numpy", "ase", "pymatgen", "safetensors")
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Artifact:
    """A loaded model with what is known about it.

    Attributes:
        model: ready to predict.
        manifest: the content of manifest.json.
        path: its directory.
    """

    model: Model
    manifest: Mapping[str, Any]
    path: Path


class Parts(Protocol):
    """What is recorded of a split."""

    @property
    def train(self) -> Dataset:
        """What was learnt from."""
        ...

    @property
    def valid(self) -> Dataset:
        """What the best weights were chosen by."""
        ...

    @property
    def digest(self) -> str:
        """Digest of the division."""
        ...


def save_artifact(
    model: Model,
    directory: Path | str,
    *,
    spec: Spec | None = None,
    strategy: Spec | None = None,
    split: Parts | None = None,
    run: Run | None = None,
    metrics: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a model with its manifest and card; to the side first, then renamed.

    Args:
        model: a trained model, or an `epitaxy.ensemble.EnsembleModel`.
        directory: where to; its parents are made.
        spec: the recipe of the model; ``model.spec`` if not given.
        strategy: the recipe of the strategy that trained it.
        split: what it was trained on: digests, history, level of theory are recorded.
        run: seed, device, dtype and training options are recorded.
        metrics: name of a set ("valid", "test") -> numbers.
        overwrite: whether an artifact that is there is replaced.

    Raises:
        ArtifactError: something is at `directory` already, the model has no spec, or the disk
            refuses to take the files.
    """
    directory = Path(directory)
    recover(directory)
    if directory.exists() and not overwrite:
        raise ArtifactError(f"{directory} is there already: choose another folder or remove it")
    side = beside(directory, "tmp")
    shutil.rmtree(side, ignore_errors=True)
    try:
        side.mkdir(parents=True)
        _write(model, side, spec=spec, strategy=strategy, split=split, run=run, metrics=metrics)
        put_in_place(side, directory)
    except (OSError, ArtifactError) as error:
        raise ArtifactError(
            f"cannot write the artifact {directory}: {error}; what was there before is untouched"
        ) from error
    finally:
        shutil.rmtree(side, ignore_errors=True)
    return directory


def _write(
    model: Model,
    directory: Path,
    *,
    spec: Spec | None,
    strategy: Spec | None,
    split: Parts | None,
    run: Run | None,
    metrics: Mapping[str, Any] | None,
) -> None:
    spec = spec or getattr(model, "spec", None)
    if spec is None:
        raise ArtifactError(
            f"a {type(model).__name__} does not say how it is built: give spec= to save_artifact"
        )
    members = getattr(model, "members", None)
    if members is None:
        model.save(directory)
    else:
        for k, member in enumerate(members):
            part = directory / MEMBERS / str(k)
            part.mkdir(parents=True)
            # What is common to all members stands once, in the manifest of the ensemble.
            own = getattr(member, "spec", None) or spec
            _write(member, part, spec=own, strategy=None, split=None, run=None, metrics=None)
    manifest = {
        "format": FORMAT,
        "format_version": VERSION,
        "kind": getattr(model, "artifact_kind", "model") if members is None else "ensemble",
        "n_members": 1 if members is None else len(members),
        "spec": spec.to_config(),
        "strategy": None if strategy is None else strategy.to_config(),
        **_about_training(run, model),
        **_about_parts(split),
        **_about_model(model),
        "metrics": dict(metrics or {}),
        "versions": _versions(),
        "plugins": _plugins(spec, strategy),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_card(directory / CARD, manifest)
    manifest["files"] = {
        path.relative_to(directory).as_posix(): _fingerprint(path) for path in _files(directory)
    }
    manifest["manifest_sha256"] = _own_digest(manifest)
    text = json.dumps(manifest, indent=2, ensure_ascii=False, sort_keys=False) + "\n"
    (directory / MANIFEST).write_text(text, encoding="utf-8")


def _about_training(run: Run | None, model: Model) -> dict[str, Any]:
    if run is None:
        return {}
    used = getattr(model, "uses_training", None)
    return {
        "training": {
            name: value
            for name, value in run.training.to_config().items()
            if used is None or name in used
        },
        "seed": run.seed,
        "device": run.device,
        "dtype": run.dtype,
    }


def _about_parts(split: Parts | None) -> dict[str, Any]:
    if split is None:
        return {}
    return {
        "data": {
            "train_digest": split.train.digest,
            "valid_digest": split.valid.digest,
            "split_digest": split.digest,
            "n_train": len(split.train),
            "n_valid": len(split.valid),
            "labels": {
                name: int(split.train.target(name)[1].sum()) for name in split.train.targets
            },
            "history": list(split.train.history),
            "origins": [asdict(origin) for origin in split.train.origins],
        },
        "methods": [asdict(method) for method in split.train.methods],
    }


def _about_model(model: Model) -> dict[str, Any]:
    from ase.data import chemical_symbols

    from epitaxy.quantities import quantity

    can = model.capabilities
    return {
        "elements": [chemical_symbols[z] for z in sorted(can.elements or ())],
        "units": {name: quantity(name).unit for name in can.targets},
        "capabilities": {
            "targets": list(can.targets),
            "pbc": can.pbc,
            "forces": can.forces,
            "stress": can.stress,
            "uncertainty": can.uncertainty,
            "composition_only": can.composition_only,
        },
        "cutoff": getattr(model, "cutoff", None),
        "lineage": getattr(model, "lineage", None),
    }


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _plugins(*specs: Spec | None) -> dict[str, dict[str, str]]:
    """Return plugin -> distribution and version, of the plugins that specs name in full."""
    used = {spec.use.partition("/")[0] for spec in specs if spec is not None and "/" in spec.use}
    return {
        point.name: {"distribution": point.dist.name, "version": point.dist.version}
        for point in entry_points(group=GROUP)
        if point.name in used and point.dist is not None
    }


def load_artifact(directory: Path | str, *, registry: Registry | None = None) -> Artifact:
    """Read what `save_artifact` wrote, after checking that it is whole.

    Args:
        directory: the artifact.
        registry: where the model's class is found; the installed plugins by default.

    Raises:
        ArtifactError: not an artifact, incomplete, damaged, edited, or of a newer format; the
            message names the file.
        PluginError: the plugin that provides the model is not installed or lacks a package.
    """
    directory = Path(directory)
    manifest = check_artifact(directory)
    if registry is None:
        from epitaxy.registry import Registry

        registry = Registry.from_entry_points()
    try:
        model = _model(directory, manifest, registry)
    except PluginError as error:
        hint = _how_to_install(manifest) if isinstance(error, UnknownComponentError) else ""
        raise type(error)(f"the artifact {directory} cannot be loaded: {error}{hint}") from error
    return Artifact(model, manifest, directory)


def _how_to_install(manifest: Mapping[str, Any]) -> str:
    plugin = manifest["spec"]["use"].partition("/")[0]
    facts = manifest.get("plugins", {}).get(plugin)
    if facts is None:
        return ""
    return (
        f" The model is of plugin {plugin!r} of {facts['distribution']} {facts['version']}; "
        f"install it with: pip install '{facts['distribution']}=={facts['version']}'"
    )


def _model(directory: Path, manifest: Mapping[str, Any], registry: Registry) -> Model:
    spec = Spec.from_config(manifest["spec"])
    if manifest["kind"] == "ensemble":
        from epitaxy.ensemble import EnsembleModel

        parts = [directory / MEMBERS / str(k) for k in range(manifest["n_members"])]
        members = [_model(part, read_manifest(part), registry) for part in parts]
        return EnsembleModel(members, spec=spec)
    if manifest["kind"] == "delta":
        from epitaxy.delta_model import DeltaModel

        return DeltaModel.load(directory, registry=registry)
    from epitaxy.models import build_model

    model = build_model(spec, registry)
    if "registry" in inspect.signature(model.load).parameters:
        return model.load(directory, registry=registry)  # type: ignore[call-arg]
    return model.load(directory)


def check_artifact(directory: Path | str) -> dict[str, Any]:
    """Return the manifest of an artifact after comparing every file with its sha256.

    Raises:
        ArtifactError: a file is missing or changed, or as `read_manifest`.
    """
    manifest = read_manifest(directory)
    for name, expected in manifest["files"].items():
        _check_file(Path(directory) / name, expected)
    return manifest


def read_manifest(directory: Path | str) -> dict[str, Any]:
    """Return the manifest of an artifact, checked.

    Raises:
        ArtifactError: there is none, it is damaged or edited, or of a newer format.
    """
    path = Path(directory) / MANIFEST
    if not path.parent.exists():
        recover(path.parent)
    if not path.is_file():
        there = "" if path.parent.is_dir() else f"; there is no folder {path.parent}"
        nested = [p.parent.name for p in path.parent.glob(f"*/{MANIFEST}")]
        hint = f"; did you mean {path.parent / nested[0]}?" if nested else ""
        raise ArtifactError(f"{path.parent} is not an artifact: it has no {MANIFEST}{there}{hint}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found = manifest.get("format")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ArtifactError(
            f"{path} is damaged ({error}): copy the artifact again or train anew"
        ) from error
    if found != FORMAT:
        raise ArtifactError(
            f"{path} is of format {found!r}, not {FORMAT!r}: it belongs to something else"
        )
    if not isinstance(manifest.get("format_version"), int) or manifest["format_version"] > VERSION:
        raise ArtifactError(
            f"{path} has format version {manifest.get('format_version')}, this epitaxy reads up "
            f"to {VERSION}: update epitaxy (it was written by epitaxy "
            f"{manifest.get('versions', {}).get('epitaxy', '?')})"
        )
    if manifest.get("manifest_sha256") != _own_digest(manifest):
        raise ArtifactError(
            f"{path} was edited or damaged: its content does not match its manifest_sha256; copy "
            f"the artifact again (notes belong into {CARD})"
        )
    assert isinstance(manifest, dict)
    return manifest


def _check_file(path: Path, expected: Mapping[str, Any]) -> None:
    if not path.is_file():
        raise ArtifactError(f"{path} is missing: copy the artifact again, with all its files")
    size = path.stat().st_size
    if size != expected["size"]:
        raise ArtifactError(
            f"{path} has {size:,} bytes instead of {expected['size']:,}: it was cut short or "
            f"changed; copy the artifact again"
        )
    if _fingerprint(path)["sha256"] != expected["sha256"]:
        raise ArtifactError(
            f"{path} was changed: its sha256 is not the one in the manifest; copy the artifact "
            f"again"
        )


def _files(directory: Path) -> Iterator[Path]:
    """Yield all files of a model, those of members included, except cards and receipts."""
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.name not in (CARD, RECEIPTS):
            yield path


def _fingerprint(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return {"size": path.stat().st_size, "sha256": digest.hexdigest()}


def _own_digest(manifest: Mapping[str, Any]) -> str:
    content = {name: value for name, value in manifest.items() if name != "manifest_sha256"}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
