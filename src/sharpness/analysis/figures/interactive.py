"""Figures to hover over and to turn, beside the static ones of the same names: tables to plotly figures."""

import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from matplotlib.colors import Colormap, to_hex
from plotly.subplots import make_subplots

from sharpness.analysis.figures.palette import EIGENVALUES, RANKS
from sharpness.analysis.figures.runs import (
    divergence_in_words,
    eigenvalue_in_words,
    epoch_in_words,
    first_seeds,
    is_measured,
    title_of,
)
from sharpness.analysis.figures.slices import in_steps, spread, turned
from sharpness.analysis.figures.spectrum import log_range
from sharpness.analysis.figures.stability import limits_of, name_of_limit
from sharpness.analysis.tables import trajectory, with_columns

ROW = 480  # pixels of height for each configuration


def spectrum(spectrum: pd.DataFrame) -> go.Figure:
    """The largest eigenvalues over the epochs on a log scale, orange (the largest) to blue, with residuals on hovering.

    One panel per configuration; of several seeds, the first.

    Args:
        spectrum: columns grid, run and the run's fields, which, checkpoint, step, epoch, rank, eigenvalue, residual.
    """
    leading = trajectory(with_columns("spectrum", spectrum))
    runs = first_seeds(leading)
    figure = make_subplots(rows=len(runs), subplot_titles=[_broken(title_of(run, leading)) for run in runs])
    for row, run in enumerate(runs, start=1):
        if not is_measured(run["eigenvalue"]):
            continue
        figure.add_traces([*_ranks(run, legend=row == 1), *_stability_limit(run)], rows=row, cols=1)
        figure.add_traces(_divergence(run), rows=row, cols=1)
        figure.update_yaxes(**_log_axis(run), row=row, col=1)
    figure.update_xaxes(title="epoch", rangemode="tozero", fixedrange=True)
    figure.update_yaxes(title=eigenvalue_in_words(leading), type="log", fixedrange=True)
    # Nothing is dragged, so that a finger on a phone scrolls the page.
    margin = {"l": 60, "r": 10, "t": 60, "b": 80}
    return _framed(figure, num_rows=len(runs), margin=margin, dragmode=False, hovermode="closest")


def slices(slices: pd.DataFrame) -> go.Figure:
    """The loss along the top eigenvector, over k and epoch, as a surface to turn, coloured by the largest eigenvalue.

    One surface per configuration, its height logarithmic, turned as in the static figure; of several seeds, the first.

    Args:
        slices: columns run and the run's fields, step, epoch, k, loss, eigenvalue.
    """
    runs = first_seeds(with_columns("slices", slices))
    here = [run[run["k"] == 0] for run in runs]
    ends = [divergence_in_words(rows) for rows in here]
    titles = [_broken(title_of(run, slices) + end) for run, end in zip(runs, ends, strict=True)]
    figure = make_subplots(
        rows=len(runs),
        specs=[[{"type": "surface"}] for _ in runs],
        subplot_titles=titles,
        # Of each row's height, for its bar of colours and the title of the next.
        vertical_spacing=0.3 / len(runs),
    )
    for row, (run, rows) in enumerate(zip(runs, here, strict=True), start=1):
        if is_measured(rows["loss"]):
            _add_surface(figure, row, run)
    return _framed(figure, num_rows=len(runs), margin={"l": 10, "r": 10, "t": 60, "b": 70})


def _ranks(run: pd.DataFrame, *, legend: bool) -> list[go.Scatter]:
    """A line for each rank; the larger lies on top."""
    num_ranks = run["rank"].nunique()
    lines = []
    for rank, line in sorted(run.groupby("rank"), key=lambda item: -item[0]):
        ends = {0: "largest", num_ranks - 1: f"rank {num_ranks}"}
        lines.append(
            go.Scatter(
                x=line["epoch"].to_numpy(),
                y=line["eigenvalue"].to_numpy(),
                customdata=line["residual"].to_numpy(),
                name=ends.get(rank, f"rank {rank + 1}"),
                mode="lines+markers",
                line={"color": to_hex(RANKS(rank / max(1, num_ranks - 1))), "width": 1.5},
                marker={"size": 4},
                showlegend=legend and rank in ends,
                legendrank=1000 + rank,
                hovertemplate=f"rank {rank + 1}<br>epoch %{{x:.4~g}}<br>eigenvalue %{{y:.4~g}}"
                "<br>residual %{customdata:.1e}<extra></extra>",
            )
        )
    return lines


def _stability_limit(run: pd.DataFrame) -> list[go.Scatter]:
    """A line, straight or along with the learning rate; none where no limit is known."""
    name, course = name_of_limit(run), limits_of(run).groupby(run["epoch"]).first()
    if not name:
        return []
    is_straight = course.nunique() == 1
    text = f"{name} = {course.iloc[0]:.3g}" if is_straight else name
    x, y = ([0, run["epoch"].max()], [course.iloc[0]] * 2) if is_straight else (course.index, course)
    return [
        go.Scatter(
            x=list(x),
            y=list(y),
            mode="lines+text",
            text=[*[""] * (len(x) - 1), text],
            textposition="top left",
            line={"color": "black", "width": 1, "dash": "dot"},
            showlegend=False,
            hovertemplate=f"{text}<extra></extra>",
        )
    ]


