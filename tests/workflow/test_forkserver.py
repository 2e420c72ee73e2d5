"""Jobs as forks: as if each had started Python itself, with the code that lies there when it starts."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from sharpness.workflow import forkserver

PROGRAM = forkserver.__file__
ENVIRONMENT = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
ENVIRONMENT["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def is_served(name):
    connection = forkserver._connected(name)
    if connection is not None:
        connection.close()
    return connection is not None


class Server:
    """A server and the name at which it answers."""

    def __init__(self, name):
        self.name = f"tests-{os.getpid()}-{name}"
        command = [sys.executable, "-P", PROGRAM, "--serve", self.name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, env=ENVIRONMENT)
        wait_for(lambda: is_served(self.name))

    def command(self, *words):
        return [sys.executable, "-I", "-S", PROGRAM, self.name, *words]

    def end(self):
        self.process.stdin.close()
        return self.process.wait(timeout=30)


@pytest.fixture(scope="module")
def server():
    server = Server("of the module")
    yield server
    server.end()


@pytest.fixture
def start(server, tmp_path):
    """Start a job of some code in a folder; one process of its own, and the job's number in its first line."""
    started = []

    def start(code, *words, environment=ENVIRONMENT, of=server):
        (tmp_path / "job.py").write_text(f"import os\nprint(os.getpid(), flush=True)\n{code}")
        command = of.command("-m", "job", *words)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def exists(number):
    """Whether a process runs; one that has ended but was not waited for does not."""
    try:
        return Path(f"/proc/{number}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_job_is_as_if_it_had_started_python_itself(start, tmp_path):
    code = """
import sys
print(__name__, sys.argv[1:], os.getcwd() == sys.path[0], os.environ["OF_THIS_JOB"], input())
print("said", file=sys.stderr)
"""
    process = start(code, "--some", "words with spaces", environment=ENVIRONMENT | {"OF_THIS_JOB": "1"})
    out, error = process.communicate("asked\n")

    number, said = out.splitlines()
    assert int(number) != process.pid
    assert said == "__main__ ['--some', 'words with spaces'] True 1 asked"
    assert error == "said\n"
    assert process.returncode == 0


@pytest.mark.slow
def test_what_a_job_leaves_for_its_end_is_done(start):
    code = """
import atexit, threading, time
atexit.register(print, "at exit")
threading.Thread(target=lambda: (time.sleep(0.2), print("of a thread"))).start()
print("unflushed")
"""
    out, _ = start(code).communicate()

    assert out.splitlines()[1:] == ["unflushed", "of a thread", "at exit"]


def test_packages_are_there_already_but_nothing_of_this_project(start):
    code = """
import sys
print(*(name for name in sys.modules if name in ("torch", "pandas") or name.startswith("sharpness")))
"""
    out, _ = start(code).communicate()

    assert sorted(out.splitlines()[1].split()) == ["pandas", "torch"]


def test_a_job_runs_the_code_that_lies_there_when_it_starts(start, tmp_path):
    for value in (1, 2):
        (tmp_path / "imported.py").write_text(f"VALUE = {value}\n")
        os.utime(tmp_path / "imported.py", (value, value))  # two writes within a second look alike to Python
        out, _ = start("import imported; print(imported.VALUE)").communicate()
        assert out.splitlines()[1] == str(value)


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("raise SystemExit(3)", 3, ""),
        ("raise SystemExit('one clear sentence')", 1, "one clear sentence\n"),
        ("raise RuntimeError('lost')", 1, "RuntimeError: lost\n"),
        ("os.kill(os.getpid(), 9)", 137, "(on Slurm mem_mb, in slurm/config.yaml)\n"),
        ("os.kill(os.getpid(), 15)", -15, ""),
    ],
)
def test_the_process_ends_as_the_job_does(start, code, status, said):
    process = start(code)
    _, error = process.communicate()

    assert process.returncode == status
    assert error.endswith(said)


