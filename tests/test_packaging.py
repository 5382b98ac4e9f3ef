"""The wheel as a customer gets it: what is in it, and that the library runs with torch, einops and numpy alone."""

import email
import json
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement

import gan_blocks
from tests.conftest import write_tiny_data
from tests.engine.own_gan import SMALL, write_own_gan
from tests.oldest_torch import oldest

ROOT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "gan_blocks", "recipes", "benchmarks", "tests", "docs")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, tests and documentation beside them."""
    copy = tmp_path_factory.mktemp("wheel") / "source"
    copy.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "_build"))
        else:
            shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    return build_wheel(source, source.parent)


def build_wheel(source: Path, folder: Path) -> Path:
    """A wheel of a folder or of a source distribution, built without the network."""
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    run(sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", str(folder), str(source))
    (built,) = folder.glob("*.whl")
    return built


def environment(wheel: Path, name: str, *needed: str) -> Path:
    """The interpreter of an environment that holds the wheel, the distributions named, what these need, and no more."""
    folder = wheel.parent / name
    run(sys.executable, "-m", "venv", "--without-pip", str(folder))
    python = folder / "bin" / "python"
    options = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    run(sys.executable, "-m", "pip", "--python", str(python), "install", *options, str(wheel))
    exposed = folder / "exposed"
    exposed.mkdir()
    for distribution_name in closure(*needed):
        expose(distribution_name, exposed)
    site_packages = run(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    (Path(site_packages) / "exposed.pth").write_text(f"{exposed}\n")
    return python


@pytest.fixture(scope="module")
def customer(wheel: Path) -> Path:
    """Somebody who needs the library alone."""
    return environment(wheel, "customer", "torch", "einops", "numpy")


@pytest.fixture(scope="module")
def engine_user(wheel: Path) -> Path:
    """Somebody who installed the extra [engine]."""
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["engine"]
    names = [Requirement(text).name for text in extra]
    return environment(wheel, "engine_user", "torch", "einops", "numpy", *names)


def run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def closure(*names: str) -> set[str]:
    """Return the distributions that the named ones need here, themselves included."""
    found: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name in found:
            continue
        found.add(name)
        needs = map(Requirement, distribution(name).requires or [])
        todo += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
    return found


def expose(name: str, folder: Path) -> None:
    """Link what the distribution installed at the top level of site-packages into the folder."""
    files = distribution(name).files
    assert files, f"{name} has no list of installed files"
    for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
        link = folder / top
        if not link.exists():  # several distributions may share a folder, such as nvidia/
            link.symlink_to(Path(str(distribution(name).locate_file(top))))


SHIPPED = (".py", ".typed", ".safetensors")


def test_the_wheel_ships_the_library_and_the_recipes_and_nothing_else(wheel: Path):
    shipped = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    sources = [path for part in ("gan_blocks", "recipes") for path in (ROOT / part).rglob("*")]
    assert shipped == {str(path.relative_to(ROOT)) for path in sources if path.suffix in SHIPPED}
    assert {"gan_blocks/py.typed", "recipes/py.typed"} <= shipped


def test_the_wheel_carries_the_license_and_the_version(wheel: Path):
    info = f"gan_blocks-{gan_blocks.__version__}.dist-info"
    names = set(ZipFile(wheel).namelist())
    assert f"{info}/licenses/LICENSE" in names
    assert f"\nVersion: {gan_blocks.__version__}\n" in ZipFile(wheel).read(f"{info}/METADATA").decode()


def test_the_wheel_says_what_it_is(wheel: Path):
    """In what an index shows and searches, without an address: the project has no home of its own yet."""
    with ZipFile(wheel) as file:
        (name,) = [name for name in file.namelist() if name.endswith(".dist-info/METADATA")]
        about = email.message_from_bytes(file.read(name))
    assert about["License-Expression"] == "MIT"
    assert about["Requires-Python"] == ">=3.11"
    assert {"gan", "spectral normalization", "pytorch"} <= set(about["Keywords"].split(","))
    classifiers = about.get_all("Classifier")
    assert {"Typing :: Typed", "Programming Language :: Python :: 3.11"} <= set(classifiers)
    assert any(each.startswith("Topic :: Scientific/Engineering") for each in classifiers)
    assert about.get_all("Project-URL") is about["Home-page"] is None


def test_the_oldest_torch_is_the_one_that_the_documentation_names():
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (torch,) = [each.removeprefix("torch==") for each in oldest(dependencies) if each.startswith("torch==")]
    assert f"torch ({torch} or newer;" in (ROOT / "docs" / "install.md").read_text()
    assert oldest(["einops >= 0.8, < 2"]) == ["einops==0.8"]


@pytest.mark.slow
def test_the_source_distribution_gives_the_same_wheel(source: Path, wheel: Path, tmp_path: Path):
    script = "import sys, setuptools.build_meta as backend; backend.build_sdist(sys.argv[1])"
    run(sys.executable, "-c", script, str(tmp_path), cwd=source)
    (archive,) = tmp_path.glob("*.tar.gz")
    assert archive.name == f"gan_blocks-{gan_blocks.__version__}.tar.gz"
    again = build_wheel(archive, tmp_path)
    with ZipFile(wheel) as first, ZipFile(again) as second:
        assert {name: first.getinfo(name).CRC for name in first.namelist()} == {
            name: second.getinfo(name).CRC for name in second.namelist()
        }


def test_the_library_imports_with_torch_einops_and_numpy_alone(customer: Path, tmp_path: Path):
    script = """
import importlib.util, json, sys
import gan_blocks
print(json.dumps({
    "file": gan_blocks.__file__,
    "version": gan_blocks.__version__,
    "unresolved": [name for name in gan_blocks.__all__ if not hasattr(gan_blocks, name)],
    "present": [name for name in ("tyro", "tqdm", "PIL", "safetensors", "scipy") if importlib.util.find_spec(name)],
}))
"""
    seen = json.loads(run(str(customer), "-W", "error", "-I", "-c", script, cwd=tmp_path))
    assert Path(seen.pop("file")).is_relative_to(customer.parents[1])
    assert seen == {"version": gan_blocks.__version__, "unresolved": [], "present": []}


def test_the_console_and_the_recipes_run_where_nothing_but_the_wheel_and_its_extra_is(
    engine_user: Path, tmp_path: Path
):
    console = str(engine_user.with_name("gan-blocks"))
    assert "imagenet-512" in run(console, "presets", "biggan", cwd=tmp_path)
    told = run(str(engine_user), "-m", "recipes.biggan_deep", "--help", cwd=tmp_path)
    assert told.startswith("usage: python -m recipes.biggan_deep")


@pytest.mark.slow
def test_a_recipe_from_outside_runs_there_beside_a_package_named_recipes(engine_user: Path, tmp_path: Path):
    console = str(engine_user.with_name("gan-blocks"))
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "__init__.py").write_text("raise SystemExit('the wrong recipes')\n")
    write_own_gan(tmp_path)
    write_tiny_data(tmp_path)
    options = [*SMALL, "--data", "npz:tiny.npz", "--steps", "1", "--run-dir", "run"]
    run(console, "train", "my_gan.py", *options, cwd=tmp_path)
    run(console, "sample", "--run", "run", "--recipe", "my_gan.py", "--out", "sheet.png", cwd=tmp_path)
    assert (tmp_path / "sheet.png").is_file()
    assert "mnist5k-32" in run(console, "presets", "sngan", cwd=tmp_path)
