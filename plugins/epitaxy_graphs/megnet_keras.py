"""Weights of a MEGNet that Keras has written (HDF5), as a `property` model of ours.

The layout: `model_config` (JSON: layers and what feeds them) and `model_weights` in FILE, and the
converter of graphs (cutoff, Gaussians) in FILE.json beside it, as megnet 0.2 to 1.3 save them. The
parent of AtomSets is of this kind (maml 2025.4.3, BSD-3). Layers are found by what feeds them, not
by their numbers.

What the released code does and its papers do not say, all of it needed for the right numbers: the
last layer of each update is linear, set2set forgets the cell of its LSTM, its gates are hard
sigmoids, and it takes as many passes as the file says (2 in the parent of AtomSets, not 3).
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from epitaxy.errors import ArtifactError
from epitaxy.heads import HeadOptions
from epitaxy.multitask import MultitaskNetwork
from epitaxy.property_model import PropertyModel
from epitaxy.spec import Spec
from epitaxy.weights import write_weights
from epitaxy_graphs.megnet import EDGES, GAUSSIAN_WIDTH, MEGNet

if TYPE_CHECKING:
    from epitaxy.registry import Registry

BODY = "graphs/megnet"
UNTRAINED = 0.05
"""Keras begins embeddings with numbers up to this; elements without data keep them."""

_TARGETS = {"formation energy": "formation_energy", "band gap": "band_gap"}
_Tensors = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class KerasMegnet:
    """What a pair of files holds.

    Attributes:
        path: the HDF5 file.
        sha256: of the HDF5 file.
        options: of our network.
        layers: our name of a layer -> weight (n_out, n_in) and bias (n_out,); "embedding" has the
            rows of atomic numbers 0, 1, ...
        elements: atomic numbers that were trained.
        metadata: what the authors say about it.
    """

    path: Path
    sha256: str
    options: Mapping[str, Any]
    layers: Mapping[str, tuple[np.ndarray, ...]]
    elements: tuple[int, ...]
    metadata: Mapping[str, Any]

    @property
    def target(self) -> str | None:
        """The quantity that the authors name; None if they do not."""
        return _TARGETS.get(str(self.metadata.get("name", "")).lower())


def convert(found: KerasMegnet, *, target: str, registry: Registry) -> PropertyModel:
    """Return the model; it says where it is from in its `lineage`.

    Args:
        found: what `read_keras` returned.
        target: the quantity that it predicts, per structure.
        registry: where the network is found.

    Raises:
        ArtifactError: the weights do not fit our network.
    """
    spec = registry.resolve("model", Spec(BODY, dict(found.options)))
    head = HeadOptions()
    network = MultitaskNetwork(
        registry.factory("model", spec)(), targets={target: head}, elements=found.elements
    )
    fill(network, target, found)
    facts = {
        "spec": PropertyModel(body=spec, targets={target: head}).spec.to_config(),
        "elements": list(found.elements),
        "branches": [""],
        "derivatives": [],
        "dtype": "float32",
    }
    with tempfile.TemporaryDirectory() as folder:
        write_weights(Path(folder), network, facts)
        model = PropertyModel.load(Path(folder), registry=registry)
    model.lineage = {  # type: ignore[attr-defined]
        "converted_from": found.path.name,
        "sha256": found.sha256,
        "edges": EDGES,
        "metadata": dict(found.metadata),
    }
    return model


def fill(network: MultitaskNetwork, target: str, found: KerasMegnet) -> None:
    """Write the weights into a network.

    Raises:
        ArtifactError: a shape differs.
    """
    body, heads = network.body, network.heads[target]
    assert isinstance(body, MEGNet)
    assert isinstance(heads, nn.ModuleList)
    ours: dict[str, nn.Module] = {}
    for k, block in enumerate(body.blocks):
        parts = {"edge": block.edge, "atom": block.atom, "state": block.state}
        parts |= {f"dense_{n}": m for n, m in zip("evu", block.dense, strict=True)}
        ours |= {f"block{k}.{name}": part for name, part in parts.items()}
    ours |= {"head": heads[0]}
    with torch.no_grad():
        _copy("embedding", body.embedding.table.weight, found.layers["embedding"][0][1:])
        for name, part in ours.items():
            layers = [m for m in part.modules() if isinstance(m, nn.Linear)]
            for j, layer in enumerate(layers):
                _copy_layer(f"{name}.{j}", layer, found)
        for name, readout in (("atoms", body.read_atoms), ("edges", body.read_edges)):
            for kind in ("memory", "gates"):
                _copy_layer(f"{name}.{kind}", getattr(readout, kind), found)


def _copy_layer(name: str, layer: nn.Linear, found: KerasMegnet) -> None:
    if name not in found.layers:
        raise ArtifactError(f"{found.path}: it has no layer for {name} of our network")
    weight, bias = found.layers[name]
    _copy(name, layer.weight, weight)
    _copy(name, layer.bias, bias)


def _copy(name: str, ours: torch.Tensor, theirs: np.ndarray) -> None:
    if tuple(ours.shape) != theirs.shape:
        raise ArtifactError(
            f"{name}: the file has the shape {theirs.shape}, our network {tuple(ours.shape)}"
        )
    ours.copy_(torch.from_numpy(np.ascontiguousarray(theirs)))


def read_keras(path: Path) -> KerasMegnet:
    """Read and check both files.

    Raises:
        ArtifactError: a file is missing, cut short, of another kind, or holds a network that ours
            cannot be; the message names it.
    """
    import h5py

    path = Path(path)
    beside = path.with_name(path.name + ".json")
    for needed in (path, beside):
        if not needed.is_file():
            raise ArtifactError(f"{needed} is missing: a Keras MEGNet is FILE and FILE.json")
    converter, metadata = _graph_facts(beside)
    try:
        with h5py.File(path) as file:
            layers = json.loads(file.attrs["model_config"])["config"]["layers"]
            tensors = {name: _tensors(group) for name, group in file["model_weights"].items()}
    except (OSError, KeyError, json.JSONDecodeError, RuntimeError, TypeError) as error:
        raise ArtifactError(
            f"{path}: cannot be read ({error}); it was cut short, or Keras has not written it. Get "
            f"the file again; nothing was written"
        ) from error
    for layer, arrays in tensors.items():
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise ArtifactError(f"{path}: {layer}/{name} holds numbers that are not finite")
    try:
        options, named = _Plan(layers).network(tensors)
    except (KeyError, IndexError, StopIteration, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{path}: not a MEGNet with dense layers before each block and two set2set "
            f"({type(error).__name__}: {error})"
        ) from error
    table = named["embedding"][0]
    elements = tuple(int(z) for z in np.flatnonzero(np.abs(table).max(axis=1) > UNTRAINED) if z)
    return KerasMegnet(
        path,
        hashlib.sha256(path.read_bytes()).hexdigest(),
        {**options, **converter, "elements": list(range(1, len(table)))},
        named,
        elements,
        metadata,
    )


def _graph_facts(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options that say how graphs are made, and the metadata."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        converter = facts["graph_converter"]
        bonds = converter["bond_converter"]
        centers = np.asarray(bonds["centers"]["data"], dtype=np.float64)
        cutoff, width = float(converter["cutoff"]), float(bonds["width"])
        scaler = facts.get("target_scaler", {}).get("@class", "DummyScaler")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path}: cannot be read ({type(error).__name__}: {error}); it holds cutoff and "
            f"Gaussians, so get it again"
        ) from error
    grid = np.linspace(0.0, centers[-1], len(centers))
    if bonds["@class"] != "GaussianDistance" or width != GAUSSIAN_WIDTH:
        raise ArtifactError(
            f"{path}: bonds are {bonds['@class']} of width {width}; ours are Gaussians of width "
            f"{GAUSSIAN_WIDTH} Å"
        )
    if not np.allclose(centers, grid, atol=1e-6) or scaler != "DummyScaler":
        raise ArtifactError(
            f"{path}: Gaussians from {centers[0]:g} to {centers[-1]:g} Å, scaler {scaler}; "
            f"expected equal steps from 0 and no scaler"
        )
    return (
        {"cutoff": cutoff, "n_gaussians": len(centers), "longest": float(centers[-1])},
        facts.get("metadata", {}),
    )


def _tensors(group: Any) -> dict[str, np.ndarray]:
    """Return the arrays below a group by the last part of their names, without ':0'."""
    found: dict[str, np.ndarray] = {}

    def add(name: str, item: Any) -> None:
        if hasattr(item, "shape"):
            found[name.rpartition("/")[2].removesuffix(":0")] = item[()]

    group.visititems(add)
    return found


class _Plan:
    """The layers of a Keras model and what feeds them."""

    def __init__(self, layers: list[dict[str, Any]]) -> None:
        self.config = {layer["name"]: layer["config"] for layer in layers}
        self.kind = {layer["name"]: layer["class_name"] for layer in layers}
        self.fed_by = {
            layer["name"]: [node[0] for node in (layer["inbound_nodes"] or [[]])[0]]
            for layer in layers
        }

    def network(
        self, tensors: Mapping[str, _Tensors]
    ) -> tuple[dict[str, Any], dict[str, tuple[np.ndarray, ...]]]:
        """Return the options of our network and its layers."""
        named: dict[str, tuple[np.ndarray, ...]] = {}
        blocks = self._of_kind("MEGNetLayer")
        for k, block in enumerate(blocks):
            self._demand(block, pool_method="mean", activation="softplus2", use_bias=True)
            v, e, u = self.fed_by[block][:3]
            for letter, last in (("v", v), ("e", e), ("u", u)):
                (first,) = self.fed_by[last]
                for j, name in enumerate((first, last)):
                    self._demand(name, activation="softplus2")
                    named[f"block{k}.dense_{letter}.{j}"] = _dense(tensors[name])
            for letter, part in (("e", "edge"), ("v", "atom"), ("u", "state")):
                n_layers = len(self.config[block][f"units_{letter}"])
                for j in range(n_layers):
                    weight = tensors[block][f"weight_{letter}_{j}"].T
                    named[f"block{k}.{part}.{j}"] = (weight, tensors[block][f"bias_{letter}_{j}"])
        (joined,) = self._of_kind("Concatenate")
        atoms, edges, _ = self.fed_by[joined]
        for part, name in (("atoms", atoms), ("edges", edges)):
            self._demand(name, recurrent_activation="hard_sigmoid", activation_lstm="tanh")
            t = tensors[name]
            named[f"{part}.memory"] = (t["x_to_m_weight"].T, t["x_to_m_bias"])
            named[f"{part}.gates"] = (t["recurrent_kernel"].T, t["recurrent_bias"])
        last, j = joined, 0
        while following := [n for n, fed in self.fed_by.items() if last in fed]:
            (last,) = following
            named[f"head.{j}"] = _dense(tensors[last])
            j += 1
        self._demand(last, activation="linear")
        (embedding,) = self._of_kind("Embedding")
        table = tensors[embedding]["embeddings"]
        named["embedding"] = (table,)
        wide, second, narrow = self.config[blocks[0]]["units_e"]
        if wide != second or named["head.0"][0].shape[0] != narrow:
            raise ValueError(f"widths {wide}, {second}, {narrow} are not those of ours")
        options = {
            "embedding_width": table.shape[1],
            "hidden": [wide, narrow],
            "n_blocks": len(blocks),
            "n_readout": self.config[atoms]["n_hidden"],
            "n_passes": self.config[atoms]["T"],
            "n_states": int(named["block0.dense_u.0"][0].shape[1]),
            "readout": "released",
        }
        return options, named

    def _of_kind(self, kind: str) -> list[str]:
        return [name for name, found in self.kind.items() if found == kind]

    def _demand(self, name: str, **expected: object) -> None:
        for option, value in expected.items():
            if self.config[name][option] != value:
                raise ValueError(f"{name} has {option} {self.config[name][option]!r}, not {value}")


def _dense(tensors: _Tensors) -> tuple[np.ndarray, ...]:
    return tensors["kernel"].T, tensors["bias"]
