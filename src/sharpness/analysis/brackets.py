"""How far the largest eigenvalue of the whole training set may lie from that of the images on which it was measured."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

PERCENTS = (20, 50)


def widths_of(spectrum: pd.DataFrame) -> pd.Series:
    """The width of the bracket of each checkpoint's largest eigenvalue, relative to the eigenvalue.

    From the eigenvalue, which is at least that of the whole set on average, down to the curvature along its eigenvector
    on other images, which is at most that, less one standard error. Infinite where the standard error is not known, 0
    where all images were measured.

    Args:
        spectrum: columns run, settings, which, rank, checkpoint, step, eigenvalue, and, where other images were looked
            at, elsewhere, elsewhere_error and num_elsewhere.

    Returns:
        The widths by run, settings, checkpoint and step, without those of which nothing is known.
    """
    place = ["run", "settings", "checkpoint", "step"]
    leading = spectrum[(spectrum["which"] == "largest") & (spectrum["rank"] == 0)]
    leading = leading[np.isfinite(leading["eigenvalue"])].drop_duplicates(place)
    known = leading.reindex(columns=[*place, "eigenvalue", "elsewhere", "elsewhere_error", "num_elsewhere"])
    below = known["eigenvalue"] - known["elsewhere"] + known["elsewhere_error"].fillna(np.inf)
    widths = (below / known["eigenvalue"].abs()).mask(known["num_elsewhere"] == 0, 0.0)
    widths.index = pd.MultiIndex.from_frame(known[place])
    is_known = known["elsewhere"].notna() | (known["num_elsewhere"] == 0)
    return widths[is_known.to_numpy()]


def in_words(spectra: Iterable[pd.DataFrame]) -> str:
    """Say in how many checkpoints of some tables the bracket is narrow; empty where none has other images.

    Args:
        spectra: as ``widths_of`` takes them; a checkpoint that several have counts once.
    """
    found = [widths for table in spectra if len(widths := widths_of(table))]
    if not found:
        return ""
    widths = pd.concat(found)
    widths = widths[~widths.index.duplicated()]
    narrow, wide = ((widths <= percent / 100).sum() for percent in PERCENTS)
    return (
        f"The whole training set's largest eigenvalue lies within {PERCENTS[0]} % of the measured one in {narrow:,} of "
        f"{len(widths):,} checkpoints, within {PERCENTS[1]} % in {wide:,}: on average it is between that one and the "
        "curvature along the same eigenvector on other images, here less a standard error"
    )
