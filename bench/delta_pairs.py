"""The pairs of old and new content that delta_bench measures: made once from named inputs, kept in a directory.

A pair is two directories, PAIR-old and PAIR-new. Each holds one file of the same name, or a tree. Beside them
PAIR.json says how they were made and from what; a pair whose description still fits is used again, anything else
is made anew. Everything drawn is drawn from a fixed seed, so that two machines measure the same bytes.
"""

import gzip
import hashlib
import json
import os
import pathlib
import random
import shutil
import subprocess

OLD_TIME = 1_700_000_000
NEW_TIME = 1_700_086_400

IMAGE_BYTES = 2 << 30
IMAGE_BLOCK = 4096
IMAGE_REWRITTEN = round(IMAGE_BYTES / IMAGE_BLOCK / 100)
IMAGE_INSERTED = 700
LOG_BYTES = 200_000_000
LOG_GROWTH = LOG_BYTES // 20
NOTHING_BYTES = 100_000_000
MOVED_ONE_OF = 3

# Raise this when a pair is made differently, so that kept ones are not mistaken for it.
RECIPE = 1


class PairError(Exception):
    """An input that is missing or unfit; the text is meant for the person at the command line."""


class Pair:
    """Two states of one thing. `file` is the name of the single file in both, or None for a tree."""

    def __init__(self, name, old, new, file=None):
        self.name = name
        self.old = old
        self.new = new
        self.file = file


def fingerprint_of_tree(root):
    """Changes with any name, size or modification time below `root`."""
    digest = hashlib.sha256()
    for directory, directories, files in os.walk(root):
        directories.sort()
        for name in sorted(files):
            path = os.path.join(directory, name)
            status = os.lstat(path)
            digest.update(f"{os.path.relpath(path, root)}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(
                errors="surrogateescape"))
    return digest.hexdigest()


def fingerprint_of_file(path):
    with open(path, "rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def run(command, **keywords):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, **keywords)
    if done.returncode != 0:
        raise PairError(f"{command[0]}: exit code {done.returncode}: {done.stderr.strip()[:2000]}")


def write_tar(tree, path):
    run(["tar", "--create", f"--file={path}", "--format=gnu", "--sort=name", "--numeric-owner", "--owner=0",
         "--group=0", f"--directory={tree}", "."])


def write_image(tree, path):
    """An ext4 image that holds `tree`; what mke2fs would draw or take from the clock is given."""
    with open(path, "wb") as image:
        image.truncate(IMAGE_BYTES)
    unique = "5e1f7a10-0b5e-4d6e-9a55-6d697272f001"
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-b", str(IMAGE_BLOCK), "-U", unique, "-E",
         f"hash_seed={unique},lazy_itable_init=0,nodiscard", "-d", str(tree), str(path)],
        env={**os.environ, "E2FSPROGS_FAKE_TIME": str(OLD_TIME)})


