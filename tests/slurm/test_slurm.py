"""`snakemake --profile slurm -j 64` on a real Slurm: a whole study, and every way in which a cluster disturbs one."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from running import SMALL, contents, differing, environment

from benchmarks.project import ROOT, copy_project
from sharpness.study.plan import study_of
from sharpness.study.registry import MEASUREMENTS

pytestmark = [
    pytest.mark.usefixtures("cluster"),
    pytest.mark.slow,
]

# As in the profile, but for how soon Slurm is asked first.
PROFILE = ("--profile", "slurm", "-j", "64", "--slurm-init-seconds-before-status-checks", "5")


def project(folder: Path, study: dict[str, Any]) -> Path:
    """A copy of the project in ``folder``, with a study that is to run there."""
    (copy_project(folder) / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    return folder


def start(folder: Path, *words: str, path: Path | None = None) -> subprocess.Popen[str]:
    """Begin to run Snakemake from the project's root, its words going to a file there."""
    variables = environment()
    if path is not None:
        variables["PATH"] = f"{path}{os.pathsep}{variables['PATH']}"
    # On a cluster all nodes see the same folders, and nothing of the node on which Snakemake was started is needed.
    return _started([sys.executable, "-m", "snakemake", *words, "--configfile", "study.yaml"], folder, variables)


def run_by_command(folder: Path, *words: str) -> subprocess.Popen[str]:
    """The same by the command ``sharpness run``, with ``words`` of Snakemake's behind ``--``."""
    command = [sys.executable, "-m", "sharpness", "run", "study.yaml", "--profile", "slurm", "--", *words]
    return _started(command, folder, environment() | {"PYTHONPATH": "src"})


def _started(command: list[str], folder: Path, variables: dict[str, str]) -> subprocess.Popen[str]:
    with (folder / "said").open("w") as file:
        STARTED.append(subprocess.Popen(command, cwd=folder, env=variables, stdout=file, stderr=file, text=True))
    return STARTED[-1]


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """A test that fails leaves no Snakemake behind."""
    yield
    for process in STARTED:
        process.kill()
        process.wait()
    STARTED.clear()


def finish(running: subprocess.Popen[str], folder: Path, *, seconds: float = 900) -> tuple[int, str]:
    """Its exit status, and what it said."""
    try:
        return running.wait(seconds), (folder / "said").read_text()
    except subprocess.TimeoutExpired:
        running.send_signal(signal.SIGINT)
        running.wait(60)
        raise AssertionError(f"not at its end after {seconds} s:\n{(folder / 'said').read_text()[-5000:]}") from None


def accounting(fields: str, since: str) -> list[list[str]]:
    """What Slurm's accounting says of the jobs since then, those that were requeued once more for each time."""
    command = ["sacct", "--duplicates", "--noheader", "--parsable2", "--allocations", "-S", since, "-o", fields]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [line.split("|") for line in lines]


def now() -> str:
    """The time as Slurm writes it; jobs begin later."""
    time.sleep(1)
    return time.strftime("%Y-%m-%dT%H:%M:%S")


