"""The page to try a module with, in Chromium: what a person does, and what they then read."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.wait import WebDriverWait

from mlpack.runtime.http.form import request
from mlpack.runtime.http.page import first_that_scores
from tests.runtime.support import FAN, PICTURE, release, serving, started
from tests.runtime.test_form import MODELS, PICTURES
from tests.support import tiny_onnx, unavailable

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def browser() -> Iterator[WebDriver]:
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            unavailable(f"{program} is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    # Chromium's own sandbox does not start as root; nothing but our page is opened.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # Named, or selenium would look for one to download.
    found = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        yield found
    finally:
        found.quit()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("pictures")
    release(folder, PICTURE, "colors/2")
    with serving(folder) as address:
        yield address


@pytest.fixture(scope="module")
def fan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("fan")
    release(folder, FAN)
    with serving(folder) as address:
        yield address


def text(browser: WebDriver, selector: str) -> str:
    return browser.find_element(By.CSS_SELECTOR, selector).text


def wait(browser: WebDriver, selector: str, words: str) -> None:
    """Until what is at ``selector`` says ``words``."""
    # The page may replace an element between finding and reading it.
    WebDriverWait(browser, 60, ignored_exceptions=[StaleElementReferenceException]).until(
        lambda _: any(
            words in each.text for each in browser.find_elements(By.CSS_SELECTOR, selector)
        ),
        message=f"{selector} does not say {words!r}",
    )


def picture(path: Path, color: str, size: tuple[int, int] = (80, 40)) -> Path:
    Image.new("RGB", size, color).save(path)
    return path


def choose(browser: WebDriver, path: Path) -> None:
    browser.find_element(By.ID, "file").send_keys(str(path))


def bars(browser: WebDriver) -> list[tuple[str, str]]:
    rows = browser.find_elements(By.CSS_SELECTOR, ".bars li")
    return [
        (row.find_element(By.TAG_NAME, "span").text, row.find_element(By.TAG_NAME, "b").text)
        for row in rows
    ]


def complaints(browser: WebDriver) -> list[str]:
    """What the browser holds against the page, such as a breach of its policy."""
    log = browser.get_log("browser")  # type: ignore[attr-defined]
    return [each["message"] for each in log if "/score - Failed to load" not in each["message"]]


def test_a_picture_gets_five_bars_and_a_frame(
    browser: WebDriver, pictures: str, tmp_path: Path
) -> None:
    browser.get(pictures)
    assert text(browser, "h1") == "colors version 2"
    assert "Choose a picture" in text(browser, "#result")
    choose(browser, picture(tmp_path / "red.png", "#c81e14"))
    wait(browser, ".bars", "Red")
    assert bars(browser) == [
        ("Red", "70.2 %"),
        ("Green", "10.5 %"),
        ("Dark", "7.0 %"),
        ("Blue", "7.0 %"),
        ("Light grey", "3.5 %"),
    ]
    drawn = browser.find_elements(By.CSS_SELECTOR, ".track div")
    widths = [str(each.get_attribute("style")) for each in drawn]
    assert widths[0].startswith("width: 70.1")
    assert widths[4].startswith("width: 3.5")
    frame = browser.find_element(By.CSS_SELECTOR, "#frame rect").rect
    image = browser.find_element(By.ID, "preview").rect
    assert frame["x"] == pytest.approx(image["x"] + image["width"] / 4, abs=4)
    assert frame["height"] == pytest.approx(image["height"] / 4, abs=4)
    facts = text(browser, "#facts")
    assert " ms (1 ms in the model)" in facts
    assert f"{(tmp_path / 'red.png').stat().st_size} B sent" in facts
    assert "red.png" in text(browser, "#caption")
    assert not complaints(browser)


def test_another_picture_takes_its_place(browser: WebDriver, pictures: str, tmp_path: Path) -> None:
    browser.get(pictures)
    choose(browser, picture(tmp_path / "red.png", "red"))
    wait(browser, ".bars li:first-child", "Red")
    choose(browser, picture(tmp_path / "blue.jpg", "blue"))
    wait(browser, ".bars li:first-child", "Blue")
    assert len(browser.find_elements(By.CSS_SELECTOR, "#frame rect")) == 1


GIVEN = """
const [kind, name, type, data] = arguments;
const bytes = Uint8Array.from(atob(data), (each) => each.charCodeAt(0));
const transfer = new DataTransfer();
transfer.items.add(new File([bytes], name, { type }));
const members = { bubbles: true, cancelable: true };
document.body.dispatchEvent(kind === "paste"
  ? new ClipboardEvent("paste", { ...members, clipboardData: transfer })
  : new DragEvent(kind, { ...members, dataTransfer: transfer }));
