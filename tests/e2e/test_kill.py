"""A pull that is killed at any moment leaves each file old or new, and the next one goes on from there."""

import hashlib
import os
import random
import subprocess
import threading
import time

from conftest import ENVIRONMENT, SUPERLIFTER, assert_same, pattern, pull, serving, write
from proxy import Proxy

FILES = 120


def digest(data):
    return hashlib.blake2b(data).digest()


def versions(tmp_path):
    """A source in its first state, and a function that brings it to its second; path to digest of each."""
    source = tmp_path / "source"
    sizes = [1 << 20 if number % 10 == 0 else 40_000 + number for number in range(FILES)]

    def make(seed):
        state = {}
        for number, size in enumerate(sizes):
            name = f"d{number % 5}/f{number}"
            data = pattern(size, seed * FILES + number)
            write(source / name, data)
            state[name] = digest(data)
        return state

    return source, make, sum(sizes)


def check_not_torn(dest, old, new, seed):
    if not dest.exists():
        return
    for directory, directories, files in os.walk(dest):
        if ".superlifter" in directories:
            directories.remove(".superlifter")
        for name in files:
            path = os.path.join(directory, name)
            relative = os.path.relpath(path, dest)
            assert relative in new, f"seed {seed}: {relative} is nothing that the source ever had"
            with open(path, "rb") as file:
                found = digest(file.read())
            assert found in (old.get(relative), new[relative]), f"seed {seed}: {relative} is torn"


def test_twenty_kills_at_random_moments(tmp_path, dest):
    seed = int(os.environ.get("SUPERLIFTER_SEED", time.time_ns() % 1_000_000))
    print(f"SUPERLIFTER_SEED={seed}")
    chance = random.Random(seed)
    source, make, total = versions(tmp_path)
    old = make(1)
    with serving(tmp_path / "server", source) as server:
        pull(server.url(), dest)
        new = make(2)
        server.update()
        command = [SUPERLIFTER, "pull", "--quiet", "--bwlimit=40M", server.url(), str(dest)]
        for _ in range(20):
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.PIPE, env=ENVIRONMENT)
            try:
                process.wait(chance.uniform(0, 0.25))
            except subprocess.TimeoutExpired:
                process.kill()
            _, err = process.communicate()
            assert process.returncode in (-9, 0), err
            check_not_torn(dest, old, new, seed)
        pull(server.url(), dest)
        assert_same(source, dest)
        assert not any((dest / ".superlifter/stage").rglob("*")), "the stage was not cleared"


def test_the_first_pull_killed_leaves_only_whole_files(tmp_path, dest):
    source, make, total = versions(tmp_path)
    new = make(1)
    with serving(tmp_path / "server", source) as server:
        for share in (0.1, 0.5, 0.9):
            kill_at(server, dest, int(total * share))
            check_not_torn(dest, {}, new, None)
        pull(server.url(), dest)
        assert_same(source, dest)


def kill_at(server, dest, count, signal_number=9):
    """Kills a pull when `count` bytes have come; how many came in the end."""
    with Proxy(server.port) as proxy:
        proxy.hold(count)
        process = subprocess.Popen([SUPERLIFTER, "pull", "--quiet", proxy.url(), str(dest)],
                                   stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ENVIRONMENT)
        watchdog = threading.Timer(60, process.kill)
        watchdog.start()
        waiter = threading.Thread(target=process.wait, daemon=True)
        waiter.start()
        try:
            proxy.wait_passed(min(count, 1))
            with proxy.changed:
                proxy.changed.wait_for(lambda: proxy.passed >= count or not waiter.is_alive(), 60)
        finally:
            process.send_signal(signal_number)
            process.communicate()
            watchdog.cancel()
        return proxy.passed


def test_a_resumed_pull_fetches_what_is_left(tmp_path, dest):
    source, make, total = versions(tmp_path)
    make(1)
    with serving(tmp_path / "server", source) as server:
        passed = kill_at(server, dest, int(total * 0.7))
        outcome = pull(server.url(), dest)
        assert_same(source, dest)
        # In flight at the kill: what the sockets (a receive buffer grows to 6 MiB when its reader has to wait for
        # a core) and the writers' queue held.
        in_flight = 7 << 20
        assert outcome.stats["bytes_literal"] <= total - passed + in_flight, (
            f"{passed} of {total} bytes had come, {outcome.stats['bytes_literal']} were fetched again")


def test_an_interrupted_pull_resumes_and_says_20(tmp_path, dest):
    import signal
    source, make, total = versions(tmp_path)
    make(1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        with serving(tmp_path / f"server-{number}", source) as server, Proxy(server.port) as proxy:
            proxy.hold(total // 2)
            process = subprocess.Popen([SUPERLIFTER, "pull", "--quiet", proxy.url(), str(dest)],
                                       stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ENVIRONMENT)
            proxy.wait_passed(total // 2)
            process.send_signal(number)
            _, err = process.communicate(timeout=20)
            assert process.returncode == 20, err
            proxy.release()
            outcome = pull(server.url(), dest)
            assert outcome.stats["bytes_literal"] < total * 0.75
            assert_same(source, dest)
        for path in dest.rglob("f*"):
            path.unlink()
