"""The command line: reads the words, and ends with one sentence where something is wrong with them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches


def main() -> None:
    """Run the command with this process's arguments; what stands after ``--`` is handed to Snakemake."""
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    own, for_snakemake = words[:cut], words[cut + 1 :]
    if own[:1] == ["--version"]:
        from sharpness.version import __version__

        print(f"sharpness {__version__}")
        return
    try:
        _do(own or ["--help"], for_snakemake)
    except ModuleNotFoundError as error:
        sys.exit(f"sharpness: the command needs {error.name}: run pip install '.[workflow]' in the project's folder")
    except ValueError as error:
        sys.exit(f"sharpness: {error}")
    except BrokenPipeError:  # whoever read the output has seen enough
        sys.stderr.close()
    except OSError as error:
        sys.exit(f"sharpness: {error.filename or 'a file'}: {error.strerror or error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _do(own: Sequence[str], for_snakemake: Sequence[str]) -> None:
    from sharpness.command import commands, parsing

    name, *rest = own
    if name in ("-h", "--help", "help"):
        print(parsing.usage(commands.COMMANDS))
        return
    if name not in commands.COMMANDS:
        raise ValueError(_no_command(name, list(commands.COMMANDS)))
    given = parsing.read(name, commands.COMMANDS[name], rest)
    if name in commands.HANDED_ON:
        given["for_snakemake"] = for_snakemake
    elif for_snakemake:
        raise ValueError(f"{name} passes nothing on to Snakemake; {', '.join(commands.HANDED_ON)} do")
    commands.COMMANDS[name](**given)


def _no_command(name: str, names: list[str]) -> str:
    from sharpness.command.studies import known

    if name in known():
        return f"{name} is a study; put a command before it, as in: sharpness run {name}"
    near = get_close_matches(name, names, n=2)
    return f"there is no command {name!r}; " + (f"nearest: {', '.join(near)}" if near else f"use {', '.join(names)}")


if __name__ == "__main__":
    main()
