"""The stage that writes the verdicts."""

import re
from pathlib import Path

import pandas as pd
import pytest
from claims.invented import whole_study

from sharpness.analysis.claims.collected import collected
from sharpness.analysis.claims.deciding import as_markdown, decide
from sharpness.runtime.closure import sources
from sharpness.stages.claims import claims
from sharpness.study.records import RecordError
from sharpness.study.runs import FIELDS


@pytest.mark.slow
def test_the_stage_reads_collected_tables_and_writes_the_same_verdicts(tmp_path):
    tables = whole_study()
    paths = [tmp_path / f"{index}.csv" for index in range(len(tables))]
    for path, (_, _, table) in zip(paths, tables, strict=True):
        measured = table.drop(columns=[*FIELDS], errors="ignore")
        measured.assign(code="1a2b3c", torch="2.14.1", device="cpu AVX512", threads=1).to_csv(path, index=False)
    runs = pd.concat([table for _, _, table in tables]).drop_duplicates("run").reindex(columns=["run", *FIELDS])
    runs.to_csv(tmp_path / "runs.csv", index=False)

    claims(
        kinds=[kind for kind, _, _ in tables],
        measurements=[name for _, name, _ in tables],
        tables=paths,
        runs=tmp_path / "runs.csv",
        settings="{}",
        markdown=tmp_path / "claims.md",
        csv=tmp_path / "claims.csv",
    )

    expected = decide(collected(tables))
    written = pd.read_csv(tmp_path / "claims.csv", keep_default_na=False)
    assert written["verdict"].tolist() == expected["verdict"].tolist()
    assert written["measured"].tolist() == expected["measured"].tolist()
    source = "code 1a2b3c; torch 2.14.1; cpu AVX512; threads 1"
    assert set(written["made_by"]) == {source}
    assert (tmp_path / "claims.md").read_text() == f"{as_markdown(expected)}\nComputed by {source}.\n"


def test_a_study_that_no_claim_is_about_has_a_table_without_rows_that_is_known_for_its_own(tmp_path):
    table = whole_study()[0][2].assign(optimizer='{"name": "adam"}')
    measured = table.drop(columns=[*FIELDS], errors="ignore")
    measured.assign(code="1a2b3c", torch="2.14.1", device="cpu", threads=1).to_csv(tmp_path / "0.csv", index=False)
    table.drop_duplicates("run").reindex(columns=["run", *FIELDS]).to_csv(tmp_path / "runs.csv", index=False)

    claims(
        kinds=["eigenvalues"],
        measurements=["spectrum"],
        tables=[tmp_path / "0.csv"],
        runs=tmp_path / "runs.csv",
        settings="{}",
        markdown=tmp_path / "claims.md",
        csv=tmp_path / "claims.csv",
        study="0123456789ab",
    )

    written = pd.read_csv(tmp_path / "claims.csv")
    assert written.empty
    assert "0123456789ab" in written
    assert set(decide(collected([]))) < set(written)


def test_a_table_of_runs_that_was_edited_decides_nothing(tmp_path):
    planned = whole_study()[0][2].drop_duplicates("run").reindex(columns=["run", *FIELDS])
    planned.assign(learning_rate=0.07).to_csv(tmp_path / "runs.csv", index=False)
    with pytest.raises(
        RecordError, match=rf"runs\.csv has the learning_rate 0\.07 for the run {planned['run'].iloc[0]}"
    ):
        claims(
            kinds=[],
            measurements=[],
            tables=[],
            runs=tmp_path / "runs.csv",
            settings="{}",
            markdown=tmp_path / "claims.md",
            csv=tmp_path / "claims.csv",
            planned=planned.to_csv(index=False),
        )
    assert not (tmp_path / "claims.csv").exists()


def test_the_claims_depend_on_no_module_that_imports_torch_or_draws():
    paths = sources("sharpness.stages.claims")

    assert not any(
        re.search(r"^\s*(import|from) torch", Path(path).read_text(encoding="utf-8"), re.MULTILINE) for path in paths
    )
    assert not any("/figures/" in path for path in paths)