def wait_for(condition: Callable[[], Any], what: str, *, seconds: float = 180) -> Any:
    """What the condition gives, once it gives something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.2)
    raise AssertionError(f"waited for {what} in vain")


def small() -> dict[str, Any]:
    study: dict[str, Any] = yaml.safe_load(SMALL.read_text())
    return study


# A whole study


WITH_FEWER_RUNS = {"eigenvalues", "gradients", "gradient_step"}


def jobs_of_each_rule() -> dict[str, Any]:
    """The small study without what only repeats its jobs: every measurement, a nudged run, one that diverges."""
    study = small()
    for name in ("spectrum", "first_layer", "widths", "schedules", "agreement", "results_table"):
        del study["experiments"][name]
    for name in WITH_FEWER_RUNS:
        study["experiments"][name]["grids"] = {"learning_rate": [{"learning_rate": [0.05, 1000]}]}
    return study


def test_the_small_study_ends_with_the_bits_of_one_machine(tmp_path, finished):
    study = jobs_of_each_rule()
    folder, since = project(tmp_path, study), now()

    status, said = finish(start(folder, *PROFILE), folder)

    assert status == 0, said[-5000:]
    assert (folder / "results" / "small" / "report.html").exists()
    # Of a saved state, the times of its saving differ; and the study there has more runs.
    theirs, ours = contents(folder, states=False), contents(finished, states=False)
    whole = "|".join(study["experiments"].keys() - WITH_FEWER_RUNS)
    same = re.compile(rf"runs/|tables/({whole})_")
    theirs = {name: content for name, content in theirs.items() if same.match(name)}
    assert sum(name.startswith("runs/") for name in theirs) > 20
    assert sum(name.startswith("tables/") for name in theirs) >= 10
    assert differing(theirs, ours) == []

    jobs = accounting("Comment,State,AllocTRES", since)
    names = {"train", *MEASUREMENTS}
    rules = {re.match(f"rule_({'|'.join(names)})", comment)[1] for comment, _, _ in jobs if comment}
    assert rules == names
    for comment, state, resources in jobs:
        if comment:
            assert state == "COMPLETED"
            # One GPU each, not one for each member of a group.
            assert "gres/gpu=1," in f"{resources},"
    # Each computed on the GPU that it was given.
    for log in (folder / "results" / "small" / "runs").glob("*/logs/*.log"):
        assert re.search(r"CUDA_VISIBLE_DEVICES [01]$", log.read_text(), re.MULTILINE), log


# Disturbed runs


SEEDS = {"cancelled": 0, "past its limit": 1, "on a node that goes down": 2, "requeued": 3}


def long_study(seeds: Iterable[int] = SEEDS.values()) -> dict[str, Any]:
    """Runs that take some ten seconds each, saved every second."""
    study = small()
    study["state_seconds"] = 1
    study["defaults"] |= {"num_training": 1300, "batch_size": 8, "epochs": 8}
    study["checkpoints"] = {"some": {"at_epochs": [0, 4, 8]}}
    study["spectrum"] = {"leading": study["spectrum"]["leading"] | {"checkpoints": "some"}}
    study |= {name: {} for name in MEASUREMENTS if name != "spectrum"}
    study["experiments"] = {
        "eigenvalues": {
            "kind": "eigenvalues",
            "measure": {"spectrum": ["leading"]},
            "grids": {"learning_rate": [{"seed": list(seeds)}]},
        }
    }
    return study


class Job:
    """One training run, as Slurm and the machine see it."""

    def __init__(self, folder: Path, seed: int) -> None:
        study = study_of(long_study(), source="study")
        self.name = next(name for name, run in study.runs.items() if run.seed == seed)
        self.log = folder / "results" / "small" / "runs" / self.name / "logs" / "train.log"
        self.state = folder / "results" / "small" / "state" / replace(study.runs[self.name], epochs=0).name / "8"

    @property
    def number(self) -> str:
        """Slurm's, while the job runs."""
        command = ["squeue", "--noheader", "--states=running", "-o", "%i|%k"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        return next((line.partition("|")[0] for line in lines if self.name in line), "")

    def processes(self) -> list[int]:
        """Of Python, without the shells around it."""
        pattern = f"^python -m sharpness.stages.train .*{re.escape(self.name)}/run.yaml"
        found = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=False).stdout
        return [int(number) for number in found.split()]

    def hold(self) -> str:
        """Halt the run once it has saved something beyond its first epoch, and say what Slurm calls it."""
        wait_for(lambda: self.log.exists() and "epoch 2 of" in self.log.read_text(), f"{self.name} to train")
        trained = time.time()
        saved = self.state / "state.safetensors"
        wait_for(lambda: saved.exists() and saved.stat().st_mtime > trained, f"{self.name} to save its state")
        for process in self.processes():
            os.kill(process, signal.SIGSTOP)
        assert "epoch 8 of" not in self.log.read_text()
        return self.number

    def resumed_at(self) -> int:
        """The epoch from which the run went on in the end."""
        found = re.search(r"going on from .*: epoch (\d+)", self.log.read_text())
        assert found, self.log.read_text()
        return int(found[1])


