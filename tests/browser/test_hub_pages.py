"""The hub's pages as people see them: sign in, choose, wait, stop, fail, and one's own page."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Enter
from tests.browser.visitor import Visitor
from tests.running import RunningHub

PHONE = {"width": 360, "height": 740}
PAGES = {"choice": "hub/spawn", "own-page": "hub/home", "tokens": "hub/token"}


def fits(page: Page) -> bool:
    """Nothing stands out to the right."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


def test_a_wrong_password_is_said_and_the_name_stays(hub: RunningHub, enter: Enter) -> None:
    ann = enter(hub, "ann")
    ann.watch.expect("status 403: POST .*/hub/login")
    ann.sign_in("not-the-password")
    expect(ann.page.get_by_role("alert")).to_have_text("Invalid username or password")
    expect(ann.page.get_by_label("Username")).to_have_value("ann")
    expect(ann.page.get_by_label("Password")).to_be_focused()
    ann.picture("wrong-password")
    ann.sign_in()
    expect(ann.page.get_by_role("heading", name="Start your server")).to_be_visible()


def test_the_choice_says_what_is_free_what_waits_and_what_one_may_use(hub: RunningHub, enter: Enter) -> None:
    ann = enter(hub, "ann")
    ann.sign_in()
    expect(ann.page.get_by_role("status")).to_have_text(
        "Simulated GPUs now: 2 of 2 free · nobody waits · you may use 1"
    )
    expect(ann.page.get_by_role("radio", name="Data science")).to_be_checked()
    expect(ann.page.get_by_text("Python with pandas, scikit-learn and Matplotlib.")).to_be_visible()
    editors = ann.page.get_by_role("group", name="Open with").get_by_role("radio")
    expect(editors).to_have_count(3)
    for editor in ("JupyterLab", "VS Code", "Notebook"):
        expect(ann.page.get_by_role("radio", name=editor)).to_be_visible()
    expect(
        ann.page.get_by_text("Starts without a GPU. Turn one on inside, when you need it.")
    ).to_be_visible()
    ann.picture("choice")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [{"width": 1280, "height": 800}, PHONE], ids=["wide", "phone"])
def test_pages_fit_wide_and_narrow_in_light_and_dark(
    hub: RunningHub, enter: Enter, size: dict[str, int], scheme: str
) -> None:
    ann = enter(hub, "ann", viewport=size, color_scheme=scheme)
    ann.goto("hub/login")
    assert fits(ann.page)
    ann.picture("sign-in", whole=True)
    ann.sign_in()
    expect(ann.page.get_by_role("status")).to_contain_text("free")
    for name, path in PAGES.items():
        ann.goto(path)
        expect(ann.page.locator("html")).to_have_attribute("data-bs-theme", scheme)
        if name == "choice":
            expect(ann.page.get_by_role("status")).to_contain_text("free")
        assert fits(ann.page), name
        ann.picture(name, whole=True)


def test_the_keyboard_alone_leads_from_the_sign_in_to_a_server(hub: RunningHub, enter: Enter) -> None:
    kim = enter(hub, "kim")
    keys = kim.page.keyboard
    kim.goto("hub/login")
    expect(kim.page.get_by_label("Username")).to_be_focused()
    keys.type("kim")
    keys.press("Tab")
    keys.type(hub.password)
    keys.press("Enter")
    kim.page.get_by_role("radio", name="Data science").focus()
    keys.press("Tab")
    expect(kim.page.get_by_role("radio", name="JupyterLab")).to_be_focused()
    keys.press("ArrowRight")
    keys.press("ArrowRight")
    expect(kim.page.get_by_role("radio", name="Notebook")).to_be_checked()
    kim.picture("keyboard")
    keys.press("Tab")
    expect(kim.page.get_by_role("button", name="Start", exact=True)).to_be_focused()
    keys.press("Enter")
    kim.page.wait_for_url("**/user/kim/tree**", timeout=90_000)


def test_every_field_and_button_has_a_name(hub: RunningHub, enter: Enter) -> None:
    ann = enter(hub, "ann")
    ann.goto("hub/login")
    nameless(ann, "sign-in")
    ann.sign_in()
    ann.page.wait_for_selector("#spawn_form")
    nameless(ann, "choice")
    ann.goto("hub/home")
    nameless(ann, "own page")


