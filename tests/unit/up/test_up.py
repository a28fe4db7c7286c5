"""What `gpuhub up` refuses, keeps from start to start, and says."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuhub.telemetry.inventory import Inventory, simulated_gpus
from gpuhub.up.children import CALM_SECONDS, LONGEST_PAUSE_SECONDS, pauses
from gpuhub.up.folders import DataFolder
from gpuhub.up.greeting import describe_gpus, sign_in_words
from gpuhub.up.options import UpOptions, UpRefused
from gpuhub.up.ports import choose_ports
from gpuhub.up.run import check_authenticator
from gpuhub.up.secrets import load_or_make
from gpuhub.up.supervisor import write_ready_file


@pytest.fixture
def data(tmp_path: Path) -> Iterator[DataFolder]:
    folder = DataFolder(tmp_path / "data", os.geteuid(), os.getegid())
    folder.open()
    yield folder
    folder.close()


@pytest.mark.parametrize(
    "options",
    [
        {"gpus": "some"},
        {"gpus": "sim:0"},
        {"port": 70000},
        {"policy": Path("/no/such")},
        {"cull_after_seconds": -1},
    ],
)
def test_options_that_mean_nothing_are_refused_with_a_sentence(options: dict[str, object]) -> None:
    with pytest.raises(UpRefused) as refused:
        UpOptions(data=Path("/tmp/x"), **options)  # type: ignore[arg-type]
    assert str(refused.value).count(".") >= 1


def test_a_data_folder_has_one_gpuhub_at_a_time(data: DataFolder) -> None:
    with pytest.raises(UpRefused, match="Another gpuhub is running"):
        DataFolder(data.path, os.geteuid(), os.getegid()).open()
    data.close()
    again = DataFolder(data.path, os.geteuid(), os.getegid())
    again.open()
    again.close()


def test_a_data_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UpRefused, match="cannot be made"):
        DataFolder(tmp_path / "file" / "data", os.geteuid(), os.getegid()).open()


def test_the_data_folder_is_its_owners_alone(data: DataFolder) -> None:
    assert data.path.stat().st_mode & 0o777 == 0o700
    secrets = load_or_make(data)
    assert (data.path / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert load_or_make(data) == secrets


def test_a_damaged_secrets_file_is_refused_not_replaced(data: DataFolder) -> None:
    data.write("secrets.json", "{")
    with pytest.raises(UpRefused, match="damaged"):
        load_or_make(data)
    assert (data.path / "secrets.json").read_text() == "{"


def test_inner_ports_stay_the_same_from_start_to_start(data: DataFolder) -> None:
    first = choose_ports(data, "127.0.0.1", 0)
    second = choose_ports(data, "127.0.0.1", 0)
    assert (first.hub, first.broker, first.proxy_api) == (second.hub, second.broker, second.proxy_api)


def test_an_inner_port_that_somebody_took_is_given_up(data: DataFolder) -> None:
    first = choose_ports(data, "127.0.0.1", 0)
    with socket.socket() as other:
        other.bind(("127.0.0.1", first.hub))
        other.listen()
        second = choose_ports(data, "127.0.0.1", 0)
    assert second.hub != first.hub
    assert second.broker == first.broker


def test_a_public_port_in_use_is_refused(data: DataFolder) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UpRefused, match=f"Port {port} of 127.0.0.1 is already in use"):
            choose_ports(data, "127.0.0.1", port)


def test_an_address_of_another_machine_is_refused(data: DataFolder) -> None:
    with pytest.raises(UpRefused, match="not an address of this machine"):
        choose_ports(data, "192.0.2.1", 8123)


def test_an_unknown_authenticator_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(UpRefused, match="no authenticator nonsense") as refused:
        check_authenticator("nonsense")
    assert "shared-password" in str(refused.value)
    check_authenticator("jupyterhub.auth.DummyAuthenticator")
    check_authenticator("dummy")


def test_a_part_that_keeps_falling_is_started_ever_more_slowly() -> None:
    pause = pauses()
    waited = [pause(0.1) for _ in range(10)]
    assert waited == sorted(waited)
    assert waited[0] < 1
    assert waited[-1] == LONGEST_PAUSE_SECONDS
    assert pause(CALM_SECONDS + 1) == waited[0]


def test_the_ready_file_is_nobody_elses(tmp_path: Path) -> None:
    file = tmp_path / "ready.json"
    file.write_text("old")
    os.chmod(file, 0o644)
    write_ready_file(file, {"url": "http://x/"})
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(file.read_text()) == {"url": "http://x/"}


def test_simulated_gpus_are_called_so() -> None:
    text = describe_gpus(Inventory(simulated_gpus(2), simulated=True, problem="There is no NVIDIA driver."))
    assert text.startswith("2 simulated GPUs:")
    assert "There is no NVIDIA driver" in text
    assert describe_gpus(Inventory(simulated_gpus(1), simulated=True)).startswith("1 simulated GPU:")


def test_the_start_up_text_says_how_to_sign_in() -> None:
    words = sign_in_words("shared-password", "secret-words", ("root-ann",), "admin-words")
    assert words == (
        "any name, with the password secret-words",
        "as administrator: root-ann, with the password admin-words",
    )
