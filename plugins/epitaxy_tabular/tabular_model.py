"""The `Model` of any featurizer and any learner of one target: one learner per target."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from epitaxy.errors import ArtifactError, CapabilityError, ConfigError, TrainingError
from epitaxy.protocols import Capabilities, Predictions
from epitaxy.quantities import QUANTITIES, quantity
from epitaxy.spec import Spec
from epitaxy_tabular.constant import Constant
from epitaxy_tabular.learner import Fitted, Learner, Table
from epitaxy_tabular.saved import read_arrays, write_arrays

if TYPE_CHECKING:
    from epitaxy.dataset import Dataset
    from epitaxy.registry import Registry
    from epitaxy.run import Run

Unseen = Literal["auto", "refuse", "warn"]

log = logging.getLogger("epitaxy")


class TabularModel:
    """Predicts numbers and claims per structure from the features of each entry.

    Extensive targets such as the energy are learnt per atom. Columns that are constant in the
    training set are left out. Missing labels are left out, target by target.

    Args:
        learner: learns one target; None for a model that was loaded.
        features: featurizer.
        targets: what is predicted; empty for all that can be.
        unseen: what to do with elements that the training set lacks.
    """

    def __init__(
        self,
        *,
        learner: Learner | None,
        features: Spec,
        targets: Sequence[str] = (),
        unseen: Unseen = "auto",
    ) -> None:
        for name in targets:
            if quantity(name).per == "atom" or quantity(name).shape:
                raise ConfigError(
                    f"targets: {name} is not one number per structure; this model predicts "
                    f"{', '.join(q for q in QUANTITIES if _is_number(q))}"
                )
        self._learner = learner
        self._features = features
        self._targets = tuple(targets)
        self._unseen: Unseen = unseen
        self._featurizer: Any = None
        self._columns: dict[str, np.ndarray] = {}
        self._fitted: dict[str, Fitted] = {}
        self._elements: frozenset[int] | None = None
        self._composition_only = True
        self._uses_training = learner.uses_training if learner is not None else ()

    def __repr__(self) -> str:
        state = f"of {', '.join(self._fitted)}" if self._fitted else "untrained"
        return f"<TabularModel on {self._features.use}, {state}>"

    @property
    def needs_validation(self) -> bool:
        """Whether a validation set changes what is learnt."""
        return self._learner is None or self._learner.needs_validation

    @property
    def uses_training(self) -> tuple[str, ...]:
        """Which of the training options it follows; the others are not recorded."""
        return self._uses_training

    @property
    def capabilities(self) -> Capabilities:
        """What the model can do."""
        if self._learner is not None and not self._fitted:
            has_std = self._learner.gives_std
        else:
            has_std = any(getattr(one, "has_std", False) for one in self._fitted.values())
        return Capabilities(
            targets=tuple(self._fitted) or self._targets,
            uncertainty=has_std,
            composition_only=self._composition_only,
            elements=self._elements,
        )

    # --- learning ---

    def fit(self, train: Dataset, valid: Dataset, *, run: Run) -> Mapping[str, float]:
        """Learn each target from the entries that have it; return errors on `valid`.

        Raises:
            CapabilityError: the model was loaded, or its features cannot be saved.
            ConfigError: a target has no label, or a claim has labels other than 0 and 1.
            TrainingError: there is nothing to train on, or features are not finite.
        """
        if self._learner is None:
            raise CapabilityError("a loaded model predicts; to train, build it from its spec")
        self.check_data(train, valid, run=run)
        self._features = run.registry.resolve("featurizer", self._features)
        featurizer = run.registry.build("featurizer", self._features)
        featurizer.fit(train)
        self._refuse_unsaved(featurizer, train, run.registry)
        tables = [_matrix(featurizer, part) for part in (train, valid)]
        self._featurizer = featurizer
        self._composition_only = bool(getattr(featurizer, "composition_only", False))
        self._elements = train.elements
        start = time.monotonic()
        run.started(
            {"n_train": len(train), "n_valid": len(valid), "n_features": tables[0].shape[1]}
        )
        metrics: dict[str, float] = {}
        fitted: dict[str, Fitted] = {}
        for name in self._names(train):
            child = run if len(self._names(train)) == 1 else run.child(name, training=run.training)
            fitted[name], self._columns[name] = self._fit_one(name, train, valid, tables, child)
        self._fitted = fitted
        for part, data, table in (("train", train, tables[0]), ("valid", valid, tables[1])):
            metrics |= self._errors(part, data, table)
        metrics["seconds"] = time.monotonic() - start
        run.finished(metrics)
        return metrics

    def check_data(self, train: Dataset, valid: Dataset, *, run: Run) -> None:
        """Check that `fit` can learn from these data, without any work.

        A featurizer may have `check(dataset)`: what it refuses is refused here.

        Raises:
            ArtifactError: a parent of the features cannot be read.
            CapabilityError: the features cannot be computed.
            ConfigError: a target has no label, or a claim has labels other than 0 and 1.
            TrainingError: there is nothing to train on.
        """
        if len(train) == 0:
            raise TrainingError("the training set is empty: check the split")
        names = self._names(train)
        if not names:
            raise ConfigError(
                f"targets: no number per structure to learn (there: "
                f"{', '.join(train.targets) or 'nothing'})"
            )
        for name in names:
            if name not in train.targets or not train.target(name)[1].any():
                raise ConfigError(
                    f"targets: none of the {len(train)} training entries has {name} (there: "
                    f"{', '.join(train.targets) or 'nothing'})"
                )
            values, mask = train.target(name)
            if _is_claim(name) and not np.isin(values[mask], (0.0, 1.0)).all():
                raise ConfigError(
                    f"targets: {name} is a claim, its labels must be 0 or 1; the training set has "
                    f"{values[mask][~np.isin(values[mask], (0.0, 1.0))][0]}"
                )
        check = getattr(run.registry.build("featurizer", self._features), "check", None)
        if check is not None:
            for part in (train, valid):
                check(part)

    def _names(self, train: Dataset) -> tuple[str, ...]:
        if self._targets:
            return self._targets
        return tuple(
            name for name in train.targets if _is_number(name) and train.target(name)[1].any()
        )

    def _fit_one(
        self, name: str, train: Dataset, valid: Dataset, tables: list[np.ndarray], run: Run
    ) -> tuple[Fitted, np.ndarray]:
        assert self._learner is not None  # checked in fit
        labels, mask = _labels(train, name)
        valid_labels, valid_mask = _labels(valid, name)
        features = tables[0][mask]
        columns = (features != features[:1]).any(axis=0).nonzero()[0]
        table = Table(
            name=name,
            features=features[:, columns],
            labels=labels[mask],
            valid_features=tables[1][valid_mask][:, columns],
            valid_labels=valid_labels[valid_mask],
            is_claim=_is_claim(name),
        )
        if len(columns) == 0 or (table.is_claim and len(np.unique(table.labels)) == 1):
            return Constant(value=float(table.labels.mean())), columns
        return self._learner.fit(table, run=run), columns

    def _errors(self, part: str, dataset: Dataset, table: np.ndarray) -> dict[str, float]:
        metrics = {}
        for name, fitted in self._fitted.items():
            labels, mask = _labels(dataset, name)
            if not mask.any():
                continue
            difference = fitted.predict(table[mask][:, self._columns[name]])[0] - labels[mask]
            metrics[f"{part}_{name}_mae"] = float(np.abs(difference).mean())
            metrics[f"{part}_{name}_rmse"] = float(np.sqrt((difference**2).mean()))
            if _is_claim(name):
                metrics[f"{part}_{name}_accuracy"] = float((np.abs(difference) < 0.5).mean())
        return metrics

    def _refuse_unsaved(self, featurizer: Any, train: Dataset, registry: Registry) -> None:
        """Refuse features that depend on what `fit` learnt, if that cannot be saved."""
        if hasattr(featurizer, "state"):
            return
        some = train[:2]
        again = registry.build("featurizer", self._features)
        try:
            is_same = np.array_equal(_matrix(again, some), _matrix(featurizer, some))
        except Exception:  # what an unfitted featurizer raises is its own choice
            is_same = False
        if not is_same:
            raise CapabilityError(
                f"features {self._features.use}: fit learns something, but there are no state() "
                f"and restore(arrays) with which it could be saved (docs/composition-models.md)"
            )

    # --- prediction ---

    def predict(self, dataset: Dataset) -> Predictions:
        """Predict all targets; the probability of 1 for claims.

        Raises:
            CapabilityError: the model is untrained, or an entry holds an unseen element.
        """
        if not self._fitted:
            raise CapabilityError("the model is not trained yet: call fit first")
        self._check_elements(dataset)
        table = _matrix(self._featurizer, dataset)
        means: dict[str, np.ndarray] = {}
        stds: dict[str, np.ndarray] = {}
        for name, fitted in self._fitted.items():
            mean, std = fitted.predict(table[:, self._columns[name]])
            scale = dataset.n_atoms if quantity(name).extensive else 1.0
            means[name] = mean * scale
            if std is not None:
                stds[name] = std * scale
        return Predictions(means, stds or None)

    def _check_elements(self, dataset: Dataset) -> None:
        unseen = sorted(dataset.elements - (self._elements or frozenset()))
        if not unseen:
            return
        from ase.data import chemical_symbols

        symbols = ", ".join(chemical_symbols[z] for z in unseen)
        extrapolates = bool(getattr(self._featurizer, "extrapolates", False))
        if self._unseen == "refuse" or (self._unseen == "auto" and not extrapolates):
            raise CapabilityError(
                f"no training entry held {symbols}, and {self._features.use} cannot tell what "
                f"they are: leave these entries out, train with them, use element_statistics, or "
                f"set unseen: warn"
            )
        log.warning("no training entry held %s: predictions for them extrapolate", symbols)

    # --- saving ---

    def save(self, directory: Path) -> None:
        """Write weights.safetensors: all arrays, and the rest as text in its header; no pickle.

        Raises:
            CapabilityError: the model is untrained.
            ArtifactError: the disk refuses.
        """
        if not self._fitted:
            raise CapabilityError("the model is not trained yet: call fit first")
        arrays: dict[str, np.ndarray] = {}
        for name, fitted in self._fitted.items():
            arrays[f"{name}/columns"] = self._columns[name]
            arrays |= {f"{name}/{key}": array for key, array in fitted.arrays().items()}
        if hasattr(self._featurizer, "state"):
            arrays |= {f"features/{k}": np.asarray(v) for k, v in self._featurizer.state().items()}
        facts = {
            "features": self._features.to_config(),
            "kinds": {name: fitted.kind for name, fitted in self._fitted.items()},
            "unseen": self._unseen,
            "uses_training": list(self._uses_training),
            "elements": sorted(self._elements or ()),
            "composition_only": self._composition_only,
        }
        write_arrays(Path(directory), arrays, facts)

    @classmethod
    def load(cls, directory: Path, *, registry: Registry | None = None) -> TabularModel:
        """Read what `save` wrote; scikit-learn is not needed.

        Raises:
            ArtifactError: the file is missing, damaged or of a newer version.
            PluginError: the plugin of the features is not installed.
        """
        if registry is None:
            from epitaxy.registry import Registry

            registry = Registry.from_entry_points()
        facts, arrays = read_arrays(Path(directory))
        try:
            model = cls(
                learner=None, features=Spec.from_config(facts["features"]), unseen=facts["unseen"]
            )
            for name, kind in facts["kinds"].items():
                own = _below(arrays, name)
                model._columns[name] = own.pop("columns")
                model._fitted[name] = _FITTED[kind]().from_arrays(own)
            model._uses_training = tuple(facts.get("uses_training", ()))
            model._elements = frozenset(facts["elements"])
            model._composition_only = facts["composition_only"]
        except KeyError as error:
            raise ArtifactError(
                f"{directory}: lacks {error}; install the version of epitaxy that wrote it"
            ) from error
        model._featurizer = registry.build("featurizer", model._features)
        if hasattr(model._featurizer, "restore"):
            model._featurizer.restore(_below(arrays, "features"))
        return model


def _trees() -> Any:
    from epitaxy_tabular.trees import Trees

    return Trees


def _layers() -> Any:
    from epitaxy_tabular.layers import Layers

    return Layers


def _constant() -> Any:
    return Constant


_FITTED = {"trees": _trees, "layers": _layers, "constant": _constant}


def _below(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    start = f"{prefix}/"
    return {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}


def _is_number(name: str) -> bool:
    return quantity(name).per == "structure" and not quantity(name).shape


def _is_claim(name: str) -> bool:
    return name.startswith("is_")


def _labels(dataset: Dataset, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels, per atom if extensive, and which entries have one."""
    if name not in dataset.targets or not len(dataset):
        return np.zeros(len(dataset)), np.zeros(len(dataset), dtype=bool)
    values, mask = dataset.target(name)
    return (values / dataset.n_atoms if quantity(name).extensive else values), mask


def _matrix(featurizer: Any, dataset: Dataset) -> np.ndarray:
    """Return the features of all entries, (n, width) float64.

    Raises:
        TrainingError: they are not finite.
    """
    if hasattr(featurizer, "matrix"):
        table = np.asarray(featurizer.matrix(dataset), dtype=np.float64)
    else:
        rows = [
            np.concatenate([np.ravel(array) for array in featurizer(entry).values()])
            for entry in dataset
        ]
        table = np.array(rows, dtype=np.float64) if rows else np.zeros((0, 0))
    if len(dataset) and not np.isfinite(table).all():
        row = int((~np.isfinite(table)).any(axis=1).argmax())
        raise TrainingError(f"features of entry {dataset.ids[row]!r} are not finite")
    return table
