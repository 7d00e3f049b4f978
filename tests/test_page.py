"""The page, in a real browser: a message gets an answer, a text a translation, and nothing is asked of another machine."""
import os
import re
import socket
import sys
import threading
import time
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from chromium import CHROMIUM, EXTRA, has

from croissant.checkpoint import save_model
from croissant.model import toy_model
from croissant.page import LONGEST, WORDS, build_page, running, talker, translating, turn
from croissant.params import BadInput
from croissant.tokenizer import toy_tokenizer

FR, EN = WORDS["fr"], WORDS["en"]
GO_ON = threading.Event()


needs_gradio = pytest.mark.skipif(not has("gradio"), reason=f"gradio is {EXTRA}")
needs_tab = pytest.mark.skipif(not (has("gradio") and has("playwright") and CHROMIUM), reason=f"gradio, playwright or Chromium is {EXTRA}")


def parrot(messages, dials):
    "Repeats; waits in the middle when it is asked to be slow, refuses when it is asked to."
    said = messages[-1]["content"]
    if "refuse" in said: raise BadInput("perroquet: non; demandez autre chose")
    def pieces():
        yield f"Coco dit « {said} »"
        if "lent" in said: GO_ON.wait(60)
        yield f", graine {dials['seed']}, tour {(len(messages) + 1) // 2}."
    return pieces()


def upper(text, target):
    "Shouts, in two pieces; waits between them when it is asked to be slow."
    yield f"{target}:"
    if "lent" in text: GO_ON.wait(60)
    yield f"{target}: {text.upper()}"


@pytest.fixture(scope="module")
def url():
    with running(parrot, upper) as url: yield url


@pytest.fixture
def tab(browser, url):
    "A window on the page, which remembers what it asked for."
    w = browser.new_page(viewport={"width": 1100, "height": 900}, locale="fr-FR")
    w.asked, w.complaints = [], []
    w.on("request", lambda r: w.asked.append(r.url))
    w.on("pageerror", lambda e: w.complaints.append(str(e)))
    w.set_default_timeout(30_000)
    w.goto(url)
    w.get_by_label(FR["message"]).wait_for()
    yield w
    w.close()


def say(tab, text, words=FR):
    tab.get_by_label(words["message"]).fill(text)
    tab.get_by_role("button", name=words["send"], exact=True).click()


def steady(field, value):
    "Type a value that stays: a field that has just unfolded is still being filled by the page."
    for _ in range(50):
        field.fill(value); field.press("Tab"); time.sleep(.5)
        if field.input_value() == value: return
    raise AssertionError(f"{value} did not stay")


@needs_tab
def test_a_message_gets_an_answer_and_the_seed_counts(tab, url):
    say(tab, "Où est l'été ?")
    tab.get_by_text("Coco dit « Où est l'été ? », graine 0, tour 1.").wait_for()
    assert tab.get_by_label(FR["message"]).input_value() == ""
    tab.get_by_text(FR["dials"]).click()
    steady(tab.get_by_label(FR["seed"]), "7")
    say(tab, "<b>Encore</b> & ![x](https://boulangerie.example/x.png) <img src=https://boulangerie.example/y.png>\nfin")
    said = tab.get_by_text("Coco dit « <b>Encore</b> & ![x](https://boulangerie.example/x.png) <img src=https://boulangerie.example/y.png> fin », graine 7, tour 2.")
    said.wait_for()                                                                      # shown as text, fetched from nowhere
    assert "y.png>\nfin" in said.inner_text()
    tab.get_by_role("button", name=FR["clear"]).click()
    tab.get_by_text("tour 2.").wait_for(state="detached")
    say(tab, "refuse donc")
    tab.get_by_text("perroquet: non; demandez autre chose").wait_for()
    assert {urlsplit(u).netloc for u in tab.asked if not u.startswith(("data:", "blob:"))} == {urlsplit(url).netloc} and not tab.complaints


@needs_tab
def test_an_answer_streams_and_can_be_stopped(tab):
    GO_ON.clear()
    say(tab, "lent")
    tab.get_by_text("Coco dit « lent »").wait_for()                                      # the first half is there, the second is not made yet
    assert not tab.get_by_text("graine").count()
    tab.get_by_role("button", name=FR["stop"], exact=True).first.click()
    GO_ON.set()
    say(tab, "vite")
    tab.get_by_text("Coco dit « vite », graine 0, tour 2.").wait_for()
    assert not tab.get_by_text("tour 1.").count()


@needs_tab
def test_translation_and_the_other_language(tab):
    tab.get_by_role("tab", name=FR["translate"]).click()
    tab.get_by_label(FR["source"]).fill("L'été est là.")
    tab.get_by_role("button", name=FR["go"], exact=True).click()
    tab.wait_for_function("text => [...document.querySelectorAll('textarea')].some(t => t.value == text)", arg="en: L'ÉTÉ EST LÀ.")
    tab.get_by_label(FR["to_fr"]).check()
    tab.get_by_role("button", name=FR["go"], exact=True).click()
    tab.wait_for_function("text => [...document.querySelectorAll('textarea')].some(t => t.value == text)", arg="fr: L'ÉTÉ EST LÀ.")
    tab.get_by_label("English", exact=True).check()
    tab.get_by_role("tab", name=EN["chat"]).click()
    tab.get_by_label(EN["message"]).wait_for()
    say(tab, "Hello", EN)
    tab.get_by_text("Coco dit « Hello », graine 0, tour 1.").wait_for()


