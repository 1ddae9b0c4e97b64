"""The page in a real browser, from its file: what the reader talks to says what PyTorch says, and
nothing is fetched. Run where playwright and a Chromium are installed."""

import importlib.util
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

from minitransformer import ModelConfig, QuantScheme, Transformer, generate, quantize, save
from minitransformer.corpus import decode, encode, text_corpus
from paper import __main__ as command
from studies import talk

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / ".cache" / "browser"))  # where .ci/run puts playwright and axe
pytestmark = pytest.mark.pipeline
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def browser():
    driver = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: no browser opens the page"
    )
    if not CHROMIUM:
        pytest.skip("chromium is not installed: no browser opens the page")
    with driver.sync_playwright() as play:
        flags = ["--no-sandbox", "--disable-gpu"]
        browser = play.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def run_dir(browser):
    """reports/quick, which the pipeline's own tests have mostly made."""
    before = Path.cwd()
    os.chdir(ROOT)
    try:
        assert command.main(["report", "--profile", "quick"]) == 0
    finally:
        os.chdir(before)
    return ROOT / "reports" / "quick"


@pytest.fixture
def opened(browser, run_dir):
    """Opens the page of the pipeline's run and waits for the certificates; what it asked for and
    what it complained of."""
    contexts = []

    def page_at(width=1280, path=None, first="", **options):
        options = {
            "reduced_motion": "reduce",
            "viewport": {"width": width, "height": 900},
        } | options
        contexts.append(browser.new_context(**options))
        page, asked, told = contexts[-1].new_page(), [], []
        page.set_default_timeout(60_000)
        page.add_init_script(first)  # what runs before any script of the page
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.goto((path or run_dir / "index.html").as_uri())
        return page, asked, told

    yield page_at
    for context in contexts:
        context.close()


def proven(page):
    """The words of both certificates, once they are there."""
    page.locator(".proof .badge:not(.undecided)").nth(1).wait_for(timeout=60_000)
    return page.locator(".proof").all_inner_texts()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_models_say_what_pytorch_says_and_nothing_is_fetched(opened, width, scheme):
    page, asked, told = opened(width, color_scheme=scheme)
    words = proven(page)
    assert [text.split()[0] for text in words] == ["pass", "pass"], words
    page.locator("#talk-tokens").fill("12")
    page.get_by_role("button", name="Write").click()
    page.locator(".talk .told", has_text="12 tokens").wait_for()
    assert page.locator(".talk output").inner_text().strip()
    assert page.locator(".next tbody tr").count() == 8 and page.locator(".next .best").count() <= 1
    speeds = page.locator("[data-speed]").all_inner_texts()
    assert len(speeds) == 6 and all(int(speed.replace(",", "")) > 0 for speed in speeds)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert told == [] and len(asked) == 1 and asked[0].startswith("file:")


@pytest.mark.parametrize(
    ("lacks", "why"),
    [
        ("delete globalThis.WebAssembly", "WebAssembly is not defined"),
        ("WebAssembly.instantiate = async () => { throw Error('no SIMD') }", "no SIMD"),
    ],
)
def test_a_browser_that_cannot_run_the_engine_says_so_and_shows_the_rest(opened, lacks, why):
    page, _, told = opened(first=lacks)
    words = page.locator(".told", has_text="This browser does not run the engine")
    assert why in words.inner_text() and told == []
    assert not page.locator("#talk-form").is_visible()
    assert page.locator("text=The 64 tokens that each model finds likeliest").first.is_visible()


def changed(run_dir, place, change):
    """The run's page where the reader talks to what `change` made of its models."""
    source = (run_dir / "index.html").read_text("utf-8")
    found = re.search(r'id="talk-data">(.*?)</script>', source)
    data, (start, end) = change(json.loads(found[1])), found.span(1)
    safe = json.dumps(data).replace("</", "<\\/")
    place.write_text(source[:start] + safe + source[end:], "utf-8")
    return place


def write(page, weights, seed, tokens, wait=True):
    """What the model writes, asked by the keyboard alone."""
    page.get_by_role("radio", name=weights).focus()
    page.keyboard.press("Space")
    page.locator("#talk-seed").fill(str(seed))
    page.locator("#talk-tokens").fill(str(tokens))
    page.locator("#talk-prompt").press("Enter")
    if wait:
        told = re.compile(rf"^{tokens} tokens, [\d,]+ a second")
        page.locator(".talk .told", has_text=told).wait_for()
    return page.locator(".talk output").inner_text()


