"""What the built images promise: tried from inside, and read from outside."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.images import NAMES, ROOT, archives

pytestmark = [pytest.mark.root, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def built() -> dict[str, Path]:
    return dict(zip(NAMES, archives(), strict=True))


def config(archive: Path) -> dict[str, Any]:
    """Return the image's configuration: what it runs, as whom, and how it was made."""
    with tarfile.open(archive) as content:

        def read(name: str) -> dict[str, Any]:
            found = content.extractfile(name)
            assert found is not None
            return dict(json.loads(found.read()))

        def blob(digest: str) -> dict[str, Any]:
            return read("blobs/sha256/" + digest.partition(":")[2])

        manifest = blob(read("index.json")["manifests"][0]["digest"])
        return blob(manifest["config"]["digest"])


@pytest.mark.parametrize("name", NAMES)
def test_an_image_works_when_tried_from_inside(name: str, built: dict[str, Path]) -> None:
    command = [sys.executable, str(ROOT / "images/build.py"), name, "--smoke"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_an_image_runs_as_an_ordinary_user_below_an_init(name: str, built: dict[str, Path]) -> None:
    given = config(built[name])["config"]
    assert given["User"] == "1000:1000"
    assert given["Entrypoint"] == ["/usr/bin/tini", "--"]
    assert any(one.startswith("PATH=/opt/gpuhub/bin:") for one in given["Env"])


@pytest.mark.parametrize("name", NAMES)
def test_an_image_says_nothing_of_where_it_was_built(name: str, built: dict[str, Path]) -> None:
    whole = json.dumps(config(built[name]))
    assert str(ROOT) not in whole
    for word in ("index-url", "PIP_CERT", "SSL_CERT", "_proxy=", "http://", "https://", "token"):
        assert word not in whole, word


def test_an_unchanged_image_is_not_built_again(built: dict[str, Path]) -> None:
    times = {path: path.stat().st_mtime_ns for path in built.values()}
    assert {path: path.stat().st_mtime_ns for path in archives()} == times


def test_both_images_share_their_first_layers(built: dict[str, Path]) -> None:
    hub, base = (config(built[name])["rootfs"]["diff_ids"] for name in NAMES)
    assert hub[:2] == base[:2]