def _log_axis(run: pd.DataFrame) -> dict[str, object]:
    """Where the axis begins and ends, as that of the static figure, and ticks at 1, 2 and 5."""
    low, high = log_range(run)
    decades = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    ticks = [factor * 10.0**decade for decade in decades for factor in (1, 2, 5)]
    return {
        "range": [math.log10(low), math.log10(high)],
        "tickvals": ticks,
        "ticktext": [f"{tick:,.0f}" if tick >= 1 else f"{tick:g}" for tick in ticks],
    }


def _divergence(run: pd.DataFrame) -> list[go.Scatter]:
    """A cross at the last value of the largest eigenvalue, where the run diverged."""
    largest = run[run["rank"] == 0]
    reached = largest[~largest["diverged"]].tail(1)
    if reached.empty or not largest["diverged"].any():
        return []
    return [
        go.Scatter(
            x=reached["epoch"].to_numpy(),
            y=reached["eigenvalue"].to_numpy(),
            name="diverged",
            mode="markers",
            marker={"symbol": "x", "size": 11, "color": to_hex(RANKS(0.0)), "line": {"color": "black", "width": 1}},
            hovertemplate="diverged after epoch %{x:.4~g}<extra></extra>",
        )
    ]


def _add_surface(figure: go.Figure, row: int, run: pd.DataFrame) -> None:
    losses, curvature = turned(run)
    # A loss that overflows, or of zero, has no place on a logarithmic axis.
    heights = losses.where(np.isfinite(losses) & (losses > 0))
    order = np.arange(len(losses))
    chosen = spread(len(losses))
    epochs = np.broadcast_to(losses.index.to_numpy()[:, None], losses.shape)
    colours = np.broadcast_to(curvature.to_numpy()[:, None], losses.shape)
    figure.add_trace(
        go.Surface(
            x=losses.columns.to_numpy(),
            # One strip per measurement, however far apart in epochs: the early phase gets its room.
            y=order,
            z=heights.to_numpy(),
            surfacecolor=colours,
            customdata=epochs,
            colorscale=_scale(EIGENVALUES),
            cmin=curvature.min(),
            cmax=curvature.max(),
            hovertemplate=f"epoch %{{customdata:.4~g}}<br>{'k' if in_steps(run) else 'distance'} %{{x}}"
            "<br>loss %{z:.4~g}<br>largest eigenvalue %{surfacecolor:.4~g}<extra></extra>",
            contours={"x": {"highlight": False}, "z": {"highlight": False}},
        ),
        row=row,
        col=1,
    )
    for index in chosen:
        figure.add_trace(
            go.Scatter3d(
                x=losses.columns.to_numpy(),
                y=np.full(losses.shape[1], index),
                z=heights.iloc[index].to_numpy(),
                mode="lines",
                line={"color": "black", "width": 3},
                hoverinfo="skip",
                showlegend=False,
            ),
            row=row,
            col=1,
        )
    figure.update_scenes(
        # A tick at the very end of an axis would not be labelled.
        xaxis={
            "title": "k" if in_steps(run) else "distance",
            "range": [1.05 * losses.columns.min(), 1.05 * losses.columns.max()],
            "nticks": 5,
        },
        yaxis={
            "title": "epoch",
            "range": [-0.05 * len(losses), 1.05 * len(losses)],
            "tickvals": chosen,
            "ticktext": [epoch_in_words(losses.index[index]) for index in chosen],
        },
        zaxis={"title": "training loss", **_log_range(heights)},
        aspectmode="manual",
        aspectratio={"x": 1, "y": 1.15, "z": 0.75},
        camera={"eye": {"x": 1.4, "y": -1.7, "z": 1.2}, "center": {"x": -0.1, "y": -0.08, "z": -0.1}},
        row=row,
        col=1,
    )


def _log_range(heights: pd.DataFrame) -> dict[str, object]:
    """From the smallest loss to not far above the largest at the weights themselves: what is higher is not shown."""
    low, high = heights.min(axis=None), 10 * heights[0.0].max()
    shown = {"range": [math.log10(low) - 0.1, math.log10(max(high, 2 * low))]} if np.isfinite(low + high) else {}
    return {"type": "log", "dtick": 1, **shown}


def _framed(figure: go.Figure, *, num_rows: int, **layout: object) -> go.Figure:
    """The look that all share; below each surface stands its bar of colours."""
    surfaces = [trace for trace in figure.data if trace.type == "surface"]
    for index, surface in enumerate(surfaces):
        surface.colorbar = {
            "title": {"text": "largest eigenvalue", "side": "bottom"},
            "orientation": "h",
            "thickness": 10,
            "len": 0.7,
            "y": figure.layout["scene" if index == 0 else f"scene{index + 1}"].domain.y[0],
            "yanchor": "top",
        }
    figure.update_annotations(font_size=13)
    return figure.update_layout(
        height=ROW * num_rows,
        template="plotly_white",
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
        **layout,
    )


def _scale(colours: Colormap) -> list[tuple[float, str]]:
    return [(float(place), to_hex(colours(place))) for place in np.linspace(0, 1, 21)]


def _broken(title: str) -> str:
    """A title's lines, for a narrow screen."""
    return title.replace("\n", "<br>")
