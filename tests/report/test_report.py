"""The report, made from invented tables; the interactive figures, judged by their data."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex
from plotly.offline import get_plotlyjs

from sharpness.analysis.claims.poster import CLAIMS
from sharpness.analysis.figures import interactive
from sharpness.analysis.figures.palette import BLUE, EIGENVALUES, RED
from sharpness.report import provenance
from sharpness.report.costs import Cost, costs_of, jobs_of
from sharpness.report.page import Caption, Origin, Picture, Table, caption_of, render
from sharpness.report.provenance import Place, Training
from sharpness.stages import report as stage
from sharpness.study.jobs import Jobs
from sharpness.study.plan import KINDS
from sharpness.study.records import RecordError

ROOT = Path(__file__).parents[2]
VOID = {"meta", "img", "br", "hr", "link", "input"}
# One dot, transparent: 1 x 1.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d4944415478da6364f8ffbf1e000584027f"
    "6d1dd2230000000049454e44ae426082"
)
ODD = 'a < b & "c" <script>alert(1)</script>'


def spectrum_table(learning_rates=(0.1,), seeds=(0,), num_ranks=3, lost_from=None):
    rows = [
        {
            "grid": "run",
            "run": f"lr{rate}-seed{seed}",
            "data": "digits",
            "model": "simple_cnn",
            "learning_rate": rate,
            "batch_size": 32,
            "seed": seed,
            "which": "largest",
            "checkpoint": "planned",
            "step": 10 * epoch,
            "epoch": float(epoch),
            "rank": rank,
            "eigenvalue": np.nan if lost_from is not None and epoch >= lost_from else (epoch + 1 - rank) / rate,
            "residual": 1e-4 * (rank + 1),
        }
        for rate in learning_rates
        for seed in seeds
        for epoch in range(5)
        for rank in range(num_ranks)
    ]
    return pd.DataFrame(rows)


def slices_table(models=("simple_cnn",), lost_from=None):
    ks = [-16, -8, -2, 0, 2, 8, 16]
    rows = [
        {
            "run": model,
            "data": "digits",
            "model": model,
            "learning_rate": 0.1,
            "batch_size": 32,
            "seed": 0,
            "step": 10 * epoch,
            "epoch": float(epoch),
            "k": k,
            "loss": np.nan if lost_from is not None and epoch >= lost_from else 2 + 0.01 * (k + 1) ** 2 / (epoch + 1),
            "eigenvalue": 5.0 + epoch,
        }
        for model in models
        for epoch in range(4)
        for k in ks
    ]
    return pd.DataFrame(rows)


def claims_table():
    row = {
        "model": "simple_cnn",
        "data": "digits",
        "configuration": "",
        "quantity": "ratio, below 1",
        "measured": "learning rate 0.1: 20 ± 1",
        "effect": 0.36,
        "low": 0.3,
        "high": 0.42,
        "test": "Student",
        "seeds": 3,
        "diverged": 0,
        "would_decide": "",
    }
    rows = [
        {"claim": "a", "finding": "Peaks are lower", **row, "verdict": "holds"},
        {"claim": "b", "finding": ODD, **row, "diverged": 1, "measured": ODD, "verdict": "does not hold"},
        {
            "claim": "c",
            "finding": "Bowls are wide",
            **row,
            **dict.fromkeys(("model", "data", "measured", "test"), ""),
            **dict.fromkeys(("effect", "low", "high"), np.nan),
            "seeds": 0,
            "verdict": "undecided",
            "would_decide": f"an experiment, {ODD}",
        },
    ]
    return pd.DataFrame(rows)


def origin():
    return Origin(
        training=Training(["simple_cnn on digits (1,300 training images)"], {"torch 2.0, device cpu, threads 1": 4}),
        places=[Place("node7", 3, "2018-07-12 21:00", "2018-07-12 23:59")],
        versions={"python": "3.11.2"},
        machine={"processor": "A & B", "cores": "2"},
        commit="unknown",
        date="2018-07-13 00:00 UTC",
        costs=[Cost("train", 4, 1234.5, 1200.4)],
    )


def page(pictures=None, tables=(), claims=None):
    caption = Caption("Peaks", f"Look *here*: {ODD}")
    shown = interactive.spectrum(spectrum_table())
    if pictures is None:
        pictures = [
            Picture("peaks", PNG, "Dots and lines", caption, ODD, None),
            Picture("spectrum", PNG, ODD, caption, "Hessian on 65 training images", shown),
            Picture("slices", PNG, "A surface", caption, "", interactive.slices(slices_table())),
        ]
    return render(
        "made_up",
        claims=claims_table() if claims is None else claims,
        claims_caption=Caption("Findings", "Each row is one claim."),
        pictures=pictures,
        tables=tables,
        origin=origin(),
        citation={"title": "sharpness", "version": "1.0", "authors": [{"name": "The & authors"}]},
    )


class Read(HTMLParser):
    """A page as its elements: fails where one is not closed, or closed twice."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self._open = [], "", []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        # Optional, but this page writes every one.
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] not in ("script", "style"):
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


