import tomllib
from importlib import metadata, resources
from pathlib import Path

import proxycoop

ROOT = Path(__file__).parents[2]


def test_every_folder_of_code_is_packaged_under_one_name():
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    tops = ("envs", "agents", "credit", "training")
    ours = [path.parent.relative_to(ROOT) for top in tops for path in ROOT.glob(f"{top}/**/__init__.py")]
    expected = {".".join(["proxycoop", *folder.parts]): str(folder) for folder in ours}
    in_src = [path.parent.relative_to(ROOT / "src") for path in ROOT.glob("src/proxycoop/**/__init__.py")]
    assert setuptools["package-dir"] == expected | {".".join(folder.parts): f"src/{folder}" for folder in in_src}
    assert set(setuptools["packages"]) == set(setuptools["package-dir"])


def test_version_of_the_package_is_the_one_installed():
    assert proxycoop.__version__ == metadata.version("proxycoop")


def test_the_package_says_that_it_is_typed():
    assert resources.files("proxycoop").joinpath("py.typed").is_file()
