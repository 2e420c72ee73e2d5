"""The report of published studies in a real browser: what one clicks, what then moves, what keys and readers find."""

import json
import os
import re
import time
from itertools import pairwise
from pathlib import Path

import browser
import pandas as pd
import pytest

from sharpness.stages.report import report

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "results"
SHOWN = "[...document.querySelectorAll('.side:not([hidden])')]"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        browser.PROGRAM is None and os.environ.get("CI") != "true", reason="no Chromium on this machine"
    ),
]


def written(page: Path, *studies: str) -> Path:
    report(
        [PUBLISHED / study / "published" for study in studies],
        captions=ROOT / "workflow" / "report",
        rules=ROOT / "docs" / "claims.md",
        citation=ROOT / "CITATION.cff",
        output=page,
        study_files=[f"workflow/studies/{study}.yaml" for study in studies],
    )
    return page


@pytest.fixture(scope="module")
def one_study(tmp_path_factory):
    return written(tmp_path_factory.mktemp("one") / "report.html", "digits")


@pytest.fixture(scope="module")
def two_studies(tmp_path_factory):
    return written(tmp_path_factory.mktemp("two") / "report.html", "digits", "fashion_mnist_exploring")


@pytest.fixture
def opened(one_study, tmp_path):
    with browser.browser(tmp_path / "profile") as page:
        page.resize(1280, 900)
        visit(page, one_study)
        yield page
        assert page.complaints == []


def visit(page, path):
    page.open(path.as_uri())
    wait(
        page,
        "document.querySelector('#explorer').hidden === false && document.querySelector('.side .reading').textContent",
    )


def wait(page, condition):
    until = time.monotonic() + 60
    while not page.evaluate(condition):
        assert time.monotonic() < until, condition
        time.sleep(0.05)