class TestPage:
    def test_is_one_whole_document_with_unique_ids_and_no_dead_link_within(self):
        read = Read(page(tables=[Table("table", "| a | b |\n| --- | ---: |\n| 1 | 2 |", Caption("Table", "Look."))]))

        ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
        assert len(ids) == len(set(ids))
        targets = [link["href"] for link in read.all("a") if link["href"].startswith("#")]
        assert {target.removeprefix("#") for target in targets} <= set(ids)
        assert {"findings", "figures", "tables", "figure-peaks", "figure-spectrum", "table-table"} <= set(ids)

    def test_the_contents_tell_figures_of_one_kind_apart(self):
        caption = Caption("Peaks", "Look.")
        links = re.findall(
            r'<li><a href="#figure-\w+">(.*?)</a>',
            page(
                pictures=[
                    Picture(name, PNG, "Dots", Caption("Widths", "Look.") if name == "widths" else caption, "", None)
                    for name in ("first", "second", "widths")
                ]
            ),
        )

        assert links == ["Peaks (first)", "Peaks (second)", "Widths"]

    def test_findings_come_before_figures_tables_and_what_ran(self):
        text = page(tables=[Table("table", "text", Caption("Table", "Look."))])

        places = [
            text.index(f'<section id="{name}">') for name in ("findings", "figures", "tables", "origin", "citing")
        ]
        assert places == sorted(places)

    def test_every_figure_is_embedded_with_its_size_and_its_alternative_text(self):
        images = Read(page()).all("img")

        assert [image["alt"] for image in images] == ["Dots and lines", ODD, "A surface"]
        assert all(image["src"].startswith("data:image/png;base64,iVBOR") for image in images)
        assert all((image["width"], image["height"]) == ("1", "1") for image in images)

    def test_every_claim_is_shown_with_its_verdict_in_words_and_as_a_symbol(self):
        text = page()
        rows = re.findall(r'<tr id="claim-\d+">(.*?)</tr>', text, flags=re.DOTALL)

        assert len(rows) == 3
        for row, (symbol, verdict, effect) in zip(
            rows,
            [("✓", "holds", "0.360 (0.300 to 0.420)"), ("✗", "does not hold", "0.36"), ("?", "undecided", "")],
            strict=True,
        ):
            shown = " ".join(Read(row).text.split())
            assert shown.startswith(f"{symbol}{verdict}")
            assert effect in shown
        assert "3 seeds; 1 diverged run left out" in rows[1]
        assert "nan" not in Read(rows[2]).text

    def test_every_claim_of_the_poster_has_its_place(self):
        every = pd.DataFrame(
            [{**claims_table().iloc[0], "claim": letter, "finding": claim.finding} for letter, claim in CLAIMS.items()]
        )

        shown = Read(page(claims=every)).text

        assert all(claim.finding in shown for claim in CLAIMS.values())

    def test_claims_without_a_measurement_come_last_and_folded(self):
        text = page(claims=claims_table().iloc[[2, 0, 1]])

        before, folded = text.split("<summary>1 claim of which this study has no measurement</summary>")
        assert [finding in before for finding in ("Peaks are lower", "Bowls are wide")] == [True, False]
        assert "Bowls are wide" in folded
        (tally,) = re.findall(r'<ul class="tally">(.*?)</ul>', text, flags=re.DOTALL)
        assert re.findall(r"([a-z ]+): (\d)</li>", tally) == [
            ("holds", "1"),
            ("does not hold", "1"),
            ("undecided", "0"),
            ("not measured", "1"),
        ]

    @pytest.mark.parametrize("found", [{"seeds": 1}, {"diverged": 2}, {"measured": "20 ± 1"}])
    def test_what_was_measured_is_never_folded(self, found):
        text = page(claims=claims_table().iloc[[2]].assign(**found))

        assert "no measurement" not in text
        assert "not measured" not in text

    def test_an_unknown_verdict_is_refused_by_name(self):
        with pytest.raises(ValueError, match="maybe"):
            page(claims=claims_table().assign(verdict="maybe"))

    def test_what_looks_like_a_tag_is_shown_as_text_wherever_it_stands(self):
        table = Table("table", f"{ODD}\n\n| a |\n| --- |\n| {ODD} |\n\n<script>alert(1)</script>", Caption("T", ODD))

        text = page(tables=[table])

        assert "<script>alert" not in text
        assert Read(text).text.count("<script>alert(1)</script>") >= 8
        assert "Measured: " + ODD in Read(text).text
        assert "A & B" in Read(text).text

    def test_the_library_of_the_interactive_figures_stands_once_and_only_where_it_is_needed(self):
        library, still = get_plotlyjs(), Picture("peaks", PNG, "Dots", Caption("Peaks", "Look."), "", None)

        assert page().count(library) == 1
        assert "</script" not in library.lower()
        assert page(pictures=[still]).count(library) == 0
        assert [name for name in ("interactive-spectrum", "interactive-slices") if f'id="{name}"' in page()] != []

    def test_asks_for_nothing_outside_itself(self):
        read = Read(page())

        assert read.all("link") == read.all("iframe") == []
        sources = [attributes["src"] for tag, attributes in read.elements if tag != "a" and "src" in attributes]
        assert all(source.startswith("data:") for source in sources)
        styles = re.findall(r"<style>(.*?)</style>", page(), flags=re.DOTALL)
        assert not re.search(r"url\(|@import", "".join(styles))

    def test_a_table_scrolls_in_its_own_frame(self):
        text = page(tables=[Table("table", "**Rows**\n\n| a | b |\n| --- | ---: |\n| 1 | 2 |", Caption("T", "Look."))])

        assert re.search(
            r'<div class="scroll" tabindex="0"><table>.*<td style="text-align: right;">2</td>', text, re.DOTALL
        )
        assert "<strong>Rows</strong>" in text

    def test_says_what_ran_what_it_cost_and_how_to_cite_it(self):
        text = Read(page()).text

        for words in (
            "4 runs",
            "torch 2.0, device cpu, threads 1",
            "python 3.11.2",
            "1,234",
            "1,200",
            "2018-07-13",
            "node7",
        ):
            assert words in text
        assert "The & authors: sharpness. version 1.0." in text


