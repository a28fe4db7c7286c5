"""Makes what is made from something else: the values' schema, and the Kustomize base from the chart.

One truth each: `values.schema.json` comes from `values.schema.yaml` and the settings classes that it names,
`kustomize/base` from the chart with `values/kustomize.yaml`. Both results are committed (helm and
kustomize users need nothing of ours to use them); a test compares them with fresh ones.

    python helm-values/generate.py            # needs helm in the PATH, or HELM=/path/of/helm
    python helm-values/generate.py --check    # says what is out of date; exit code 1
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
CHART = HERE / "gpuhub"
BASE = HERE / "kustomize/base"
MADE = "# Made from the chart by `python helm-values/generate.py`. Change the chart, or an overlay.\n"
HELM_ONLY = ("helm.sh/chart", "app.kubernetes.io/managed-by")
"""Labels that say how something was installed."""


def schema() -> str:
    """Return the text of values.schema.json."""
    made = _with_models(yaml.safe_load((CHART / "values.schema.yaml").read_text(encoding="utf-8")))
    return json.dumps(made, indent=1, ensure_ascii=False) + "\n"


def _with_models(node: Any) -> Any:
    """Replace each ``x-model: module:class`` by that settings class's own schema."""
    if isinstance(node, list):
        return [_with_models(entry) for entry in node]
    if not isinstance(node, dict):
        return node
    if "x-model" not in node:
        return {key: _with_models(value) for key, value in node.items()}
    module, _, name = node["x-model"].partition(":")
    model = getattr(importlib.import_module(module), name).model_json_schema()
    inlined = _inlined(model, model.pop("$defs", {}))
    return inlined | {key: value for key, value in node.items() if key != "x-model"}


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inlined(entry, definitions) for entry in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        found = _inlined(definitions[node["$ref"].removeprefix("#/$defs/")], definitions)
        return found | {key: value for key, value in node.items() if key != "$ref"}
    # Titles repeat the names, and defaults are the settings' own.
    dropped = ("title", "default") if "type" in node or "anyOf" in node else ()
    return {key: _inlined(value, definitions) for key, value in node.items() if key not in dropped}


def base() -> dict[str, str]:
    """Return the files of the Kustomize base: one for each kind of object, and the list of them."""
    command = [os.environ.get("HELM", "helm"), "template", "gpuhub", str(CHART), "--namespace", "gpuhub"]
    command += ["--values", str(HERE / "values/kustomize.yaml"), "--skip-tests", "--kube-version", "1.34.0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"helm template failed:\n{done.stderr}")
    kinds: dict[str, list[dict[str, Any]]] = {}
    for entry in yaml.safe_load_all(done.stdout):
        if entry:
            kinds.setdefault(entry["kind"].lower(), []).append(_placed(entry))
    files = {
        f"{kind}.yaml": MADE + yaml.safe_dump_all(entries, sort_keys=False, width=120, allow_unicode=True)
        for kind, entries in sorted(kinds.items())
    }
    listed = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": [*files]}
    files["kustomization.yaml"] = MADE + yaml.safe_dump(listed, sort_keys=False)
    return files


def _placed(entry: dict[str, Any]) -> dict[str, Any]:
    """Say the namespace, which helm leaves to the installation, and drop what only helm means."""
    metadata = entry["metadata"]
    for labels in (metadata, entry.get("spec", {}).get("template", {}).get("metadata", {})):
        for label in HELM_ONLY:
            labels.get("labels", {}).pop(label, None)
    metadata.get("annotations", {}).pop("helm.sh/resource-policy", None)
    if not metadata.get("annotations", True):
        del metadata["annotations"]
    cluster_wide = ("Namespace", "PriorityClass", "ClusterRole", "ClusterRoleBinding")
    if entry["kind"] not in cluster_wide and not entry["kind"].startswith("ValidatingAdmission"):
        metadata.setdefault("namespace", "gpuhub")
    return entry


def main(options: list[str]) -> int:
    if options not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    judge = CHART / "values.schema.json"
    made = {judge: schema()}
    if not options and judge.read_text("utf-8") != made[judge]:
        judge.write_text(made[judge], encoding="utf-8")  # helm judges the values by it, also for the base
        print(f"written: {judge.relative_to(HERE.parent)}")
    made |= {BASE / name: text for name, text in base().items()}
    stale = [path for path, text in made.items() if not path.exists() or path.read_text("utf-8") != text]
    stale += [path for path in BASE.glob("*.yaml") if path not in made]
    for path in stale:
        print(f"{'out of date' if options else 'written'}: {path.relative_to(HERE.parent)}")
        if options:
            continue
        if path in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made[path], encoding="utf-8")
        else:
            path.unlink()
    return 1 if options and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
