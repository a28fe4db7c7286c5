"""Three people, two GPUs: another one, a place in line, and a grant while the browser is closed."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.conftest import Enter
from tests.browser.lab import Lab, Notebook
from tests.browser.visitor import Visitor
from tests.running import RunningHub


def at_work(person: Visitor) -> Notebook:
    person.sign_in()
    person.start()
    lab = Lab(person)
    lab.wait_until_up()
    person.put_notebook("work.ipynb", f'name = "{person.name}"')
    notebook = lab.open_from_files("work.ipynb")
    notebook.run_existing(0)
    return notebook


def test_people_get_different_gpus_or_wait_in_line_and_are_served_with_the_browser_closed(
    hub: RunningHub, enter: Enter
) -> None:
    dan, eli, fay = enter(hub, "dan"), enter(hub, "eli"), enter(hub, "fay")
    one, two = at_work(dan), at_work(eli)
    one.switch.turn_on()
    two.switch.turn_on()
    devices = [person.leases()[0]["devices"][0]["id"] for person in (dan, eli)]
    assert sorted(devices) == ["SIM-0", "SIM-1"]

    # All are in use: a place, why, and the way out.
    three = at_work(fay)
    expect(three.switch.track).to_have_attribute("title", re.compile(r"0 simulated GPUs are free\."))
    three.switch.flip()
    expect(three.switch.group).to_contain_text("next in line")
    three.switch.chip("next in line").click()
    why = three.switch.popover("Waiting for a GPU")
    expect(why).to_contain_text("Nobody is ahead of you.")
    fay.picture("waiting")
    three.page.keyboard.press("Escape")
    assert three.run("print(name)") == "fay"
    three.switch.button("Stop waiting").click()
    three.switch.expect_cpu()
    assert fay.leases() == []

    # Again, and this time fay goes home.
    three.switch.flip()
    expect(three.switch.group).to_contain_text("next in line")
    expect(two.lab.panel).to_contain_text("0 of 2 free · 1 waits")
    eli.picture("somebody-waits")
    three.save()
    address = three.page.url
    three.page.goto("about:blank")
    two.lab.release()
    two.switch.expect_cpu()
    fay.wait(lambda: [lease["state"] for lease in fay.leases()] == ["active"], "fay's turn", 60)
    assert fay.leases()[0]["devices"][0]["id"] == devices[1]

    three.page.goto(address)
    three.lab.wait_until_up()
    three.switch.expect_on()
    assert three.run("print(name)") == "fay"
    fay.picture("served-meanwhile")