@pytest.mark.parametrize(
    "name", ["claims", "results_table", *dict.fromkeys(name for kind in KINDS.values() for name in kind.figures)]
)
def test_every_product_has_a_caption_with_a_title(name):
    caption = caption_of((ROOT / "workflow" / "report" / f"{name}.md").read_text())

    assert 5 < len(caption.title) < 70
    assert len(caption.body) > 50


def test_a_caption_without_a_title_is_refused():
    with pytest.raises(ValueError, match="Look here"):
        caption_of("Look here\n")


class TestSpectrum:
    def test_shows_every_eigenvalue_and_residual_of_the_table_in_the_colours_of_the_static_figure(self):
        table = spectrum_table()

        traces = [trace for trace in interactive.spectrum(table).data if trace.customdata is not None]

        assert len(traces) == 3
        # Drawn last, on top: the largest.
        for rank, trace in enumerate(reversed(traces)):
            expected = table[table["rank"] == rank]
            np.testing.assert_array_equal(trace.x, expected["epoch"])
            np.testing.assert_array_equal(trace.y, expected["eigenvalue"])
            np.testing.assert_array_equal(trace.customdata, expected["residual"])
            assert f"rank {rank + 1}<" in trace.hovertemplate
        assert [traces[-1].line.color, traces[0].line.color] == [RED.lower(), BLUE.lower()]

    def test_has_a_logarithmic_panel_for_each_configuration_with_its_stability_limit(self):
        figure = interactive.spectrum(spectrum_table(learning_rates=(0.1, 0.5), seeds=(3, 1)))

        assert (figure.layout.yaxis.type, figure.layout.yaxis2.type) == ("log", "log")
        limits = [list(trace.y) for trace in figure.data if trace.line.dash == "dot"]
        assert limits == [[20, 20], [4, 4]]
        titles = [annotation.text for annotation in figure.layout.annotations]
        assert all("seed 1 (first of 2)" in title for title in titles)

    def test_the_axis_holds_all_but_noise_around_zero_and_is_labelled_in_plain_numbers(self):
        table = spectrum_table()
        table.loc[table["rank"] == 2, "eigenvalue"] = [-1, 1e-9, 0, 1e-9, 1e-9]

        axis = interactive.spectrum(table).layout.yaxis

        assert 10 ** axis.range[0] == pytest.approx(50 / 1000 / 1.3)
        assert 10 ** axis.range[1] == pytest.approx(2 * 50)
        assert {"0.05", "1", "20", "100"} <= set(axis.ticktext)

    def test_a_run_that_was_lost_before_it_was_measured_has_an_empty_panel(self):
        figure = interactive.spectrum(spectrum_table(lost_from=0))

        assert len(figure.data) == 0
        assert len(figure.layout.annotations) == 1

    def test_a_diverged_run_ends_in_a_cross_at_its_last_finite_value(self):
        (cross,) = [
            trace for trace in interactive.spectrum(spectrum_table(lost_from=3)).data if trace.name == "diverged"
        ]

        assert (list(cross.x), list(cross.y)) == ([2], [30])
        assert not any(trace.name == "diverged" for trace in interactive.spectrum(spectrum_table()).data)


