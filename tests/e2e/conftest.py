"""What every end-to-end test stands on: the two programs, a server of one's own, a pull with its outcome,
trees with everything a file system can hold, and the proof that two trees are the same.

The programs are found in the build directory SUPERLIFTER_BUILD (default: build/release). Waiting is
always for an event with a deadline, never for a time to pass.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import pty
import pwd
import re
import select
import shutil
import signal
import stat
import struct
import subprocess
import termios
import threading
import time

import pytest

from superlifter_client import Client

PROJECT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("SUPERLIFTER_BUILD", PROJECT / "build" / "release"))
SUPERLIFTER = str(BUILD / "client" / "superlifter")
SUPERLIFTERD = str(BUILD / "daemon" / "superlifterd")

# Sanitized programs say so when they die; a plain exit code must not hide it.
ENVIRONMENT = {**os.environ, "LC_ALL": "C.UTF-8", "ASAN_OPTIONS": "exitcode=99", "UBSAN_OPTIONS": "exitcode=99"}

is_root = os.geteuid() == 0


def wait_until(condition, what, timeout=20):
    """Polls for something that no file descriptor announces; its value, once it is true."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        select.select([], [], [], 0.01)


# --- The client --------------------------------------------------------------------------------------


@dataclasses.dataclass
class Outcome:
    code: int
    out: str
    err: str
    stats: dict

    def __str__(self):
        return f"exit code {self.code}\nstdout: {self.out}\nstderr: {self.err}"


def run_client(*arguments, timeout=120, env=None, **options):
    """Runs superlifter and returns its outcome; a crash fails the test at once."""
    done = subprocess.run([SUPERLIFTER, *map(os.fspath, map(_text, arguments))], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout,
                          env={**ENVIRONMENT, **(env or {})}, **options)
    out = done.stdout.decode(errors="surrogateescape")
    err = done.stderr.decode(errors="surrogateescape")
    lines = out.splitlines()
    stats = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    outcome = Outcome(done.returncode, out, err, stats)
    assert done.returncode >= 0 and done.returncode not in (98, 99, 134, 139), f"it crashed: {outcome}"
    return outcome


def _text(argument):
    return str(argument) if isinstance(argument, int) else argument


def pull(*arguments, code=0, **keywords):
    """superlifter pull with options, SRC and DEST; the exit code must be `code` (a number, several, or None
    for any)."""
    outcome = run_client("pull", "--quiet", "--stats=json", *arguments, **keywords)
    if code is not None:
        expected = code if isinstance(code, (tuple, set, list)) else (code,)
        assert outcome.code in expected, f"expected exit code {expected}: {outcome}"
    return outcome


