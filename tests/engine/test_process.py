"""Programs are run to their end, told to the log, and nothing of them is left."""

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from pipeline.engine import process

_ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


def _run(tmp_path: Path, script: str) -> tuple[int, list[str]]:
    lines: list[str] = []
    code = process.run(
        [sys.executable, "-c", script],
        log_path=tmp_path / "log",
        environment=_ENVIRONMENT,
        on_line=lines.append,
    )
    return code, lines


def _is_running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_both_outputs_go_to_the_log_and_to_the_reader(tmp_path: Path) -> None:
    script = "import sys; print('out', flush=True); sys.stderr.write('err\\n'); sys.exit(7)"
    assert _run(tmp_path, script) == (7, ["out", "err"])
    log = (tmp_path / "log").read_text()
    assert log.startswith(f"+ {sys.executable} -c ")
    assert log.endswith("\nout\nerr\n")


def test_a_program_is_read_to_its_end_though_nobody_listens(tmp_path: Path) -> None:
    """More than a pipe holds: unread, it would wait for ever."""

    def refuse(line: str) -> None:
        raise BrokenPipeError

    log = tmp_path / "log"
    argv = [sys.executable, "-c", "for n in range(50_000): print(n)"]
    code = process.run(argv, log_path=log, environment={}, on_line=refuse)
    assert code == 0
    assert log.read_text().endswith("\n49999\n")


def test_words_are_passed_as_they_are_and_shown_quoted(tmp_path: Path) -> None:
    argv = ["/bin/echo", "two words", "$HOME", ";"]
    process.run(argv, log_path=tmp_path / "log", environment=_ENVIRONMENT)
    assert (tmp_path / "log").read_text() == (
        "+ /bin/echo 'two words' '$HOME' ';'\ntwo words $HOME ;\n"
    )


def test_only_the_given_variables_are_seen(tmp_path: Path) -> None:
    script = "import os; print(sorted(set(os.environ) - {'LC_CTYPE'}))"
    assert _run(tmp_path, script)[1] == ["['PATH']"]


def test_what_a_program_leaves_running_is_ended(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys; print(subprocess.Popen(['/bin/sleep', '600']).pid); sys.exit(3)"
    )
    code, (pid,) = _run(tmp_path, script)
    assert code == 3
    assert not _is_running(int(pid))


def test_an_interrupt_ends_the_program_and_goes_on(tmp_path: Path) -> None:
    pids: list[int] = []

    def interrupt(line: str) -> None:
        pids.append(int(line))
        os.kill(os.getpid(), signal.SIGINT)

    assert threading.current_thread() is threading.main_thread()
    with pytest.raises(KeyboardInterrupt):
        process.run(
            [sys.executable, "-uc", "import os, time; print(os.getpid()); time.sleep(600)"],
            log_path=tmp_path / "log",
            environment=_ENVIRONMENT,
            on_line=interrupt,
        )
    assert not _is_running(pids[0])


def test_a_program_that_ignores_the_request_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "GRACE_S", 0.2)
    script = (
        "import subprocess, sys;"
        "child = 'import signal, time; signal.signal(15, signal.SIG_IGN);"
        " print(1, flush=True); time.sleep(600)';"
        "p = subprocess.Popen([sys.executable, '-c', child], stdout=subprocess.PIPE);"
        "p.stdout.readline(); print(p.pid)"
    )
    code, (pid,) = _run(tmp_path, script)
    assert code == 0
    assert not _is_running(int(pid))


@pytest.mark.parametrize(
    ("wait_s", "interrupted_by", "saves"),
    [(0.5, {"ready"}, True), (600, {"ready", "saving"}, False)],
)
def test_a_program_may_save_before_it_ends_unless_it_is_interrupted_again(
    tmp_path: Path, wait_s: float, interrupted_by: set[str], saves: bool
) -> None:
    script = (
        "import pathlib, signal, sys, time;"
        f"save = lambda number, frame: (print('saving'), time.sleep({wait_s}),"
        f" pathlib.Path({str(tmp_path / 'saved')!r}).touch(), sys.exit());"
        "signal.signal(15, save); print('ready'); time.sleep(600)"
    )

    def interrupt(line: str) -> None:
        if line in interrupted_by:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        process.run(
            [sys.executable, "-uc", script],
            log_path=tmp_path / "log",
            environment=_ENVIRONMENT,
            grace_s=600,
            on_line=interrupt,
        )
    assert (tmp_path / "saved").exists() == saves


def test_the_last_lines_of_a_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"1\n2\n\xff3\n")
    assert process.read_last_lines(tmp_path / "log", 2) == "2\n\ufffd3"
