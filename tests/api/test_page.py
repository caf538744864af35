import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import shapely.geometry
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.app import create_app
from api.routers.landing import prefers_html
from api.routers.page import policy
from api.settings import ApiSettings
from indexer.settings import Settings
from tests.api.browser import DESKTOP, PHONE, launch, opened, pictures_folder
from tests.api.test_app import api_settings, in_folder, served
from tests.retriever.planted import Seen, at_cosine, plant
from tests.retriever.stored import leave_unassigned, store_clusters

BROWSER_ACCEPT = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
PAGE = {"accept": BROWSER_ACCEPT}
PARCEL = "demo-003"

TILE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)
"""A PNG of one gray pixel."""

PARCELS_PAST_THE_BOUND = """
async () => {
  const source = document.querySelector('script[type="module"]').src;
  const { ParcelLoader, MOST_PARCELS } = await import(new URL("parcels.js", source).href);
  const endless = {
    items: async (collection, query) => ({
      features: Array.from({ length: 1000 }, () => ({ type: "Feature" })),
      links: [{ rel: "next", href: "https://proxy.example/items?after=1000&limit=1000" }],
    }),
  };
  const shown = [];
  const question = { collection: "all", box: null, filter: "", datetime: "" };
  await new ParcelLoader(endless).load(question, ({ features, more, done }) =>
    shown.push([features.length, more, done]));
  return [MOST_PARCELS, shown];
}
"""


# Who gets the page ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(demo_index: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(api_settings(demo_index))) as found:
        yield found


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        (BROWSER_ACCEPT, True),
        ("text/html", True),
        ("text/*", True),
        ("TEXT/HTML;Q=0.8, application/json;q=0.7", True),
        ("text/html;q=0.8, application/json", False),
        ("application/json", False),
        ("*/*", False),
        ("", False),
        ("text/html, application/json", False),
        ("text/html;q=0, */*", False),
        ("text/html;level=1;q=0.5, */*;q=0.1", True),
        ("text/html;q=much", False),
        ("image/png", False),
    ],
)
def test_html_is_preferred_only_where_it_is_asked_for_more_than_json(
    accept: str, html: bool
) -> None:
    assert prefers_html(accept) is html


def test_browsers_get_the_page_and_programs_the_links(client: TestClient) -> None:
    page = client.get("/", headers=PAGE)
    links = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert links.headers["content-type"] == "application/json"
    assert "<title>Parcelle</title>" in page.text
    assert links.json()["title"] == "Parcelle"
    for answer in (page, links):
        assert "accept" in answer.headers["vary"].lower()


def test_the_address_may_say_which_of_the_two(client: TestClient) -> None:
    assert client.get("/?f=html").headers["content-type"].startswith("text/html")
    assert client.get("/?f=json", headers=PAGE).headers["content-type"] == "application/json"
    wrong = client.get("/?f=xml", headers=PAGE)
    assert wrong.status_code == 400
    assert "'xml'" in wrong.json()["detail"]


def test_the_page_needs_no_key_and_the_links_do(demo_index: Settings) -> None:
    with TestClient(create_app(api_settings(demo_index, keys="sesame"))) as locked:
        page = locked.get("/", headers=PAGE)
        assert page.status_code == 200
        for address in _files_of(page.text):
            assert locked.get(address).status_code == 200
        assert locked.get("/").status_code == 401
        assert locked.get("/?f=json", headers=PAGE).status_code == 401
        assert locked.get("/", headers={"X-API-Key": "sesame"}).status_code == 200


# Its files -----------------------------------------------------------------------------------


def _files_of(page: str) -> list[str]:
    return [f"/{path}" for path in re.findall(r'(?:src|href)="(static/[^"]+)"', page)]


def test_the_files_of_the_page_may_be_kept_for_good(client: TestClient) -> None:
    addresses = set(_files_of(client.get("/", headers=PAGE).text))
    assert {Path(address).name for address in addresses} == {
        "icon.svg",
        "maplibre-gl.css",
        "maplibre-gl.js",
        "page.css",
        "page.js",
    }
    expected = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    for address in addresses:
        answer = client.get(address)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(expected[Path(address).suffix])
        assert "immutable" in answer.headers["cache-control"]


def test_only_the_files_of_the_page_are_served(client: TestClient) -> None:
    script = next(one for one in _files_of(client.get("/?f=html").text) if "page.js" in one)
    folder = script.removesuffix("/page.js")
    for address in (
        f"{folder}/index.html",
        f"{folder}/ipywidget.js",
        f"{folder}/..%2Findex.html",
        f"{folder}/",
        "/static/0000000000000000/page.js",
    ):
        assert client.get(address).status_code == 404, address


