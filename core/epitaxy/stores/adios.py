"""One ADIOS2 BP5 file as a set of named arrays that grow along their first axis.

The adios2 wheel stores wrong values for arrays that are not contiguous, ends the process in the
destructor of a file that met a full disk, and takes neither booleans nor half precision nor
arrays without rows. This module is the only one that talks to it:

- arrays are made contiguous, writable and of native byte order; bool is kept as uint8, float16
  as uint16;
- an array without rows is not written, the list of columns says that it is there;
- no operators (compression): some of them end the process;
- a file that cannot be completed is emptied, and ADIOS2 completes it in memory;
- a reader that a forked process inherits is opened again there, because the two would share
  the positions in its files.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from epitaxy.errors import MissingDependencyError, StoreError

_STORED_AS = {"bool": "uint8", "float16": "uint16"}
_WAITING_BYTES = 1 << 20  # kept by ADIOS2 before it writes; each write starts on a new page
_KINDS = ("int", "uint", "float", "complex")


def load_adios2() -> ModuleType:
    """Return the module `adios2`; it is imported here because it imports torch.

    Raises:
        MissingDependencyError: it is not installed; the message has the pip command.
    """
    try:
        import adios2
    except ImportError as error:
        raise MissingDependencyError(
            "BP5 files need adios2, which is not installed; install with: "
            "pip install 'epitaxy[adios2]'"
        ) from error
    module: ModuleType = adios2
    return module


@contextmanager
def adios2_errors(path: Path, verb: str) -> Iterator[None]:
    """Turn what ADIOS2 raises into a `StoreError` that names the file."""
    try:
        yield
    except (RuntimeError, ValueError, IndexError, KeyError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{path}: cannot be {verb} by ADIOS2: {_plain(error)}") from error


def _plain(error: BaseException) -> str:
    """Return the last part of a message of ADIOS2, without its colours and its time."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).replace("\n: iostream error", "")
    return re.sub(r"^\[.*?\] \[ADIOS2 EXCEPTION\]\s*(<[^>]*>\s*)*:?\s*", "", text).strip()


