"""Predicts with an artifact of an upload on the structures of its entries."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from epitaxy.artifact import FORMAT, MANIFEST, Artifact, load_artifact
from epitaxy.dataset import Dataset
from epitaxy.entry import Entry
from epitaxy.errors import ArtifactError, CapabilityError, DataError
from epitaxy.protocols import Model, Predictions
from epitaxy.quantities import quantity
from epitaxy_nomad.frames import Frame, Wishes, read_frames
from epitaxy_nomad.oasis.predict_models import PredictLimits, PredictOutput
from epitaxy_nomad.oasis.upload_access import Upload

FOLDER = "predictions"
"""Where predictions are written in an upload."""

SCHEMA = "epitaxy_nomad.oasis.predictions.Predictions"


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model of an upload.

    Attributes:
        artifact: loaded from a copy.
        path: its folder in the upload.
        upload_id: its upload.
        entry_id: its entry.
    """

    artifact: Artifact
    path: str
    upload_id: str
    entry_id: str

    @property
    def model(self) -> Model:
        """Ready to predict."""
        return self.artifact.model


@dataclass(frozen=True, slots=True)
class Collected:
    """Structures of entries, and what was left out.

    Attributes:
        entries: one structure each, with the id of its entry in NOMAD.
        sections: the section of each structure in its entry.
        skipped: (entry id, reason) of the others.
    """

    entries: tuple[Entry, ...]
    sections: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]


