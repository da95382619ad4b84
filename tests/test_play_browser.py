"""The playground in a real browser."""

import json
import re
from urllib.parse import quote, unquote

import pytest

from play_cases import asked, served

for needed in ("starlette", "uvicorn", "plotly"):
    pytest.importorskip(needed, reason=f"{needed} is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect

DESKTOP = {"viewport": {"width": 1280, "height": 900}, "locale": "en-US"}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


@pytest.fixture(scope="module")
def server():
    with served() as address:
        yield f"http://{address}"


@pytest.fixture
def opened(browser, server):
    """Opens a page; in the end nothing was complained of, and nothing fetched from elsewhere."""
    contexts, heard = [], []

    def open_page(path="/", state=None, **how):
        context = browser.new_context(**{**DESKTOP, **how})
        context.set_default_timeout(10_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: m.type == "error" and heard.append(m.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("request", lambda r: r.url.startswith((server, "blob:", "data:")) or heard.append(r.url))
        page.goto(f"{server}{path}" + (f"#{quote(json.dumps(state))}" if state else ""))
        page.wait_for_selector("html[data-ready]")
        return page

    open_page.heard = heard
    yield open_page
    for context in contexts:
        context.close()
    assert heard == []


def state_of(page):
    """What the link says."""
    page.evaluate("document.getElementById('share').click()")
    return json.loads(unquote(page.url.partition("#")[2]))


def picture(page):
    return page.evaluate("document.getElementById('canvas').toDataURL()")


def test_loading_shows_paths_results_formulas_and_numbers(opened):
    page = opened()
    rows = page.locator("#results tr")
    expect(rows).to_have_count(4)
    expect(rows.first).to_contain_text("SGD")
    expect(page.locator("#formulas .formula").first).to_have_text("mₜ = β₁·mₜ₋₁ + (1 − β₁)·gₜ")
    expect(page.locator("#formulas .reckoned").first).to_contain_text("0.9·(−0.02318)")
    expect(page.locator("#status")).to_contain_text("SGD: 0.001708 after 40 steps")
    expect(page.locator("#surface-formula")).to_have_text("f(x, y) = x² / 20 + y²")


def test_moving_a_hyperparameter_moves_the_path_and_the_link_brings_it_back(opened, server):
    page = opened()
    before = picture(page)
    end = page.locator("#results tr >> nth=0 >> td >> nth=1")
    was = end.inner_text()
    page.locator("#optimizers .card >> nth=0 >> input[type=range]").first.fill("-0.5")
    expect(end).not_to_have_text(was)
    assert picture(page) != before
    assert state_of(page)["optimizers"][0]["values"]["lr"] == 0.316
    page.click("#share")
    expect(page.locator("#share")).to_have_text("Copied")
    again = opened("/" + page.url.removeprefix(f"{server}/"))
    expect(again.locator("#results")).to_have_text(page.locator("#results").inner_text(), use_inner_text=True)
    assert picture(again) == picture(page)


def test_what_is_open_stays_open_when_another_optimizer_goes(opened):
    page = opened()
    details = page.locator("#optimizers details")
    expect(details).to_have_count(4)
    details.nth(1).locator("summary").click()
    page.get_by_role("button", name="Remove SGD").click()
    expect(details).to_have_count(3)
    assert [one.evaluate("one => one.open") for one in details.all()] == [True, False, False]


def test_the_start_is_dragged_and_moved_by_keys(opened):
    page = opened()
    handle = page.get_by_role("button", name="Start: x −7")
    box = handle.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + 100, middle[1] + 50, steps=4)
    page.mouse.up()
    x, y = state_of(page)["start"]
    assert x > -6
    assert y < 2
    page.locator("#start").press("ArrowRight")
    page.locator("#start").press("Shift+ArrowUp")
    moved = state_of(page)["start"]
    assert moved == [pytest.approx(x + 0.16, abs=0.01), pytest.approx(y + 0.8, abs=0.01)]


def test_play_pause_and_step(opened):
    page = opened()
    page.click("#first")
    expect(page.locator("#step-now")).to_have_text("0 / 40")
    page.click("#forward")
    expect(page.locator("#step-now")).to_have_text("1 / 40")
    expect(page.locator("#formulas .result").first).to_contain_text("x: −0.07")
    page.select_option("#speed", "100")
    page.click("#play")
    expect(page.locator("#play")).to_have_text("Pause")
    expect(page.locator("#step-now")).to_have_text("40 / 40")
    expect(page.locator("#play")).to_have_text("Play")
    page.locator("#step").press("ArrowLeft")
    expect(page.locator("#step-now")).to_have_text("39 / 40")


def test_a_formula_of_ones_own_and_what_is_wrong_with_it(opened):
    page = opened()
    page.select_option("#surface", "")
    page.fill("#formula", "sin(x) + y^2 +")
    expect(page.get_by_role("alert")).to_contain_text("this is no formula")
    page.fill("#formula", "sin(x) + y^2/4")
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(page.locator("#surface-formula")).to_have_text("f(x, y) = sin(x) + y² / 4")
    page.fill("#formula", "x^4 − x²")
    expect(page.locator("#surface-formula")).to_have_text("f(x) = x⁴ − x²")
    expect(page.locator("#view-3d")).to_be_disabled()
    page.fill("#formula", "alert(1)")
    expect(page.get_by_role("alert")).to_contain_text("no function is named 'alert'")
    # The browser notes what the server refused: that is meant to be.
    assert all("status of 422" in text for text in opened.heard)
    opened.heard.clear()


def test_optimizers_come_change_and_go(opened):
    page = opened()
    page.click("#add")
    cards = page.locator("#optimizers .card")
    expect(cards).to_have_count(5)
    cards.nth(4).get_by_label("Optimizer").select_option("rmsprop")
    cards.nth(4).get_by_label("Dialect").select_option("keras")
    expect(page.locator("#results")).to_contain_text("RMSprop (keras)")
    page.locator("#optimizers .card >> nth=4 >> summary").click()
    cards.nth(4).get_by_label("epsilon_in_root").uncheck()
    assert state_of(page)["optimizers"][4]["values"] == {"epsilon_in_root": False}
    cards.nth(4).get_by_label("Optimizer").select_option("l_bfgs")
    expect(page.locator("#results")).to_contain_text("L-BFGS")
    page.get_by_role("button", name="Remove L-BFGS").click()
    expect(cards).to_have_count(4)
    for _ in range(4):
        cards.first.get_by_role("button", name="Remove").click()
    expect(page.locator("#results tr")).to_have_count(0)


def test_tuning_sets_the_learning_rates(opened):
    page = opened(state=asked("sgd", "adam", start=[-7, 2]))
    page.click("#tune")
    expect(page.locator("#tuned")).to_contain_text("Tuned: SGD")
    rates = [one["values"]["lr"] for one in state_of(page)["optimizers"]]
    assert all(rate > 0 for rate in rates)
    assert page.locator("#optimizers input[type=number]").first.input_value() == str(rates[0])


def test_pictures_tables_and_code_can_be_taken_away(opened, tmp_path):
    page = opened()
    starts = {"png": b"\x89PNG", "gif": b"GIF89a", "csv": b"optimizer,step,x,y,value"}
    for kind, start in starts.items():
        with page.expect_download() as waited:
            page.click(f"#{kind}")
        assert waited.value.suggested_filename == f"thalweg.{kind}"
        waited.value.save_as(tmp_path / kind)
        assert (tmp_path / kind).read_bytes().startswith(start)
    page.click("#code")
    expect(page.locator("#code-text")).to_contain_text("thalweg.get('momentum', lr=0.1)")
    page.click("#code-close")
    expect(page.locator("#code-box")).to_be_hidden()
    expect(page.locator("#code")).to_be_focused()


def test_three_dimensions(opened):
    page = opened()
    page.click("#view-3d")
    page.wait_for_selector("#space canvas")
    assert state_of(page)["view"] == "3d"
    page.click("#first")
    page.click("#forward")
    page.click("#view-2d")
    expect(page.locator("#canvas")).to_be_visible()


def test_chinese_by_the_readers_own_language_and_by_choice(opened):
    page = opened(locale="zh-TW")
    expect(page.locator("html")).to_have_attribute("lang", "zh-Hant")
    expect(page.get_by_role("heading", name="最佳化器")).to_be_visible()
    expect(page.locator("#surface option").first).to_have_text("峽谷")
    page.select_option("#language", "en")
    expect(page.get_by_role("heading", name="Optimizers")).to_be_visible()
    page.reload()
    expect(page.locator("html")).to_have_attribute("lang", "en")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/", "/rules/rmsprop"])
def test_it_fits_a_phone_and_is_readable(opened, path, scheme):
    page = opened(path, color_scheme=scheme, **PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate(CONTRASTS) == []
    assert page.evaluate(UNNAMED) == []


# Texts whose contrast with what lies behind them is below 4.5.
CONTRASTS = """() => {
  const part = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = (rgb) => { const [r, g, b] = rgb.match(/[\\d.]+/g).map(Number);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b); };
  const behind = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (!/rgba\\(0, 0, 0, 0\\)|transparent/.test(c)) return c; } return "rgb(255, 255, 255)"; };
  const found = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || e.disabled || e.closest("[disabled]")) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) found.push(e.outerHTML.slice(0, 90));
  }
  return found;
}"""

# Controls that a screen reader has no name for.
UNNAMED = """() => [...document.querySelectorAll("button, input, select, canvas, a")]
  .filter((e) => e.checkVisibility())
  .filter((e) => !(e.ariaLabel || e.textContent.trim() || e.labels?.[0]?.textContent.trim()))
  .map((e) => e.outerHTML.slice(0, 90))"""


def test_all_is_reached_by_the_keyboard(opened):
    page = opened()
    reached = []
    for _ in range(70):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
    wanted = ["skip", "language", "surface", "start-0", "start", "play", "step", "share", "add", "tune"]
    assert [one for one in reached if one in wanted][: len(wanted)] == wanted


def test_a_damaged_link_is_said_to_be_one(opened):
    page = opened("/#%7Bnonsense")
    expect(page.locator("#results tr")).to_have_count(4)
    assert not re.search("nonsense", unquote(page.url)) or state_of(page)["steps"] == 40


def test_a_rules_page_tells_all_and_leads_back(opened):
    page = opened("/rules/adam")
    expect(page.get_by_role("heading", level=1, name="Adam", exact=True)).to_be_visible()
    for heading in ("Formula", "Where it shines", "Where it fails", "Hyperparameters", "Dialects", "History"):
        expect(page.get_by_role("heading", name=heading, exact=True)).to_be_visible()
    expect(page.locator("article")).to_contain_text("Kingma & Ba 2015")
    page.get_by_role("link", name="Watch Adam in the playground").click()
    expect(page.locator("#results tr")).to_have_count(1)