def write_changed_image(old, path):
    """`old` with 1 % of its blocks rewritten with noise, and some bytes inserted in the middle."""
    rng = random.Random("image")
    with open(old, "rb") as source, open(path, "wb") as target:
        middle = IMAGE_BYTES // 2 + 123
        rewritten = set(rng.sample(range(IMAGE_BYTES // IMAGE_BLOCK), IMAGE_REWRITTEN))
        position = 0
        while chunk := source.read(256 * IMAGE_BLOCK):
            changed = bytearray(chunk)
            for block in range(len(chunk) // IMAGE_BLOCK):
                if position // IMAGE_BLOCK + block in rewritten:
                    changed[block * IMAGE_BLOCK:(block + 1) * IMAGE_BLOCK] = rng.randbytes(IMAGE_BLOCK)
            if position <= middle < position + len(chunk):
                cut = middle - position
                changed[cut:cut] = rng.randbytes(IMAGE_INSERTED)
            target.write(changed)
            position += len(chunk)


def log_lines(rng):
    """An access log as servers write them: repetitive, with a time, an address and an id that differ by line."""
    paths = [f"/{rng.choice(['debian', 'pub', 'api/v2', 'static'])}/{rng.choice(['pool', 'dists', 'img', 'items'])}/"
             f"{rng.randbytes(rng.randint(2, 9)).hex()}{rng.choice(['', '.deb', '.xz', '.json', '.js'])}"
             for _ in range(5000)]
    agents = [f"Agent/{rng.randint(1, 130)}.{rng.randint(0, 9)} ({system}; {rng.randbytes(3).hex()})"
              for system in ("X11; Linux x86_64", "Windows NT 10.0", "Macintosh", "Android 14") for _ in range(60)]
    hosts = [f"{rng.randint(1, 223)}.{rng.randint(0, 255)}.{rng.randint(0, 255)}.{rng.randint(1, 254)}"
             for _ in range(20000)]
    seconds = OLD_TIME
    while True:
        seconds += rng.random() < 0.2
        day, rest = divmod(seconds, 86400)
        yield (f"{rng.choice(hosts)} - - [{day % 28 + 1:02}/Nov/2023:{rest // 3600:02}:{rest // 60 % 60:02}:"
               f"{rest % 60:02} +0000] \"{'GET' if rng.random() < 0.93 else 'POST'} {rng.choice(paths)} HTTP/1.1\" "
               f"{rng.choice((200, 200, 200, 200, 206, 301, 304, 404))} {rng.randint(90, 400000)} \"-\" "
               f"\"{rng.choice(agents)}\" request={rng.getrandbits(64):016x} time={rng.random():.3f}\n")


def write_logs(old, new):
    lines = log_lines(random.Random("log"))
    written = 0
    with open(old, "w", encoding="ascii") as before, open(new, "w", encoding="ascii") as after:
        while written < LOG_BYTES + LOG_GROWTH:
            line = next(lines)
            if written < LOG_BYTES:
                before.write(line)
            after.write(line)
            written += len(line)


def write_noise(seed, path):
    rng = random.Random(seed)
    left = NOTHING_BYTES
    with open(path, "wb") as target:
        while left > 0:
            target.write(rng.randbytes(min(left, 1 << 20)))
            left -= 1 << 20


def move_files(tree):
    """Moves one file in MOVED_ONE_OF to some other directory of the tree under its own name."""
    rng = random.Random("moved")
    directories = []
    files = []
    for directory, below, names in os.walk(tree):
        below.sort()
        directories.append(directory)
        files += [os.path.join(directory, name) for name in sorted(names)]
    for path in rng.sample(files, len(files) // MOVED_ONE_OF):
        while True:
            target = os.path.join(rng.choice(directories), os.path.basename(path))
            if not os.path.lexists(target):
                break
        os.rename(path, target)


def unpacked(archive, path):
    with gzip.open(archive, "rb") as source, open(path, "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)


class Inputs:
    """What the command line names: two trees or None, three archives or none, and where derived pairs are kept."""

    def __init__(self, old, new, typescript, directory):
        self.old = old
        self.new = new
        self.typescript = typescript
        self.directory = directory
        self.fingerprints = {}

    def fingerprint(self, path):
        if path not in self.fingerprints:
            self.fingerprints[path] = fingerprint_of_tree(path) if path.is_dir() else fingerprint_of_file(path)
        return self.fingerprints[path]

    def trees(self, name):
        for path in (self.old, self.new):
            if path is None:
                raise PairError(f"pair {name}: expected --old DIR and --new DIR, two states of one tree")
        return [self.old, self.new]

    def archives(self, name):
        if not self.typescript:
            raise PairError(f"pair {name}: expected --typescript OLD.tgz MID.tgz NEW.tgz")
        return self.typescript


def make_tar(inputs, old, new):
    write_tar(inputs[0], old)
    write_tar(inputs[1], new)


def make_image(inputs, old, new):
    write_image(inputs[0], old)
    write_changed_image(old, new)


def make_typescript(inputs, old, new):
    unpacked(inputs[0], old)
    unpacked(inputs[1], new)


def make_log(_inputs, old, new):
    write_logs(old, new)


def make_nothing(_inputs, old, new):
    write_noise("old", old)
    write_noise("new", new)


def make_moved(inputs, old, new):
    """The old side is the tree itself; only the new one is made."""
    old.rmdir()
    new.rmdir()
    run(["cp", "-a", "--reflink=auto", str(inputs[0]), str(new)])
    move_files(new)


# Name of the pair: what it is made of, the name of its file, how it is made.
RECIPES = {
    "tar": (lambda inputs: inputs.trees("tar"), "linux.tar", make_tar),
    "image": (lambda inputs: inputs.trees("image")[:1], "linux.img", make_image),
    "ts-near": (lambda inputs: inputs.archives("ts-near")[0:2], "typescript.tar", make_typescript),
    "ts-far": (lambda inputs: inputs.archives("ts-far")[1:3], "typescript.tar", make_typescript),
    "log": (lambda inputs: [], "access.log", make_log),
    "nothing": (lambda inputs: [], "noise.bin", make_nothing),
    "moved": (lambda inputs: inputs.trees("moved")[:1], None, make_moved),
}
NAMES = ("tree", "tar", "image", "ts-near", "ts-far", "log", "nothing", "moved")


def pair(name, inputs, say):
    """The pair of that name, made now unless it is there; `say` is told when that takes a while."""
    if name == "tree":
        return Pair("tree", *inputs.trees("tree"))
    sources_of, file, make = RECIPES[name]
    sources = sources_of(inputs)
    old = inputs.directory / f"{name}-old"
    new = inputs.directory / f"{name}-new"
    described = inputs.directory / f"{name}.json"
    description = {"recipe": RECIPE, "made_from": {str(path): inputs.fingerprint(path) for path in sources}}
    result = Pair(name, old if name != "moved" else sources[0], new, file)
    try:
        if json.loads(described.read_text()) == description:
            return result
    except (FileNotFoundError, ValueError):
        pass  # Not made yet, or its making was cut short.
    say(f"making the pair {name} in {inputs.directory}")
    described.unlink(missing_ok=True)
    for side in (old, new):
        shutil.rmtree(side, ignore_errors=True)
        side.mkdir(parents=True)
    if file is None:
        make(sources, old, new)
    else:
        make(sources, old / file, new / file)
        os.utime(old / file, (OLD_TIME, OLD_TIME))
        os.utime(new / file, (NEW_TIME, NEW_TIME))
    described.write_text(json.dumps(description, indent=1) + "\n")
    return result