class ColumnFileWriter:
    """Writes arrays into a new BP5 file, block after block, in bounded memory.

    Args:
        path: of the file (a directory in BP5) to make.
        statistics: keep the smallest and largest value of each block.

    Raises:
        StoreError: the file cannot be made.
    """

    def __init__(self, path: Path, *, statistics: bool = False):
        self.path = path
        self._adios2 = load_adios2()
        self._variables: dict[str, Any] = {}
        self._is_open = True
        self._n_bytes = 0
        bindings = self._adios2.bindings
        with adios2_errors(path, "made"):
            self._adios = bindings.ADIOS()
            self._io = self._adios.DeclareIO("epitaxy")
            self._io.SetEngine("BP5")
            self._io.SetParameters({"StatsLevel": str(int(statistics))})
            self._engine = self._io.Open(str(path), bindings.Mode.Write)
            self._engine.BeginStep()

    def put(self, name: str, values: np.ndarray) -> None:
        """Append rows to an array.

        Args:
            name: of the array.
            values: (n, ...), any number type; all axes but the first must not change.

        Raises:
            StoreError: the disk refuses, or the type is not a number.
        """
        values = to_stored(values)
        if not values.size:
            return
        with adios2_errors(self.path, "written"):
            if name not in self._variables:
                # Without a global shape: the blocks are joined along the first axis.
                shape = [self._adios2.JoinedDim, *values.shape[1:]]
                self._variables[name] = self._io.DefineVariable(
                    name, np.empty(1, values.dtype), shape, [], list(values.shape), False
                )
            variable = self._variables[name]
            variable.SetSelection([[], list(values.shape)])
            self._put(variable, values)

    def _put(self, variable: Any, values: np.ndarray) -> None:
        self._engine.Put(variable, values, self._adios2.bindings.Mode.Sync)
        self._n_bytes += values.nbytes
        if self._n_bytes > _WAITING_BYTES:
            self._engine.PerformDataWrite()
            self._n_bytes = 0

    def put_block(
        self, name: str, values: np.ndarray, *, shape: Sequence[int], start: Sequence[int]
    ) -> None:
        """Write a block of an array whose whole shape is known.

        Args:
            name: of the array.
            values: the block, of any number type.
            shape: of the whole array.
            start: where the block begins along each axis.
        """
        values = to_stored(values)
        if not values.size:
            return
        with adios2_errors(self.path, "written"):
            if name not in self._variables:
                self._variables[name] = self._io.DefineVariable(
                    name, np.empty(1, values.dtype), list(shape), list(start), list(values.shape)
                )
            self._variables[name].SetSelection([list(start), list(values.shape)])
            self._put(self._variables[name], values)

    def set_attribute(
        self, name: str, value: str | Sequence[str] | np.ndarray, *, of: str = ""
    ) -> None:
        """Set an attribute of the file, or of one array that was put."""
        if isinstance(value, np.ndarray):
            value = to_stored(value)
        elif not isinstance(value, str):
            value = list(value)
        with adios2_errors(self.path, "written"):
            if of:
                self._io.DefineAttribute(name, value, of, "/")
            else:
                self._io.DefineAttribute(name, value)

    def close(self) -> None:
        """Complete the file.

        Raises:
            StoreError: the disk refuses; the file is emptied.
        """
        try:
            with adios2_errors(self.path, "completed"):
                self._engine.EndStep()
                self._engine.Close()
        except StoreError:
            self.abandon()
            raise
        self._is_open = False
        # How long ADIOS2 took for what, on which machine: of no use to readers.
        (self.path / "profiling.json").unlink(missing_ok=True)

    def abandon(self) -> None:
        """Give the file up: free its bytes on the disk, and never let ADIOS2 write again."""
        if not self._is_open:
            return
        self._is_open = False
        with suppress(OSError):
            for file in self.path.iterdir():
                os.truncate(file, 0)
        _write_to_memory(self.path)
        try:
            self._engine.Close()
        except RuntimeError:
            # Its destructor would write again, and where that fails it ends the process.
            import ctypes

            for kept in (self._engine, self._io, self._adios):
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))


def _write_to_memory(folder: Path) -> None:
    """Lead what this process has open in a folder to memory, where the system can."""
    with suppress(OSError, AttributeError):
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                if Path(os.readlink(f"/proc/self/fd/{name}")).parent == folder.absolute():
                    memory = os.memfd_create("epitaxy")
                    os.dup2(memory, int(name), inheritable=False)
                    os.close(memory)


def to_stored(values: np.ndarray) -> np.ndarray:
    """Return values as BP5 can hold them: contiguous, native, without bool and float16.

    Raises:
        StoreError: they are not numbers.
    """
    if not values.dtype.name.startswith(_KINDS) and values.dtype.name not in _STORED_AS:
        raise StoreError(
            f"arrays of {values.dtype} cannot be kept in BP5; texts go in as bytes (uint8) and "
            "the places where they start (epitaxy.stores.columns.Strings)"
        )
    stored = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))
    stored = stored.view(_STORED_AS.get(values.dtype.name, stored.dtype))
    # ADIOS2 ends the process if it is given a read-only array.
    return stored if stored.flags.writeable else stored.copy()


def stored_dtype(dtype: np.dtype) -> np.dtype:
    """Return the type under which BP5 holds values of a type."""
    return np.dtype(_STORED_AS.get(dtype.name, dtype.newbyteorder("=")))


