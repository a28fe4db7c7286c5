"""Builds the ``gpuhub`` distribution: the contract, the hub's side, and the session's side.

Plain ``gpuhub`` is the light contract (`gpulease`); each extra adds what one side needs.
Exact versions that were seen to work together are in ``constraints.txt``.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
AGENT = [
    "nvidia-ml-py>=12.560",  # imports as pynvml
    "structlog>=24.1",
    "grpcio>=1.74",  # the kubelet's PodResources API: which pod has which GPU
    "protobuf>=5.29",  # its messages
]
VERSION = re.search(r'__version__ = "([^"]+)"', (ROOT / "hub/gpulease/__init__.py").read_text())[1]

HUB = find_packages("hub")
SPAWNER = find_packages("spawner")

setup(
    name="gpuhub",
    version=VERSION,
    description="JupyterHub with few GPUs: a notebook's kernel moves onto one and back, with its variables",
    long_description=(ROOT / "README.md").read_text() if (ROOT / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="BSD-3-Clause",
    python_requires=">=3.11",
    packages=HUB + SPAWNER,
    package_dir={
        "gpulease": "hub/gpulease",
        "gpuhub": "hub/gpuhub",
        "gpuspawner": "spawner/gpuspawner",
        "gpusession": "spawner/gpusession",
    },
    package_data={
        "gpulease": ["py.typed"],
        "gpuhub": [
            "pages/templates/*",
            "pages/static/*",
            "pages/static/*/*",
            "store/alembic.ini",
            "store/migrations/*.mako",
        ],
        "gpuspawner": ["locale/*/*/*.po"],
    },
    data_files=[
        ("share/gpuhub", ["images/environments.yaml", "hub/jupyterhub_config.py", "hub/culler_config.py"]),
    ],
    install_requires=[
        "pydantic>=2.7",  # shapes that cross a boundary, checked
        "httpx>=0.27",  # the client
    ],
    extras_require={
        "agent": AGENT,  # the node agent alone
        "hub": [
            *AGENT,
            "jupyterhub>=5.5,<7",
            "jupyterhub-kubespawner>=7.1",  # profile lists in form and meaning; the cluster's spawner
            "oauthenticator>=17.4",  # sign-in through a campus identity provider
            "jupyterhub-idle-culler>=2.0",
            "babel>=2.14",  # catalogs of texts
            "kubernetes>=36",
            "fastapi>=0.115",
            "uvicorn>=0.30",
            "sqlalchemy[asyncio]>=2.0.30",
            "alembic>=1.13",
            "aiosqlite>=0.20",
            "psycopg[binary]>=3.2",  # PostgreSQL
            "prometheus_client>=0.20",
            "typer>=0.12",
            "rich>=13.7",
            "cryptography>=42",  # host keys for workers
            "pamela>=1.2",  # PAM sign-in
            "psutil>=5.9",  # what processes do: simulated GPUs, orphans
            "pyyaml>=6",
        ],
        "session": [
            "jupyter_server>=2.17,<3",
            "jupyterlab>=4.4,<5",
            "notebook>=7.4,<8",
            "jupyterlab-language-pack-ko-KR>=4.4",  # offers Korean in JupyterLab; our own texts join it
            "jupyter_client>=8.6.3,<9",
            "ipykernel>=7,<8",
            "pyzmq>=26",
            "asyncssh>=2.20",  # the one connection between server and worker
            "cloudpickle>=3.1",
            "xxhash>=3.5",  # digests of large pieces of saved memory; without it SHA-256, which is slower
            "jupyter-server-proxy>=4.6",
            "jupyter-vscode-proxy>=0.7",
            "typer>=0.12",
            "rich>=13.7",
            "psutil>=5.9",
        ],
        "science": [  # what the first environment offers to people
            "numpy>=1.26",
            "pandas>=2",
            "scikit-learn>=1.4",
            "matplotlib>=3.8",
            "ipywidgets>=8",
        ],
        "test": [
            "pytest>=8",
            "pytest-asyncio>=1",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.6",  # the unit lane on all cores
            "hypothesis>=6.100",
            "import-linter>=2",
            "ruff>=0.9",
            "mypy>=1.13",
            "types-PyYAML",
            "grpcio-tools>=1.74",  # compiles the kubelet's .proto files for those who play the kubelet
            "types-protobuf",
            "playwright>=1.50",
            "oidc-provider-mock>=0.3.4",  # a provider to sign in at
            "nbclient>=0.10",
            "papermill>=2.6",
            "dill>=0.3.8",
            "hatchling>=1.25",  # builds jupyterlab-gpuhub without isolation
            "hatch-jupyter-builder>=0.9",
            "hatch-nodejs-version>=0.3.2",
        ],
    },
    entry_points={
        "console_scripts": [
            "gpuhub = gpuhub.cli:main",
            "gpu = gpusession.shell.main:main",
        ],
        "jupyter_client.kernel_provisioners": [
            "gpuhub-provisioner = gpusession.kernels.provisioner:GpuProvisioner",
        ],
        "jupyterhub.spawners": [
            "gpuhub-local = gpuspawner.local:GpuLocalSpawner",
            "gpuhub-kube = gpuspawner.kube:GpuKubeSpawner",
        ],
    },
)
