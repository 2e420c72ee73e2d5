"""Every colour with a meaning. All survive the common forms of colour blindness."""

from collections.abc import Hashable, Sequence
from typing import TypeVar

import matplotlib
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_hex

Value = TypeVar("Value", bound=Hashable)

# Okabe and Ito, "Color universal design", 2008.
BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
RED = "#D55E00"
GREY = "#777777"

# By rank, largest first: the poster's red to blue, with a middle dark enough for a white page.
RANKS: Colormap = LinearSegmentedColormap.from_list("ranks", [RED, "#8C5A7C", BLUE])
EIGENVALUES: Colormap = matplotlib.colormaps["viridis"]


def ordered_colours(values: Sequence[Value]) -> dict[Value, str]:
    """A colour for each of some values that have an order, dark for the first, light for the last."""
    # The last fifth of viridis is too light for a line on white.
    shades = [0.8 * index / max(1, len(values) - 1) for index in range(len(values))]
    return {value: to_hex(EIGENVALUES(shade)) for value, shade in zip(values, shades, strict=True)}
