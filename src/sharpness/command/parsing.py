"""Read what stands after a command's name, and say in one sentence what is wrong with it."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

_HANDS_ON = "put arguments of Snakemake after --"


def read(name: str, command: Callable[..., None], words: Sequence[str]) -> dict[str, Any]:
    """Read the words after a command's name.

    Args:
        name: of the command.
        command: the function behind it, whose docstring is the help.
        words: as typed.

    Returns:
        The function's arguments. Words that cannot be read end the process with one sentence.
    """
    parser = _Parser(name, inspect.getdoc(command) or "")
    _ARGUMENTS.get(name, _study)(parser)
    given, left = parser.parse_known_intermixed_args(list(words))
    if left:
        parser.error(_unknown(left, parser, inspect.signature(command)))
    return vars(given)


def usage(commands: Mapping[str, Callable[..., None]]) -> str:
    """Say what there is to type: a line for each command, from its docstring."""
    lines = [f"  {name:<9}{_first_line(command)}" for name, command in commands.items()]
    return "\n".join(
        [
            "usage: sharpness COMMAND STUDY",
            "",
            "Where SGD goes: the curvature of a network's loss along its training trajectory.",
            "",
            *lines,
            "",
            "STUDY is the path of a study's file, or the name of a study in this folder or of one that is shipped.",
            "More about a command: sharpness COMMAND --help. The version: sharpness --version.",
        ]
    )


def cores(text: str) -> str:
    """Check a number of cores.

    Raises:
        argparse.ArgumentTypeError: it is no whole number from 1 on, nor ``all``.
    """
    if text != "all" and not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"give a number from 1 on, or all; got {text!r}")
    return text


class _Parser(argparse.ArgumentParser):
    def __init__(self, name: str, text: str) -> None:
        super().__init__(
            prog=f"sharpness {name}",
            description=text.partition("\n\nArgs:")[0],
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; {self.prog} --help says more\n")


def _study(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", metavar="STUDY", help="name or file of the study")


def _plan(parser: argparse.ArgumentParser) -> None:
    _study(parser)
    parser.add_argument(
        "--config",
        metavar="KEY=VALUE",
        nargs="+",
        default=[],
        help="override values of the file, for example defaults.epochs=3",
    )


def _new(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="lower-case letters, digits and _, starting with a letter")


def _run(parser: argparse.ArgumentParser) -> None:
    _plan(parser)
    parser.add_argument("targets", metavar="FILE", nargs="*", default=[], help="make only these and what they need")
    parser.add_argument("--cores", metavar="N", type=cores, help="cores of this machine to use (default: all)")
    parser.add_argument("--profile", help="Snakemake's profile of a cluster: slurm, or a folder of your own")


def _show(parser: argparse.ArgumentParser) -> None:
    _study(parser)
    parser.add_argument(
        "--settings",
        action="store_true",
        help="print the whole study, and where each value comes from",
    )


def _report(parser: argparse.ArgumentParser) -> None:
    _study(parser)
    parser.add_argument(
        "--together",
        metavar="STUDY",
        nargs="+",
        default=[],
        help="put these finished or published studies into the same page, results/report.html",
    )


_ARGUMENTS = {"new": _new, "plan": _plan, "run": _run, "show": _show, "report": _report}


def _first_line(command: Callable[..., None]) -> str:
    return (inspect.getdoc(command) or "").partition("\n")[0]


def _unknown(words: Sequence[str], parser: argparse.ArgumentParser, of_command: inspect.Signature) -> str:
    """Say which words nobody knows, and what may have been meant."""
    said = f"unknown argument: {' '.join(words)}"
    options = [option for action in parser._actions for option in action.option_strings]
    if near := get_close_matches(words[0], options, n=1):
        return f"{said}; nearest: {near[0]}"
    return f"{said}; {_HANDS_ON}" if "for_snakemake" in of_command.parameters and words[0].startswith("-") else said
