"""The page in a real browser: it draws, its controls work with the keyboard, nothing overflows on a phone."""

import shutil
import threading

import pytest

from pliant.results.report import report_html, watch_server
from report_runs import make_run

pytest.importorskip("plotly", reason="the extra report is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.whole,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # of playwright's event loop
]
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run") / "labels", arrays=True, asked=6)


@pytest.fixture(scope="module")
def file(run):
    path = run.path.parent / "report.html"
    path.write_text(report_html([run]), encoding="utf-8")
    return path


@pytest.fixture
def visit(browser):
    """Opens pages; at the end none of them has said anything in the console or asked for another file."""
    said, contexts = [], []

    def visit(url, **options):
        contexts.append(browser.new_context(**{"viewport": DESK, **options}))
        page = contexts[-1].new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on(
            "request",
            lambda request: said.append(request.url) if not request.url.startswith((url, "data:", "blob:")) else None,
        )
        page.goto(url)
        page.wait_for_selector(".large .plot .trace")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert [each for each in said if "net::ERR_FAILED" not in each] == []


def _lines(page, selector=".large .plot"):
    """Names of the lines that a figure shows, bands and seeds being nameless."""
    script = "plot => plot.data.map(trace => [trace.name ?? '', trace.fill ?? '', trace.line.width])"
    traces = page.locator(selector).first.evaluate(script)
    named = [name for name, fill, width in traces if width == 2]
    return named, sum(fill == "toself" for _, fill, _ in traces), sum(width == 1 for *_, width in traces)


def test_toggles_of_methods_bands_and_seeds(visit, file):
    page = visit(file.as_uri())
    assert _lines(page) == (["adam", "redo"], 2, 0)
    page.get_by_label("adam", exact=True).uncheck()
    assert _lines(page) == (["redo"], 1, 0)
    assert _lines(page, ".small .plot") == (["redo"], 1, 0)
    page.get_by_label("Single seeds").check()
    assert _lines(page) == (["redo"], 1, 1)
    page.get_by_label("Band: ± one standard error").uncheck()
    assert _lines(page) == (["redo"], 0, 1)
    page.get_by_label("adam", exact=True).check()
    assert _lines(page) == (["adam", "redo"], 0, 2)
    page.get_by_label("Logarithmic axes").check()
    assert page.locator(".large .plot").evaluate("plot => plot.layout.yaxis.type") == "log"


@pytest.mark.parametrize(("tasks", "labels"), [(2, ["1", "2"]), (25, ["0", "5", "10", "15", "20", "25"])])
def test_ticks_are_whole_tasks(visit, tmp_path, tasks, labels):
    file = tmp_path / "report.html"
    file.write_text(report_html([make_run(tmp_path / "run", tasks=tasks, seeds=1)]), encoding="utf-8")
    page = visit(file.as_uri())
    assert page.locator(".large .plot .xtick").all_text_contents() == labels


def test_the_keyboard_reaches_and_toggles(visit, file):
    page = visit(file.as_uri())
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.shows") == "adam":
            break
    page.keyboard.press("Space")
    assert _lines(page)[0] == ["redo"]
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    numbers = page.locator("details.numbers").first
    numbers.locator("summary").focus()
    page.keyboard.press("Enter")
    assert numbers.get_attribute("open") is not None
    assert numbers.locator("tbody tr").first.inner_text().split() == ["1", "0.66", "±", "0.0058"]


def test_sorting_with_the_keyboard(visit, file):
    page = visit(file.as_uri())
    names = page.locator("table.sortable tbody th")
    heading = page.get_by_role("button", name="effective rank")
    heading.focus()
    page.keyboard.press("Enter")
    assert names.all_inner_texts() == [" redo", " adam"]
    assert heading.locator("..").get_attribute("aria-sort") == "descending"
    page.keyboard.press("Enter")
    assert names.all_inner_texts() == [" adam", " redo"]


@pytest.mark.parametrize("viewport", [PHONE, DESK])
def test_nothing_overflows(visit, file, viewport):
    page = visit(file.as_uri(), viewport=viewport, has_touch=viewport is PHONE)
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    for top in range(0, page.evaluate("document.documentElement.scrollHeight"), 400):
        page.evaluate(f"scrollTo(0, {top})")
        page.wait_for_timeout(20)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    assert (
        page.evaluate("[...document.querySelectorAll('.plot')].filter(plot => plot.offsetWidth && !plot.data).length")
        == 0
    )


