"""A time axis on which the first epochs are not a sliver."""

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

EARLY = 2  # epochs shown linearly, as on the poster
TICKS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500)
DECADES = (0, 2, 10, 100, 1000, 10_000, 100_000)  # of a run so long that others would lie on one another


def from_start(axes: Axes, last: float) -> None:
    """Let the x axis begin at zero and end with the last measurement, if there is one after the start."""
    if last > 0:
        axes.set_xlim(0, last)


def stretch_early(axes: Axes, last_epoch: float) -> None:
    """Make the x axis linear up to two epochs and logarithmic after, with a line where it changes."""
    if last_epoch > 2 * EARLY:
        axes.set_xscale("symlog", linthresh=EARLY, linscale=0.6)
        axes.axvline(EARLY, color="0.6", linewidth=0.8, linestyle=":", zorder=0)
        ticks = TICKS if last_epoch < 1000 else DECADES
        axes.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if tick <= last_epoch]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda epoch, _: f"{epoch:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    from_start(axes, last_epoch)


def early_label(last_epoch: float) -> str:
    """What the axis must say about itself."""
    return f"epoch (linear to {EARLY}, then log)" if last_epoch > 2 * EARLY else "epoch"