def test_it_is_used_by_the_keyboard_and_a_seed_repeats(opened):
    page, *_ = opened()
    proven(page)
    first = write(page, "int8", 3, 30)
    assert write(page, "int8", 4, 31) != first != write(page, "int4", 3, 32)
    write(page, "int8", 5, 400, wait=False)  # it ends where the next begins, on the same engine
    assert write(page, "int8", 3, 30) == first
    write(page, "int8", 5, 400, wait=False)
    page.get_by_role("button", name="Stop").press("Enter")
    page.locator(".talk .told", has_text="a second").wait_for()
    assert page.get_by_role("button", name="Stop").is_disabled()
    page.locator("#talk-prompt").fill("")
    page.locator(".talk .told", has_text="Give a prompt").wait_for()


def test_the_text_is_shaded_by_where_the_last_token_looks(opened):
    page, *_ = opened()
    proven(page)
    text, told = (
        page.locator(".talk .text span span, .talk output span"),
        page.locator(".looks span"),
    )
    tokens = text.count()
    assert tokens == 8 and " looks most at " in told.inner_text()
    parts = [float(it.get_attribute("style").split(":")[1].strip(" %;")) for it in text.all()]
    assert max(parts) == 100 and min(parts) < 50
    choice = page.get_by_label("Attention of the last token")
    assert choice.locator("option").count() > 2
    choice.select_option(index=1)
    assert parts != [
        float(it.get_attribute("style").split(":")[1].strip(" %;")) for it in text.all()
    ]
    write(page, "int8", 3, 20)
    assert text.count() == tokens + 20


def test_a_token_that_is_not_pytorchs_is_shown_in_red(opened, run_dir, tmp_path):
    def wrong(data):
        data["models"]["int4"]["greedy"][9] += 1
        return data

    page, *_ = opened(path=changed(run_dir, tmp_path / "index.html", wrong))
    good, bad = proven(page)
    assert good.startswith("pass") and bad.startswith("fail")
    assert "token 10 of 64 is not" in bad
    found = {"pass": "color", "fail": "backgroundColor"}
    colors = {
        verdict: page.locator(f".proof .badge.{verdict}").evaluate(
            "(it, name) => getComputedStyle(it)[name].match(/\\d+/g).map(Number)", name
        )
        for verdict, name in found.items()
    }
    assert colors["pass"].index(max(colors["pass"])) == 1  # red, green, blue
    assert colors["fail"].index(max(colors["fail"])) == 0


def test_a_prompt_is_completed_from_the_vocabulary(opened):
    page, *_ = opened()
    proven(page)
    prompt, before = page.locator("#talk-prompt"), page.locator(".next tbody").inner_text()
    text = prompt.input_value()
    prompt.press("End")
    prompt.press("Backspace")
    offered = page.locator("#talk-words option").evaluate_all("all => all.map(it => it.value)")
    assert text in offered and all(it.startswith(text[:-1]) for it in offered)
    assert "not in the vocabulary" in page.locator(".talk .told").inner_text()
    assert page.locator(".next tbody").inner_text() != before
    prompt.fill(text)
    assert page.locator(".next tbody").inner_text() == before


def test_what_is_asked_for_is_what_is_drawn_and_it_streams(opened, run_dir):
    """The greedy tokens are PyTorch's however they are asked for, with the cache and without."""
    page, *_ = opened()
    proven(page)
    page.evaluate(
        """() => {
          const text = document.querySelector(".talk output");
          globalThis.lengths = new Set();
          new MutationObserver(() => lengths.add(text.textContent.length))
            .observe(text, { childList: true });
        }"""
    )
    drawn = write(page, "int4", 3, 200)
    assert page.evaluate("lengths.size") > 5
    live = json.loads((run_dir / "talk.json").read_text("utf-8"))
    page.locator("#talk-temperature").fill("0")
    greedy = write(page, "int4", 3, 20).split()
    words = live["tokenizer"]["model"]["vocab"]
    assert [words[one] for one in greedy] == live["models"]["int4"]["greedy"][:20]
    page.get_by_role("radio", name="off").check()
    assert write(page, "int4", 4, 21).split()[:20] == greedy != drawn.split()[:20]
    page.locator("#talk-temperature").fill("0.3")  # a likeliest token beyond p at every place
    for name, value, other in (("k", "1", "0"), ("p", "0.05", "1")):
        page.locator(f"#talk-{name}").fill(value)
        assert write(page, "int4", 5, 22).split()[:20] == greedy, name
        page.locator(f"#talk-{name}").fill(other)
        assert write(page, "int4", 5, 23).split()[:20] != greedy, name


LINES = "—¿Qué?\n—Miro «el queso», dijo el ratón; «y nada más».\n\nEl niño rió: ¡qué pingüino!\n"