def test_menus_and_search(visit, file):
    page = visit(file.as_uri())
    shown = ".small:visible figcaption"
    assert page.locator(shown).all_inner_texts() == ["loss", "dormant fraction", "effective rank"]
    page.get_by_label("Find").fill("DENSE")
    assert page.locator(shown).all_inner_texts() == ["dormant fraction/dense 0"]
    page.get_by_label("Find").fill("")
    page.locator("[data-menu=diagnostics]").select_option(label="dormant fraction (1)")
    assert page.locator(shown).all_inner_texts() == ["dormant fraction/dense 0"]
    assert page.locator(".album:visible h4").all_inner_texts() == ["Gradient cosines"]
    page.locator("[data-menu=albums]").select_option(label="NTK eigenvalues")
    assert page.locator(".album:visible h4").all_inner_texts() == ["NTK eigenvalues"]
    page.locator(".album:visible .plot").first.scroll_into_view_if_needed()
    page.locator(".album:visible .plot .trace").first.wait_for()
    page.get_by_label("adam", exact=True).uncheck()
    assert page.locator(".album figcaption:visible").all_inner_texts() == ["redo"]


def test_paper_shows_everything_on_a_light_page(visit, file):
    page = visit(file.as_uri(), color_scheme="dark")
    color = "getComputedStyle(document.documentElement).backgroundColor"
    assert page.evaluate(color) == "rgb(20, 23, 26)"
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(color) == "rgb(255, 255, 255)"
    assert page.locator(".album:visible").count() == 6
    assert page.locator("details.listing:not([open])").count() == 0
    assert (
        page.evaluate("[...document.querySelectorAll('.plot')].filter(plot => plot.offsetWidth && !plot.data).length")
        == 0
    )
    assert page.evaluate("Math.max(...[...document.querySelectorAll('.plot svg')].map(svg => svg.clientWidth))") <= 700
    font = page.locator(".large .plot").evaluate("plot => plot.layout.font.color")
    assert font == "#1b1f24"
    page.emulate_media(media="screen", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator(".album:visible").count() == 1


def test_names_are_drawn_as_they_are(visit, run, tmp_path):
    make_run(tmp_path / "run", tasks=2)
    folder = type(run)(tmp_path / "run")
    folder.metrics["method"] = folder.metrics["method"].replace("adam", "<b>a</b>&amp;%{x}")
    folder.labels = lambda name: [name]  # as the metrics say
    file = tmp_path / "report.html"
    file.write_text(report_html([folder]), encoding="utf-8")
    page = visit(file.as_uri())
    assert page.locator(".methods label").first.inner_text().strip() == "<b>a</b>&amp;%{x}"
    point = page.locator(".large .plot .point").first.bounding_box()
    page.mouse.move(point["x"] + point["width"] / 2, point["y"] + point["height"] / 2)
    hover = page.locator(".large .hovertext").first
    hover.wait_for()
    assert hover.locator("text").first.text_content().startswith("<b>a</b>&amp;%{x}")


def test_a_page_that_follows_a_run_keeps_what_was_chosen(visit, tmp_path):
    folder = make_run(tmp_path / "run", tasks=2, asked=6)
    with watch_server(folder.path, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        page = visit(server.url)
        page.get_by_label("adam", exact=True).uncheck()
        page.get_by_label("Single seeds").check()
        page.get_by_label("Find").fill("rank")
        page.locator("details.listing").first.locator("summary").click()
        make_run(tmp_path / "run", methods=("sgd",), tasks=3, asked=6)
        page.locator("[data-shows=sgd]").wait_for(timeout=60_000)
        page.wait_for_function("document.querySelector('.large .plot').data?.length > 0")
        assert _lines(page) == (["redo", "sgd"], 2, 2)
        assert page.locator(".small:visible figcaption").all_inner_texts() == ["effective rank"]
        assert page.locator("details.listing").first.get_attribute("open") is not None
        assert page.locator("#live.lost").count() == 0
        page.route("**/content", lambda route: route.abort())
        page.locator("#live.lost").wait_for(timeout=60_000)
        page.close()
        server.shutdown()
        thread.join()
