"""The command that goes on with what was stopped."""

from __future__ import annotations

import shlex
from argparse import Namespace


def resume_command(verb: str, args: Namespace) -> str:
    """Return what to type after a verb was stopped that trains by a config file.

    Args:
        verb: for example "train".
        args: of the verb: config, output and set.
    """
    words = ["epitaxy", verb, str(args.config), "--resume"]
    if args.output:
        words += ["-o", str(args.output)]
    for change in args.set:
        words += ["--set", change]
    return shlex.join(words)
