"""Every colour with a meaning. All survive the common forms of colour blindness."""

import itertools
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import matplotlib
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_hex

from sharpness.analysis.tables import batch_order
from sharpness.study.varied import in_order

Value = TypeVar("Value", bound=Hashable)

# Okabe and Ito, "Color universal design", 2008; a reader calls the third of them dark orange.
BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
RED = "#D55E00"
GREY = "#777777"

# By rank, largest first: the poster's red to blue, with a middle dark enough for a white page.
RANKS: Colormap = LinearSegmentedColormap.from_list("ranks", [RED, "#8C5A7C", BLUE])
EIGENVALUES: Colormap = matplotlib.colormaps["viridis"]
# The rest of viridis is too light for a line on white.
LIGHTEST = 0.85
VALUES: Colormap = LinearSegmentedColormap.from_list("values", EIGENVALUES([LIGHTEST * i / 255 for i in range(256)]))
# Factors on the step: warm below one, black for SGD itself, blue above.
FACTORS: Colormap = LinearSegmentedColormap.from_list(
    "factors",
    [(0, "#660000"), (0.09, "#A01818"), (0.24, "#F08A24"), (0.5, "#222222"), (0.69, "#56B4E9"), (0.76, "#0067B1"),
     (1, "#00204D")],
)  # fmt: skip


class Scale(NamedTuple):
    """Where the values of a setting stand among its colours."""

    colours: Colormap
    middle: float  # the value in the middle
    power: float  # how fast the colours change around it, in decades


SCALES = {
    "learning_rate": Scale(VALUES, 0.02, 1.0),
    "batch_size": Scale(VALUES, 90.0, 1.0),
    "gamma": Scale(FACTORS, 1.0, 0.5),
}


# Between two colours of a scale, at least, that stand beside one another.
NEAREST = 0.05


def colour_of(setting: str, value: float | str) -> str:
    """The colour of a setting's value: the same in every figure of every study, and another one for each value.

    Args:
        setting: one of ``SCALES``.
        value: positive, or "full" for a batch size.
    """
    return to_hex(SCALES[setting].colours(_place(setting, value)))


def _place(setting: str, value: float | str) -> float:
    """From 0 for the smallest to 1 for the largest, with no value out of range."""
    _, middle, power = SCALES[setting]
    return float(1 / (1 + (middle / batch_order(value)) ** power))


def colours_of(setting: str, values: Iterable[Value]) -> dict[Value, str]:
    """A colour for each value of an axis, in order: that of ``colour_of``, or by their order where those are too near.

    Args:
        setting: the field that the axis is of.
        values: numbers or words.
    """
    found = in_order(values)
    if setting not in SCALES:
        return ordered_colours(found)
    places = sorted(_place(setting, value) for value in found)  # type: ignore[arg-type]
    if any(after - before < NEAREST for before, after in itertools.pairwise(places)):
        return ordered_colours(found)
    return {value: colour_of(setting, value) for value in found}  # type: ignore[arg-type]


def ordered_colours(values: Sequence[Value]) -> dict[Value, str]:
    """A colour for each of some values that have an order, dark for the first, light for the last."""
    return {value: to_hex(VALUES(index / max(1, len(values) - 1))) for index, value in enumerate(values)}