def test_the_page_is_asked_for_again_and_then_not_sent_again(client: TestClient) -> None:
    first = client.get("/", headers=PAGE)
    again = client.get("/", headers={**PAGE, "If-None-Match": first.headers["etag"]})
    assert "no-cache" in first.headers["cache-control"]
    assert again.status_code == 304


def test_the_page_may_load_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/", headers=PAGE)
    rules = dict(rule.split(" ", 1) for rule in page.headers["content-security-policy"].split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == "'self'"
    assert rules["connect-src"] == "'self'"
    assert "http" not in page.headers["content-security-policy"]
    assert re.findall(r'(?:src|href|action)="(?:https?:)?//', page.text) == []
    assert re.findall(r"<script(?![^>]* src=)|<style| style=| on[a-z]+=", page.text) == []


def test_a_basemap_opens_the_policy_for_its_host_alone() -> None:
    rules = policy("https://tiles.example.org:8443/{z}/{x}/{y}.png?key=1").split("; ")
    assert "connect-src 'self' https://tiles.example.org:8443" in rules
    assert "img-src 'self' data: blob: https://tiles.example.org:8443" in rules
    assert "script-src 'self'" in rules


def test_the_basemap_is_given_to_the_page_as_text(demo_index: Settings) -> None:
    settings = ApiSettings(
        **demo_index.model_dump(),
        api_keys="",
        basemap_url="https://tiles.example.org/{z}/{x}/{y}.png?a=b&c=d",
        basemap_attribution='<script>alert("x")</script>',
    )
    with TestClient(create_app(settings)) as found:
        page = found.get("/", headers=PAGE)
    assert "{z}/{x}/{y}.png?a=b&amp;c=d" in page.text
    assert "<script>alert" not in page.text
    assert "https://tiles.example.org;" in page.headers["content-security-policy"]


# In a browser --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = launch(playwright)
        yield found
        found.close()


@pytest.fixture(scope="module")
def address(demo_index: Settings) -> Iterator[str]:
    with served(create_app(api_settings(demo_index))) as found:
        yield f"{found}/"


@pytest.fixture(scope="module")
def parcels(address: str) -> dict[str, Any]:
    found = httpx.get(f"{address}collections/demo/items?limit=1000").json()["features"]
    return {feature["id"]: feature for feature in found}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return pictures_folder(tmp_path)


def panel(page: Page) -> Locator:
    return page.locator("#parcel-view")


def matches(page: Page) -> list[str]:
    """Ids of the similar parcels, once they are there."""
    expect(page.locator(".similar")).not_to_have_attribute("aria-busy", "true")
    expect(page.locator(".match").first).to_be_visible()
    return page.locator(".match .id").all_inner_texts()


def wait_for_parcels(page: Page, n: int) -> None:
    expect(page.locator("#status")).to_contain_text(f"{n} parcel")
    expect(page.locator("#progress")).to_be_hidden()


def click_on_the_map(page: Page, feature: dict[str, Any]) -> None:
    """Click inside a parcel, where the page's own map says that it is drawn."""
    page.wait_for_function("() => parcelle.map?.loaded()")
    place = shapely.geometry.shape(feature["geometry"]).representative_point()
    point = page.evaluate("at => parcelle.map.project(at)", [place.x, place.y])
    page.locator("#map canvas").click(position={"x": point["x"], "y": point["y"]})


def test_a_parcel_chosen_on_the_map_shows_its_state_and_those_like_it(
    browser: Browser, address: str, parcels: dict[str, Any], pictures: Path
) -> None:
    expected = httpx.get(f"{address}collections/demo/items/{PARCEL}/similar?k=12").json()
    state = httpx.get(f"{address}collections/demo/items/{PARCEL}/state").json()
    with opened(browser, address) as page:
        wait_for_parcels(page, len(parcels))
        page.screenshot(path=pictures / "map-light.png")
        click_on_the_map(page, parcels[PARCEL])
        expect(panel(page).get_by_role("heading", level=2)).to_have_text(PARCEL)
        assert matches(page) == [match["id"] for match in expected["features"]]
        expect(panel(page)).to_contain_text(parcels[PARCEL]["properties"]["crop:name"])
        for note in {*expected["notes"], *state["notes"]}:
            expect(panel(page).locator(".note").get_by_text(note)).to_have_count(1)
        last = [one for one in state["observations"] if one["reliable"]][-1]
        ndvi = f"{last['indices']['NDVI']['median']:.2f}"
        expect(panel(page).locator(".state")).to_contain_text(f"NDVI {ndvi}")
        expect(page.locator(".maplibregl-marker.badge")).to_have_count(len(expected["features"]))
        page.screenshot(path=pictures / "parcel-light.png")
        assert page.title() == f"{PARCEL} · Parcelle"


def test_the_chart_tells_reliable_observations_from_others(
    browser: Browser, address: str, parcels: dict[str, Any]
) -> None:
    states = {
        parcel: httpx.get(f"{address}collections/demo/items/{parcel}/state").json()
        for parcel in parcels
    }
    # The second date has a cloud; some parcel is measured below its edge.
    parcel, state = next(
        (parcel, state)
        for parcel, state in states.items()
        if any(not one["reliable"] and "NDVI" in one["indices"] for one in state["observations"])
    )
    measured = [one for one in state["observations"] if "NDVI" in one["indices"]]
    doubtful = [one for one in measured if not one["reliable"]]
    with opened(browser, f"{address}#collection=demo&parcel={parcel}") as page:
        chart = panel(page).get_by_role("img", name="NDVI on")
        expect(chart.locator("circle.reliable")).to_have_count(len(measured) - len(doubtful))
        expect(chart.locator("path.doubtful")).to_have_count(len(doubtful))
        expect(chart).to_contain_text("NDVI (unitless)")
        expect(chart).to_contain_text("Date of acquisition, 2023")
        expect(panel(page).locator(".chart-key")).to_contain_text("not reliable")
        panel(page).get_by_text("As a table").click()
        rows = panel(page).locator("table tbody tr")
        expect(rows).to_have_count(len(state["observations"]))
        page.get_by_label("Spectral index").select_option("NDMI")
        expect(panel(page).get_by_role("img", name="NDMI on")).to_be_visible()


def test_pictures_of_the_parcel_and_of_its_matches_are_shown(
    browser: Browser, address: str
) -> None:
    with opened(browser, f"{address}#collection=demo&parcel={PARCEL}") as page:
        many = 1 + len(matches(page))
        page.wait_for_function(
            "n => [...document.querySelectorAll('.picture img')]"
            ".filter((image) => image.naturalWidth > 0).length === n",
            arg=many,
        )
        preview = panel(page).get_by_role("img", name="Satellite image")
        expect(preview).to_have_accessible_name(f"Satellite image of {PARCEL}, true color")
        panel(page).get_by_text("False color").click()
        expect(preview).to_have_accessible_name(f"Satellite image of {PARCEL}, false color")
        expect(preview).to_be_visible()


def test_examples_change_the_matches_and_a_link_restores_them(
    browser: Browser, address: str, pictures: Path
) -> None:
    with opened(browser, f"{address}#collection=demo&parcel={PARCEL}") as page:
        first = matches(page)
        page.get_by_role("button", name=f"Not like this: {first[0]}").click()
        expect(page.get_by_role("button", name=f"Remove the example {first[0]}")).to_be_visible()
        page.get_by_role("button", name=f"More like this: {first[3]}").click()
        expect(page.get_by_role("button", name=f"Remove the example {first[3]}")).to_be_visible()
        expect(page.locator(".match .id", has_text=first[3])).to_have_count(0)
        expected = httpx.post(
            f"{address}search",
            json={
                "collection": "demo",
                "positive": [PARCEL, first[3]],
                "negative": [first[0]],
                "k": 12,
            },
        ).json()
        sharpened = matches(page)
        assert sharpened == [match["id"] for match in expected["features"]]
        page.screenshot(path=pictures / "examples-light.png")
        link = page.url
    with opened(browser, link, scheme="dark") as page:
        assert matches(page) == sharpened
        chips = page.get_by_role("list", name="Examples").get_by_role("listitem")
        expect(chips).to_have_count(3)
        page.screenshot(path=pictures / "examples-dark.png")
        page.get_by_role("button", name=f"Remove the example {first[0]}").click()
        page.get_by_role("button", name=f"Remove the example {first[3]}").click()
        expect(page.locator(".match .id").first).to_have_text(first[0])
        assert matches(page) == first


def test_a_filter_narrows_the_map_and_the_matches(
    browser: Browser, address: str, parcels: dict[str, Any]
) -> None:
    wheat = [one for one in parcels.values() if one["properties"]["crop:name"] == "winter wheat"]
    assert 0 < len(wheat) < len(parcels)
    with opened(browser, f"{address}#collection=demo&parcel={PARCEL}") as page:
        wait_for_parcels(page, len(parcels))
        page.get_by_label("Filter").fill("crop:name = 'winter wheat'")
        page.keyboard.press("Enter")
        wait_for_parcels(page, len(wheat))
        expect(page.locator(".match", has_not_text="winter wheat")).to_have_count(0)
        assert set(matches(page)) == {one["id"] for one in wheat} - {PARCEL}
        page.get_by_role("button", name="Clear").click()
        wait_for_parcels(page, len(parcels))


def test_what_the_service_finds_wrong_with_a_filter_is_shown_in_its_words(
    browser: Browser, address: str, parcels: dict[str, Any]
) -> None:
    wrong = "colour = 'green'"
    told = httpx.get(f"{address}collections/demo/items", params={"filter": wrong})
    assert told.status_code == 400
    with opened(browser, address, refused=[400]) as page:
        wait_for_parcels(page, len(parcels))
        page.get_by_label("Filter").fill(wrong)
        page.get_by_role("button", name="Apply").click()
        error = page.locator("#filter-error")
        expect(error).to_have_text(told.json()["detail"])
        expect(error).to_have_attribute("role", "alert")
        expect(page.get_by_label("Filter")).to_have_attribute("aria-invalid", "true")
        page.get_by_role("button", name="Clear").click()
        expect(error).to_be_hidden()
        wait_for_parcels(page, len(parcels))


def test_dates_narrow_what_is_shown(
    browser: Browser, address: str, parcels: dict[str, Any]
) -> None:
    with opened(browser, f"{address}#collection=demo&datetime=1999") as page:
        expect(page.locator("#status")).to_contain_text("No parcels")
        page.get_by_label("Dates").fill("2023-04")
        page.keyboard.press("Enter")
        wait_for_parcels(page, len(parcels))
        assert page.evaluate("parcelle.view.datetime") == "2023-04"


def test_the_help_lists_what_a_filter_may_name(browser: Browser, address: str) -> None:
    queryables = httpx.get(f"{address}collections/demo/queryables").json()["properties"]
    assert "NDVI" in queryables
    with opened(browser, address) as page:
        page.get_by_role("button", name="Help").click()
        table = page.get_by_role("dialog").get_by_role("table")
        expect(table.locator("tbody tr")).to_have_count(len(queryables))
        table.get_by_role("button", name="NDVI", exact=True).click()
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page.get_by_label("Filter")).to_be_focused()
        expect(page.get_by_label("Filter")).to_have_value("NDVI ")


