"""Each kind of mistake in a config: file, line, column and what was expected, all in one run, before
anything is bound."""

import subprocess

import pytest

from conftest import ENVIRONMENT, SUPERLIFTERD


def check(tmp_path, text, command=("check-config",)):
    config = tmp_path / "config.yaml"
    if isinstance(text, str):
        text = text.replace("DIR", str(tmp_path)).encode()
    config.write_bytes(text)
    done = subprocess.run([SUPERLIFTERD, *command, "--config", str(config)], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, errors="replace", timeout=30, env=ENVIRONMENT)
    return done.returncode, done.stderr, str(config)


GOOD = "listen: ['127.0.0.1:0']\ncatalog: DIR\nmodules:\n  m:\n    path: DIR\n"

# Text, line:col, and a word that the message must hold.
MISTAKES = {
    "unknown key": (GOOD + "lisen: []\n", "6:1", "listen"),
    "unknown key of a module": (GOOD + "    pth: /tmp\n", "6:5", "path"),
    "wrong type": (GOOD + "workers: [1]\n", "6:10", "workers"),
    "not a number": (GOOD + "workers: many\n", "6:10", "workers"),
    "number out of bounds": (GOOD + "workers: 1000000000\n", "6:10", "workers"),
    "duration without a unit": (GOOD + "limits: {idle_timeout: 60}\n", "6:24", "60s"),
    "unknown unit": (GOOD + "limits: {minimum_rate: 1XiB/s}\n", "6:24", "rate"),
    "bad address": ("listen: ['localhost:80']\nmodules: {m: {path: DIR}}\n", "1:10", "address"),
    "port out of bounds": ("listen: ['127.0.0.1:65536']\nmodules: {m: {path: DIR}}\n", "1:10", "address"),
    "path that does not exist": ("modules:\n  m:\n    path: /nowhere/at/all\n", "3:11", "/nowhere/at/all"),
    "path that is a file": ("modules:\n  m:\n    path: /etc/passwd\n", "3:11", "directory"),
    "relative path": ("modules:\n  m:\n    path: here\n", "3:11", "absolute"),
    "module without a path": ("modules:\n  m:\n    comment: x\n", "2:", "path"),
    "no modules": ("listen: ['127.0.0.1:0']\n", "1:1", "modules"),
    "bad module name": ("modules:\n  'a/b': {path: DIR}\n", "2:3", "a/b"),
    "bad prefix": (GOOD + "    allow: ['10.0.0.1/8']\n", "6:13", "10.0.0.1/8"),
    "host name in a rule": (GOOD + "    deny: ['example.org']\n", "6:12", "example.org"),
    "bad pattern": (GOOD + "    exclude: ['[a']\n", "6:15", "[a"),
    "bad choice": (GOOD + "engine: kqueue\n", "6:9", "io_uring"),
    "not a boolean": (GOOD + "    watch: maybe\n", "6:12", "true or false"),
    "duplicate key": (GOOD + "workers: 1\nworkers: 2\n", "7:1", "workers"),
    "no YAML": ("modules: [\n", "", "YAML"),
    "not a map": ("- a\n- b\n", "1:1", "map"),
    "nothing": ("", "", "modules"),
    "a tab for indentation": ("modules:\n\tm: {path: DIR}\n", "2:", "YAML"),
    "control bytes": (b"motd: \"a\x01b\"\n", "1:", "UTF-8"),
    "not UTF-8": (b"motd: \xff\xfe\n", "1:", "UTF-8"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_its_place(tmp_path, name):
    text, place, word = MISTAKES[name]
    code, err, config = check(tmp_path, text)
    assert code == 1, err
    assert f"{config}:{place}" in err, err
    assert word in err and "expected" in err, err


def test_a_good_config_passes(tmp_path):
    code, err, _ = check(tmp_path, GOOD)
    assert (code, err) == (0, "")


def test_all_mistakes_come_in_one_run(tmp_path):
    code, err, config = check(tmp_path, "lisen: x\nworkers: many\nmodules:\n  m:\n    path: /nowhere\n    lst: 1\n")
    assert code == 1
    for place in ("1:1", "2:10", "5:11", "6:5"):
        assert f"{config}:{place}" in err, err


@pytest.mark.parametrize("command", [(), ("index",)])
def test_nothing_starts_with_a_bad_config(tmp_path, command):
    code, err, config = check(tmp_path, GOOD + "lisen: []\n", command)
    assert code == 1 and f"{config}:6:1" in err and "listening" not in err


def test_a_config_that_cannot_be_read(tmp_path):
    done = subprocess.run([SUPERLIFTERD, "check-config", "--config", str(tmp_path / "none.yaml")],
                          capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    assert done.returncode == 1 and "none.yaml" in done.stderr


def test_yaml_bombs_end_at_once(tmp_path):
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    code, err, _ = check(tmp_path, "\n".join(lines) + "\n")
    assert code == 1 and "expected" in err
    code, err, _ = check(tmp_path, "[" * 100_000)
    assert code == 1 and "expected" in err


@pytest.mark.parametrize("arguments", [
    ["--nonsense"], ["--config"], ["--serve"], ["--serve", "/nowhere/at/all"], ["--serve", "/etc/passwd"],
    ["--serve", "/tmp=a/b"], ["--serve", "/tmp", "--listen", "nonsense"], ["frobnicate"],
    ["index", "--serve", "/nowhere"], ["check-config", "extra"]])
def test_mistakes_on_the_command_line(arguments):
    done = subprocess.run([SUPERLIFTERD, *arguments], capture_output=True, text=True, timeout=30,
                          stdin=subprocess.DEVNULL, env=ENVIRONMENT)
    assert done.returncode == 1 and done.stderr.strip(), done
    assert "terminate" not in done.stderr


def test_a_port_in_use(tmp_path):
    import socket
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run([SUPERLIFTERD, "--serve", str(tmp_path), "--listen", f"127.0.0.1:{port}"],
                              capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL,
                              env={**ENVIRONMENT, "XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert done.returncode == 1 and str(port) in done.stderr


def test_the_example_config_is_right():
    import pathlib
    import re
    from conftest import PROJECT
    example = pathlib.Path(PROJECT / "config/superlifter.yaml")
    assert example.exists()
    # Its module's path is not on every host; everything else must pass.
    done = subprocess.run([SUPERLIFTERD, "check-config", "--config", str(example)], capture_output=True,
                          text=True, timeout=30, stdin=subprocess.DEVNULL, env=ENVIRONMENT)
    for line in done.stderr.splitlines():
        assert re.search(r"path is|user is", line), line
