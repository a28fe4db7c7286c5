"""The main line: sign in, choose, work, flip a GPU on, lose nothing, flip it off."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.conftest import Enter
from tests.browser.lab import Lab
from tests.running import RunningHub

IMPORTS = """\
import os
import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression
"""
DATA = """\
measured = np.arange(12.0).reshape(3, 4)
same = measured
row = measured[1]
cities = pd.DataFrame({"city": ["Aachen", "Bonn", "Celle"], "people": [249, 332, 70]})
big = np.ones(60_000_000)
ran = []
"""
CODE = """\
factor = 3

def scaled(value):
    return value * factor

class Walker:
    def __init__(self, steps):
        self.steps = steps

    def far(self):
        return scaled(self.steps)

walker = Walker(7)
model = LinearRegression().fit([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0])
"""
CHECK = """\
same[0, 0] = 100.0
factor = 4
print(measured is same, measured[0, 0], np.shares_memory(row, measured))
print(cities["people"].sum(), walker.far(), type(walker) is Walker)
print(round(float(model.predict([[10.0]])[0]), 6), int(big.sum()))
"""


def test_a_notebook_moves_onto_a_gpu_and_back_in_the_same_tab_with_its_variables(
    hub: RunningHub, enter: Enter
) -> None:
    ann = enter(hub, "ann")
    ann.sign_in()
    ann.start()
    lab = Lab(ann)
    lab.wait_until_up()
    ann.picture("1-jupyterlab")

    # A server without a GPU.
    notebook = lab.new_notebook()
    notebook.run(IMPORTS)
    assert notebook.run('print(repr(os.environ["CUDA_VISIBLE_DEVICES"]))') == "''"
    notebook.run(DATA)
    notebook.run(CODE)
    switch = notebook.switch
    switch.expect_cpu()
    expect(switch.track).to_have_attribute("title", re.compile(r"2 simulated GPUs are free\."))
    assert ann.leases() == []
    ann.picture("2-on-the-cpu")

    # Onto a GPU; what is submitted during the move runs afterwards, once, in order.
    channels = list(lab.channels)
    with switch.everything_shown() as shown:
        switch.flip()
        expect(switch.group).to_contain_text("moving", timeout=60_000)
        first = notebook.submit('ran.append("first"); print(repr(os.environ["CUDA_VISIBLE_DEVICES"]))')
        second = notebook.submit('ran.append("second"); print(ran)')
        ann.picture("3-on-its-way")
        switch.expect_on()
    device = ann.leases()[0]["devices"][0]["id"]
    assert device in ("SIM-0", "SIM-1")
    assert notebook.result(first) == repr(device)
    assert notebook.result(second) == "['first', 'second']"
    assert notebook.number(second) == notebook.number(first) + 1
    assert any("getting your GPU" in text for text in shown), shown
    assert any("moving" in text for text in shown), shown
    assert not any("no connection" in text or "no kernel" in text for text in shown), shown

    # The same tab, the same connection, the same objects.
    assert notebook.run(CHECK).splitlines() == [
        "True 100.0 True",
        "651 28 True",
        "21.0 60000000",
    ]
    assert lab.channels == channels
    ann.picture("4-on-the-gpu")

    # What is held is said: use, memory, time, limits; in the pop-over and in the panel.
    switch.chip("simulated").click()
    details = switch.popover(re.compile("simulated"))
    expect(details).to_contain_text("Counts as idle after 10 min without use.")
    ann.picture("5-details")
    ann.page.keyboard.press("Escape")
    expect(details).to_be_hidden()
    panel = lab.panel
    expect(panel.get_by_role("list", name="What runs on this GPU")).to_contain_text("Untitled.ipynb")
    expect(panel).to_contain_text("1 of 2 free")
    expect(panel).to_contain_text("1 of 1 GPU in use")
    ann.picture("6-panel")

    # And off again: the variables as they are now, the GPU free within seconds.
    switch.turn_off()
    ann.wait(lambda: ann.leases() == [], "the GPU to be free", 20)
    assert notebook.run('print(repr(os.environ["CUDA_VISIBLE_DEVICES"]), ran, factor)') == (
        "'' ['first', 'second'] 4"
    )
    assert notebook.run(CHECK).splitlines()[0] == "True 100.0 True"
    assert lab.channels == channels
    expect(panel).to_contain_text("No GPU yet.")
    expect(panel).to_contain_text("2 of 2 free")
    ann.picture("7-back-on-the-cpu")


def test_what_cannot_move_is_named_with_its_reason_and_asked_about_first(
    hub: RunningHub, enter: Enter
) -> None:
    bea = enter(hub, "bea")
    bea.sign_in()
    bea.start()
    lab = Lab(bea)
    lab.wait_until_up()
    notebook = lab.new_notebook()
    notebook.run('log = open("log.txt", "w"); total = 41')
    switch = notebook.switch
    switch.flip()
    question = switch.popover("Before it moves to the GPU")
    expect(question).to_be_visible(timeout=90_000)
    expect(question).to_contain_text("log")
    expect(question).to_contain_text("open")
    bea.picture("question")
    question.get_by_role("button", name="Stay").click()
    switch.expect_cpu()
    assert notebook.run("print(log.closed, total)") == "False 41"

    switch.flip()
    expect(question).to_be_visible(timeout=90_000)
    question.get_by_role("button", name="Move anyway").click()
    switch.expect_on()
    assert notebook.run('print(total, "log" in globals())') == "41 False"
    switch.chip("simulated").click()
    expect(switch.popover(re.compile("simulated"))).to_contain_text("log")
    bea.picture("stayed-behind")


def test_a_second_notebook_joins_the_same_gpu_and_release_brings_both_back(
    hub: RunningHub, enter: Enter
) -> None:
    cal = enter(hub, "cal")
    cal.sign_in()
    cal.start()
    lab = Lab(cal)
    lab.wait_until_up()
    cal.put_notebook("first.ipynb", "import os; first = 1; os.environ['CUDA_VISIBLE_DEVICES']")
    cal.put_notebook("second.ipynb", "import os; second = 2; os.environ['CUDA_VISIBLE_DEVICES']")
    first = lab.open_from_files("first.ipynb")
    first.run_existing(0)
    first.switch.turn_on()
    lease = cal.leases()[0]["id"]
    second = lab.open_from_files("second.ipynb")
    expect(second.switch.track).to_have_attribute("title", re.compile("on your .*simulated.* too"))
    second.run_existing(0)
    second.switch.turn_on()
    assert [one["id"] for one in cal.leases()] == [lease]
    assert second.run_existing(0) == repr(cal.leases()[0]["devices"][0]["id"])

    here = lab.panel.get_by_role("list", name="What runs on this GPU")
    expect(here).to_contain_text("first.ipynb")
    expect(here).to_contain_text("second.ipynb")
    cal.picture("both")
    lab.release("2 notebooks move back with their variables.")
    second.switch.expect_cpu()
    assert second.run("print(second)") == "2"
    lab.front("first.ipynb")
    first.switch.expect_cpu()
    assert first.run("print(first)") == "1"
    cal.wait(lambda: cal.leases() == [], "the GPU to be free", 20)
    cal.picture("released")


DIGITS = """\
import numpy as np
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

