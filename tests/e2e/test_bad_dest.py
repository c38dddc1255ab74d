"""A DEST that cannot be used: a message that names it, exit code 11, old files intact, and resume works."""

import fcntl
import json
import os
import subprocess

import pytest

from conftest import (ENVIRONMENT, SUPERLIFTER, as_nobody, assert_same, in_mount_namespace, is_root, pattern,
                      pull, run_client, serving, snapshot, write)


def test_dest_is_a_file(server, tmp_path):
    dest = write(tmp_path / "dest", b"mine")
    outcome = pull(server.url(), dest, code=11)
    assert "dest" in outcome.err and "director" in outcome.err
    assert dest.read_bytes() == b"mine"


def test_a_parent_of_dest_is_a_file(server, tmp_path):
    write(tmp_path / "file", b"mine")
    outcome = pull(server.url(), tmp_path / "file/dest", code=11)
    assert "file" in outcome.err


def test_a_parent_of_dest_is_missing(server, tmp_path):
    outcome = pull(server.url(), tmp_path / "no/such/dest", code=(0, 11))
    if outcome.code == 11:
        assert "no/such" in outcome.err


def test_dest_is_a_dangling_symlink(server, tmp_path):
    (tmp_path / "dest").symlink_to("nowhere")
    outcome = pull(server.url(), tmp_path / "dest", code=11)
    assert "dest" in outcome.err


def test_dest_is_a_symlink_to_a_directory(server, tree, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "dest").symlink_to("real")
    pull(server.url("m/d"), tmp_path / "dest")
    assert_same(tree / "d", tmp_path / "real")


def test_a_directory_for_a_file(server, tmp_path):
    """A directory of the source where DEST has a file, and the other way round, at the top."""
    write(tmp_path / "dest", b"mine")
    assert pull(server.url("m/d"), tmp_path / "dest", code=11).err
    write(tmp_path / "into/plain.txt/mine", b"mine")
    outcome = pull(server.url("m/plain.txt"), tmp_path / "into", code=(11, 23))
    assert "plain.txt" in outcome.err
    assert (tmp_path / "into/plain.txt/mine").read_bytes() == b"mine"


def run_as_nobody(server, dest, *options):
    done = subprocess.run([SUPERLIFTER, "pull", "--quiet", *options, server.url("m/d"), str(dest)],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, env=ENVIRONMENT, timeout=60,
                          **as_nobody(dest / "x"))
    return done.returncode, done.stderr


def test_a_directory_that_may_not_be_written(server, tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    code, err = run_as_nobody(server, closed)
    assert code == 11 and "closed" in err
    code, err = run_as_nobody(server, closed / "new")
    assert code == 11 and "closed/new" in err
    assert os.listdir(closed) == []


def test_a_read_only_file_system(server, tmp_path):
    dest = tmp_path / "dest"
    dest.mkdir()
    command = in_mount_namespace('mount -t tmpfs -o ro none "$1"; shift; exec "$@"', dest, SUPERLIFTER, "pull",
                                 "--quiet", server.url(), dest)
    if command is None:
        pytest.skip("may not mount in a namespace of its own")
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=60)
    assert done.returncode == 11, done
    assert "dest" in done.stderr and "ead-only" in done.stderr