ENDS_BY_ITSELF = """
import signal, sys, time
for sign in (signal.SIGTERM, signal.SIGINT):
    signal.signal(sign, lambda *_: sys.exit(7))
print(os.getppid(), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_job_which_may_end_in_its_own_way(start, sign):
    process = start(ENDS_BY_ITSELF)
    for _ in range(2):
        process.stdout.readline()
    process.send_signal(sign)

    assert process.wait(timeout=30) == 7


def test_a_signal_to_all_processes_at_once_is_the_jobs_affair(start, server):
    process = start(ENDS_BY_ITSELF)
    job, attending = (int(process.stdout.readline()) for _ in range(2))
    for number in (server.process.pid, attending, process.pid, job):
        os.kill(number, signal.SIGTERM)

    assert process.wait(timeout=30) == 7
    assert start("").wait(timeout=30) == 0  # the next one is served as well


def test_a_job_does_not_outlive_its_process(start):
    process = start("import time; time.sleep(60)")
    number = int(process.stdout.readline())
    process.kill()

    wait_for(lambda: not exists(number))


def test_a_job_of_several_threads_starts_python_itself(start):
    environment = ENVIRONMENT | {"OMP_NUM_THREADS": "2"}
    process = start("import sys; print('torch' in sys.modules)", environment=environment)
    _, has_torch = process.communicate()[0].splitlines()

    assert has_torch == "False"


def test_where_nobody_serves_a_job_starts_python_itself(start):
    class Nobody:
        command = Server.command
        name = "nobody"

    process = start("import sys; print(os.getppid(), 'torch' in sys.modules)", of=Nobody())

    assert process.communicate()[0].splitlines()[1] == f"{process.pid} False"
    assert process.returncode == 0


class Nobody:
    """In place of a server."""

    command = Server.command
    name = forkserver.NOBODY


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_job_without_a_server_gets_signals_and_may_end_in_its_own_way(start, sign):
    process = start(ENDS_BY_ITSELF, of=Nobody())
    for _ in range(2):
        process.stdout.readline()
    process.send_signal(sign)

    assert process.wait(timeout=30) == 7


def test_a_job_without_a_server_does_not_outlive_its_process(start):
    process = start("import time; time.sleep(60)", of=Nobody())
    number = int(process.stdout.readline())
    process.kill()

    wait_for(lambda: not exists(number))


@pytest.mark.parametrize("by_itself", [False, True])
def test_of_a_job_that_is_killed_its_log_and_the_terminal_say_so_and_how_much_memory_it_had(
    start, server, tmp_path, by_itself
):
    code = "import os\nheld = bytearray(300 << 20)\nos.kill(os.getpid(), 9)"
    (tmp_path / "job.py").write_text(code)
    command = (Nobody() if by_itself else server).command("-m", "job", "slices", "--n", "1")
    with (tmp_path / "log").open("w") as log:
        done = subprocess.run(
            command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=log, text=True, check=False
        )

    assert done.returncode == 137
    (sentence,) = done.stdout.splitlines()
    assert sentence.endswith(f"; its log: {tmp_path / 'log'}")
    assert (tmp_path / "log").read_text().splitlines() == [sentence.partition("; its log")[0]]
    peak = int(re.search(r"job slices: the job was killed .*, when it had ([\d,]+) MiB", sentence)[1].replace(",", ""))
    assert 300 <= peak < 3000


@pytest.mark.slow
def test_where_nobody_can_listen_the_server_says_so_and_a_job_starts_python_itself(start):
    command = [sys.executable, "-P", PROGRAM, "--serve", "long" * 30]
    server = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)

    class Nobody:
        command = Server.command
        name = "long" * 30

    assert server.returncode == 1
    assert server.stderr.startswith("Every job starts Python by itself, since nobody can listen at")
    assert start("", of=Nobody()).wait() == 0


def test_what_is_no_module_is_pythons_own(server):
    done = subprocess.run(server.command("-c", "print('own')"), env=ENVIRONMENT, capture_output=True, text=True)

    assert done.stdout == "own\n"


@pytest.mark.slow
def test_the_server_ends_with_its_standard_input_and_a_job_goes_on(start):
    server = Server("that ends")
    process = start("print(input())", of=server)
    process.stdout.readline()

    assert server.end() == 0
    assert not is_served(server.name)
    assert process.communicate("to the end\n")[0] == "to the end\n"
    assert process.returncode == 0


def test_a_job_whose_fork_is_lost_fails_with_a_sentence(start):
    process = start("import time; print(os.getppid(), flush=True); time.sleep(60)")
    job, attending = (int(process.stdout.readline()) for _ in range(2))
    os.kill(attending, signal.SIGKILL)
    process.wait(timeout=30)
    os.kill(job, signal.SIGKILL)  # it has the other ends of the pipes
    _, error = process.communicate()

    assert process.returncode == 1
    assert error.startswith("the process that forked for job was lost")


@pytest.mark.slow
def test_a_server_ends_with_the_process_that_started_it_and_its_time_counts(tmp_path):
    (tmp_path / "job.py").write_text(
        "import sys, time\nwhile time.process_time() < 1: pass\nprint('torch' in sys.modules)"
    )
    (tmp_path / "workflow.py").write_text(
        "import subprocess, time\n"
        "from sharpness.workflow import forkserver, jobserver\n"
        "function = jobserver.start({})\n"
        "name = function.split()[-3]\n"
        "while not (connection := forkserver._connected(name)): time.sleep(0.01)\n"
        "connection.close()\n"
        "print(name, flush=True)\n"
        "subprocess.run(['bash', '-c', f'{function} python -m job'], check=True)\n"
    )
    (tmp_path / "whole.py").write_text(
        "import resource, subprocess, sys\n"
        "subprocess.run([sys.executable, 'workflow.py'], check=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime)\n"
    )
    environment = ENVIRONMENT | {"PYTHONPATH": str(Path(PROGRAM).parents[2])}
    done = subprocess.run(
        [sys.executable, "whole.py"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )

    name, was_forked, seconds = done.stdout.split()
    assert was_forked == "True"
    assert not is_served(name)
    assert float(seconds) > 1  # the job's own


@pytest.mark.slow
def test_nothing_stays_behind_whoever_is_killed(tmp_path):
    (tmp_path / "workflow.py").write_text(
        "import sys, time\n"
        "from sharpness.workflow import jobserver\n"
        "print(jobserver.start({}).split()[-3], flush=True)\n"
        "time.sleep(60)\n",
        encoding="utf-8",
    )
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = ENVIRONMENT | {"PYTHONPATH": str(Path(PROGRAM).parents[2]), "TMPDIR": str(temporary)}
    command = [sys.executable, "workflow.py"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as workflow:
        name = workflow.stdout.readline().strip()
        wait_for(lambda: is_served(name))
        found = subprocess.run(["pgrep", "-f", f"serve {name}"], capture_output=True, text=True, check=True).stdout
        for number in (*map(int, found.split()), workflow.pid):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)

    wait_for(lambda: not is_served(name))
    assert list(temporary.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_jobs_are_taken_from_this_user_alone(server):
    code = (
        "import os, socket, sys\n"
        "os.setuid(65534)\n"
        "connection = socket.socket(socket.AF_UNIX)\n"
        "connection.connect('\\0' + sys.argv[1])\n"
        "print(connection.recv(1))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, server.name], capture_output=True, text=True, timeout=30)

    assert done.stdout == "b''\n"