digits = load_digits()
order = np.random.default_rng(7).permutation(len(digits.data))
images, labels = digits.data[order] / 16, digits.target[order]
train, test = slice(0, 1400), slice(1400, None)
plt.figure(figsize=(9, 1.1))
plt.imshow(np.hstack(digits.images[:10]), cmap="gray_r")
plt.axis("off");
"""
TRAINING = """\
import time

network = MLPClassifier((400, 200), random_state=7)
until, epoch = time.time() + 20, 0
while epoch < 10 or time.time() < until:
    network.partial_fit(images[train], labels[train], classes=range(10))
    epoch += 1
    if epoch in (1, 2, 5, 10):
        rate = network.score(images[test], labels[test])
        print(f"epoch {epoch:2}: {rate:.1%} read rightly")
"""


def test_a_training_shows_its_use_in_the_switch_and_in_the_panel_while_it_runs(
    hub: RunningHub, enter: Enter
) -> None:
    ada = enter(hub, "ada", viewport={"width": 1280, "height": 760})
    ada.sign_in()
    ada.start()
    lab = Lab(ada)
    lab.wait_until_up()
    ada.put_notebook("digits.ipynb", DIGITS, TRAINING)
    notebook = lab.open_from_files("digits.ipynb")
    notebook.run_existing(0)
    notebook.switch.turn_on()
    panel = lab.panel
    notebook.start_existing(1)
    expect(notebook.switch.group).to_contain_text(re.compile(r"[1-9]\d* %"), timeout=20_000)
    expect(panel.get_by_role("meter", name="Use")).to_have_attribute(
        "aria-valuenow", re.compile(r"^[1-9]"), timeout=20_000
    )
    expect(panel.get_by_role("list", name="What runs on this GPU")).to_contain_text("running")
    expect(notebook.cell(1)).to_contain_text("epoch 10", timeout=100_000)
    ada.page.wait_for_timeout(4_000)  # the chart has a few samples more
    ada.picture("journey")
    assert "rightly" in notebook.result(1)
