"""``python -m gpuhub.api --settings FILE`` runs the broker; ``--openapi`` prints what it answers to."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m gpuhub.api", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--settings", type=Path, metavar="FILE", help="the broker's settings (JSON)")
    what.add_argument("--openapi", action="store_true", help="print the OpenAPI document and end")
    options = parser.parse_args()
    if options.openapi:
        from gpuhub.api.app import bare_app
        from gpuhub.api.openapi import document, with_session
        from gpulease.scopes import SERVICE_NAME

        json.dump(with_session(document(bare_app(f"/services/{SERVICE_NAME}"))), sys.stdout, indent=2)
        print()
        return 0
    from gpuhub.api.wiring import run

    return run(options.settings)


if __name__ == "__main__":
    sys.exit(main())
