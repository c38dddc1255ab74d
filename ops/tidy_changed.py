#!/usr/bin/env python3
"""Runs clang-tidy-19 on the .cc files named on stdin (NUL-separated), in parallel, skipping those that
were clean before and have not changed since.

A file's verdict depends on its text, on every header of ours that it reaches, on its compile command, on
.clang-tidy and on the version of clang-tidy. The hash of all that names an empty file in the cache.
"""

import argparse
import concurrent.futures
import hashlib
import json
import pathlib
import re
import shlex
import subprocess
import sys

INCLUDE = re.compile(rb'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)
TIDY = "clang-tidy-19"


def closure(path, seen):
    """Adds path and every project file it includes, directly or not, to seen (name to bytes)."""
    waiting = [path]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        try:
            text = pathlib.Path(name).read_bytes()
        except OSError:
            continue  # Generated or missing: the compiler will say so.
        seen[name] = text
        waiting.extend(match.decode() for match in INCLUDE.findall(text))


def key_of(path, command, common):
    seen = {}
    closure(path, seen)
    digest = hashlib.sha256(common)
    digest.update(command.encode())
    for name in sorted(seen):
        digest.update(name.encode() + b"\0" + hashlib.sha256(seen[name]).digest())
    return digest.hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", required=True, help="directory of compile_commands.json")
    parser.add_argument("--cache", required=True, help="directory that remembers clean files")
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()

    root = pathlib.Path.cwd()
    commands = {}
    for entry in json.loads(pathlib.Path(arguments.build, "compile_commands.json").read_text()):
        path = pathlib.Path(entry["directory"], entry["file"]).resolve()
        commands[str(path)] = entry.get("command") or shlex.join(entry["arguments"])

    cache = pathlib.Path(arguments.cache)
    cache.mkdir(parents=True, exist_ok=True)
    version = subprocess.run([TIDY, "--version"], capture_output=True, check=True).stdout
    common = version + pathlib.Path(".clang-tidy").read_bytes()

    work = []
    clean = 0
    for name in sorted(filter(None, sys.stdin.buffer.read().decode().split("\0"))):
        command = commands.get(str((root / name).resolve()))
        if name.startswith("tests/") or name.startswith("bench/") or command is None:
            continue
        mark = cache / key_of(name, command, common)
        if mark.exists():
            clean += 1
        else:
            work.append((name, mark))

    def run(item):
        name, mark = item
        done = subprocess.run(
            [TIDY, "--quiet", "-p", arguments.build, "--extra-arg=-Wno-unknown-warning-option", name],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode == 0:
            mark.touch()
        return name, done

    failed = 0
    with concurrent.futures.ThreadPoolExecutor(max(1, arguments.jobs)) as pool:
        for name, done in pool.map(run, work):
            if done.returncode != 0:
                failed += 1
                sys.stdout.write(f"{name}:\n{done.stdout}{done.stderr if not done.stdout else ''}\n")
                sys.stdout.flush()
    print(f"clang-tidy: {len(work)} files read, {failed} with findings, {clean} unchanged since clean")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