def scontrol(*words: str) -> None:
    subprocess.run(["scontrol", *words], check=True, capture_output=True)


def at_once(number: str) -> None:
    """A requeued job waits for two minutes; not here."""
    shown = ["squeue", "--noheader", "--jobs", number, "--states=pending", "-o", "%i"]
    wait_for(lambda: subprocess.run(shown, capture_output=True, text=True, check=False).stdout, "the job to wait again")
    scontrol("update", f"JobId={number}", "StartTime=now")


def lose_node_of(number: str, cluster: Path) -> None:
    """The node of a job dies with all that runs on it, Slurm is told, and the node comes back."""
    node = node_of(number)
    daemon = int((cluster / "run" / f"slurmd-{node}.pid").read_text())
    on_node = ["squeue", "--noheader", "--states=running", "--nodelist", node, "-o", "%i"]
    jobs = subprocess.run(on_node, capture_output=True, text=True, check=True).stdout.split()
    for process in [daemon, *(process for job in jobs for process in processes_of(job))]:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    scontrol("update", f"NodeName={node}", "State=DOWN", "Reason=test")
    subprocess.run(["slurmd", "-N", node], check=True)
    # Maybe it has told the controller by itself that it is back.
    subprocess.run(["scontrol", "update", f"NodeName={node}", "State=RESUME"], check=False, capture_output=True)
    shown = ["sinfo", "--noheader", "--nodes", node, "--states=idle,mixed,allocated", "-o", "%n"]
    wait_for(lambda: subprocess.run(shown, capture_output=True, text=True, check=True).stdout, f"{node} to come back")
    for job in jobs:
        at_once(job)


def processes_of(job: str) -> list[int]:
    """Everything that a job runs on this machine: its steps' daemons first, so that none tells what happens."""
    daemons = subprocess.run(["pgrep", "-f", rf"^slurmstepd: \[{job}\."], capture_output=True, text=True, check=False)
    found = [int(number) for number in daemons.stdout.split()]
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"SLURM_JOB_ID={job}\0".encode() in environ.read_bytes():
                found.append(int(environ.parent.name))
    return found


def test_jobs_that_a_cluster_disturbs_go_on_from_their_saved_state_to_the_same_bits(tmp_path_factory, cluster):
    undisturbed = project(tmp_path_factory.mktemp("undisturbed"), long_study())
    folder, since = project(tmp_path_factory.mktemp("disturbed"), long_study()), now()
    running = start(folder, *PROFILE)
    jobs = {what: Job(folder, seed) for what, seed in SEEDS.items()}
    numbers = {what: job.hold() for what, job in jobs.items()}
    assert "" not in numbers.values()

    subprocess.run(["scancel", numbers["cancelled"]], check=True)
    scontrol("requeue", numbers["requeued"])
    at_once(numbers["requeued"])
    # Slurm looks every half minute whether a limit has passed.
    scontrol("update", f"JobId={numbers['past its limit']}", "TimeLimit=1")
    wait_for(lambda: ["TIMEOUT"] in accounting("State", since), "the time limit")
    # What runs on the same node goes down with it, and goes on too.
    down = "on a node that goes down"
    lose_node_of(numbers[down], cluster)
    status, said = finish(running, folder)

    assert status == 0, said[-5000:]
    states: dict[str, set[str]] = {}
    for comment, state in accounting("Comment,State", since):
        for what, job in jobs.items():
            if job.name in comment and "rule_train" in comment:
                states.setdefault(what, set()).add(state.split()[0])
    assert states["cancelled"] >= {"CANCELLED", "COMPLETED"}
    assert states["past its limit"] >= {"TIMEOUT", "COMPLETED"}
    assert states[down] >= {"NODE_FAIL", "COMPLETED"}
    assert states["requeued"] >= {"REQUEUED", "COMPLETED"}
    assert all(job.resumed_at() >= 2 for job in jobs.values())

    status, said = finish(start(undisturbed, "--cores", "2"), undisturbed)
    assert status == 0, said[-5000:]
    theirs, ours = contents(folder, states=False), contents(undisturbed, states=False)
    assert theirs.keys() == ours.keys()
    assert differing(theirs, ours) == []


