"""The tree changes under a pull: what arrives is one generation, or exit code 24 names what is missing."""

import os
import shutil
import subprocess
import threading

from conftest import ENVIRONMENT, SUPERLIFTER, assert_same, pattern, pull, serving, snapshot, write
from proxy import Proxy


class Running:
    """A pull through a proxy that stops at `hold` bytes of the server's."""

    def __init__(self, server, dest, hold, *options):
        self.proxy = Proxy(server.port)
        self.proxy.hold(hold)
        self.hold = hold
        self.command = [SUPERLIFTER, "pull", "--quiet", *options, self.proxy.url(), str(dest)]

    def __enter__(self):
        self.proxy.__enter__()
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, env=ENVIRONMENT)
        self.watchdog = threading.Timer(90, self.process.kill)
        self.watchdog.start()
        self.proxy.wait_passed(self.hold)
        return self

    def finish(self):
        """(exit code, stderr)."""
        self.proxy.release()
        _, err = self.process.communicate()
        return self.process.returncode, err.decode(errors="replace")

    def __exit__(self, *_):
        self.watchdog.cancel()
        self.process.kill()
        self.process.communicate()
        self.proxy.__exit__()


# While a file of that name is in the source, nothing new is published: what is stale stays out of reach.
HOLD = {"hold_while": ["/hold"]}


def make_source(tmp_path):
    source = tmp_path / "source"
    for number in range(100):
        write(source / f"f{number:03}", pattern(300_000, number))
    return source


def test_files_that_changed_are_named_and_the_code_is_24(tmp_path, dest):
    source = make_source(tmp_path)
    before = snapshot(source)
    with serving(tmp_path / "server", source, module_keys=HOLD) as server:
        with Running(server, dest, 3_000_000) as running:
            write(source / "hold", b"")
            write(source / "f090", b"shorter")
            write(source / "f091", pattern(300_000, 5000))
            (source / "f092").unlink()
            (source / "f093").unlink()
            write(source / "f093/now-a-directory", b"x")
            (source / "f094").unlink()
            (source / "f094").symlink_to("f000")
            code, err = running.finish()
        assert code == 24, err
        changed = ["f090", "f091", "f092", "f093", "f094"]
        for name in changed:
            assert name in err
        after = snapshot(dest)
        # Everything else is the generation's; of the changed ones nothing came.
        for name in before:
            if name.decode() not in changed:
                assert after[name] == before[name]
            else:
                assert name not in after
        assert b"f093/now-a-directory" not in after
        # After a new index the next pull is whole.
        (source / "hold").unlink()
        server.update()
        pull("--delete", server.url(), dest)
        assert_same(source, dest)


def test_changes_that_are_indexed_meanwhile_end_in_the_new_generation(tmp_path, dest):
    """A worker that meets a changed file asks for a rescan; the client opens what comes of it."""
    source = make_source(tmp_path)
    with serving(tmp_path / "server", source) as server:
        with Running(server, dest, 3_000_000) as running:
            write(source / "f000", pattern(300_000, 5001))  # Was had already.
            write(source / "f091", pattern(300_000, 5000))
            (source / "f092").unlink()
            code, err = running.finish()
        assert code in (0, 24), err
        if code == 0:
            (dest / "f092").unlink(missing_ok=True)
            assert_same(source, dest)


def test_a_file_cut_short_while_it_is_sent(tmp_path, dest):
    source = tmp_path / "source"
    write(source / "a-large", pattern(48 << 20))
    write(source / "b-small", b"unharmed")
    with serving(tmp_path / "server", source, module_keys=HOLD) as server:
        with Running(server, dest, 2 << 20) as running:
            write(source / "hold", b"")
            os.truncate(source / "a-large", 1000)
            code, err = running.finish()
        assert code == 24, err
        assert "a-large" in err
        assert snapshot(dest) == {b"b-small": snapshot(source)[b"b-small"]}
        (source / "hold").unlink()
        server.update()
        pull(server.url(), dest)
        assert_same(source, dest)


def test_a_file_overwritten_in_place_while_it_is_sent(tmp_path, dest):
    source = tmp_path / "source"
    write(source / "a-large", pattern(48 << 20))
    with serving(tmp_path / "server", source, module_keys=HOLD) as server:
        with Running(server, dest, 2 << 20) as running:
            write(source / "hold", b"")
            with open(source / "a-large", "r+b") as file:
                file.seek(40 << 20)
                file.write(b"new bytes in the middle of a transfer")
            code, err = running.finish()
        assert code == 24, err
        assert snapshot(dest) == {}, "a mixture of two versions was kept"
        (source / "hold").unlink()
        server.update()
        pull(server.url(), dest)
        assert_same(source, dest)


def test_old_files_stay_when_their_new_version_cannot_be_had(tmp_path, dest):
    source = make_source(tmp_path)
    with serving(tmp_path / "server", source, module_keys=HOLD) as server:
        pull(server.url(), dest)
        for number in range(100):
            write(source / f"f{number:03}", pattern(300_000, 1000 + number))
        server.update()
        old = snapshot(dest)
        with Running(server, dest, 3_000_000) as running:
            write(source / "hold", b"")
            (source / "f095").unlink()
            code, err = running.finish()
        assert code == 24, err
        assert snapshot(dest)[b"f095"] == old[b"f095"]


def test_a_link_or_chmod_alone_is_still_served(tmp_path, dest):
    """Only ctime differs: the digest at the client decides, and it fits."""
    source = make_source(tmp_path)
    with serving(tmp_path / "server", source) as server:
        with Running(server, dest, 3_000_000) as running:
            os.link(source / "f090", tmp_path / "another-name")
            code, err = running.finish()
        assert code == 0, err
        (tmp_path / "another-name").unlink()
        assert_same(source, dest)


def test_the_whole_directory_is_replaced(tmp_path, dest):
    """What a mirror's sync does: a new tree renamed into place. The root that is held still serves."""
    source = make_source(tmp_path)
    with serving(tmp_path / "server", source) as server:
        with Running(server, dest, 3_000_000) as running:
            source.rename(tmp_path / "was")
            shutil.copytree(tmp_path / "was", source)
            code, err = running.finish()
        assert code in (0, 24), err
        if code == 0:
            assert_same(tmp_path / "was", dest)


def test_a_new_generation_in_mid_pull_changes_nothing_for_it(tmp_path, dest):
    source = make_source(tmp_path)
    with serving(tmp_path / "server", source) as server:
        with Running(server, dest, 3_000_000) as running:
            write(source / "new", b"in the next generation")
            server.update()
            code, err = running.finish()
        assert code == 0, err
        (source / "new").rename(tmp_path / "aside")
        assert snapshot(source) == {k: v for k, v in snapshot(dest).items()}


def test_a_generation_that_is_no_longer_kept_is_opened_anew(tmp_path, dest):
    source = make_source(tmp_path)
    with serving(tmp_path / "server", source, limits={"generations": 1}) as server:
        with Running(server, dest, 3_000_000) as running:
            for number in range(3):
                write(source / f"new-{number}", b"%d" % number)
                server.update()
            code, err = running.finish()
        assert code in (0, 24), err
        pull("--delete", server.url(), dest)
        assert_same(source, dest)