"""


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_picture_can_be_dropped_and_pasted(browser: WebDriver, pictures: str, kind: str) -> None:
    content = io.BytesIO()
    Image.new("RGB", (8, 8), "lime").save(content, "PNG")
    data = base64.b64encode(content.getvalue()).decode()
    browser.get(pictures)
    browser.execute_script(GIVEN, kind, "lime.png", "image/png", data)
    wait(browser, ".bars li:first-child", "Green")


def test_a_file_that_is_no_picture_is_refused(
    browser: WebDriver, pictures: str, tmp_path: Path
) -> None:
    browser.get(pictures)
    choose(browser, picture(tmp_path / "red.png", "red"))
    wait(browser, ".bars", "Red")
    wrong = tmp_path / "notes.txt"
    wrong.write_text("no picture")
    choose(browser, wrong)
    wait(browser, "#error", "notes.txt is not a JPEG or PNG picture.")
    assert not browser.find_elements(By.CSS_SELECTOR, ".bars, #frame rect")


def test_what_the_module_refuses_is_said_as_text(
    browser: WebDriver, pictures: str, tmp_path: Path
) -> None:
    broken = tmp_path / "<b>broken.png"
    broken.write_bytes(picture(tmp_path / "whole.png", "red").read_bytes()[:40])
    browser.get(pictures)
    choose(browser, broken)
    wait(browser, "#error", "Not scored: ")
    assert text(browser, "#error").endswith("(image, status 400)")
    assert "<b>broken.png" in text(browser, "#caption")
    # The page goes on.
    choose(browser, picture(tmp_path / "good.png", "blue"))
    wait(browser, ".bars", "Blue")
    assert not browser.find_element(By.ID, "error").is_displayed()
    assert not complaints(browser)


def test_four_numbers_show_the_fault(browser: WebDriver, fan: str) -> None:
    browser.get(fan)
    fields = browser.find_elements(By.CSS_SELECTOR, "input[type=number]")
    assert [each.accessible_name for each in fields] == ["Rotation", "Temperature", "A b"]
    assert [each.get_attribute("value") for each in fields] == ["600", "35.5", "120"]
    assert "usually 400 to 800" in text(browser, "#fields")
    browser.find_element(By.ID, "send").click()
    wait(browser, ".verdict", "No fault")
    assert bars(browser) == [("Probability of a fault", "37.8 %")]
    fields[0].clear()
    fields[0].send_keys("1900", Keys.ENTER)
    wait(browser, ".verdict", "\nFault")
    assert bars(browser) == [("Probability of a fault", "100.0 %")]
    assert "B sent" in text(browser, "#facts")
    assert not complaints(browser)


def test_the_keyboard_reaches_everything_that_is_used(browser: WebDriver, fan: str) -> None:
    browser.get(fan)
    browser.find_element(By.ID, "send").click()
    wait(browser, ".verdict", "fault")
    browser.find_element(By.CSS_SELECTOR, "#raw summary").click()
    reached = []
    for _ in range(25):  # more than once around
        browser.switch_to.active_element.send_keys(Keys.TAB)
        found = browser.switch_to.active_element
        if found.tag_name != "body":
            reached.append(found.accessible_name)
    assert set(reached) == {
        *("Rotation", "Temperature", "A b", "Score", "Response as JSON", "From a program"),
        *("OpenAPI", "Open Inference Protocol", "Metrics"),
    }


def scored(browser: WebDriver) -> None:
    browser.find_element(By.ID, "send").click()
    WebDriverWait(browser, 20).until(
        lambda _: (
            browser.find_element(By.ID, "facts").is_displayed()
            or browser.find_element(By.ID, "error").is_displayed()
        )
    )
    assert text(browser, "#error") == ""


@pytest.mark.parametrize(
    "name",
    [
        *("numbers", "scalar", "int64", "uint64", "bool", "text", "two rows", "longer"),
        *("very long", "quotes", "members of objects", "unicode", "columns", "strict"),
        *("strict columns", "long enough", "only zero", "with default", "no input", "mapped"),
    ],
)
def test_the_first_request_is_pythons_and_scores(
    browser: WebDriver, tmp_path: Path, name: str
) -> None:
    made = release(tmp_path, model="made/1")
    MODELS[name](made.model_dir / "model.onnx")
    with started(made) as module:
        sent = request(first_that_scores(module))
    with serving(tmp_path) as address:
        browser.get(address)
        browser.execute_script(
            "const own = fetch; window.sent = [];"
            "window.fetch = (url, made) => { window.sent.push(made.body); return own(url, made); }"
        )
        scored(browser)
        assert sent is not None
        [body] = browser.execute_script("return window.sent")
        assert body.encode() == sent.content
        assert "curl" in str(browser.find_element(By.ID, "curl").get_attribute("textContent"))
        assert not complaints(browser)


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_becomes_the_models_pixels(browser: WebDriver, tmp_path: Path, name: str) -> None:
    made = release(tmp_path, model="made/1")
    MODELS[name](made.model_dir / "model.onnx")
    with serving(tmp_path) as address:
        browser.get(address)
        choose(browser, picture(tmp_path / "white.png", "white"))
        wait(browser, "#facts", "received")
        cells = {each.text for each in browser.find_elements(By.CSS_SELECTOR, "td")}
        assert cells == {"255" if name == "interleaved bytes" else "1"}
        if name == "planar":
            scale = browser.find_element(By.ID, "scale")
            assert scale.accessible_name == "Values of a pixel"
            scale.send_keys("0 to 255")
            wait(browser, "td", "255")
        assert not complaints(browser)


def test_values_are_taken_as_they_are_entered(browser: WebDriver, tmp_path: Path) -> None:
    made = release(tmp_path, model="made/1")
    MODELS["uint64"](made.model_dir / "model.onnx")
    with serving(tmp_path) as address:
        browser.get(address)
        [field] = browser.find_elements(By.CSS_SELECTOR, "input[type=number]")
        assert field.accessible_name == "x"
        field.clear()
        field.send_keys("18446744073709551615", Keys.ENTER)
        wait(browser, ".scalar", "18446744073709551615")


def test_many_values_are_one_text(browser: WebDriver, tmp_path: Path) -> None:
    made = release(tmp_path, model="tiny/1")
    tiny_onnx(made.model_dir / "model.onnx", features=100)
    with serving(tmp_path) as address:
        browser.get(address)
        scored(browser)
        wait(browser, ".scalar", "4950.5")
        area = browser.find_element(By.TAG_NAME, "textarea")
        assert area.accessible_name == "x"
        area.clear()
        area.send_keys(", ".join(["0"] * 99 + ["2"]))
        browser.find_element(By.ID, "send").click()
        wait(browser, ".scalar", "198.5")
        area.clear()
        area.send_keys("1, 2")
        browser.find_element(By.ID, "send").click()
        wait(browser, "#error", "Not scored: ")
    # The module has ended meanwhile.
    browser.find_element(By.ID, "send").click()
    wait(browser, "#error", "Cannot reach the module.")


def test_a_default_can_be_replaced(browser: WebDriver, tmp_path: Path) -> None:
    made = release(tmp_path, model="made/1")
    MODELS["with default"](made.model_dir / "model.onnx")
    with serving(tmp_path) as address:
        browser.get(address)
        scored(browser)
        wait(browser, "td", "2")
        browser.find_element(By.CSS_SELECTOR, "#more summary").click()
        browser.find_element(By.TAG_NAME, "textarea").send_keys("[7]")
        browser.find_element(By.ID, "send").click()
        wait(browser, "td", "7")


RESULTS = [
    ({"result": [[0.1, 0.9]]}, ".bars li:first-child", "1\n90.0 %"),
    ({"result": [{"cat": 0.25, "dog": 0.75}]}, ".bars li:first-child", "dog\n75.0 %"),
    ({"result": {"label": ["a"], "p": [[0.5, 0.5]]}}, "h3", "label"),
    ({"result": [[1, 2], [3, 4]]}, "td", "4"),
    ({"result": [{"a": 1}, {"a": "two"}]}, "th", "a"),
    ({"result": [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]}, "#result .quiet", "2 values"),
    ({"result": list(range(1000))}, "#result .quiet", "980 more rows"),
    ({"result": [[0.5]] * 200_000}, "#result .quiet", "199,980 more rows"),
    ({"result": 1234567890.0}, ".scalar", "1234567890"),
    ({"result": [[]]}, "#result", "empty"),
    ({"result": None}, ".scalar", "null"),
    ({"result": "x" * 1000}, ".scalar", "x…"),
    ({"result": 9007199254740993}, ".scalar", "9007199254740993"),
    ("words", ".scalar", "words"),
    ([], "#result", "empty"),
    ({"anything": {"deep": [1.5]}}, "#result", "1.5"),
]


def test_results_of_any_shape_are_shown(browser: WebDriver, tmp_path: Path) -> None:
    script = "import json\ndef init(): pass\ndef run(data): return json.loads(data)"
    release(tmp_path, script, model="echo/1")
    with serving(tmp_path) as address:
        browser.get(address)
        for result, selector, words in RESULTS:
            area = browser.find_element(By.ID, "json")
            browser.execute_script("arguments[0].value = arguments[1]", area, json.dumps(result))
            scored(browser)
            wait(browser, selector, words)
        assert not complaints(browser)


def test_the_result_is_in_view_on_a_phone(browser: WebDriver, tmp_path: Path) -> None:
    screen = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    made = release(tmp_path, model="tiny/1")
    tiny_onnx(made.model_dir / "model.onnx", features=60)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    with serving(tmp_path) as address:
        browser.get(address)
        scored(browser)
        place = browser.execute_script(
            "return document.querySelector('.scalar').getBoundingClientRect().toJSON()"
        )
        assert 0 <= place["top"] < place["bottom"] <= 844
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_it_fits_the_screen_and_can_be_read(
    browser: WebDriver, pictures: str, tmp_path: Path, width: int, scheme: str
) -> None:
    screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    colors = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", colors)
    browser.get(pictures)
    choose(browser, picture(tmp_path / "wide.png", "red", (2000, 300)))
    wait(browser, ".bars", "Red")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    for selector in ("body", ".quiet", ".bars b", "footer a", ".drop strong"):
        assert browser.execute_script(CONTRAST, selector) >= 4.5, selector
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


CONTRAST = """
// WCAG 2.2, "relative luminance" and "contrast ratio".
const luminance = (color) => color.match(/[0-9.]+/g).slice(0, 3).map((each) => each / 255)
  .map((each) => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
  .reduce((sum, each, place) => sum + each * [0.2126, 0.7152, 0.0722][place], 0);
const element = document.querySelector(arguments[0]);
let behind = element;
const clear = "rgba(0, 0, 0, 0)";
while (getComputedStyle(behind).backgroundColor === clear) behind = behind.parentElement;
const both = [luminance(getComputedStyle(element).color),
  luminance(getComputedStyle(behind).backgroundColor)].sort((a, b) => b - a);
return (both[0] + 0.05) / (both[1] + 0.05);
"""