class TestSlices:
    def test_the_surface_has_the_losses_of_the_table_coloured_by_the_largest_eigenvalue(self):
        table = slices_table()

        surface = interactive.slices(table).data[0]

        assert list(surface.x) == [-8, -2, 0, 2, 8]
        assert surface.z.shape == (4, 5)
        # Every curve rises further on the right, and is turned.
        of_first = table[(table["epoch"] == 0) & table["k"].between(-8, 8)].sort_values("k", ascending=False)
        np.testing.assert_array_equal(surface.customdata[0, :, 1], of_first["loss"])
        np.testing.assert_array_equal(surface.z[0, 1:], of_first["loss"].iloc[1:])
        np.testing.assert_array_equal(surface.surfacecolor[:, 0], [5, 6, 7, 8])
        np.testing.assert_array_equal(surface.customdata[:, 0, 0], [0, 1, 2, 3])
        assert surface.colorscale[0] == (0, to_hex(EIGENVALUES(0.0)))
        assert surface.colorscale[-1] == (1, to_hex(EIGENVALUES(1.0)))

    def test_epochs_after_divergence_are_left_out_and_the_title_says_so(self):
        figure = interactive.slices(slices_table(lost_from=2))

        assert figure.data[0].z.shape[0] == 2
        assert "diverged after epoch 1" in figure.layout.annotations[0].text

    def test_a_loss_that_overflows_is_cut_as_in_the_static_figure(self):
        table = slices_table()
        table.loc[(table["k"] == 8) & (table["epoch"] == 0), "loss"] = np.inf

        surface = interactive.slices(table).data[0]

        assert surface.z.max() == pytest.approx(1.5 * table.loc[table["k"] == 0, "loss"].max())
        assert np.isnan(surface.customdata[0, 0, 1])

    def test_each_configuration_has_a_surface_and_a_bar_of_colours_of_its_own(self):
        figure = interactive.slices(slices_table(models=("simple_cnn", "resnet8")))

        surfaces = [trace for trace in figure.data if trace.type == "surface"]
        assert [surface.scene for surface in surfaces] == ["scene", "scene2"]
        assert surfaces[0].colorbar.y > 0.5 > surfaces[1].colorbar.y == 0