class ColumnFileReader:
    """Reads ranges of the arrays of a BP5 file.

    Args:
        path: of the file.

    Raises:
        StoreError: the file cannot be opened.
    """

    def __init__(self, path: Path):
        self.path = path
        self._variables: dict[str, Any] = {}
        self._engine: Any = None
        self._io: Any = None
        self._adios: Any = None
        self._process = -1
        self._open()

    def _open(self) -> None:
        adios2 = load_adios2()
        self._mode = adios2.bindings.Mode
        self._lock = threading.Lock()
        self._process = os.getpid()
        with adios2_errors(self.path, "read"):
            self._adios = adios2.bindings.ADIOS()
            self._io = self._adios.DeclareIO("epitaxy")
            self._io.SetEngine("BP5")
            self._io.SetParameters({"Threads": "1"})  # more gain nothing and outlive a fork
            self._engine = self._io.Open(str(self.path), self._mode.ReadRandomAccess)
            self._variables = {}

    def _here(self) -> None:
        if self._process != os.getpid():
            self._open()

    def close(self) -> None:
        """Close the file."""
        if self._process == os.getpid():
            with adios2_errors(self.path, "closed"):
                self._engine.Close()

    @property
    def arrays(self) -> Mapping[str, Mapping[str, str]]:
        """Name of each array -> what ADIOS2 says about it."""
        self._here()
        with adios2_errors(self.path, "read"):
            found: Mapping[str, Mapping[str, str]] = self._io.AvailableVariables()
            return found

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the attributes."""
        self._here()
        with adios2_errors(self.path, "read"):
            return tuple(self._io.AvailableAttributes())

    def texts(self, name: str) -> list[str]:
        """Return the texts of an attribute.

        Raises:
            StoreError: there is no such attribute.
        """
        return list(self._attribute(name).DataString())

    def numbers(self, name: str) -> np.ndarray:
        """Return the numbers of an attribute.

        Raises:
            StoreError: there is no such attribute.
        """
        return np.asarray(self._attribute(name).Data())

    def _attribute(self, name: str) -> Any:
        self._here()
        with adios2_errors(self.path, "read"):
            attribute = self._io.InquireAttribute(name)
        if not attribute:
            raise StoreError(f"{self.path}: it has no attribute {name!r}: edited, or no dataset")
        return attribute

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of an array.

        Raises:
            StoreError: there is no such array.
        """
        self._here()
        return tuple(self._variable(name)[1])

    def _variable(self, name: str) -> tuple[Any, list[int]]:
        if name not in self._variables:
            with adios2_errors(self.path, "read"):
                variable = self._io.InquireVariable(name)
            if not variable:
                raise StoreError(f"{self.path}: it has no array {name!r}: edited, or no dataset")
            self._variables[name] = variable, variable.Shape()
        found: tuple[Any, list[int]] = self._variables[name]
        return found

    def read(self, name: str, out: np.ndarray, *, start: int = 0, axis: int = 0) -> None:
        """Fill `out` with consecutive rows of an array.

        Args:
            name: of the array.
            out: contiguous, of the type in which the array is stored.
            start: first row.
            axis: the axis along which rows are counted.

        Raises:
            StoreError: there is no such array, it has another type or shape, or is shorter.
        """
        if not out.flags.c_contiguous:
            raise ValueError("ADIOS2 would fill an array that is not contiguous with other values")
        if not out.size:
            return
        self._here()
        with self._lock:
            variable, shape = self._variable(name)
            first = [0] * out.ndim
            first[axis] = start
            rest = [*out.shape[:axis], *out.shape[axis + 1 :]]
            if (
                len(shape) != out.ndim
                or rest != [*shape[:axis], *shape[axis + 1 :]]
                or start + out.shape[axis] > shape[axis]
                or _NAMES.get(variable.Type(), variable.Type()) != out.dtype.name
            ):
                raise StoreError(
                    f"{self.path}: {name} is {variable.Type()} of shape {tuple(shape)}; rows "
                    f"{start} to {start + out.shape[axis]} as {out.dtype} of shape {out.shape} "
                    "are expected: edited, or a file of another dataset"
                )
            with adios2_errors(self.path, "read"):
                variable.SetSelection([first, list(out.shape)])
                self._engine.Get(variable, out, self._mode.Sync)


_NAMES = {"float": "float32", "double": "float64", "float complex": "complex64"}
_NAMES |= {"double complex": "complex128"}
_NAMES |= {f"{u}int{n}_t": f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)}
