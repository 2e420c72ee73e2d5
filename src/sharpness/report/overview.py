"""The picture that a report begins with: the largest eigenvalue along training, by what steers it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sharpness.analysis.axes import grid_axes, with_axis
from sharpness.analysis.figures.palette import colours_of
from sharpness.analysis.figures.runs import models, name_of, settings_in_words, text
from sharpness.analysis.tables import trajectory
from sharpness.report.explorer import rounded
from sharpness.study.varied import Axis

# By what sharpness is steered, in the reader's words, and the claims that a panel bears on.
STEERED = {
    "learning_rate": ("learning rate", "bo"),
    "batch_size": ("batch size", "d"),
    "gamma": ("γ", "kl"),
}


@dataclass(frozen=True)
class Panel:
    """The largest eigenvalue over the epochs, a line for each value of one setting."""

    setting: str
    title: str
    fixed: str  # what the runs have in common
    lines: Sequence[dict[str, Any]]  # label, colour, epochs, mean, low, high
    claims: str  # letters
    experiment: str

    @property
    def in_words(self) -> str:
        """What is drawn, for those who do not see it."""
        ends = [f"{line['label']}: peak {max(line['mean']):.3g}, end {line['mean'][-1]:.3g}" for line in self.lines]
        return f"Largest eigenvalue over the epochs, by {self.title}. {'; '.join(ends)}."


def panels(spectra: Iterable[pd.DataFrame]) -> list[Panel]:
    """A panel for each setting that a study varies, of the first network that has it; none where it varies none.

    Args:
        spectra: the collected ones of the experiments.
    """
    found: dict[str, Panel] = {}
    for spectrum in spectra:
        planned = spectrum[(spectrum["which"] == "largest") & (spectrum["checkpoint"] == "planned")]
        for grid, axis in grid_axes(planned).items():
            if axis.field not in (*found, "learning_rate_epochs"):  # a change of the rate steers only after it
                rows = models(trajectory(planned[planned["grid"] == grid]).query("rank == 0"))[0]
                if (panel := _panel(axis, with_axis(rows, axis))) is not None:
                    found[axis.field] = panel
    return [found[setting] for setting in dict.fromkeys([*STEERED, *found]) if setting in found]


def _panel(axis: Axis, rows: pd.DataFrame) -> Panel | None:
    setting, column, lines = axis.field, axis.column, []
    for value, colour in colours_of(setting, rows[column]).items():
        of_value = rows[(rows[column] == value) & ~rows["diverged"] & rows["eigenvalue"].notna()]
        over_seeds = of_value.groupby("epoch")["eigenvalue"].agg(["mean", "min", "max"])
        if len(over_seeds) > 1:
            lines.append(
                {
                    "label": text(value),
                    "colour": colour,
                    "epochs": rounded(over_seeds.index),
                    "mean": rounded(over_seeds["mean"]),
                    "low": rounded(over_seeds["min"]),
                    "high": rounded(over_seeds["max"]),
                }
            )
    if len(lines) < 2:
        return None
    title, claims = STEERED.get(setting, (axis.words, ""))
    others = [field for field in STEERED if field != setting and (field != "gamma" or (rows[field] != 1).any())]
    seeds = rows["seed"].nunique()
    fixed = ", ".join(
        part
        for part in (name_of(rows), settings_in_words(rows, *others), f"{seeds} seed{'' if seeds == 1 else 's'}")
        if part
    )
    return Panel(setting, title, fixed, lines, claims, str(rows["experiment"].iloc[0]))