def find_model(upload: Upload, model: str, folder: Path) -> KnownModel:
    """Copy an artifact out of an upload and load it.

    Args:
        upload: where it is.
        model: entry id of a trained model, or the folder of the artifact.
        folder: where the copy goes; must not be there yet.

    Raises:
        ArtifactError: there is no such artifact, or it is damaged.
    """
    mainfile = upload.mainfile(model) or ""
    if not mainfile:
        path = PurePosixPath(model.strip("/"))
        mainfile = str(path if path.name == MANIFEST else path / MANIFEST)
    if PurePosixPath(mainfile).name != MANIFEST or not upload.has(mainfile):
        raise ArtifactError(
            f"{model!r} is neither the entry of a trained model nor the folder of one in upload "
            f"{upload.upload_id}: give an entry id or a folder with a {MANIFEST}"
        )
    place = PurePosixPath(mainfile).parent
    _copy(upload, mainfile, folder / MANIFEST)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise ArtifactError(f"{mainfile} is of format {manifest['format']!r}, not {FORMAT!r}")
        names = list(manifest["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{mainfile} is damaged: {error!r}") from error
    for name in names:
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts:
            raise ArtifactError(f"{mainfile} names the file {name!r} outside of its folder")
        if not upload.has(str(place / name)):
            raise ArtifactError(f"{place / name} is missing in upload {upload.upload_id}")
        _copy(upload, str(place / name), folder / name)
    return KnownModel(
        load_artifact(folder), str(place), upload.upload_id, _entry_id(upload, mainfile)
    )


def collect(
    upload: Upload,
    entry_ids: Sequence[str],
    *,
    elements: frozenset[int] | None,
    max_structures: int,
) -> Collected:
    """Read the last structure of each entry.

    Args:
        upload: where the entries are.
        entry_ids: which; all of the upload if empty.
        elements: atomic numbers that the model covers, None for all.
        max_structures: more are refused.

    Raises:
        DataError: no entry has a structure that the model covers, or there are too many.
    """
    entries: list[Entry] = []
    sections: list[str] = []
    skipped: list[tuple[str, str]] = []
    for entry_id in dict.fromkeys(entry_ids or upload.entry_ids()):
        archive = upload.archive(entry_id)
        if archive is None:
            skipped.append((entry_id, "no archive: it is not in this upload, or processing failed"))
            continue
        frame, reason = _last_frame(archive)
        if frame is None:
            skipped.append((entry_id, reason))
            continue
        unknown = set(frame.structure.numbers.tolist()) - set(elements or ())
        if elements is not None and unknown:
            words = ", ".join(chemical_symbols[z] for z in sorted(unknown))
            skipped.append((entry_id, f"the model does not know {words}"))
            continue
        if len(entries) == max_structures:
            raise DataError(
                f"more than {max_structures:,} structures: give fewer entry_ids, or ask the "
                f"administrator to raise max_structures"
            )
        sections.append(frame.tags["section"])
        entries.append(
            Entry(
                numbers=frame.structure.numbers,
                positions=frame.structure.positions,
                cell=frame.structure.cell,
                pbc=frame.structure.pbc,
                id=entry_id,
            )
        )
    if not entries:
        counts = Counter(reason for _, reason in skipped)
        shown = "; ".join(f"{count} x {reason}" for reason, count in counts.most_common(5))
        raise DataError(
            f"no entry of upload {upload.upload_id} can be predicted ({shown or 'it has none'})"
        )
    return Collected(tuple(entries), tuple(sections), tuple(skipped))


def _last_frame(archive: Mapping[str, Any]) -> tuple[Frame | None, str]:
    """Return the last structure of an archive; without one, why."""
    reasons: list[str] = []
    frames = list(read_frames(archive, Wishes(), lambda _, reason: reasons.append(reason)))
    return (frames[-1], "") if frames else (None, "; ".join(reasons) or "no structure")


def predict(known: KnownModel, collected: Collected, targets: Sequence[str]) -> Predictions:
    """Predict all structures.

    Raises:
        CapabilityError: the model does not predict a target.
        DataError: a prediction is not finite.
    """
    able = known.model.capabilities.targets
    if unknown := [name for name in targets if name not in able]:
        raise CapabilityError(
            f"the model does not predict {', '.join(unknown)}; it predicts {', '.join(able)}"
        )
    found = known.model.predict(Dataset.from_entries(collected.entries))
    wanted = [name for name in found.mean if not targets or name in targets]
    for name in wanted:
        if name == "stress":
            continue  # of structures that are not periodic there is none
        if not np.isfinite(np.asarray(found.mean[name])).all():
            raise DataError(f"the model predicts a {name} that is not finite: it cannot be used")
    mean = {name: np.asarray(found.mean[name], dtype=np.float64) for name in wanted}
    std = found.std and {
        name: np.asarray(found.std[name], dtype=np.float64) for name in wanted if name in found.std
    }
    return replace(found, mean=MappingProxyType(mean), std=std or None)


def write(
    upload: Upload,
    known: KnownModel,
    collected: Collected,
    found: Predictions,
    *,
    name: str,
    limits: PredictLimits,
    folder: Path,
) -> PredictOutput:
    """Write predictions as an archive into an upload, with an HDF5 file beside it if they are many.

    Args:
        upload: takes the files.
        known: the model.
        collected: the structures.
        found: the predictions.
        name: of the entry.
        limits: how much stands in the archive.
        folder: for the files until they are added.
    """
    large = folder / f"{name}.h5"
    section = {
        **_head(known, collected, found, name=name),
        "structures": _references(collected)[: limits.max_references],
        "targets": [
            _target(target, found, large, max_inline=limits.max_inline) for target in found.mean
        ],
    }
    file = folder / f"{name}.archive.json"
    file.write_text(json.dumps({"data": section}, allow_nan=False, indent=1), encoding="utf-8")
    upload.add([*([large] if large.exists() else []), file], FOLDER)
    mainfile = f"{FOLDER}/{file.name}"
    return PredictOutput(
        mainfile=mainfile,
        entry_id=_entry_id(upload, mainfile),
        n_structures=len(collected.entries),
        n_skipped=len(collected.skipped),
        reasons=dict(Counter(reason for _, reason in collected.skipped)),
        targets=list(found.mean),
        has_uncertainty=found.std is not None,
    )


def _head(
    known: KnownModel, collected: Collected, found: Predictions, *, name: str
) -> dict[str, Any]:
    manifest = known.artifact.manifest
    numbers = sorted({int(z) for entry in collected.entries for z in entry.numbers})
    main = next(iter(found.mean), "")
    std = None if found.std is None else found.std.get(main)
    return {
        "m_def": SCHEMA,
        "name": name,
        "description": (
            f"{', '.join(found.mean)} of {len(collected.entries)} structures, predicted by "
            f"{manifest['spec']['use']}."
        ),
        "model": f"../uploads/{known.upload_id}/archive/{known.entry_id}#/data",
        "model_digest": manifest["manifest_sha256"],
        "model_path": known.path,
        "architecture": str(manifest["spec"]["use"]).rpartition("/")[2],
        "main_target": main,
        **({} if std is None else {"mean_std": float(np.nanmean(std))}),
        "has_uncertainty": found.std is not None,
        "n_structures": len(collected.entries),
        "n_skipped": len(collected.skipped),
        "elements": [chemical_symbols[z] for z in numbers],
        "entry_ids": [entry.id for entry in collected.entries],
        "systems": list(collected.sections),
        "formulas": [entry.to_atoms().get_chemical_formula() for entry in collected.entries],
        "n_atoms": [len(entry) for entry in collected.entries],
        "skipped_entry_ids": [entry_id for entry_id, _ in collected.skipped],
        "skipped_reasons": [reason for _, reason in collected.skipped],
        "epitaxy_version": version("epitaxy"),
    }


def _target(name: str, found: Predictions, large: Path, *, max_inline: int) -> dict[str, Any]:
    rule = quantity(name)
    values = found.mean[name]
    std = None if found.std is None else found.std.get(name)
    known = values[np.isfinite(values)]
    section: dict[str, Any] = {
        "name": name,
        "unit": rule.unit,
        "per": rule.per,
        "n_values": int(known.size),
    }
    if known.size:
        section |= {
            "minimum": float(known.min()),
            "maximum": float(known.max()),
            "mean": float(known.mean()),
        }
    if std is not None and np.isfinite(std).any():
        section |= {"mean_std": float(np.nanmean(std)), "largest_std": float(np.nanmax(std))}
    parts = {"values": values, **({} if std is None else {"std": std})}
    if values.size > max_inline or known.size < values.size:  # JSON has no nan
        return section | {
            f"{part}_file": _to_hdf5(large, f"{name}/{part}", array)
            for part, array in parts.items()
        }
    names = {"values": "values", "std": "std"}
    if values.ndim > 1:
        names = {"values": "components", "std": "components_std"}
    return section | {
        names[part]: array.reshape(len(array), *((-1,) if array.ndim > 1 else ())).tolist()
        for part, array in parts.items()
    }


def _to_hdf5(file: Path, path: str, array: np.ndarray) -> str:
    import h5py

    with h5py.File(file, "a") as stream:
        stream.create_dataset(path, data=array, compression="gzip", shuffle=True)
    return f"{FOLDER}/{file.name}#/{path}"


def _references(collected: Collected) -> list[str]:
    return [
        f"../upload/archive/{entry.id}#/{section}"
        for entry, section in zip(collected.entries, collected.sections, strict=True)
    ]


def _copy(upload: Upload, path: str, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with upload.open(path) as source, file.open("wb") as target:
        shutil.copyfileobj(source, target)


def _entry_id(upload: Upload, mainfile: str) -> str:
    from nomad.utils import generate_entry_id

    return str(generate_entry_id(upload.upload_id, mainfile))