def test_everything_can_be_done_with_the_keyboard(
    browser: Browser, address: str, parcels: dict[str, Any]
) -> None:
    with opened(browser, address) as page:
        wait_for_parcels(page, len(parcels))
        rows = page.locator(".row")
        in_the_list = page.evaluate(
            "[...document.querySelectorAll('.row')].map((row) => row.dataset.id)"
        )
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.matches('.row')"):
                break
        expect(rows.first).to_be_focused()
        for key in ("ArrowDown", "ArrowDown", "End", "Home", "ArrowDown"):
            page.keyboard.press(key)
        expect(rows.nth(1)).to_be_focused()
        page.keyboard.press("Enter")
        expect(panel(page).get_by_role("heading", level=2)).to_be_focused()
        expect(panel(page).get_by_role("heading", level=2)).to_have_text(in_the_list[1])
        first = matches(page)
        page.get_by_role("button", name=f"Not like this: {first[0]}").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name=f"Remove the example {first[0]}")).to_be_visible()
        matches(page)
        assert page.evaluate("document.activeElement.matches('.match button')")
        page.keyboard.press("Escape")
        expect(rows.nth(1)).to_be_focused()


def test_every_control_has_a_name(browser: Browser, address: str) -> None:
    with opened(browser, f"{address}#collection=demo&parcel={PARCEL}&color=cluster") as page:
        matches(page)
        controls = page.locator("button:visible, input:visible, select:visible, a:visible")
        for control in controls.all():
            expect(control).to_have_accessible_name(re.compile(r"\w"))