def on_a_terminal(command, columns=100, stdout=True):
    """Runs a command with stderr, and stdout unless that is to be read apart, on a terminal; (exit code,
    stdout, what the terminal got)."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=follower if stdout else subprocess.PIPE,
                               stderr=follower, env={**ENVIRONMENT, "TERM": "xterm"})
    os.close(follower)
    shown = []

    def read():
        try:
            while data := os.read(leader, 65536):
                shown.append(data)
        except OSError:
            pass  # EIO: the last holder of the other side is gone.

    thread = threading.Thread(target=read)
    thread.start()
    out, _ = process.communicate(timeout=60)
    thread.join(10)
    os.close(leader)
    return process.returncode, (out or b"").decode(), b"".join(shown).decode(errors="replace")


STATS_FIELDS = ("files_total files_unchanged files_fetched files_patched files_refetched "
                "files_mismatched files_moved files_deleted bytes_total bytes_received bytes_sent "
                "bytes_manifest bytes_signature bytes_literal bytes_matched generation root elapsed_s stale").split()


# --- The daemon --------------------------------------------------------------------------------------


class Server:
    """superlifterd with a config, a catalog and a log of its own, on a port that the kernel picks."""

    def __init__(self, work, modules, **settings):
        self.work = pathlib.Path(work)
        self.work.mkdir(parents=True, exist_ok=True)
        self.catalog = self.work / "catalog"
        self.catalog.mkdir(exist_ok=True)
        self.config = self.work / "superlifter.yaml"
        self.modules = modules
        self.settings = {
            "listen": ["127.0.0.1:0"], "workers": 1, "user": pwd.getpwuid(os.geteuid()).pw_name,
            "catalog": str(self.catalog), **settings}
        self.write_config()
        self.process = None
        self.port = None
        self.lines = []
        self._news = threading.Condition()

    def write_config(self):
        # JSON is YAML; watch and rescan are off unless a test is about them, so that generations are made
        # when the test says so.
        modules = {name: {"watch": False, "rescan": "never", **keys} for name, keys in self.modules.items()}
        self.config.write_text(json.dumps({**self.settings, "modules": modules}, indent=1))

    def start(self, **keywords):
        """Starts it, with keywords for subprocess (as_nobody), and waits until it listens."""
        assert self.process is None
        self.lines = []
        self.process = subprocess.Popen([SUPERLIFTERD, "--config", str(self.config)],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.PIPE, env=ENVIRONMENT, **keywords)
        threading.Thread(target=self._read_log, args=(self.process.stderr, self.lines), daemon=True).start()
        self.port = int(self.wait_log(r"listening on \S*:(\d+)").group(1))
        return self

    def _read_log(self, pipe, lines):
        """Fills `lines`, which belong to one start of the daemon."""
        for line in pipe:
            with self._news:
                lines.append(line.decode(errors="surrogateescape").rstrip("\n"))
                self._news.notify_all()
        with self._news:
            lines.append("(end of log)")
            self._news.notify_all()
        pipe.close()

    def wait_log(self, pattern, timeout=30, after=0):
        """The first match in the log's lines from number `after` on."""
        expression = re.compile(pattern)
        deadline = time.monotonic() + timeout
        with self._news:
            while True:
                for line in self.lines[after:]:
                    match = expression.search(line)
                    if match:
                        return match
                ended = self.lines and self.lines[-1] == "(end of log)"
                left = deadline - time.monotonic()
                assert left > 0 and not ended, (
                    f"the log has no /{pattern}/ {'and has ended' if ended else f'within {timeout} s'}:\n" +
                    "\n".join(self.lines))
                self._news.wait(left)

    def log(self):
        with self._news:
            return "\n".join(self.lines)

    def index(self, *modules, code=0, timeout=120):
        """superlifterd index; its stdout."""
        done = subprocess.run([SUPERLIFTERD, "index", "--config", str(self.config), *modules],
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, env=ENVIRONMENT)
        assert code is None or done.returncode == code, (
            f"index: exit code {done.returncode}: {done.stdout!r} {done.stderr!r}")
        return done.stdout.decode(errors="surrogateescape") + (
            done.stderr.decode(errors="surrogateescape") if code != 0 else "")

    def current(self, module=None):
        """The number that CURRENT holds."""
        return int((self.catalog / (module or next(iter(self.modules))) / "CURRENT").read_text())

    def file_of_generation(self, number=None):
        return self.catalog / "m" / f"{number or self.current()}.generation"

    def update(self, module=None):
        """Brings the catalog up to date and waits until the running daemon serves what CURRENT names."""
        module = module or next(iter(self.modules))
        self.index(module)
        self.wait_served(self.current(module), module)

    def wait_served(self, number, module=None):
        wait_until(lambda: self.generation(module) >= number, f"generation {number} is served")

    def generation(self, module=None):
        with self.client() as client:
            return client.open(module or next(iter(self.modules)))["generation"]

    def client(self, **options):
        return Client("127.0.0.1", self.port, **options)

    def url(self, path=None):
        return f"127.0.0.1:{self.port}/{path if path is not None else next(iter(self.modules))}"

    def children(self):
        """Pids of the daemon's own children."""
        path = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        return [int(pid) for pid in pathlib.Path(path).read_text().split()]

    def stop(self, signal_number=signal.SIGTERM, timeout=30):
        """Stops it; its exit code."""
        process, self.process = self.process, None
        if process is None:
            return None
        process.send_signal(signal_number)
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


