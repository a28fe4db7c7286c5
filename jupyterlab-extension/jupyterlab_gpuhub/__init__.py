"""The GPU switch, panel and notices of gpuhub in JupyterLab and Notebook.

This package only carries the built files: JupyterLab finds them by themselves once it is
installed. The server's side is `gpusession`, which the spawner switches on.
"""


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    return [{"src": "labextension", "dest": "jupyterlab-gpuhub"}]
