"""What goes into an image: read from the build contexts, without building one."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import pytest

from images import context
from tests.cluster.images import ROOT

BUILT_EXTENSION = ROOT / "jupyterlab-extension/jupyterlab_gpuhub/labextension/package.json"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module", params=context.NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(name: str, cache: Path) -> Path:
    folder = cache / "contexts" / name
    context.write(name, folder, cache)
    return folder


def test_a_context_holds_all_that_its_dockerfile_copies(folder: Path) -> None:
    dockerfile = (folder / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile, re.MULTILINE)
    for source in " ".join(copied).split():
        assert (folder / source).exists(), source


def test_a_context_is_small(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) < 20
    assert sum(path.stat().st_size for path in files) < 10_000_000


def test_every_install_is_held_to_the_known_versions(folder: Path) -> None:
    text = re.sub(r"(?m)^#.*\n", "", (folder / "Dockerfile").read_text())
    installs = [line for line in re.split(r"&&|\nRUN", text) if "pip install" in line]
    assert installs
    for install in installs:
        assert "-c /opt/gpuhub/constraints.txt" in install or "--no-deps" in install or "==" in install, (
            install
        )


def test_every_requirement_of_hub_and_base_has_a_known_version(cache: Path) -> None:
    def names(text: str) -> set[str]:
        found = re.findall(r"^([A-Za-z0-9._-]+)", text, re.MULTILINE)
        return {re.sub(r"[-_.]+", "-", name).lower() for name in found}

    for name in context.EXTRAS:
        context.write(name, cache / name, cache)
        wanted = names((cache / name / "requirements.txt").read_text())
        assert wanted <= names((cache / name / "constraints.txt").read_text())


def test_the_same_sources_give_the_same_wheels(tmp_path: Path) -> None:
    first, second = (context.gpuhub_wheel(tmp_path / folder) for folder in ("a", "b"))
    assert hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(second.read_bytes()).digest()
    first, second = (context.extension_wheel(tmp_path / folder) for folder in ("a", "b"))
    assert hashlib.sha256(first.read_bytes()).digest() == hashlib.sha256(second.read_bytes()).digest()


def test_images_share_their_first_step() -> None:
    def first(name: str) -> str:
        text = (context.IMAGES / name / "Dockerfile").read_text()
        return text[text.index("RUN ") : text.index("/var/log/*")]

    assert first("hub") == first("base")


def test_a_checksum_follows_names_contents_and_rights(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x").write_text("1")
    seen = {context.digest([tmp_path / "a"])}
    (tmp_path / "a/x").chmod(0o755)
    seen.add(context.digest([tmp_path / "a"]))
    (tmp_path / "a/x").write_text("2")
    seen.add(context.digest([tmp_path / "a"]))
    (tmp_path / "a/x").rename(tmp_path / "a/y")
    seen.add(context.digest([tmp_path / "a"]))
    assert len(seen) == 4
    shutil.copytree(tmp_path / "a", tmp_path / "b/a")
    assert context.digest([tmp_path / "b/a"]) in seen


def test_what_an_image_needs_is_what_the_extras_say(cache: Path) -> None:
    wheel = context.gpuhub_wheel(cache)
    hub, base = (context.requirements(wheel, context.EXTRAS[name]) for name in ("hub", "base"))
    assert any(one.startswith("jupyterhub-kubespawner") for one in hub)
    assert not any(one.startswith(("jupyterlab", "pytest", "numpy")) for one in hub)
    assert any(one.startswith("numpy") for one in base)
    assert not any(one.startswith(("kubernetes", "sqlalchemy", "pytest")) for one in base)


def test_a_missing_extension_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "ROOT", tmp_path)
    with pytest.raises(context.CannotBuild, match="make install"):
        context.extension_wheel(tmp_path)
