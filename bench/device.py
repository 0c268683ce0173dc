"""Where a benchmark runs: the option --device, and a clock that waits for a GPU."""

from __future__ import annotations

import time
from argparse import ArgumentParser

import torch

from epitaxy.errors import ConfigError
from epitaxy.run import Run


def add_device(parser: ArgumentParser) -> None:
    """Declare ``--device``: one or several, each measured in turn; the CPU by default."""
    parser.add_argument(
        "--device",
        nargs="+",
        default=["cpu"],
        metavar="NAME",
        help="cpu, cuda, cuda:1 ...: each is measured and printed beside the others",
    )


def checked(parser: ArgumentParser, names: list[str]) -> list[torch.device]:
    """Return the devices; one that is not here ends the program with its name."""
    try:
        return [Run("", device=name).torch_device() for name in names]
    except ConfigError as error:
        parser.error(str(error))


def seconds(device: torch.device) -> float:
    """Return CPU seconds of this process, or on a GPU wall seconds when its work is done."""
    if device.type == "cpu":
        return time.process_time()
    return wall_seconds(device)


def wall_seconds(device: torch.device) -> float:
    """Return wall seconds, on a GPU when its work is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
