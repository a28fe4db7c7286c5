"""``python -m gpuspawner.launcher --settings FILE``: see `gpuspawner.launcher.daemon`."""

import sys

from gpuspawner.launcher.daemon import main

if __name__ == "__main__":
    sys.exit(main())