@pytest.mark.parametrize("kind", ["word", "character", "bpe"])
def test_on_a_real_text_its_own_language_is_written(kind, opened, run_dir, tmp_path):
    """Letter by letter as the library decodes it, ends of lines too."""
    (tmp_path / "text.txt").write_text(LINES * 60, "utf-8")
    data = text_corpus(tmp_path / "text.txt", kind)
    data.save(tmp_path)
    torch.manual_seed(0)
    known, models = data.tokenizer.get_vocab(), {}
    model = Transformer(ModelConfig(len(known), d_model=32, context=128)).eval()
    bytes_alone = [id for token, id in known.items() if token.startswith("<0x")]
    model.head.bias.data[bytes_alone] = -1e4  # which a trained model does not write
    for name, scheme in (("int8", QuantScheme(8)), ("int4", QuantScheme(4, "group", 32))):
        models[name] = quantize(model, scheme)
        save(models[name], tmp_path / f"model-{name}", data.tokenizer)
    live = talk.talk(tmp_path)[1]
    page, asked, told = opened(path=changed(run_dir, tmp_path / "page.html", lambda _: live))
    assert [text.split()[0] for text in proven(page)] == ["pass", "pass"]
    page.locator("#talk-temperature").fill("0")
    page.locator("#talk-prompt").fill("—¿Qué?↵—Miro «el")
    write(page, "int8", 1, 40)
    prompt = torch.as_tensor(encode(data.tokenizer, "—¿Qué?\n—Miro «el"))[None]
    ids = generate(models["int8"], prompt, 40)[0].numpy()
    assert page.locator(".talk .text").text_content() == decode(data.tokenizer, ids)
    assert page.get_by_text("↵ is the end of a line").count() == (kind != "word")
    assert told == [] and len(asked) == 1


def test_the_controls_follow_one_another_by_tab(opened):
    page, *_ = opened()
    proven(page)
    page.locator("#talk-prompt").focus()
    reached = []
    for _ in range(9):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("(document.activeElement.name || document.activeElement.id)"))
    assert reached[:2] == ["weights", "cache"]
    assert reached[2:7] == ["temperature", "k", "p", "seed", "tokens"]
    assert reached[7:] == ["", "head"]  # Write; nothing is there to stop


def test_on_paper_the_proof_stays_and_the_controls_go(opened):
    page, *_ = opened()
    proven(page)
    page.emulate_media(media="print")
    assert page.locator("#tbl-talk").is_visible() and page.locator(".proof").first.is_visible()
    for empty in (".text", ".looks", ".next"):  # nothing was written yet
        assert not page.locator(f".talk {empty}").is_visible(), empty
    assert page.locator(".speeds").is_visible()
    for control in (".settings", ".ways", "#talk-prompt", "button[name=stop]", "#talk-head"):
        assert not page.locator(f".talk {control}").is_visible(), control
    page.locator(".proof .badge").first.evaluate("badge => badge.className = 'badge undecided'")
    assert not page.locator("#talk-form").is_visible()  # a proof under way is none


def test_every_field_has_a_name(opened):
    page, *_ = opened()
    proven(page)
    for name in ("Prompt", "Temperature", "Top-k", "Top-p", "Seed", "Tokens"):
        assert page.get_by_label(name, exact=True).count() == 1
    assert page.get_by_role("group", name="Weights").count() == 1


def test_without_a_script_the_table_stands_alone(opened):
    page, asked, told = opened(java_script_enabled=False)
    assert page.locator("#talk-form").is_hidden() and page.locator("#tbl-talk").is_visible()
    assert "excess, nats: " in page.locator(".marked .words span").first.get_attribute("title")
    assert page.locator(".filter, .numbers").count() == 0 and page.locator("#law").is_hidden()
    assert told == [] and len(asked) == 1


@pytest.mark.parametrize("name", ["claims", "audit"])
def test_rows_are_filtered_by_verdict_and_paper_shows_all(opened, name):
    page, *_ = opened()
    rows, bar = page.locator(f"table.{name} tbody tr:not(.group)"), page.locator(f"#{name} .filter")
    told, every = page.locator(f"#{name} .shown"), rows.count()
    assert told.inner_text() == f"{every} of {every} shown" and every > 20
    button = bar.get_by_role("button").last
    verdict, count = button.locator(".badge").inner_text(), int(button.inner_text().split()[-1])
    button.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"
    assert told.inner_text().startswith(f"{count} of {every} shown: {verdict}")
    shown = [row for row in rows.all() if row.is_visible()]
    assert len(shown) == count and all(verdict in row.inner_text() for row in shown)
    hidden = page.locator(f"table.{name} tr.off[id]").first.get_attribute("id")
    page.evaluate("id => { location.hash = id; }", hidden)  # a link to it still finds it
    assert page.locator(f"[id='{hidden}']").is_visible()
    page.emulate_media(media="print")
    assert page.locator(f"table.{name} tr:not(.group) >> visible=true").count() > every
    assert page.locator(f"#{name} details.folded li").last.is_visible()  # what the text refers to
    assert not bar.is_visible()
    page.emulate_media(media="screen")
    button.press("Space")
    assert told.inner_text() == f"{every} of {every} shown"