def nameless(person: Visitor, where: str) -> None:
    """Fail where something that can be used says nothing to a screen reader."""
    for role in ("button", "link", "radio", "textbox", "checkbox"):
        for element in person.page.get_by_role(role).all():  # type: ignore[arg-type]
            name = element.evaluate(
                "e => (e.getAttribute('aria-label') || e.innerText || e.title || "
                "[...(e.labels || [])].map(l => l.innerText).join(' ') || e.value || '').trim()"
            )
            assert name, f"{where}: a {role} without a name: {element.evaluate('e => e.outerHTML')}"
    assert person.page.title() not in ("", "JupyterHub")
    assert person.page.get_by_role("heading", level=1).count() == 1, where


def test_a_start_shows_its_steps_and_can_be_stopped_at_any_moment(hub: RunningHub, enter: Enter) -> None:
    sam = enter(hub, "sam")
    sam.sign_in()
    sam.page.get_by_role("button", name="Start", exact=True).click()
    expect(sam.page.get_by_role("heading", name="Starting your server")).to_be_visible()
    expect(sam.page.get_by_role("log")).to_contain_text("Starting JupyterLab.")
    sam.picture("starting")
    sam.page.get_by_role("button", name="Stop").click()
    expect(sam.page).to_have_url(f"{hub.url}hub/home")
    expect(sam.page.get_by_role("status")).to_have_text("It is not running.")


def test_what_cannot_be_started_is_one_sentence_what_to_do_and_details(hub: RunningHub, enter: Enter) -> None:
    tia = enter(hub, "tia")
    tia.watch.expect("status 400: (POST .*/hub/spawn|GET .*/hub/spawn-pending/tia)$")
    tia.sign_in()
    # What an outdated page would send: an environment that the operator has taken away.
    tia.page.locator("input[name=profile]:checked").evaluate("e => { e.value = 'gone'; }")
    tia.page.get_by_role("button", name="Start", exact=True).click()
    expect(tia.page.get_by_role("alert")).to_contain_text("There is no environment 'gone'. On offer: base.")
    expect(tia.page.get_by_role("button", name="Start", exact=True)).to_be_enabled()
    tia.picture("not-on-offer")
    tia.goto("user/tia/lab")
    expect(tia.page.get_by_role("heading", name="Your server did not start")).to_be_visible()
    expect(tia.page.get_by_role("alert")).to_contain_text("There is no environment 'gone'.")
    tia.picture("did-not-start")
    tia.page.get_by_role("button", name="Choose again").click()
    expect(tia.page.get_by_role("heading", name="Start your server")).to_be_visible()


def test_an_address_inside_a_server_that_does_not_run_leads_to_its_start(
    hub: RunningHub, enter: Enter
) -> None:
    vic = enter(hub, "vic")
    vic.watch.expect("status 424: GET .*/hub/user/vic/")
    vic.sign_in()
    expect(vic.page.get_by_role("heading", name="Start your server")).to_be_visible()
    vic.goto("user/vic/lab")
    expect(vic.page.get_by_role("heading", name="Your server is not running")).to_be_visible()
    vic.picture("not-running")
    vic.page.get_by_role("button", name="Start your server").click()
    expect(vic.page.get_by_role("heading", name="Start your server")).to_be_visible()


def test_ones_own_page_follows_a_stop_until_it_is_over(hub: RunningHub, enter: Enter) -> None:
    uma = enter(hub, "uma")
    uma.sign_in()
    uma.start()
    uma.goto("hub/home")
    expect(uma.page.get_by_role("status")).to_have_text("It is running.")
    uma.picture("running")
    uma.page.get_by_role("button", name="Stop").click()
    expect(uma.page.get_by_role("status")).to_have_text("It is saving your notebooks and stopping.")
    expect(uma.page.get_by_role("status")).to_have_text("It is not running.", timeout=60_000)
    expect(uma.page.get_by_role("button", name="Start")).to_be_focused()
    uma.picture("stopped")
    expect(uma.page.get_by_role("button", name="Stop")).to_be_hidden()


def test_a_page_that_does_not_exist_says_so_and_leads_back(hub: RunningHub, enter: Enter) -> None:
    ann = enter(hub, "ann")
    ann.watch.expect("status 404: GET .*/hub/moon")
    ann.sign_in()
    ann.page.wait_for_selector("#spawn_form")
    ann.goto("hub/moon")
    expect(ann.page.get_by_role("heading", name="This page does not exist")).to_be_visible()
    ann.picture("not-there")
    ann.page.get_by_role("link", name="Go to your server").click()
    expect(ann.page.get_by_role("heading", name="Your server")).to_be_visible()
