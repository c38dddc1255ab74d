"""Memory grows neither with the size of a file nor by 200 bytes an entry of the tree."""

import os
import pathlib
import subprocess

import pytest

from conftest import ENVIRONMENT, SUPERLIFTER, SUPERLIFTERD, serving


def peak_of(command, **keywords):
    """Peak resident bytes of a command."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               env=ENVIRONMENT, **keywords)
    err = process.stderr.read()
    process.stderr.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, err
    return usage.ru_maxrss * 1024


def worker_peak(server):
    """Peak resident bytes of the largest of the daemon's children, without pages of mapped files: those
    are the page cache's."""
    peaks = []
    for pid in server.children():
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        peaks.append(int(fields["RssAnon"].split()[0]) * 1024)
    return max(peaks)


def pull_command(server, dest):
    return [SUPERLIFTER, "pull", "--quiet", server.url(), str(dest)]


@pytest.fixture(scope="module")
def sanitized():
    probe = subprocess.run(["grep", "-c", "__asan_init", SUPERLIFTER], capture_output=True)
    return int(probe.stdout.strip() or 0) > 0


def test_a_large_file_costs_no_memory(tmp_path, sanitized):
    if sanitized:
        pytest.skip("sanitized programs keep what was freed")
    peaks, workers = [], []
    for name, size in (("small", 64 << 20), ("large", 1 << 30)):
        source = tmp_path / name
        source.mkdir()
        with open(source / "file", "wb") as file:
            file.truncate(size)  # A hole: the page cache has the zeros, the disk nothing.
        with serving(tmp_path / f"server-{name}", source) as server:
            peaks.append(peak_of(pull_command(server, tmp_path / f"dest-{name}")))
            workers.append(worker_peak(server))
        (tmp_path / f"dest-{name}/file").unlink()
    assert peaks[1] - peaks[0] < 16 << 20, peaks
    assert workers[1] - workers[0] < 8 << 20, workers
    assert peaks[1] < 128 << 20, peaks


def make_entries(root, count):
    """`count` empty files with names of 24 bytes, in directories of 1,000."""
    for number in range(count):
        if number % 1000 == 0:
            directory = root / f"directory-{number // 1000:05}"
            directory.mkdir(parents=True)
            handle = os.open(directory, os.O_RDONLY)
        os.close(os.open(f"a-name-of-24-bytes-{number:05}", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=handle))
        if number % 1000 == 999:
            os.close(handle)


def test_an_entry_costs_under_200_bytes(tmp_path, sanitized):
    if sanitized:
        pytest.skip("sanitized programs keep what was freed")
    few, many = 10_000, 90_000
    peaks, workers, unchanged, indexers = [], [], [], []
    for count in (few, many):
        source = tmp_path / f"source-{count}"
        make_entries(source, count)
        with serving(tmp_path / f"server-{count}", source) as server:
            peaks.append(peak_of(pull_command(server, tmp_path / f"dest-{count}")))
            workers.append(worker_peak(server))
            unchanged.append(peak_of(pull_command(server, tmp_path / f"dest-{count}")))
            indexers.append(peak_of([SUPERLIFTERD, "index", "--config", str(server.config)]))
    found = {}
    for what, values in (("first pull", peaks), ("unchanged pull", unchanged), ("worker", workers),
                         ("indexer", indexers)):
        found[what] = round((values[1] - values[0]) / (many - few))
    print(f"bytes an entry: {found}")
    del found["indexer"]  # Shown, not bounded.
    assert max(found.values()) < 200, f"bytes an entry: {found}"


def test_an_unchanged_index_of_many_entries_is_fast(tmp_path, sanitized):
    """79,000 files in under a second is what is asked for; here is the shape of that, with room."""
    import time
    source = tmp_path / "source"
    make_entries(source, 80_000)
    with serving(tmp_path / "server", source, start=False) as server:
        began = time.monotonic()
        said = server.index()
        elapsed = time.monotonic() - began
        assert "up to date" in said
        assert elapsed < (10 if sanitized else 2), f"{elapsed:.2f} s"