@pytest.mark.parametrize("fragment", ["", f"#collection=demo&parcel={PARCEL}"])
def test_a_phone_shows_all_without_scrolling_sideways(
    browser: Browser, address: str, pictures: Path, fragment: str
) -> None:
    with opened(browser, f"{address}{fragment}", size=PHONE) as page:
        expect(page.locator("#status")).to_contain_text("in view")
        if fragment:
            matches(page)
        name = f"phone-{'parcel' if fragment else 'list'}.png"
        page.screenshot(path=pictures / name, full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE[0]
        controls = page.locator("button:visible, input[type='text']:visible, select:visible")
        for control in controls.all():
            box = control.bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= PHONE[0]


def test_colors_follow_crop_cluster_or_ndvi_and_the_legend_with_them(
    browser: Browser, address: str, parcels: dict[str, Any], pictures: Path
) -> None:
    crops = {one["properties"]["crop:name"] for one in parcels.values()}
    groups = httpx.get(f"{address}clusters", params={"collection": "demo", "k": 3}).json()
    with opened(browser, address, scheme="dark") as page:
        wait_for_parcels(page, len(parcels))
        names = page.locator("#legend .name")
        assert set(names.all_inner_texts()) == crops
        colors = page.locator(".row .swatch").evaluate_all(
            "all => all.map((one) => one.style.backgroundColor)"
        )
        assert len(set(colors)) == len(crops)
        page.get_by_text("NDVI", exact=True).click()
        expect(page.locator("#legend .ramp")).to_be_visible()
        page.screenshot(path=pictures / "ndvi-dark.png")
        page.get_by_text("Cluster", exact=True).click()
        page.get_by_label("Clusters").select_option("3")
        expect(names).to_have_count(3)
        sizes = page.locator("#legend .detail").all_inner_texts()
        assert sorted(int(text.split()[0]) for text in sizes) == sorted(
            one["parcels"] for one in groups["clusters"]
        )
        assert "color=cluster" in page.url


@pytest.fixture
def grouped(tmp_path: Path) -> Iterator[tuple[str, Settings]]:
    """Six parcels in three stored clusters, of which the second has a name."""
    settings = in_folder(tmp_path)
    plant(
        settings,
        [
            Seen(
                f"p{n}",
                at_cosine(1 - n / 10),
                corner=(2.0 + n / 50, 49.0),
                crop_name="winter wheat" if n < 3 else "maize",
            )
            for n in range(6)
        ],
    )
    store_clusters(settings, (("p0", "p1", "p2"), ("p3", "p4"), ("p5",)), {2: "corn"})
    leave_unassigned(settings, "orchards")
    with served(create_app(settings)) as found:
        yield f"{found}/", settings


def names_in(address: str) -> list[str | None]:
    found = httpx.get(f"{address}clusters", params={"collection": "demo"}).json()
    return [one["name"] for one in found["clusters"]]


def test_an_expert_names_a_cluster_from_the_legend(
    browser: Browser, grouped: tuple[str, Settings], pictures: Path
) -> None:
    address, _ = grouped
    link = f"{address}#collection=demo&color=cluster&parcel=p0"
    with opened(browser, link, refused=[404]) as page:
        names = page.locator("#legend .name")
        expect(names).to_have_text(["1 · winter wheat 100 %", "2 · corn", "3 · maize 100 %"])
        sizes = [f"{n} parcels in view" for n in (3, 2, 1)]
        expect(page.locator("#legend .detail")).to_have_text(sizes)
        expect(page.locator("#legend")).to_contain_text("Which cluster is now orchards? Perhaps 2.")
        expect(page.get_by_label("Clusters")).to_have_value("")
        expect(panel(page).locator(".state")).to_contain_text("Number 1, which has no name yet")
        page.screenshot(path=pictures / "clusters-light.png")

        page.get_by_role("button", name="Name cluster 1").click()
        field = page.get_by_label("Name of cluster 1")
        expect(field).to_be_focused()
        field.fill("<b>winter wheat</b>")
        # The map may move meanwhile: what is typed stays.
        page.get_by_role("button", name="Zoom in").click()
        page.wait_for_url(re.compile("at="))
        expect(field).to_have_value("<b>winter wheat</b>")
        page.screenshot(path=pictures / "naming-light.png")
        field.press("Enter")
        expect(names.first).to_have_text("1 · <b>winter wheat</b>")
        expect(page.get_by_role("button", name="Name cluster 1")).to_be_focused()
        expect(panel(page).locator(".state")).to_contain_text("<b>winter wheat</b>")
        assert names_in(address) == ["<b>winter wheat</b>", "corn", None]

        page.get_by_role("button", name="Name cluster 3").click()
        page.get_by_label("Name of cluster 3").fill("orchards")
        page.get_by_role("button", name="Save").click()
        expect(names.last).to_have_text("3 · orchards")
        expect(page.locator("#legend .waiting")).to_have_count(0)

        page.get_by_role("button", name="Name cluster 2").click()
        page.get_by_label("Name of cluster 2").fill("")
        page.get_by_label("Name of cluster 2").press("Enter")
        expect(names.nth(1)).to_have_text("2 · maize 100 %")
        assert names_in(address) == ["<b>winter wheat</b>", None, "orchards"]
        assert "clusters=" not in page.url


def test_a_key_that_may_only_read_is_told_so_when_it_names(
    browser: Browser, grouped: tuple[str, Settings]
) -> None:
    _, settings = grouped
    keys = ApiSettings(data_dir=settings.data_dir, database_url="", api_keys="read:r,write:w")
    with (
        served(create_app(keys)) as locked,
        opened(browser, f"{locked}/#collection=demo&color=cluster", refused=[401, 403]) as page,
    ):
        page.get_by_role("textbox", name="Key").fill("r")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Name cluster 1").click()
        page.get_by_label("Name of cluster 1").fill("wheat")
        page.get_by_role("button", name="Save").click()
        told = page.locator(".naming [role=alert]")
        expect(told).to_contain_text("This key may only read")
        expect(told).to_contain_text("scope write")
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Forget the key").click()
        page.get_by_role("textbox", name="Key").fill("w")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Name cluster 1").click()
        page.get_by_label("Name of cluster 1").fill("wheat")
        page.get_by_role("button", name="Save").click()
        expect(page.locator("#legend .name").first).to_have_text("1 · wheat")


def test_a_name_that_is_refused_stays_to_be_corrected_or_left(
    browser: Browser, grouped: tuple[str, Settings]
) -> None:
    address, settings = grouped
    with opened(browser, f"{address}#collection=demo&color=cluster", refused=[404]) as page:
        page.get_by_role("button", name="Name cluster 3").click()
        # Somebody groups the parcels anew meanwhile.
        store_clusters(settings, (("p0",), ("p1",)))
        page.get_by_label("Name of cluster 3").fill("orchards")
        page.get_by_role("button", name="Save").click()
        expect(page.locator(".naming [role=alert]")).to_contain_text("no cluster 3")
        expect(page.get_by_label("Name of cluster 3")).to_have_value("orchards")
        page.keyboard.press("Escape")
        expect(page.locator(".naming")).to_have_count(0)
        assert names_in(address) == [None, None]
        # The page has found out that there are others.
        expect(page.locator("#legend li .namer")).to_have_count(2)


def test_clusters_of_the_moment_cannot_be_named_and_lead_back_to_the_stored_ones(
    browser: Browser, grouped: tuple[str, Settings]
) -> None:
    address, _ = grouped
    with opened(browser, f"{address}#collection=demo&color=cluster") as page:
        expect(page.get_by_role("button", name="Name cluster")).to_have_count(3)
        page.get_by_label("Clusters").select_option("2")
        expect(page.locator("#legend .name")).to_have_count(2)
        expect(page.get_by_role("button", name="Name cluster")).to_have_count(0)
        page.get_by_label("Clusters").select_option("")
        expect(page.get_by_role("button", name="Name cluster")).to_have_count(3)


def test_going_back_leads_from_parcel_to_parcel(browser: Browser, address: str) -> None:
    with opened(browser, f"{address}#collection=demo&parcel={PARCEL}") as page:
        heading = panel(page).get_by_role("heading", level=2)
        closest = matches(page)[0]
        page.get_by_role("button", name=closest, exact=True).click()
        expect(heading).to_have_text(closest)
        page.go_back()
        expect(heading).to_have_text(PARCEL)
        page.go_forward()
        expect(heading).to_have_text(closest)
        page.get_by_role("button", name="All parcels").click()
        expect(panel(page)).to_be_hidden()
        page.go_back()
        expect(heading).to_have_text(closest)


def test_a_link_restores_where_one_looked(browser: Browser, address: str) -> None:
    with opened(browser, address) as page:
        expect(page.locator("#status")).to_contain_text("in view")
        page.get_by_role("button", name="Zoom in").click()
        page.wait_for_url(re.compile("at="))
        seen = page.evaluate("parcelle.view")
        link = page.url
    with opened(browser, link) as page:
        expect(page.locator("#status")).to_contain_text("in view")
        again = page.evaluate("parcelle.view")
    assert again["zoom"] == pytest.approx(seen["zoom"], abs=0.01)
    assert again["center"] == pytest.approx(seen["center"], abs=1e-4)


def test_a_link_to_a_parcel_that_is_gone_says_so(browser: Browser, address: str) -> None:
    told = httpx.get(f"{address}collections/demo/items/gone/state").json()
    with opened(browser, f"{address}#collection=demo&parcel=gone", refused=[404]) as page:
        expect(panel(page)).to_contain_text(told["detail"])
        page.get_by_role("button", name="All parcels").click()
        expect(page.locator(".row").first).to_be_focused()


def test_without_webgl_the_list_does_all_but_the_map(
    browser: Browser, address: str, parcels: dict[str, Any]
) -> None:
    def without_webgl(page: Page) -> None:
        page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")

    with opened(browser, address, prepare=without_webgl) as page:
        wait_for_parcels(page, len(parcels))
        expect(page.locator("#no-map")).to_contain_text("WebGL")
        page.locator(f".row[data-id={PARCEL}]").click()
        assert len(matches(page)) > 0


async def _tile(request: Request) -> Response:
    return Response(TILE, media_type="image/png", headers={"Access-Control-Allow-Origin": "*"})


def test_a_basemap_is_asked_for_only_once_it_is_turned_on(
    browser: Browser, demo_index: Settings
) -> None:
    asked: list[str] = []
    with served(Starlette(routes=[Route("/{z}/{x}/{y}.png", _tile)])) as tiles:
        settings = ApiSettings(
            **demo_index.model_dump(),
            api_keys="",
            basemap_url=f"{tiles}/{{z}}/{{x}}/{{y}}.png",
            basemap_attribution="© <b>Tiles</b>",
        )
        with (
            served(create_app(settings)) as address,
            opened(browser, f"{address}/", others=[tiles]) as page,
        ):
            page.on("request", lambda request: asked.append(request.url))
            expect(page.locator("#status")).to_contain_text("in view")
            page.wait_for_function("() => parcelle.map?.loaded()")
            assert not [url for url in asked if url.startswith(tiles)]
            with page.expect_response(lambda answer: answer.url.startswith(tiles)) as answer:
                page.get_by_label("Map below the parcels").check()
            assert answer.value.status == 200
            expect(page.locator(".maplibregl-ctrl-attrib")).to_contain_text("© <b>Tiles</b>")
            page.wait_for_url(re.compile("basemap=on"))


def test_pages_of_parcels_are_followed_to_the_last(
    browser: Browser, address: str, parcels: dict[str, Any]
) -> None:
    def in_fives(page: Page) -> None:
        page.route(
            "**/items?limit=1000*",
            lambda route: route.continue_(url=route.request.url.replace("limit=1000", "limit=5")),
        )

    with opened(browser, address, prepare=in_fives) as page:
        wait_for_parcels(page, len(parcels))
        expect(page.locator(".row")).to_have_count(len(parcels))


def test_no_more_parcels_are_loaded_than_a_map_can_show(browser: Browser, address: str) -> None:
    with opened(browser, address) as page:
        most, shown = page.evaluate(PARCELS_PAST_THE_BOUND)
    assert most == 5000
    assert shown[0] == [1000, True, False]
    assert shown[-1] == [5000, True, True]
    assert len(shown) == 5


def test_a_service_with_keys_asks_for_one_and_keeps_it(
    browser: Browser, demo_index: Settings, pictures: Path
) -> None:
    settings = api_settings(demo_index, keys="schlüssel")
    with (
        served(create_app(settings)) as locked,
        opened(browser, f"{locked}/#collection=demo&parcel={PARCEL}", refused=[401]) as page,
    ):
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("This service asks for a key")
        page.screenshot(path=pictures / "key.png")
        page.keyboard.press("Escape")
        expect(page.get_by_role("alert")).to_contain_text("Send a key of the service")
        page.get_by_role("button", name="Enter a key").click()
        page.get_by_role("textbox", name="Key").fill("wrong")
        page.keyboard.press("Enter")
        expect(dialog).to_contain_text("does not know that key")
        page.get_by_role("textbox", name="Key").fill("schlüssel")
        page.keyboard.press("Enter")
        assert len(matches(page)) > 0
        page.wait_for_function("() => document.querySelector('.picture img').naturalWidth > 0")
        page.reload()
        assert len(matches(page)) > 0
        expect(dialog).to_have_count(0)
        assert "schl" not in page.url
        page.get_by_role("button", name="Forget the key").click()
        expect(dialog).to_contain_text("This service asks for a key")


def test_a_service_without_an_index_says_so_and_can_be_asked_again(
    browser: Browser, tmp_path: Path, pictures: Path
) -> None:
    with (
        served(create_app(in_folder(tmp_path))) as empty,
        opened(browser, f"{empty}/", refused=[503]) as page,
    ):
        told = httpx.get(f"{empty}/collections").json()["detail"]
        expect(page.get_by_role("alert")).to_have_text(told)
        page.screenshot(path=pictures / "without-index.png")
        page.get_by_role("button", name="Try again").click()
        expect(page.get_by_role("alert")).to_have_text(told)


def test_a_service_that_does_not_answer_is_told_from_one_that_refuses(
    browser: Browser, address: str, parcels: dict[str, Any]
) -> None:
    with opened(browser, address, refused=[0]) as page:
        wait_for_parcels(page, len(parcels))
        page.route("**/similar*", lambda route: route.abort("connectionrefused"))
        page.locator(".row").first.click()
        expect(page.locator(".similar .problem")).to_contain_text("does not answer")


# Collections of other kinds ------------------------------------------------------------------

LONG = "a-long-name-" * 20
SCRIPT = "<img src=x onerror=window.ran=1>"


@pytest.fixture(scope="module")
def scattered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Fields of 700 m over 2,000 km, and others far from them; some are called strange names."""
    settings = in_folder(tmp_path_factory.mktemp("scattered"))
    plant(
        settings,
        [
            Seen("west", at_cosine(1.0), corner=(-5.0, 45.0)),
            Seen(LONG, at_cosine(0.9), corner=(5.0, 50.0), crop_name="<script>ran=2</script>"),
            Seen(SCRIPT, at_cosine(0.8), corner=(10.0, 48.0), crop_name=LONG),
            Seen("50% a/b #c?d=e", at_cosine(0.7), corner=(20.0, 45.0), crop_name='"quoted"'),
            Seen("undated", at_cosine(0.6), day=None, corner=(1.0, 46.0)),
            Seen("south", at_cosine(0.5), corner=(30.0, -10.0), collection="south"),
        ],
    )
    with served(create_app(settings)) as found:
        yield f"{found}/"


def test_parcels_too_small_for_their_shape_are_points_that_can_be_chosen(
    browser: Browser, scattered: str, pictures: Path
) -> None:
    feature = httpx.get(f"{scattered}collections/demo/items/west").json()
    with opened(browser, f"{scattered}#collection=demo", refused=[404]) as page:
        wait_for_parcels(page, 5)
        page.wait_for_function("() => parcelle.map?.loaded()")
        drawn = page.evaluate(
            "parcelle.map.queryRenderedFeatures({ layers: ['parcels-point'] }).length"
        )
        assert drawn == 5
        page.screenshot(path=pictures / "scattered.png")
        click_on_the_map(page, feature)
        expect(panel(page).get_by_role("heading", level=2)).to_have_text("west")
        expect(page.locator(".picture.missing").first).to_be_visible()
    with opened(browser, f"{scattered}#collection=demo&at=-5,45,15") as page:
        wait_for_parcels(page, 1)
        page.wait_for_function("() => parcelle.map?.loaded()")
        assert not page.evaluate(
            "parcelle.map.queryRenderedFeatures({ layers: ['parcels-point'] }).length"
        )


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
@pytest.mark.parametrize("parcel", [LONG, SCRIPT, "50% a/b #c?d=e"])
def test_strange_names_are_text_and_fit(
    browser: Browser, scattered: str, parcel: str, size: tuple[int, int]
) -> None:
    link = f"{scattered}#collection=demo&parcel={quote(parcel)}"
    with opened(browser, link, size=size, refused=[404]) as page:
        expect(panel(page).get_by_role("heading", level=2)).to_have_text(parcel)
        assert len(matches(page)) == 5
        expect(page.locator(".picture.missing").first).to_be_visible()
        assert page.evaluate("window.ran") is None
        assert page.evaluate("document.documentElement.scrollWidth") == size[0]
        assert page.evaluate("parcelle.view.parcel") == parcel


def test_the_window_itself_does_not_scroll_on_a_desktop(browser: Browser, address: str) -> None:
    with opened(browser, f"{address}#collection=demo&parcel={PARCEL}") as page:
        assert len(matches(page)) > 0
        assert page.evaluate("document.documentElement.scrollHeight") == DESKTOP[1]
        page.get_by_role("button", name="Look-alikes").click()
        expect(page.locator(".similar")).to_be_in_viewport()
        expect(page.get_by_role("heading", name="Parcelle")).to_be_in_viewport()


def test_who_wants_less_motion_is_taken_to_a_part_at_once(browser: Browser, address: str) -> None:
    def calm(page: Page) -> None:
        page.emulate_media(reduced_motion="reduce")

    link = f"{address}#collection=demo&parcel={PARCEL}"
    with opened(browser, link, prepare=calm) as page:
        assert len(matches(page)) > 0
        top = page.evaluate(
            """() => {
              const ways = [...document.querySelectorAll("#parcel-view nav button")];
              ways.find((one) => one.textContent === "Look-alikes").click();
              return document.querySelector(".similar").getBoundingClientRect().top;
            }"""
        )
        assert 0 < top < DESKTOP[1] / 2


def test_an_observation_without_a_date_is_said_to_have_none(
    browser: Browser, scattered: str
) -> None:
    link = f"{scattered}#collection=demo&parcel=undated"
    with opened(browser, link, refused=[404]) as page:
        expect(panel(page).locator(".state")).to_contain_text("without a known date")
        expect(panel(page).locator(".history")).to_contain_text("No date of acquisition is known")
        expect(panel(page).locator(".chart-key")).to_have_count(0)
        expect(page.locator(".picture.missing").first).to_be_visible()


def test_going_back_to_another_collection_goes_to_its_place(
    browser: Browser, scattered: str
) -> None:
    with opened(browser, f"{scattered}#collection=demo") as page:
        wait_for_parcels(page, 5)
        page.get_by_label("Collection").select_option("south")
        wait_for_parcels(page, 1)
        page.wait_for_url(re.compile("at="))
        page.go_back()
        wait_for_parcels(page, 5)


def test_who_is_lost_on_the_map_is_led_back_to_the_parcels(
    browser: Browser, scattered: str
) -> None:
    with opened(browser, f"{scattered}#collection=demo&at=100,0,5") as page:
        expect(page.locator("#status")).to_contain_text("No parcels in view")
        page.get_by_role("button", name="Go to the parcels of this collection").click()
        wait_for_parcels(page, 5)
        expect(page.get_by_role("button", name="Go to the parcels")).to_have_count(0)


def test_a_parcel_that_could_not_be_shown_can_be_asked_for_again(
    browser: Browser, address: str, parcels: dict[str, Any]
) -> None:
    with opened(browser, address, refused=[0]) as page:
        wait_for_parcels(page, len(parcels))
        page.route("**/state*", lambda route: route.abort("connectionrefused"))
        page.locator(".row").first.click()
        expect(panel(page)).to_contain_text("does not answer")
        page.unroute("**/state*")
        panel(page).get_by_role("button", name="Try again").click()
        expect(panel(page).locator(".state")).to_contain_text("NDVI")
