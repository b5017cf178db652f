#!/usr/bin/env python3
"""Builds docg as its users do: in a project of their own, without this workspace's lock file.

    scripts/outside/check.py FOLDER [--lowest]

The project goes to FOLDER. It depends on each of docg's libraries by path, and is built with the newest versions
that the libraries allow; with --lowest instead with each of their direct dependencies at the version that they name.
It also runs the first program of README.md, with the dependencies that docg-core/README.md gives it.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main(folder, is_lowest):
    libraries = [package for package in workspace() if is_for_others(package)]
    environment = os.environ | {"CARGO_TARGET_DIR": str(folder / "target"), "CARGO_INCREMENTAL": "0"}

    def cargo(*arguments):
        print("    cargo", *arguments, flush=True)
        subprocess.run(["cargo", "--quiet", *arguments], cwd=folder, env=environment, check=True)

    write_project(folder, libraries, lowest(libraries) if is_lowest else {})
    cargo("generate-lockfile")
    cargo("run", "--package", "program")
    cargo("check", "--package", "libraries", "--features", "all")
    if not is_lowest:
        cargo("check", "--package", "libraries")


def workspace():
    command = ["cargo", "metadata", "--format-version", "1", "--no-deps"]
    return json.loads(subprocess.check_output(command, cwd=ROOT))["packages"]


def is_for_others(package):
    """Whether applications depend on the package: they do on all of docg's libraries but the one for its tests."""
    return package["name"].startswith("docg-") and package["name"] != "docg-test-servers"


def lowest(libraries):
    """The lowest version of each direct dependency that all libraries allow."""
    bounds = {}
    for library in libraries:
        for dependency in library["dependencies"]:
            is_own = dependency["source"] is None
            if is_own or dependency["kind"] == "dev":
                continue
            bound = re.fullmatch(r"\^(\d+(?:\.\d+){0,2})", dependency["req"])
            assert bound, f"{dependency['name']} {dependency['req']}: only a lowest version can be checked"
            numbers = [*map(int, bound[1].split(".")), 0, 0][:3]
            bounds.setdefault(dependency["name"], []).append(numbers)
    return {name: ".".join(map(str, max(all))) for name, all in bounds.items()}


def write_project(folder, libraries, pins):
    write(folder / "Cargo.toml", '[workspace]\nresolver = "3"\nmembers = ["program", "libraries"]\n'
          "[profile.dev]\ndebug = false\n")
    (folder / "Cargo.lock").unlink(missing_ok=True)

    readme, core = ((ROOT / path).read_text() for path in ["README.md", "docg-core/README.md"])
    dependencies = block("toml", core).replace("../docg/", f"{ROOT}/")
    write(folder / "program/Cargo.toml", package("program") + dependencies)
    write(folder / "program/src/main.rs", block("rust", readme))

    manifest = package("libraries") + "[dependencies]\n"
    for library in libraries:
        path = json.dumps(str(Path(library["manifest_path"]).parent))
        manifest += f"{library['name']} = {{ path = {path}, default-features = false }}\n"
    for name, version in pins.items():
        manifest += f'{name} = {{ version = "={version}", default-features = false }}\n'
    features = [(library["name"], list(library["features"])) for library in libraries]
    everything = [f"{name}/{feature}" for name, all in features for feature in all]
    manifest += f"[features]\nall = {json.dumps(everything)}\n"
    write(folder / "libraries/Cargo.toml", manifest)
    write(folder / "libraries/src/lib.rs", "")


def package(name):
    return f'[package]\nname = "{name}"\nversion = "0.0.0"\nedition = "2024"\n'


def block(language, markdown):
    """The first block of code in this language."""
    found = re.search(rf"^```{language}\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL)
    assert found, f"there is no block of {language}"
    return found[1]


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--lowest"]
    if len(arguments) != 1 or arguments[0].startswith("-"):
        sys.exit(__doc__.strip())
    main(Path(arguments[0]).resolve(), "--lowest" in sys.argv)