def node_of(number: str) -> str:
    shown = ["squeue", "--noheader", "--jobs", number, "-o", "%N"]
    return subprocess.run(shown, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def forgetful(cluster):
    """The cluster forgets jobs soon after their end."""
    config = cluster / "slurm.conf"
    text = config.read_text()
    config.write_text(text.replace("MinJobAge=300", "MinJobAge=15"))
    scontrol("reconfigure")
    yield cluster
    config.write_text(text)
    scontrol("reconfigure")


def test_a_controller_that_is_down_preemption_by_cancelling_and_a_short_memory_end_no_study(tmp_path, forgetful):
    folder, since = project(tmp_path, long_study([0])), now()
    daemon = int((forgetful / "run" / "slurmctld.pid").read_text())
    os.kill(daemon, signal.SIGTERM)
    running = start(folder, *PROFILE, "--retries", "0")  # none of this is the job's own failure
    try:
        wait_for(lambda: "Slurm takes no jobs for now" in (folder / "said").read_text(), "sbatch to be refused")
    finally:
        subprocess.run(["slurmctld"], check=True)
    job = Job(folder, 0)
    number = job.hold()
    urgent = ["srun", "--partition=urgent", "--exclusive", "--mem=1G", "--nodelist", node_of(number), "true"]
    subprocess.run(urgent, check=True, timeout=180, capture_output=True)
    status, said = finish(running, folder)

    assert status == 0, said[-5000:]
    assert f"Slurm preempted job {number}" in said
    states = [state.split()[0] for comment, state in accounting("Comment,State", since) if "rule_train" in comment]
    assert sorted(states) == ["COMPLETED", "PREEMPTED"]
    assert job.resumed_at() >= 2


# Jobs that fail, a queue that does not answer, and GPUs that are shared


def failing_study() -> dict[str, Any]:
    """A measurement of two networks."""
    study = small()
    study["spectrum"]["one_layer"] = study["spectrum"]["first_layer"]
    study["experiments"] = {
        "good": {
            "kind": "spectrum",
            "measure": {"spectrum": ["one_layer"]},
            "grids": {"run": [{"seed": [0, 1, 2]}]},
        },
        "bad": {
            "kind": "spectrum",
            "measure": {"spectrum": ["one_layer"]},
            "grids": {"run": [{"model": "resnet8"}]},
        },
    }
    return study


# The measurement of one of them fails.
FAILING = """    import sys

    if any("resnet8" in word for word in sys.argv):
        sys.exit("spectrum: this network is not measured here")
    run_stage("""


def silent_squeue(folder: Path) -> Path:
    """A folder with a squeue that fails from its second call on, for eight seconds."""
    folder.mkdir()
    program, real = folder / "squeue", shutil.which("squeue")
    program.write_text(
        f"""#!/usr/bin/env bash
cd {folder}
echo >>calls
if [ "$(wc -l <calls)" -ge 2 ]; then
	[ -e since ] || date +%s >since
	[ $(($(date +%s) - $(cat since))) -ge 8 ] || {{ echo >>failures; exit 1; }}
fi
exec {real} "$@"
"""
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return folder


def test_a_job_that_fails_shows_its_log_is_tried_as_often_as_told_and_the_others_go_on(tmp_path):
    folder, since = project(tmp_path / "project", failing_study()), now()
    stage = folder / "src" / "sharpness" / "stages" / "measure.py"
    stage.write_text(stage.read_text(encoding="utf-8").replace("    run_stage(", FAILING), encoding="utf-8")
    wrapped = silent_squeue(tmp_path / "programs")
    profile = yaml.safe_load((ROOT / "slurm" / "config.yaml").read_text())
    # As the profile's comment says for a cluster that divides its GPUs.
    resources = {name: value for name, value in profile["default-resources"].items() if name != "gpu"}
    resources |= {"gres": "shard:1", "mem_mb": 1000}
    (folder / "slurm" / "config.yaml").write_text(yaml.safe_dump(profile | {"default-resources": resources}))

    status, said = finish(start(folder, *PROFILE, path=wrapped), folder)

    assert status == 1
    assert (wrapped / "failures").read_text()  # a look at the queue did fail, and no job was lost by it
    results = folder / "results" / "small"
    assert (results / "figures" / "good.pdf").exists()
    assert not (results / "figures" / "bad.pdf").exists()
    # The last lines of its log, and where it is.
    (log,) = (results / "runs").glob("*resnet8*/logs/spectrum-one_layer-*.log")
    assert "spectrum: " in log.read_text().splitlines()[-1]
    assert log.read_text().splitlines()[-1] in said
    assert str(log.relative_to(folder)) in said

    jobs = accounting("Comment,State,AllocTRES,Start,End", since)
    failed = [comment for comment, state, *_ in jobs if state == "FAILED"]
    assert len(failed) == 1 + profile["retries"]
    assert all("resnet8" in comment and "rule_spectrum" in comment for comment in failed)
    training = {comment: (begin, end) for comment, _, _, begin, end in jobs if "rule_train" in comment}
    assert len(training) == 4
    # More jobs at once on one GPU than one: eight shards in two nodes would hold them all apart otherwise.
    logs = [path.read_text() for path in (results / "runs").glob("*/logs/train.log")]
    places = [re.search(r"CUDA_VISIBLE_DEVICES ([01])$", log, re.MULTILINE)[1] for log in logs]
    assert len(places) == 4
    overlapping = max(begin for begin, _ in training.values()) < min(end for _, end in training.values())
    assert overlapping
    assert len(set(places)) == 1


def test_a_study_on_one_gpu_runs_several_jobs_on_it_at_the_same_time(tmp_path):
    study = failing_study()
    del study["experiments"]["bad"]
    folder = project(tmp_path, study)
    since = now()
    command = ["sbatch", "--wait", "--mem=1G", "--cpus-per-task=3", "slurm/one_gpu.sh", "--configfile", "study.yaml"]

    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)

    said = "\n".join(path.read_text() for path in folder.glob("slurm-*.out"))
    assert done.returncode == 0, said[-5000:]
    assert (folder / "results" / "small" / "figures" / "good.pdf").exists()
    ((_, resources),) = accounting("State,AllocTRES", since)
    assert "gres/gpu=1," in f"{resources},"
    logs = [path.read_text() for path in (folder / "results" / "small" / "runs").glob("*/logs/train.log")]
    assert len({re.search(r"CUDA_VISIBLE_DEVICES (\d)$", log, re.MULTILINE)[1] for log in logs}) == 1
    # They ran beside one another.
    began = [log.split()[1] for log in logs]
    ended = [log.splitlines()[-1].split()[1] for log in logs]
    assert len(logs) == 3
    assert max(began) < min(ended)


# Code, data and measurements of one's own

OWN = {
    "study": "own",
    "defaults": {"epochs": 2, "batch_size": 20},
    "checkpoints": {"some": {"at_epochs": [0, 1, 2]}},
    "spectrum": {
        "default": {"num_examples": 60, "checkpoints": "some"},
        "preconditioned": {"num_examples": 60, "checkpoints": "some", "preconditioner": "optimizer"},
    },
    "experiments": {
        "layer_norm": {
            "kind": "eigenvalues",
            "measurements": "my_probe.py:Probe",
            "figures": "my_plot.py:draw",
            "grids": {"widths": [{"data": "blobs.npz", "model": "my_models.py:mlp", "model_args": {"width": [8, 16]}}]},
        },
        "transformer": {
            "kind": "spectrum",
            "measure": {"spectrum": ["preconditioned"]},
            "grids": {
                "vit": [
                    {
                        "data": "digits",
                        "num_training": 120,
                        "model": "my_models.py:ViT",
                        "model_args": {"width": 8, "depth": 1, "heads": 2, "patch": 4},
                        "optimizer": {"name": "adamw", "weight_decay": 0.05},
                        "learning_rate": 0.001,
                        "schedule": {"name": "cosine", "warmup": 0.5},
                    }
                ]
            },
        },
        "regression": {
            "kind": "eigenvalues",
            "grids": {
                "rates": [
                    {"data": "line.npz", "model": "my_models.py:mlp", "loss": "mse", "learning_rate": [0.05, 0.1]}
                ]
            },
        },
    },
}
OWN_FILES = {
    "my_models.py": """\
from networks import ViT
from torch import nn


def mlp(input_shape, num_classes, width=8):
    ends = num_classes or 1
    return nn.Sequential(nn.Linear(input_shape[0], width), nn.LayerNorm(width), nn.Tanh(), nn.Linear(width, ends))
""",
    "my_probe.py": """\
class Probe:
    def rows(self, landscape, checkpoint):
        yield {"weight_norm": checkpoint.weights.norm()}
""",
    "my_plot.py": """\
from matplotlib.figure import Figure


def draw(probe):
    figure = Figure()
    figure.add_subplot().plot(probe["epoch"], probe["weight_norm"], ".")
    return figure
""",
}


def test_the_command_computes_a_study_of_ones_own_code_and_data_on_the_cluster(tmp_path):
    folder, since = project(tmp_path, OWN), now()
    for name, text in OWN_FILES.items():
        (folder / name).write_text(text)
    shutil.copy(ROOT / "examples" / "networks.py", folder)
    generator = np.random.default_rng(0)
    classes = generator.integers(3, size=150)
    np.savez(folder / "blobs.npz", inputs=generator.normal(size=(150, 5)) + classes[:, None], targets=classes)
    numbers = generator.normal(size=(150, 4))
    np.savez(folder / "line.npz", inputs=numbers, targets=numbers[:, :1] * 2 - 1)

    status, said = finish(run_by_command(folder, *PROFILE[2:]), folder)

    assert status == 0, said[-5000:]
    assert "Report: results/own/report.html" in said
    jobs = [line for line in accounting("Comment,State", since) if line[0]]
    assert {state for _, state in jobs} == {"COMPLETED"}
    count = {rule: sum(f"rule_{rule}_" in f"{comment}_" for comment, _ in jobs) for rule in ("train", "measure_own")}
    assert count == {"train": 5, "measure_own": 2}
    tables = folder / "results" / "own" / "tables"
    for name, optimizer in (("layer_norm", None), ("transformer", "optimizer"), ("regression", None)):
        spectrum = pd.read_csv(tables / f"{name}_spectrum.csv")
        assert np.isfinite(spectrum["eigenvalue"]).all()
        assert set(spectrum.get("preconditioner", [None])) == {optimizer}
        assert spectrum["own_code"].nunique() == 1
    probe = pd.read_csv(tables / "layer_norm_probe.csv")
    assert sorted(probe["step"].unique()) == sorted(pd.read_csv(tables / "layer_norm_spectrum.csv")["step"].unique())
    assert (folder / "results" / "own" / "figures" / "layer_norm_draw.png").stat().st_size > 1000
    assert 'id="figure-layer_norm_draw"' in (folder / "results" / "own" / "report.html").read_text()
