"""The file of decisions: nothing that was acknowledged is ever lost."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from anomalyncd.decisions.actions import Name, decided_now, to_line
from anomalyncd.decisions.journal import NAME, Journal
from anomalyncd.errors import InputError

ROOT = Path(__file__).parents[2]
# Writes decisions without end and says each one that is kept. Torch is not needed for that.
WRITER = """
import sys
from pathlib import Path
from anomalyncd.decisions.actions import Name, decided_now
from anomalyncd.decisions.journal import Journal
journal = Journal(Path(sys.argv[1]))
for number in range(int(sys.argv[2])):
    made = decided_now(Name("0", "n" * (number % 7 * 1000)))
    journal.append([made])
    print(made.id, flush=True)
"""


def writer(run: Path, decisions: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(run), str(decisions)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def names(run: Path) -> list[str]:
    journal = Journal(run)
    journal.refresh()
    return [decision.action.name for decision in journal.decisions]


def named(name: str) -> Name:
    return Name("0", name)


def test_a_decision_is_a_line_and_is_read_back(tmp_path: Path) -> None:
    Journal(tmp_path).append([decided_now(named("a")), decided_now(named("b"))])
    other = Journal(tmp_path)
    other.append([decided_now(named("c"))])
    assert names(tmp_path) == ["a", "b", "c"] and len(other.decisions) == 3
    assert not other.refresh() and other.warning == ""


@pytest.mark.parametrize("cut", [1, 20, -2])
def test_a_last_line_that_was_cut_off_is_told_and_kept_aside(tmp_path: Path, cut: int) -> None:
    journal = Journal(tmp_path)
    journal.append([decided_now(named("a"))])
    torn = to_line(decided_now(named("b")))[:cut]
    path = tmp_path / NAME
    with path.open("a") as file:
        file.write(torn)
    assert journal.refresh() is False and "cut off" in journal.warning
    assert path.read_text().endswith(torn)  # reading changes nothing
    journal.append([decided_now(named("c"))])
    assert names(tmp_path) == ["a", "c"]
    assert (tmp_path / "decisions.torn-1").read_text() == torn
    assert "decisions.torn-1" in journal.warning


def test_a_last_line_that_lacks_only_its_end_counts(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(to_line(decided_now(named("a"))).rstrip("\n"))
    journal = Journal(tmp_path)
    journal.append([decided_now(named("b"))])
    assert names(tmp_path) == ["a", "b"] and journal.warning == ""
    assert not list(tmp_path.glob("decisions.torn*"))


def test_a_file_that_was_joined_with_itself_counts_once(tmp_path: Path) -> None:
    Journal(tmp_path).append([decided_now(named("a"))])
    path = tmp_path / NAME
    path.write_text(2 * path.read_text())
    assert names(tmp_path) == ["a"]


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append([decided_now(named("a"))])
    with (tmp_path / NAME).open("a") as file:
        file.write("\0\0\0\n")
    with pytest.raises(InputError, match=r"decisions\.jsonl, line 2: not JSON"):
        journal.append([decided_now(named("b"))])


def test_a_file_that_became_shorter_is_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append([decided_now(named("a"))])
    (tmp_path / NAME).write_text("")
    with pytest.raises(InputError, match="has become shorter"):
        journal.refresh()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(InputError, match=r"cannot be (read|written)"):
        Journal(tmp_path).append([decided_now(named("a"))])


def test_two_processes_append_without_losing_a_line(tmp_path: Path) -> None:
    both = [writer(tmp_path, 30) for _ in range(2)]
    said = [process.communicate()[0].split() for process in both]
    journal = Journal(tmp_path)
    journal.refresh()
    kept = [decision.id for decision in journal.decisions]
    assert sorted(kept) == sorted(said[0] + said[1]) and len(kept) == 60


def test_a_kill_at_a_random_moment_loses_no_decision(tmp_path: Path) -> None:
    generator = random.Random(0)
    said: list[str] = []
    for _ in range(4):
        process = writer(tmp_path, 10**6)
        said.append(process.stdout.readline().strip())
        time.sleep(generator.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        said += process.communicate()[0].split()
    journal = Journal(tmp_path)
    journal.append([decided_now(named("after"))])
    assert set(said) <= {decision.id for decision in journal.decisions}
