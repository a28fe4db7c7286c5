"""The house: who may import whom, how large a room may be, what must not stand in the repository."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOP_FOLDERS = {"hub", "spawner", "images", "helm-values", "jupyterlab-extension", "tests", ".ci"}
PRODUCT = [ROOT / "hub", ROOT / "spawner"]
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}


def tracked(*patterns: str) -> list[Path]:
    out = subprocess.run(
        ["git", "ls-files", "-z", "--", *patterns], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    return [ROOT / name for name in out.split("\0") if name and (ROOT / name).exists()]


def product_modules() -> list[Path]:
    return [path for root in PRODUCT for path in sorted(root.rglob("*.py")) if "versions" not in path.parts]


def test_import_contracts_hold() -> None:
    result = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_only_the_agreed_folders_stand_at_the_top() -> None:
    folders = {path.relative_to(ROOT).parts[0] for path in tracked() if len(path.relative_to(ROOT).parts) > 1}
    assert folders <= TOP_FOLDERS, folders - TOP_FOLDERS


def test_every_module_says_why_it_exists() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in product_modules()
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_no_file_outgrows_500_lines_without_its_reason() -> None:
    crowded = []
    for path in product_modules():
        text = path.read_text()
        if (
            text.count("\n") > 500
            and "long because" not in (ast.get_docstring(ast.parse(text)) or "").lower()
        ):
            crowded.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
    assert crowded == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [str(p.relative_to(ROOT)) for p in product_modules() if p.stem in FORBIDDEN_NAMES] == []


def test_production_code_has_no_mocks_and_no_test_switches() -> None:
    found = [
        str(path.relative_to(ROOT))
        for path in product_modules()
        if re.search(r"unittest\.mock|MagicMock|PYTEST_CURRENT_TEST|sys\._called_from_test", path.read_text())
    ]
    assert found == []


def test_nothing_is_imported_at_import_time_that_talks_to_a_driver() -> None:
    script = "import sys, gpuhub.telemetry.nvml; sys.exit('pynvml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_contract_imports_without_hub_or_session() -> None:
    script = (
        "import sys, gpulease.client, gpulease.session\n"
        "heavy = {'jupyterhub', 'fastapi', 'sqlalchemy', 'tornado', 'zmq', 'asyncssh'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("mark", ["TODO", "FIXME", "XXX"])
def test_no_leftover_marks(mark: str) -> None:
    pattern = re.compile(rf"\b{mark}\b")
    found = [
        str(path.relative_to(ROOT))
        for path in tracked("*.py", "*.ts", "*.tsx", "*.yaml", "*.sh")
        if path != Path(__file__) and pattern.search(path.read_text())
    ]
    assert found == []
