"""Builds the wheels, installs them into a bare environment, and runs what a user would: editable installs hide missing files.

Run by ``tox -e wheel`` as ``python tests/wheels/check.py FOLDER``; exits with 1 at the first thing that is not as it should be.
"""

import json
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "chicory_core": ROOT,
    "chicory_dlq": ROOT / "plugins" / "chicory-dlq",
    "chicory_nats": ROOT / "plugins" / "chicory-nats",
    "chicory_otel": ROOT / "plugins" / "chicory-otel",
    "chicory_redis": ROOT / "plugins" / "chicory-redis",
    "chicory_sqlite": ROOT / "plugins" / "chicory-sqlite",
}


def main(folder: Path) -> None:
    wheels = [build(package, folder / "dist") for package in PACKAGES.values()]
    for wheel in wheels:
        look_into(wheel)
    python = install(wheels, folder / "venv")
    use(python, folder)
    print("wheels: built, complete, and working in a bare environment")


def build(package: Path, output: Path) -> Path:
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", output, package], check=True)
    return max(output.glob("*.whl"), key=lambda file: file.stat().st_mtime)


def look_into(wheel: Path) -> None:
    """Everything that is in the source is in the wheel, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith("LICENSE")]
    name = wheel.name.partition("-")[0]
    source = PACKAGES[name] / ("chicory_core/src" if name == "chicory_core" else "src")
    expected = {
        str(f.relative_to(source))
        for f in source.rglob("*")
        if f.is_file() and not {"__pycache__", ".ruff_cache"} & set(f.parts)
    }
    expect(names == expected, f"{wheel.name} has other files than {source}: {sorted(names ^ expected)}")
    expect(bool(licences), f"{wheel.name} has no LICENSE")


def install(wheels: list[Path], folder: Path) -> Path:
    venv.create(folder, with_pip=True, clear=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *wheels], check=True)
    return python


def use(python: Path, folder: Path) -> None:
    """In a directory that knows nothing of this repository."""
    sources = folder / "sources"
    sources.mkdir(parents=True, exist_ok=True)
    for number in range(20):
        (sources / f"m{number}.py").write_text("import os\n" * 100)
    chicory = python.parent / "chicory"

    def run(*arguments: str) -> str:
        return subprocess.run(arguments, cwd=folder, check=True, capture_output=True, text=True).stdout

    expect(run(chicory, "--version").startswith("chicory, version "), "chicory --version")
    plugins = {row["name"]: row["state"] for row in json.loads(run(chicory, "plugins", "--json"))}
    expect(plugins["sqlite"] == "active", f"the sqlite plugin is {plugins.get('sqlite')}")
    expect("0 of 20" in run(chicory, "demo", "sources"), "the demo lost something")
    for kind in ("broker", "middleware"):  # its templates are files beside the code
        with tempfile.TemporaryDirectory() as empty:
            run(chicory, "plugin", "new", "acme", "--kind", kind, "--into", empty)
            written = {str(path.relative_to(empty)) for path in Path(empty).rglob("*") if path.is_file()}
            wanted = {
                f"chicory-acme/{name}" for name in ("pyproject.toml", "tox.ini", ".gitignore", "src/chicory_acme/py.typed")
            }
            expect(wanted <= written, f"chicory plugin new wrote {sorted(written)}")
    imported = run(python, "-c", "import chicory; print([getattr(chicory, n) for n in chicory.__all__] and 'ok')")
    expect(imported.strip() == "ok", "a public name does not import")


def expect(is_so: bool, otherwise: str) -> None:
    if not is_so:
        sys.exit(f"wheels: {otherwise}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
