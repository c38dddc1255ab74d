"""modules, ls, cat, verify: what they say, and what they say about what is not there."""

import os
import subprocess

from conftest import ENVIRONMENT, SUPERLIFTER, Server, on_a_terminal, pull, run_client, write


def test_modules(tmp_path):
    write(tmp_path / "a/x", b"12345")
    server = Server(tmp_path / "server", {
        "first": {"path": str(tmp_path / "a"), "comment": "The first one"},
        "unlisted": {"path": str(tmp_path / "a"), "list": False}})
    server.index()
    server.start()
    try:
        outcome = run_client("modules", f"127.0.0.1:{server.port}")
        assert outcome.code == 0
        assert "first" in outcome.out and "The first one" in outcome.out and "unlisted" not in outcome.out
    finally:
        assert server.stop() == 0


def test_ls(server, tree):
    outcome = run_client("ls", server.url("m/d"))
    assert outcome.code == 0
    names = [line.rstrip("/") for line in outcome.out.splitlines()]
    assert sorted(names) == sorted(os.listdir(tree / "d"))


def test_ls_recursive_and_long(server, tree):
    outcome = run_client("ls", "-l", "-R", server.url())
    assert outcome.code == 0
    assert len(outcome.out.splitlines()) >= 1500
    assert "d/e/f/deep.txt" in outcome.out or "deep.txt" in outcome.out
    line = next(line for line in outcome.out.splitlines() if line.endswith("exec.sh"))
    assert "rwxr-xr-x" in line and " 10 " in line


def test_ls_of_a_file_and_of_nothing(server):
    assert "plain.txt" in run_client("ls", server.url("m/plain.txt")).out
    outcome = run_client("ls", server.url("m/not/here"))
    assert outcome.code in (5, 23) and "not/here" in outcome.err


def test_odd_names_are_escaped_on_a_terminal_and_raw_elsewhere(server):
    code, _, shown = on_a_terminal([SUPERLIFTER, "ls", server.url("m/odd%20names")], 400)
    assert code == 0 and "\x01" not in shown and "\t" not in shown
    assert len(shown.splitlines()) == 16
    raw = run_client("ls", server.url("m/odd%20names")).out
    assert "new\nline\n" in raw and "\x01\x02\n" in raw


def test_cat(server, tree):
    done = subprocess.run([SUPERLIFTER, "cat", server.url("m/large")], capture_output=True, env=ENVIRONMENT, timeout=60)
    assert done.returncode == 0 and done.stdout == (tree / "large").read_bytes()
    assert run_client("cat", server.url("m/empty")).out == ""


def test_cat_of_a_hard_link_and_of_what_is_no_file(server):
    assert run_client("cat", server.url("m/links/second")).out == "linked content"
    for path in ("m/d", "m/to-plain", "m/nowhere"):
        outcome = run_client("cat", server.url(path))
        assert outcome.code in (5, 23) and path[2:] in outcome.err, outcome


def test_cat_into_a_closed_pipe_ends(server):
    process = subprocess.Popen([SUPERLIFTER, "cat", server.url("m/large")], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env=ENVIRONMENT)
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(20) not in (0, -11, -6)
    process.stderr.close()


def test_unknown_things(server, tmp_path):
    for command in (["ls"], ["cat"], ["pull"]):
        outcome = run_client(*command, server.url("nowhere/x"), *([tmp_path / "dest"] if command == ["pull"] else []))
        assert outcome.code == 5 and "nowhere" in outcome.err, outcome
    outcome = pull(server.url("m/not/here"), tmp_path / "dest", code=(5, 23))
    assert "not/here" in outcome.err and not (tmp_path / "dest").exists()


def test_verify(server, dest):
    pull(server.url(), dest)
    outcome = run_client("verify", dest)
    assert outcome.code == 0, outcome
    before = (dest / "large").stat()
    with open(dest / "large", "r+b") as file:
        file.seek(1 << 20)
        file.write(b"#")
    os.utime(dest / "large", ns=(before.st_atime_ns, before.st_mtime_ns))
    (dest / "d/sibling").unlink()
    (dest / "to-plain").unlink()
    (dest / "to-plain").symlink_to("elsewhere")
    outcome = run_client("verify", dest)
    assert outcome.code == 23
    for name in ("large", "d/sibling", "to-plain"):
        assert name in outcome.err + outcome.out


def test_verify_of_what_was_never_pulled(tmp_path):
    outcome = run_client("verify", tmp_path)
    assert outcome.code == 11 and str(tmp_path) in outcome.err
    outcome = run_client("verify", tmp_path / "none")
    assert outcome.code == 11 and "none" in outcome.err


def test_help_and_version():
    for arguments in (["--help"], ["pull", "--help"], ["--version"]):
        outcome = run_client(*arguments)
        assert outcome.code == 0 and outcome.out.strip()