def test_a_full_disk_keeps_old_files_and_resumes(tmp_path):
    """On a tmpfs of 24 MiB: 10 MiB were pulled; their new versions with 20 MiB more do not fit; then
    there is room."""
    source = tmp_path / "source"
    for number in range(10):
        write(source / f"f{number}", pattern(1 << 20, number))
    dest = tmp_path / "dest"
    dest.mkdir()
    with serving(tmp_path / "server", source) as server:
        script = f'''
            mount -t tmpfs -o size=24m none "{dest}"
            cp -a "{source}" "{tmp_path}/first"
            "{SUPERLIFTER}" pull --quiet "$1" "{dest}/d"
            echo ready; read -r line
            code=0; "{SUPERLIFTER}" pull --quiet "$1" "{dest}/d" 2>"{tmp_path}/err" || code=$?
            cp -a "{dest}/d" "{tmp_path}/when-full"; echo "$code"; read -r line
            mount -o remount,size=200m "{dest}"
            "{SUPERLIFTER}" pull --quiet --stats=json "$1" "{dest}/d" | tail -n 1
            cp -a "{dest}/d" "{tmp_path}/in-the-end"
        '''
        command = in_mount_namespace(script, server.url())
        if command is None:
            pytest.skip("may not mount in a namespace of its own")
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
        try:
            assert process.stdout.readline() == "ready\n"
            old = snapshot(source)
            for number in range(30):
                write(source / f"f{number}", pattern(1 << 20, 100 + number))
            new = snapshot(source)
            server.update()
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "11\n"
            err = (tmp_path / "err").read_text()
            assert "No space left" in err or "full" in err, err
            found = snapshot(tmp_path / "when-full")
            assert set(old) <= set(found), "old files were lost"
            for path, value in found.items():
                assert value in (old.get(path), new[path]), f"{path} is torn"
            process.stdin.write("\n")
            process.stdin.flush()
            stats = json.loads(process.stdout.readline())
            assert process.wait(60) == 0
            assert_same(source, tmp_path / "in-the-end")
            # What was there by then was not fetched again: at least the 5 MiB that had room for sure.
            assert stats["bytes_literal"] < 26 << 20
        finally:
            process.kill()
            process.communicate()


def test_a_second_pull_into_the_same_dest_is_refused(server, dest):
    pull(server.url("m/d"), dest)
    with open(dest / ".superlifter/lock", "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        outcome = pull(server.url("m/d"), dest, code=11)
    assert "another" in outcome.err or "in use" in outcome.err or "pid" in outcome.err, outcome


def test_a_damaged_state_is_made_anew(server, tree, dest):
    pull(server.url(), dest)
    state = dest / ".superlifter/state.generation"
    whole = state.read_bytes()
    for damaged in (b"", whole[:100], whole[:len(whole) // 2], b"\0" * len(whole),
                    whole[:5000] + bytes([whole[5000] ^ 0xFF]) + whole[5001:]):
        state.write_bytes(damaged)
        pull(server.url(), dest)
        assert_same(tree, dest)


def test_a_state_of_another_source_does_no_harm(server, tree, dest, tmp_path):
    pull(server.url("m/d"), dest)
    pull("--delete", server.url("m/odd%20names"), dest)
    assert_same(tree / "odd names", dest)


def test_hostile_things_in_the_state_directory(server, tree, dest, tmp_path):
    """Symlinks in .superlifter that lead elsewhere are not written through."""
    victim = write(tmp_path / "victim/file", b"untouched")
    dest.mkdir()
    (dest / ".superlifter").symlink_to(victim.parent)
    pull(server.url("m/d"), dest, code=(0, 11))
    assert os.listdir(victim.parent) == ["file"] and victim.read_bytes() == b"untouched"


@pytest.mark.skipif(not is_root, reason="a file of another user must be in the way")
def test_files_that_may_not_be_replaced_are_named(server, tmp_path):
    dest = tmp_path / "dest"
    dest.mkdir()
    os.chown(dest, 65534, 65534)
    code, err = run_as_nobody(server, dest)
    assert code == 0, err
    for path in (dest / "e/f", dest / "e"):
        os.chown(path, 0, 0)
    (dest / "e/f/deep.txt").write_bytes(b"root's now")
    code, err = run_as_nobody(server, dest)
    assert code == 23 and "deep.txt" in err


@pytest.mark.parametrize("arguments", [
    ["pull"], ["pull", "--nonsense", "h/m", "d"], ["pull", "h/m", "d", "extra"], ["pull", "-bad-host/m", "d"],
    ["pull", "h", "d"], ["pull", "", "d"], ["pull", "h:99999/m", "d"], ["pull", "--jobs=0x", "h/m", "d"],
    ["pull", "--exclude=[a", "h/m", "d"], ["pull", "h/m/../x", "d"], ["pull", "h/m/%2e%2e/x", "d"],
    ["pull", "h/m/%00", "d"], ["pull", "h/m/%zz", "d"], ["frobnicate"], [], ["verify", "a", "b"]])
def test_mistakes_on_the_command_line(arguments, tmp_path):
    outcome = run_client(*arguments, cwd=tmp_path)
    assert outcome.code == 1 and outcome.err.strip(), outcome
    assert os.listdir(tmp_path) == []
