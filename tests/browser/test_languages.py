"""A person whose browser asks for Korean: the hub's pages, a start, JupyterLab's sidebar and switch."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.conftest import Enter
from tests.browser.lab import Lab
from tests.browser.visitor import START_MS
from tests.running import RunningHub

LANGUAGE = "@jupyterlab/translation-extension:plugin"


def test_the_hub_and_a_start_speak_the_browsers_language(hub: RunningHub, enter: Enter) -> None:
    mina = enter(hub, "mina", locale="ko-KR")
    page = mina.page
    mina.goto("hub/login")
    expect(page.locator("html")).to_have_attribute("lang", "ko")
    page.get_by_label("사용자 이름").fill("mina")
    page.get_by_label("비밀번호").fill("wrong")
    mina.watch.expect(r"status 403: POST \S+/hub/login")
    page.get_by_role("button", name="로그인").click()
    expect(page.get_by_role("alert")).to_have_text("사용자 이름 또는 비밀번호가 올바르지 않습니다")
    page.get_by_label("비밀번호").fill(hub.password)
    page.get_by_role("button", name="로그인").click()

    mina.goto("hub/spawn")
    expect(page.get_by_role("status")).to_have_text(
        "현재 시뮬레이션 GPU: 2개 중 2개 사용 가능 · 대기자 없음 · 1개까지 사용 가능"
    )
    page.get_by_role("radio", name="데이터 과학").check()
    mina.picture("choose", whole=True)
    # A choice that is not on offer, as a forged form would say it.
    page.get_by_role("radio", name="JupyterLab").evaluate("radio => { radio.value = 'emacs'; radio.click() }")
    mina.watch.expect(r"status 400: POST \S+/hub/spawn")
    page.get_by_role("button", name="시작", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("옵션 editor에는 'emacs'이(가) 없습니다. 선택 가능: ")
    mina.picture("refused")

    page.get_by_role("button", name="시작", exact=True).click()
    steps = page.get_by_role("log", name="단계")
    expect(steps).to_contain_text("홈 폴더를 준비하고 있습니다.")
    mina.picture("starting")
    page.wait_for_url(re.compile("/user/mina/"), timeout=START_MS)
    mina.goto("hub/home")
    expect(page.get_by_role("status")).to_have_text("실행 중입니다.")
    mina.goto("services/gpu/")
    expect(page.get_by_role("heading", name="내 한도")).to_be_visible()
    mina.picture("gpus")


def test_jupyterlab_shows_the_switch_and_the_panel_in_korean_once_that_is_chosen(
    hub: RunningHub, enter: Enter
) -> None:
    sora = enter(hub, "sora", viewport={"width": 1280, "height": 900})
    sora.sign_in()
    sora.start()
    lab = Lab(sora)
    lab.wait_until_up()
    # Settings, Language offers it.
    sora.page.get_by_role("menubar").get_by_role("menuitem", name="Settings").click()
    sora.page.get_by_role("menu").get_by_text("Language", exact=True).hover()
    expect(sora.page.get_by_text(re.compile("한국어"))).to_be_visible()
    sora.page.keyboard.press("Escape")
    sora.page.keyboard.press("Escape")
    sora.set_lab(LANGUAGE, locale="ko_KR")
    sora.put_notebook("study.ipynb", "kept = 5")
    notebook = lab.open("study.ipynb")
    assert notebook is not None
    notebook.run_existing(0)
    track = notebook.panel.get_by_role("group", name="GPU", exact=True).get_by_role("switch")
    expect(track).to_have_attribute("aria-label", "GPU에서 실행")
    expect(track).to_have_attribute("title", re.compile("시뮬레이션 GPU 2개를 쓸 수 있습니다."))
    track.click()
    expect(track).to_have_attribute("aria-checked", "true", timeout=90_000)
    sora.page.get_by_role("tab", name="GPU").click()
    panel = sora.page.locator(".gpuhub-Panel")
    expect(panel).to_contain_text("시뮬레이션 GPU")
    expect(panel.get_by_role("button", name="반납", exact=True)).to_be_visible()
    expect(panel).to_contain_text("2개 중 1개 사용 가능")
    expect(panel).to_contain_text("저장된 상태")
    sora.picture("panel")
    panel.get_by_role("button", name="반납", exact=True).click()
    expect(track).to_have_attribute("aria-checked", "false", timeout=90_000)