@needs_tab
def test_a_translation_can_be_stopped(tab):
    GO_ON.clear()
    tab.get_by_role("tab", name=FR["translate"]).click()
    shows = "text => [...document.querySelectorAll('textarea')].some(t => t.value == text)"
    tab.get_by_label(FR["source"]).fill("lent")
    tab.get_by_role("button", name=FR["go"], exact=True).click()
    tab.wait_for_function(shows, arg="en:")
    tab.get_by_role("button", name=FR["stop"], exact=True).last.click()
    GO_ON.set()
    time.sleep(2)
    assert not tab.evaluate(f"({shows})('en: LENT')")
    tab.get_by_label(FR["source"]).fill("vite")
    tab.get_by_role("button", name=FR["go"], exact=True).click()
    tab.wait_for_function(shows, arg="en: VITE")


def test_a_translation_comes_sentence_by_sentence():
    "Whoever stops listening stops the work."
    asked = []
    class Shouting:
        def translate(self, texts, target): asked.extend(texts); return [f"{target} {t.upper()}" for t in texts]
    text = "Un. Deux !\n\n \nTrois ?"
    made = translating(Shouting())(text, "en")
    assert next(made) == "en UN. " and asked == ["Un."]
    made.close()
    assert asked == ["Un."] and [*translating(Shouting())(text, "en")] == ["en UN. ", "en UN. en DEUX !", "en UN. en DEUX !\n\n\nen TROIS ?"]


@needs_tab
def test_the_policy_binds_the_browser(tab):
    "A script that would send something away, or load a picture from elsewhere, is stopped by the browser itself."
    port = listening()
    for code in (f"fetch('http://127.0.0.1:{port[1]}/').then(() => 'sent', () => 'stopped')",
                 f"new Promise(r => {{ let i = new Image(); i.onload = () => r('sent'); i.onerror = () => r('stopped'); i.src = 'http://127.0.0.1:{port[1]}/x.png' }})"):
        assert tab.evaluate(code) == "stopped"
    assert not port[2]
    port[0].close()


def listening():
    "A server elsewhere that counts who comes."
    s, came = socket.create_server(("127.0.0.1", 0)), []
    def accept():
        try:
            while True: came.append(s.accept()[1])
        except OSError: pass
    threading.Thread(target=accept, daemon=True).start()
    return s, s.getsockname()[1], came


@needs_gradio
def test_only_this_machine_and_only_its_name(url):
    port = urlsplit(url).port
    heard = [c.laddr.ip for c in psutil.Process().net_connections("inet") if c.status == psutil.CONN_LISTEN and c.laddr.port == port]
    assert heard == ["127.0.0.1"]
    home = httpx.get(url)
    assert home.status_code == 200 and "connect-src 'self'" in home.headers["content-security-policy"]
    assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//(?!127\.0\.0\.1)[^"']*""", home.text)
    assert httpx.get(url, headers={"Host": "boulangerie.example"}).status_code == 400
    assert httpx.post(f"{url}/gradio_api/upload", files={"files": ("gros.txt", b"x" * 5000)}).status_code == 413
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"


@needs_gradio
def test_a_taken_port_is_named(url):
    with pytest.raises(BadInput, match="--port"), running(parrot, None, urlsplit(url).port): pass


@pytest.mark.parametrize("port", [-1, 65536])
def test_an_impossible_port_is_named(port):
    with pytest.raises(BadInput, match="65535"), running(parrot, None, port): pass


def test_without_gradio_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(BadInput, match="requirements-serve.lock"): build_page(parrot)


def test_a_real_model_behind_it(tmp_path):
    tokenizer = toy_tokenizer()
    save_model(toy_model(tokenizer.vocab_size), tokenizer, tmp_path/"toy")
    dials = {"seed": 3, "temperature": 1., "max_new_tokens": 9}
    one, two = ([said for _, said in turn(talker(tmp_path/"toy"), "Où ?", [], dials)] for _ in range(2))
    assert one == two and len(one) > 2 and one[-1][-1]["role"] == "assistant"
    old = [{"role": r, "content": "Il était une fois"} for _ in range(20) for r in ("user", "assistant")]
    assert len(list(turn(talker(tmp_path/"toy"), "Où ?", old, dials))[-1][1]) == 42       # forgets the oldest, still shows them
    with pytest.raises(BadInput, match=f"{LONGEST}"): list(turn(parrot, "é" * 5000, [], dials))


@needs_tab
def test_picture(browser):
    "Set PAGE_PICTURE to draw the page for the README; PAGE_CHAT and PAGE_TRANSLATE name folders with models, otherwise toys speak."
    out = os.environ.get("PAGE_PICTURE")
    if not out: pytest.skip("PAGE_PICTURE is not set; set it to the path of a PNG file to be drawn")
    from croissant.consensus import ConsensusTranslator
    talk = talker(os.environ["PAGE_CHAT"]) if "PAGE_CHAT" in os.environ else parrot
    translate = translating(ConsensusTranslator.load(os.environ["PAGE_TRANSLATE"], os.environ.get("PAGE_MEMORY"))) if "PAGE_TRANSLATE" in os.environ else upper
    with ExitStack() as stack:
        w = browser.new_page(viewport={"width": 1000, "height": 820}, device_scale_factor=1.5)
        stack.callback(w.close)
        w.goto(stack.enter_context(running(talk, translate)))
        w.get_by_label(FR["message"]).wait_for()
        say(w, os.environ.get("PAGE_QUESTION", "Bonjour ! Qu'est-ce qu'un croissant ?"))
        before, end = "", time.monotonic() + 60
        while (now := w.inner_text("body")) != before and time.monotonic() < end: before = now; time.sleep(2)
        w.screenshot(path=out)
    assert os.path.getsize(out) > 10_000
