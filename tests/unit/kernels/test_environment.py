"""What a notebook may know of its server."""

from __future__ import annotations

import pytest

from gpusession.kernels.environment import on_server, without_secrets


@pytest.mark.parametrize(
    "name",
    [
        "JUPYTERHUB_API_TOKEN",
        "JPY_API_TOKEN",
        "JUPYTER_TOKEN",
        "CONFIGPROXY_AUTH_TOKEN",
        "GPUHUB_BROKER_URL",
        "GPUHUB_UNIT",
        "GPUHUB_SOMETHING_TOKEN",
        "GPUHUB_HUB_SECRET",
        "KUBERNETES_SERVICE_HOST",
        "JPY_PARENT_PID",
        "NOTIFY_SOCKET",
    ],
)
def test_secrets_and_ties_stay_at_the_server(name: str) -> None:
    assert name not in on_server({name: "x"})


@pytest.mark.parametrize(
    "name",
    [
        "HOME",
        "PATH",
        "GPUHUB_SOCKET",
        "GPUHUB_KERNEL_ID",
        "GPUHUB_SNAPSHOTS",
        "GPUHUB_NOTEBOOK",
        "JUPYTERHUB_SERVICE_PREFIX",
        "JUPYTERHUB_USER",
        "JPY_SESSION_NAME",
        "MY_API_TOKEN",
        "OPENAI_API_KEY",
    ],
)
def test_what_is_the_persons_own_or_public_comes_along(name: str) -> None:
    assert without_secrets({name: "x"}) == {name: "x"}


def test_a_kernel_on_the_server_sees_no_gpu() -> None:
    seen = on_server({"CUDA_VISIBLE_DEVICES": "0", "NVIDIA_VISIBLE_DEVICES": "all"})
    assert (seen["CUDA_VISIBLE_DEVICES"], seen["NVIDIA_VISIBLE_DEVICES"]) == ("", "void")