def test_a_text_tells_the_numbers_of_its_words(opened):
    """By the pointer and by the keyboard, where one word at a time can be reached."""
    page, *_ = opened()
    words, numbers = page.locator(".marked .words span"), page.locator(".marked .numbers dd")
    assert words.count() > 200 and page.locator('.marked .words [tabindex="0"]').count() == 1
    words.first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement === document.querySelectorAll('.words span')[1]")
    assert numbers.first.inner_text() == words.nth(1).inner_text()
    assert words.nth(1).get_attribute("aria-label").startswith("token ")
    page.keyboard.press("End")
    assert numbers.first.inner_text() == words.last.inner_text()
    words.nth(5).hover()
    assert numbers.first.inner_text() == words.nth(5).inner_text()


def places_of(page):
    """Where the measured points of the cache law stand."""
    dots = page.locator("#law circle.dot")
    return dots.evaluate_all("all => all.map(it => [it.getAttribute('cx'), it.getAttribute('cy')])")


def test_the_cache_law_moves_and_comes_back(opened, run_dir):
    page, *_ = opened()
    law, said = page.locator("#law"), page.locator("#law .said")
    began, curve = said.inner_text(), "#law polyline.now"
    points = page.locator(curve).get_attribute("points")
    known = json.loads((run_dir / "timemodel.json").read_text("utf-8"))["speedup"]
    measured, places = page.locator("#law circle.dot").count(), places_of(page)
    assert law.is_visible() and " times as fast" in began and measured == len(known) > 1
    assert page.locator("#law polyline.began").count() == 0
    for name in ("New tokens", "Width of the model", "Overhead of a call", "Read bandwidth"):
        slider, before = page.get_by_role("slider", name=name), said.inner_text()
        slider.press("ArrowLeft")
        assert slider.get_attribute("aria-valuetext") in law.inner_text()
        assert said.inner_text() != before
        assert name != "New tokens" or places_of(page) == places  # the axes are as they were
    assert page.locator(curve).get_attribute("points") != points
    began_at = page.locator("#law polyline.began").get_attribute("points")
    assert began_at != page.locator(curve).get_attribute("points")
    assert page.locator("#law circle.dot").count() == measured
    page.get_by_role("button", name="Back to this run").press("Enter")
    assert said.inner_text() == began
    page.emulate_media(media="print")
    assert not law.is_visible() and page.locator("#fig-latency").is_visible()


def test_the_story_takes_about_two_screens(opened):
    """Of 1,280 by 1,000 pixels: from its heading to what follows it."""
    page, *_ = opened()
    story = page.locator("#findings")
    assert story.locator("figure").count() >= 5
    assert story.bounding_box()["height"] <= 2_300


def test_a_figure_s_labels_stay_readable_on_a_phone(opened):
    """It scrolls in its frame, which the keyboard reaches and which says so, and nowhere else."""
    sizes = """all => all.map(it => 12 * it.getBoundingClientRect().width
                                       / it.getAttribute("width"))"""
    page, *_ = opened(390)
    assert min(page.locator(".frame > .plot").evaluate_all(sizes)) >= 10.45
    frame = page.locator(".chapter .frame").first
    frame.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(500)
    assert frame.evaluate("it => it.scrollLeft") > 0
    figure = page.locator(".chapter figure:has(.frame)").first
    number = figure.locator("figcaption b").first.inner_text().strip(".")
    assert frame.get_attribute("aria-label") == f"{number}, scrolls sideways"
    hint = "it => getComputedStyle(it, '::before').content"
    assert "scrolls" in figure.locator("figcaption").evaluate(hint)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.set_viewport_size({"width": 1280, "height": 900})
    page.locator(".frame[tabindex]").first.wait_for(state="detached")


@pytest.fixture(scope="module")
def axe(browser):
    """The text of axe-core, which looks for what keeps a reader out."""
    found = importlib.util.find_spec("axe_playwright_python")
    if not found:
        pytest.skip("axe-playwright-python is not installed: axe does not look at the page")
    return Path(found.submodule_search_locations[0], "axe.min.js").read_text("utf-8")


LOOKS = {"light": (1280, {}), "dark": (1280, {"runOnly": ["color-contrast"]}), "phone": (390, {})}


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing(opened, axe, look):
    """On a dark page only colors differ."""
    width, options = LOOKS[look]
    page, *_ = opened(width, color_scheme="dark" if look == "dark" else "light")
    proven(page)
    page.evaluate(axe)
    found = page.evaluate("how => axe.run(how)", {"resultTypes": ["violations"]} | options)
    told = [(it["id"], node["target"]) for it in found["violations"] for node in it["nodes"]]
    assert told == [] and len(found["passes"]) >= (1 if options else 20)