@contextlib.contextmanager
def serving(work, source, start=True, module_keys=None, **settings):
    """One module "m" of `source`, indexed and served."""
    server = Server(work, {"m": {"path": str(source), **(module_keys or {})}}, **settings)
    try:
        server.index()
        if start:
            server.start()
        yield server
    finally:
        print(f"--- log of superlifterd\n{server.log()}")
        code = server.stop()
        assert code in (None, 0), f"superlifterd ended with {code}"


@pytest.fixture
def tree(tmp_path):
    """A source tree with a little of everything."""
    source = tmp_path / "source"
    make_tree(source)
    return source


@pytest.fixture
def server(tmp_path, tree):
    """Serves `tree` as module m."""
    with serving(tmp_path / "server", tree) as running:
        yield running


@pytest.fixture
def dest(tmp_path):
    return tmp_path / "dest"


def pytest_collection_modifyitems(items):
    for program in (SUPERLIFTER, SUPERLIFTERD):
        if items and not os.access(program, os.X_OK):
            pytest.exit(f"{program}: expected a program; build first, or set SUPERLIFTER_BUILD", 3)


# --- Trees -------------------------------------------------------------------------------------------


def write(path, content=b"", mode=None, mtime_ns=None):
    """Writes a file, with the directories above it."""
    path = pathlib.Path(os.fsdecode(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if mode is not None:
        path.chmod(mode)
    if mtime_ns is not None:
        os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


def make_tree(root):
    """Every kind of entry, and the names and sizes that tend to break things."""
    root = pathlib.Path(root)
    write(root / "plain.txt", b"hello\n", mtime_ns=1_234_567_890_123_456_789)
    write(root / "empty", b"")
    write(root / "one-byte", b"x")
    write(root / "page", b"p" * 4096)
    write(root / "64KiB", b"s" * (64 << 10))
    write(root / "64KiB+1", b"s" * ((64 << 10) + 1))
    write(root / "large", pattern(3 << 20))
    write(root / "exec.sh", b"#!/bin/sh\n", mode=0o755)
    write(root / "private", b"mine", mode=0o600)
    write(root / "nobits", b"no one", mode=0o000 if is_root else 0o400)
    write(root / "old", b"", mtime_ns=0)
    write(root / "before-1970", b"", mtime_ns=-1_000_000_001)
    write(root / "after-2106", b"", mtime_ns=5_000_000_000 * 10**9 + 1)
    write(root / "d/e/f/deep.txt", b"deep")
    write(root / "d/sibling", b"s")
    (root / "empty-directory").mkdir()
    (root / "d/empty-too").mkdir()
    (root / "locked").mkdir(mode=0o500)
    sticky = root / "sticky"
    sticky.mkdir()
    sticky.chmod(0o1777)
    # Hard links, within a directory and across.
    write(root / "links/first", b"linked content")
    os.link(root / "links/first", root / "links/second")
    os.link(root / "links/first", root / "d/third")
    # Symlinks: relative, dangling, absolute, to a directory, to itself.
    (root / "to-plain").symlink_to("plain.txt")
    (root / "dangling").symlink_to("nowhere/at/all")
    (root / "absolute").symlink_to("/etc/passwd")
    (root / "to-directory").symlink_to("d")
    (root / "loop").symlink_to("loop")
    os.symlink(b"\xff\xfe odd \n target", os.fsencode(root) + b"/odd-target")
    os.utime(root / "dangling", ns=(1, 1_111_111_111_111_111_111), follow_symlinks=False)
    # Sparse: 8 MiB of hole with content at both ends.
    with open(root / "sparse", "wb") as file:
        file.write(b"start")
        file.seek(8 << 20)
        file.write(b"end")
    # Names: any byte but '/' and NUL.
    odd = os.fsencode(root) + b"/odd names"
    os.mkdir(odd)
    for name in (b"new\nline", b"tab\t", b"\x01\x02", b"\xff\xfe\x80", b" leading", b"trailing ", b"-dash",
                 b"*?[x]", b"quote'\"", b"back\\slash", "grüße 漢字".encode(), b"..." , b".hidden", b"a" * 255,
                 b"%41", b"~"):
        write(odd + b"/" + name, name)
    # A directory large enough for index nodes above its leaves.
    many = root / "many"
    many.mkdir()
    for number in range(1500):
        (many / f"file-{number:05}").write_bytes(b"%d" % number)
    # A path near the limit of 4,095 bytes, as seen from the root.
    make_deep(root, 3900)
    os.utime(root / "d", ns=(1, 1_222_333_444_555_666_777))
    os.utime(root, ns=(1, 1_333_444_555_666_777_888))
    return root


def make_deep(root, length):
    """A file whose path from `root` is `length` bytes; longer than open(2) takes at once."""
    here = os.open(root, os.O_RDONLY)
    name = "n" * 200
    rest = length
    while rest > 402:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
        rest -= 201
    half = "m" * (rest - 1 - 200)
    os.mkdir(half, dir_fd=here)
    below = os.open(half, os.O_RDONLY, dir_fd=here)
    with os.fdopen(os.open("l" * 200, os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=below), "wb") as file:
        file.write(b"at the bottom")
    os.close(below)
    os.close(here)


def pattern(size, seed=0):
    """Bytes that do not repeat at any block size and do not compress away."""
    import hashlib
    return hashlib.shake_128(b"pattern %d" % seed).digest(size)


# --- Proof -------------------------------------------------------------------------------------------


def differences(source, dest, *options):
    """What rsync would still change: kinds, names, content, modes, times to the nanosecond, links."""
    done = subprocess.run(
        ["rsync", "-rlptHn", "--modify-window=-1", "--checksum", "--delete", "--itemize-changes",
         "--exclude=/.superlifter", *options, f"{source}/", f"{dest}/"],
        capture_output=True, env=ENVIRONMENT, timeout=300)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode(errors="surrogateescape")


def assert_same(source, dest, *options):
    found = differences(source, dest, *options)
    assert found == "", f"{dest} differs from {source}:\n{found}"


def snapshot(root):
    """Path to (kind, content or target, mode) of everything below root, the client's own state left out."""
    found = {}
    root = os.fsencode(root)
    for directory, directories, files in os.walk(root):
        if directory == root and b".superlifter" in directories:
            directories.remove(b".superlifter")
        for name in directories + files:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            mode = stat.S_IMODE(status.st_mode)
            relative = os.path.relpath(path, root)
            if stat.S_ISLNK(status.st_mode):
                found[relative] = ("link", os.readlink(path), 0)
            elif stat.S_ISDIR(status.st_mode):
                found[relative] = ("directory", b"", mode)
            elif stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    found[relative] = ("file", file.read(), mode)
            else:
                found[relative] = ("other", b"", mode)
    return found


# --- File systems of one's own -----------------------------------------------------------------------


def in_mount_namespace(script, *arguments):
    """A command that runs a shell script in a new mount namespace, where it may mount a tmpfs; None
    where neither root nor a user namespace allows that."""
    prefix = ["unshare", "--mount"] if is_root else ["unshare", "--user", "--map-root-user", "--mount"]
    probe = subprocess.run([*prefix, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True)
    if probe.returncode != 0:
        return None
    return [*prefix, "sh", "-euc", script, "sh", *map(str, arguments)]


def as_nobody(path):
    """Keywords for subprocess that run a command without root's rights, with `path` and what is above it
    made passable."""
    if not is_root:
        return {}
    nobody = pwd.getpwnam("nobody")
    for directory in pathlib.Path(path).parents:
        with contextlib.suppress(OSError):
            if not os.stat(directory).st_mode & 0o001:
                os.chmod(directory, os.stat(directory).st_mode | 0o011)
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def remove(path):
    shutil.rmtree(path, ignore_errors=True)