class TestOrigin:
    def test_costs_are_summed_by_part_the_largest_first(self, tmp_path):
        header = "seconds,cpu_seconds,host"
        jobs = {
            "runs/a/benchmarks/train.csv": "10.5,9.5,one",
            "runs/b/benchmarks/train.csv": "1.5,0.5,another",
            "benchmarks/figure-peaks.csv": "20,0,one",
            "benchmarks/figure-steps.csv": "2,1,one",
        }
        for name, row in jobs.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{header}\n{row}\n")

        own = Jobs(["a", "b"], [0, 0], ["train spectrum-leading-0"], ["figure-peaks", "figure-steps", "claims"])
        assert costs_of(jobs_of(tmp_path, own)) == [Cost("figure", 2, 22, 1), Cost("train", 2, 12, 10)]

    def test_jobs_of_other_studies_in_the_folder_do_not_count(self, tmp_path):
        for name in ("runs/a/benchmarks/train", "runs/a/benchmarks/spectrum-old-0", "runs/b/benchmarks/train"):
            path = tmp_path / f"{name}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("seconds,cpu_seconds,host\n10,9,one\n")
        own = Jobs(["a"], [0], ["train spectrum-leading-0"], ["claims"])
        assert costs_of(jobs_of(tmp_path, own)) == [Cost("train", 1, 10, 9)]

    @pytest.mark.parametrize(
        "text", ["", "seconds,cpu_seconds\n", "seconds,cpu_seconds\n1.5", "seconds\n1.5\n", "\0\n"]
    )
    def test_a_damaged_file_of_a_job_is_named(self, tmp_path, text):
        path = tmp_path / "benchmarks" / "claims.csv"
        path.parent.mkdir()
        path.write_text(text)
        with pytest.raises(RecordError, match=r"benchmarks/claims.csv is damaged"):
            jobs_of(tmp_path, Jobs([], [], [], ["claims"]))

    def test_histories_say_of_what_and_where_their_runs_were_trained(self):
        fields = {"model": "simple_cnn", "data": "digits", "num_training": 1300, "torch": "2.0", "device": "cpu AVX2"}
        # An epoch a row; the second experiment has a run of the first.
        one = pd.DataFrame([{**fields, "run": run, "threads": 1, "epoch": epoch} for run in "ab" for epoch in (0, 1)])
        two = pd.DataFrame([{**fields, "run": run, "threads": 1 + (run == "c"), "epoch": 0} for run in "bc"])

        training = provenance.training_of([one, two])

        assert training.subjects == ["simple_cnn on digits (1,300 training images)"]
        assert training.environments == {
            "torch 2.0, device cpu AVX2, threads 1": 2,
            "torch 2.0, device cpu AVX2, threads 2": 1,
        }

    def test_versions_and_machine_are_those_that_run_here(self):
        assert provenance.versions()["torch"] == torch.__version__.partition("+")[0]
        assert int(provenance.machine()["cores"]) >= 1
        assert all(provenance.machine().values())

    def test_hosts_and_times_are_those_of_the_jobs(self):
        began = [("2026-01-02 03:04:05", "one"), ("2026-01-03 00:00:00", "one"), ("2026-01-01 00:00:00", "two")]
        assert provenance.places_of([{"began": time, "host": host} for time, host in began]) == [
            Place("one", 2, "2026-01-02 03:04", "2026-01-03 00:00"),
            Place("two", 1, "2026-01-01 00:00", "2026-01-01 00:00"),
        ]

    def test_what_made_some_tables_is_said_in_one_line(self):
        one = pd.DataFrame({"code": ["a", "a"], "torch": "2.0", "device": "cpu AVX2", "threads": [1, 1]})
        two = one.assign(code="b", more=3)
        assert provenance.made_by([one, two]) == "code a, b; torch 2.0; cpu AVX2; threads 1"

    def test_the_commit_is_unknown_where_git_tracks_nothing(self, tmp_path):
        assert provenance.commit(tmp_path) == "unknown"


class TestDamage:
    """What the report reads is whole, or refused by its name."""

    @pytest.mark.parametrize("content", [b"", b"# title", b"\xff\xfe", b"text\n\nmore"])
    def test_a_caption(self, tmp_path, content):
        path = tmp_path / "slices.md"
        path.write_bytes(content)
        with pytest.raises(RecordError, match=f"{path} is damaged"):
            stage._read(path, caption_of)

    @pytest.mark.parametrize("content", ["", "title: [", "title: a", "- 1"])
    def test_the_citation(self, tmp_path, content):
        path = tmp_path / "CITATION.cff"
        path.write_text(content)
        with pytest.raises(RecordError, match=f"{path} is damaged"):
            stage._read(path, stage._citation)

    @pytest.mark.parametrize("part", [0, 0.1, 0.5, 0.99])
    def test_a_picture(self, tmp_path, part):
        whole = next(iter((ROOT / "results/digits/published/figures").glob("*.png"))).read_bytes()
        path = tmp_path / "slices.png"
        path.write_bytes(whole)
        assert stage._image(path) == whole
        path.write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(RecordError, match=f"{path} is damaged or cut short"):
            stage._image(path)

    def test_the_verdicts(self, tmp_path):
        path = tmp_path / "claims.csv"
        whole = pd.read_csv(ROOT / "results/digits/published/tables/claims.csv")
        whole.to_csv(path, index=False)
        assert len(stage._claims(path)) == len(whole)
        for rows, reason in (
            (whole[:-1], "lacks the claims t"),
            (whole.drop(columns="verdict"), "lacks the column verdict"),
            (pd.DataFrame(), "is damaged or empty"),
        ):
            rows.to_csv(path, index=False)
            with pytest.raises(RecordError, match=f"{path} {reason}"):
                stage._claims(path)
