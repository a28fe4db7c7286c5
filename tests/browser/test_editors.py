"""The other ways in: VS Code, the classic Notebook, and the ``gpu`` command in their terminals."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.conftest import Enter
from tests.browser.lab import Lab, Notebook
from tests.browser.vscode import Code
from tests.running import RunningHub

PROGRAM = 'import os\nprint("sees", os.environ["CUDA_VISIBLE_DEVICES"])\n'


def test_vscode_opens_edits_and_runs_on_a_gpu_from_its_terminal(hub: RunningHub, enter: Enter) -> None:
    lea = enter(hub, "lea")
    lea.sign_in()
    lea.start(editor="VS Code")
    lea.write("train.py", PROGRAM)
    code = Code(lea)
    lea.picture("vscode")
    code.open("train.py")
    code.append('print("edited here")\n')
    lea.wait(lambda: "edited here" in lea.read("train.py"), "the file to be saved", 20)
    code.open_terminal()
    code.type("echo now: [$CUDA_VISIBLE_DEVICES]")
    code.expect_terminal("now: []")
    code.type("gpu run python train.py; echo ended with $?")
    code.expect_terminal(re.compile(r"sees SIM-[01]"))
    code.expect_terminal("edited here")
    code.expect_terminal("ended with 0")
    lea.picture("gpu-run")
    code.type("gpu off")
    lea.wait(lambda: lea.leases() == [], "the GPU to be released", 60)


def test_the_gpu_command_in_jupyterlabs_terminal_works_on_the_same_lease(
    hub: RunningHub, enter: Enter
) -> None:
    mia = enter(hub, "mia")
    mia.sign_in()
    mia.start()
    lab = Lab(mia)
    lab.wait_until_up()
    terminal = lab.terminal()
    terminal.type("gpu status")
    terminal.expect("2 of 2 free")
    terminal.type("gpu on")
    mia.wait(lambda: [one["state"] for one in mia.leases()] == ["active"], "a GPU", 60)
    panel = lab.panel
    expect(panel.get_by_role("button", name="Release")).to_be_visible()
    terminal.type("clear; gpu status")
    terminal.expect("on since")
    terminal.expect("simulated")
    mia.picture("gpu-status")
    terminal.type("clear; gpu run python -c 'import os; print(os.environ[\"CUDA_VISIBLE_DEVICES\"], 6*7)'")
    terminal.expect(re.compile(r"SIM-[01] 42"))
    terminal.type("clear; gpu off")
    mia.wait(lambda: mia.leases() == [], "the GPU to be released", 60)
    expect(panel).to_contain_text("No GPU yet.")
    mia.picture("gpu-off")


def test_jupyterlabs_launcher_opens_vscode(hub: RunningHub, enter: Enter) -> None:
    ned = enter(hub, "ned")
    ned.sign_in()
    ned.start()
    lab = Lab(ned)
    lab.wait_until_up()
    with ned.context.expect_page() as opened:
        ned.page.locator(".jp-LauncherCard", has_text="VS Code").click()
    Code(ned, opened.value)
    ned.picture("vscode-from-lab", opened.value)


def test_the_classic_notebook_has_the_switch_too(hub: RunningHub, enter: Enter) -> None:
    ole = enter(hub, "ole")
    # Notebook 7.6 stumbles over its own start when it reads the settings; without gpuhub, too.
    ole.watch.expect(r"exception: Cannot read properties of undefined \(reading 'schema'\)")
    ole.sign_in()
    ole.start(editor="Notebook")
    ole.put_notebook("small.ipynb", "seven = 7")
    ole.goto(f"user/{ole.name}/notebooks/small.ipynb")
    notebook = Notebook(Lab(ole))
    notebook.wait_until_ready()
    notebook.run_existing(0)
    notebook.switch.turn_on()
    assert notebook.run("print(seven)") == "7"
    ole.picture("classic")