def click(page, selector):
    """Click where a person would: in the middle of what is seen."""
    page.evaluate(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
    box = page.evaluate(
        f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])"
        f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect().toJSON())"
    )
    for kind in ("mousePressed", "mouseReleased"):
        page.command("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)


def press(page, key, code):
    for kind in ("keyDown", "keyUp"):
        page.command("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)


def choose(page, side, field, value):
    """Choose a value as a person does with the keyboard: the select tells of a change."""
    page.evaluate(
        f"""(select => {{
            select.value = [...select.options].find(option => option.text === {json.dumps(value)}).value;
            select.dispatchEvent(new Event("change"));
        }})({SHOWN}[{side}].querySelector("select[data-field={field}]"))"""
    )


def readings(page, panel):
    """What a panel says of each run that is shown."""
    return page.evaluate(f"{SHOWN}.map(side => side.querySelector('[data-panel={panel}] .reading').textContent)")


def drawn(page, panel):
    return page.evaluate(f"{SHOWN}.map(side => side.querySelector('[data-panel={panel}] .chart').innerHTML)")


def test_the_picture_is_what_one_sees_first(opened):
    places = opened.evaluate(
        "[...document.querySelectorAll('[data-overview] svg')].map(x => x.getBoundingClientRect().toJSON())"
    )

    assert len(places) == 3
    assert all(place["bottom"] < 900 for place in places)
    assert opened.evaluate("[...document.querySelectorAll('[data-overview] path')].length") > 12


def test_one_slider_moves_spectrum_density_slice_and_losses_together(opened):
    panels = ("spectrum", "density", "slices", "history")
    opened.evaluate("document.querySelector('#epoch').focus()")
    press(opened, "Home", 36)
    before = {panel: (drawn(opened, panel)[0], readings(opened, panel)[0]) for panel in panels}
    press(opened, "End", 35)
    after = {panel: (drawn(opened, panel)[0], readings(opened, panel)[0]) for panel in panels}

    for panel in panels:
        assert before[panel][0] != after[panel][0]
        assert before[panel][1].startswith("Epoch 0:")
        assert after[panel][1].startswith("Epoch 8:")
    assert opened.evaluate("document.querySelector('#epoch').getAttribute('aria-valuetext')") == "epoch 8"
    # What a screen reader says when the slider rests.
    told = opened.evaluate("document.querySelector('.told').textContent")
    assert told.startswith("Epoch 8. Run A: Epoch 8: λ₁ = ")


def test_the_numbers_shown_are_those_of_the_tables(opened):
    opened.evaluate("document.querySelector('#epoch').focus()")
    press(opened, "End", 35)
    spectrum = pd.read_csv(PUBLISHED / "digits/published/tables/spectrum_spectrum.csv")
    last = spectrum[(spectrum["which"] == "largest") & (spectrum["checkpoint"] == "planned") & (spectrum["rank"] == 0)]
    history = pd.read_csv(PUBLISHED / "digits/published/tables/spectrum_history.csv").iloc[-1]

    (shown,) = re.findall(r"λ₁ = ([\d.]+)", readings(opened, "spectrum")[0])
    assert float(shown) == pytest.approx(last.sort_values("step")["eigenvalue"].iloc[-1], rel=5e-3)
    (shown,) = re.findall(r"training loss ([\d.]+)", readings(opened, "history")[0])
    assert float(shown) == pytest.approx(history["training_loss"], rel=5e-3)


def test_play_goes_through_the_epochs_and_stops(opened):
    opened.evaluate("document.querySelector('#epoch').focus()")
    press(opened, "Home", 36)
    click(opened, ".play")
    wait(opened, "Number(document.querySelector('#epoch').value) >= 2")
    assert opened.evaluate("document.querySelector('.play').textContent") == "❚❚ Pause"
    click(opened, ".play")
    at = opened.evaluate("document.querySelector('#epoch').value")
    time.sleep(1.5)
    assert opened.evaluate("document.querySelector('#epoch').value") == at
    assert opened.evaluate("document.querySelector('.play').textContent") == "▶ Play"


def test_runs_are_chosen_by_learning_rate_batch_size_gamma_and_seed(opened):
    def names():
        return opened.evaluate(f"{SHOWN}.map(side => side.querySelector('.made dd').textContent)")

    choose(opened, 0, "learning_rate", "0.05")
    choose(opened, 0, "batch_size", "8")
    choose(opened, 0, "seed", "2")
    choose(opened, 1, "gamma", "10")
    choose(opened, 1, "model", "SimpleCNN")

    left, right = names()
    assert left == "digits-1300-simple_cnn-lr0.05-bs8-e8-seed2"
    assert "simple_cnn" in right
    assert "gamma10" in right
    # Values that no run has together are left for the nearest run that there is.
    choose(opened, 0, "gamma", "0.01")
    assert "gamma0.01" in names()[0]
    for side, name in enumerate(names()):
        told = opened.evaluate(f"{SHOWN}[{side}].querySelector('.made dl').textContent")
        assert f"snakemake -c all results/digits/runs/{name}/history.csv" in told


def test_two_runs_stand_side_by_side_with_one_scale_or_one_alone(opened):
    boxes = opened.evaluate(f"{SHOWN}.map(side => side.getBoundingClientRect().toJSON())")
    assert len(boxes) == 2
    assert boxes[0]["top"] == boxes[1]["top"]
    assert boxes[0]["right"] < boxes[1]["left"]
    left, right = (re.findall(r'text-anchor="end">([^<]+)', chart) for chart in drawn(opened, "history"))
    assert left == right

    click(opened, ".both")
    assert opened.evaluate(f"{SHOWN}.length") == 1


def test_claims_lead_to_their_figure_and_to_their_rule(opened):
    figure = "tr[id^=claim] a[href='#figure-nudged']"
    click(opened, figure)
    wait(opened, "location.hash === '#figure-nudged'")
    rule = "tr[id^=claim] a[href='#rule-k']"
    assert not opened.evaluate("document.querySelector('#rules').open")
    click(opened, rule)
    wait(opened, "document.querySelector('#rules').open")
    wait(opened, "Math.abs(document.querySelector('#rule-k').getBoundingClientRect().top) < 900")


def test_how_a_number_was_made_unfolds(opened):
    assert not opened.evaluate("document.querySelector('tr .made').open")
    click(opened, "tr .made summary")
    assert opened.evaluate("document.querySelector('tr .made').open")
    told = opened.evaluate("document.querySelector('tr .made').innerText")
    assert "snakemake -c all results/digits/tables/claims.csv --configfile workflow/studies/digits.yaml" in told
    assert "eigenvalues_spectrum.csv" in told


def test_a_cell_of_the_table_of_results_leads_to_its_runs(opened):
    cell = "#table-results_table tbody tr:nth-child(2) td:nth-child(3) a"
    click(opened, cell)
    wait(opened, "location.hash === '#made-results_table-2'")
    wait(opened, "document.querySelector('#made-results_table-2').closest('details').open")
    told = opened.evaluate("document.querySelector('#made-results_table-2 + dd').innerText")
    assert len(told.split(", ")) == 2
    assert all("gamma0.1-" in run for run in told.split(", "))
    said = opened.evaluate("document.querySelector('#table-results_table .made').innerText")
    assert "snakemake -c all results/digits/tables/results_table.csv --configfile workflow/studies/digits.yaml" in said
    assert "of each of these runs test_accuracy in results_table_history.csv, best checkpoint" in said


def test_every_figure_to_turn_is_drawn_when_it_comes_into_sight(opened):
    assert opened.evaluate("typeof Plotly") == "undefined"
    for index in range(opened.evaluate("document.querySelectorAll('.interactive').length")):
        opened.evaluate(f"document.querySelectorAll('.interactive')[{index}].scrollIntoView()")
        wait(opened, f"document.querySelectorAll('.interactive')[{index}].querySelector('.main-svg, canvas') !== null")


@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_no_page_scrolls_sideways_as_a_whole_and_all_charts_are_as_wide_as_their_frames(opened, width):
    opened.resize(width, 844)
    time.sleep(0.3)

    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    charts = "[...document.querySelectorAll('.chart')].filter(chart => chart.firstChild)"
    assert opened.evaluate(f"{charts}.every(chart => chart.firstChild.clientWidth <= chart.clientWidth + 1)")
    outside = opened.evaluate(
        f"""{charts}.flatMap(chart => [...chart.querySelectorAll(".label")].filter(label => {{
            const [words, frame] = [label, chart].map(node => node.getBoundingClientRect());
            return words.left < frame.left - 1 || words.right > frame.right + 1;
        }}).map(label => label.textContent))"""
    )
    assert outside == []


def test_everything_can_be_reached_by_the_keyboard_and_has_a_name(opened):
    lacking = opened.evaluate(
        """[...document.querySelectorAll("a[href], button, select, input, summary, [role=img], img")].filter(node =>
            !node.closest("[hidden]") &&
            !(node.textContent.trim() || node.getAttribute("aria-label") || node.alt || node.labels?.length)
        ).map(node => node.outerHTML.slice(0, 100))"""
    )
    assert lacking == []
    levels = opened.evaluate("[...document.querySelectorAll('main h1, main h2, main h3')].map(x => +x.tagName[1])")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    # From the top, Tab comes to the slider.
    opened.evaluate("document.querySelector('.both').focus()")
    for _ in range(2):
        press(opened, "Tab", 9)
    assert opened.evaluate("document.activeElement.id") == "epoch"


def test_the_page_asks_for_nothing(opened):
    (page,) = [request for request in opened.requests if not request.startswith(("data:", "blob:"))]

    assert page.startswith("file://")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_the_page_by_day_and_by_night(opened, scheme):
    opened.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def brightness(words):
        channels = [int(part) / 255 for part in re.findall(r"\d+", words)[:3]]
        red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    ground = brightness(opened.evaluate("getComputedStyle(document.body).backgroundColor"))
    for selector in ("h1", ".quiet", "tr a", ".lede", "summary"):
        ink = brightness(opened.evaluate(f"getComputedStyle(document.querySelector('main {selector}')).color"))
        light, dark = max(ink, ground), min(ink, ground)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, selector  # as WCAG asks for


def test_runs_of_two_studies_stand_side_by_side(two_studies, tmp_path):
    assert two_studies.stat().st_size <= 10_000_000
    with browser.browser(tmp_path / "profile") as page:
        visit(page, two_studies)
        choose(page, 0, "study", "digits")
        choose(page, 1, "study", "fashion_mnist_exploring")
        names = page.evaluate(f"{SHOWN}.map(side => side.querySelector('.made dd').textContent)")
        assert [name.partition("-")[0] for name in names] == ["digits", "fashion_mnist"]
        claimed = page.evaluate("[...document.querySelectorAll('.forest tr[id]')].map(row => row.innerText)")
        for study in ("digits", "fashion_mnist_exploring"):
            verdicts = pd.read_csv(PUBLISHED / study / "published/tables/claims.csv")
            shown = [row for row in claimed if f"{study}:" in row]
            assert len(shown) == len(verdicts[verdicts["seeds"] > 0]) + sum(
                verdicts.loc[verdicts["seeds"] == 0, "measured"].notna()
            )
        assert page.complaints == []
