"""The command line: reads the words, and ends with one sentence where something is wrong with them."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command with this process's arguments; what stands after ``--`` is handed to Snakemake."""
    words = sys.argv[1:]
    own, for_snakemake = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    if own[:1] == ["--version"]:
        from sharpness.version import __version__

        print(f"sharpness {__version__}")
        return
    try:
        import tyro

        from sharpness.command.commands import commands

        tyro.extras.subcommand_cli_from_dict(
            commands(for_snakemake),
            prog="sharpness",
            description="Where SGD goes: the curvature of a network's loss along its training trajectory.",
            args=own or ["--help"],
            config=(tyro.conf.PositionalRequiredArgs, tyro.conf.FlagCreatePairsOff),
        )
    except ModuleNotFoundError as error:
        sys.exit(f"sharpness: the command needs {error.name}, as the pipeline does: pip install 'sharpness[workflow]'")
    except ValueError as error:
        sys.exit(f"sharpness: {error}")


if __name__ == "__main__":
    main()
