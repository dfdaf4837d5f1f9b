#!/usr/bin/env python3
"""Runs the commands of README.md and docs/site/quickstart.md as a new user would. `make test` calls it after `make build`.

Each block of shell commands runs in a directory of its own with an empty home directory. The programs that the blocks
compile are those of the same page. Commands in ELSEWHERE are run by other steps of .ci/run or by other tests. A command
that is neither run here nor listed there fails the test.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Commands that other steps run, with the step. The comparison ignores comments.
ELSEWHERE = {
    "make demo": ".ci/run",
    "make test": ".ci/run",
    "make deb": "tests/consumers/run.sh",
    "make tarball": "tests/consumers/run.sh",
    "make python-wheel": "bindings/python/test.sh",
    "pip install target/python/nucleus_sampler-*.whl": "bindings/python/test.sh",
    "go mod init example": "bindings/go/test.sh",
    "go mod edit -require nucleus@v0.0.0 -replace nucleus=/path/to/the/repository/bindings/go": "bindings/go/test.sh",
    "go run .": "bindings/go/test.sh",
    "cargo run": "scripts/test_without_pjrt.py",
}
# What the example prints. The second row is greedy, so its token is 0.
OUTPUT = re.compile(r"\d 0")


def blocks(page, language):
    """The code blocks of a page, without indentation."""
    pattern = re.compile(rf"^( *)```{language}\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in pattern.findall(page)]


def source(text):
    """A program of a page. The quick start includes files instead of repeating them."""
    included = re.fullmatch(r"\{\{ include (\S+)(?: (\S+) (\S+))? \}\}\n", text)
    if not included:
        return text
    text = (ROOT / included[1]).read_text()
    return text.split(included[2] + "\n")[1].split(included[3])[0] if included[2] else text


def main():
    problems, ran = [], 0
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) / "home"
        home.mkdir()
        # Cargo and rustup stay those of the caller: the library is built already.
        environment = {**os.environ, "HOME": str(home)}
        for name, folder in (("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")):
            environment.setdefault(name, str(Path.home() / folder))
        for path in ("README.md", "docs/site/quickstart.md"):
            page = (ROOT / path).read_text()
            work = Path(scratch) / path.replace("/", "-")
            work.mkdir()
            for language, name in (("c", "main.c"), ("cpp", "main.cpp")):
                for text in blocks(page, language):
                    (work / name).write_text(source(text))
            for block in blocks(page, "sh"):
                for line in block.splitlines():
                    command = line.split("  #")[0].strip()
                    if command in ELSEWHERE or not command:
                        continue
                    # make runs in the repository, everything else in the user's directory.
                    place = ROOT if command.startswith("make ") else work
                    if command.startswith("export "):
                        name, value = command.removeprefix("export ").split("=", 1)
                        environment[name] = value.replace("$HOME", str(home))
                        continue
                    if command.startswith("cargo add "):
                        subprocess.run(["cargo", "init", "--quiet", "--vcs", "none", "--name", "example"],
                                       cwd=work, env=environment, check=True)  # fmt: skip
                        command = command.replace("/path/to/the/repository", str(ROOT)) + " --offline"
                    done = subprocess.run(["bash", "-c", command], cwd=place, env=environment, text=True,
                                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
                    ran += 1
                    if done.returncode != 0:
                        problems.append(f"{path}: {command}\n{done.stdout}")
                    elif command == "./a.out" and not OUTPUT.fullmatch(done.stdout.strip()):
                        problems.append(f"{path}: {command} prints {done.stdout!r}")
    print(f"readme: {ran} commands ran, {len(problems)} failed")
    if problems or ran < 6:
        sys.exit("\n".join(problems) or "readme: too few commands were found")


if __name__ == "__main__":
    main()
