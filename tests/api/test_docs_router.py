import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from api.app import create_app
from api.routers.docs import POLICY
from indexer.settings import Settings
from tests.api.browser import launch, opened
from tests.api.test_app import api_settings, served


@pytest.fixture(scope="module")
def locked(demo_index: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(api_settings(demo_index, keys="sesame"))) as client:
        yield client


# The files -----------------------------------------------------------------------------------


def test_the_page_needs_no_key_and_allows_no_script_but_its_own(locked: TestClient) -> None:
    response = locked.get("/docs")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert response.headers["content-security-policy"] == POLICY
    assert "script-src 'self';" in POLICY
    assert "unsafe-eval" not in POLICY
    assert not re.search(r"<script(?![^>]*\bsrc=)", response.text)
    assert not re.search(r"\son\w+=", response.text)


def test_everything_that_the_page_loads_is_served(locked: TestClient) -> None:
    named = re.findall(r'(?:src|href)="(docs/[^"]+)"', locked.get("/docs").text)
    assert len(named) == 5
    for name in named:
        response = locked.get(f"/{name}")
        assert response.status_code == 200, name
        expected = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
        assert response.headers["content-type"].startswith(expected[Path(name).suffix])
        assert "max-age" in response.headers["cache-control"]


@pytest.mark.parametrize(
    "name", ["index.html", "redoc.standalone.js", "../key.js", "..%2F..%2Fapp.py", "docs.py", ""]
)
def test_no_other_file_is_served(locked: TestClient, name: str) -> None:
    response = locked.get(f"/docs/{name}", headers={"X-API-Key": "sesame"})
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


def test_the_page_and_its_parts_are_not_in_openapi(locked: TestClient) -> None:
    document = locked.get("/api", headers={"X-API-Key": "sesame"}).json()
    assert not [path for path in document["paths"] if path.startswith("/docs")]


# In a browser --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


def answer_to(page: Page, path: str, given: dict[str, str] | None = None) -> Locator:
    """What the page shows when a route is tried with some parameters."""
    route = page.locator(".opblock", has_text=path)
    route.locator(".opblock-summary").click()
    route.get_by_role("button", name="Try it out").click()
    for name, value in (given or {}).items():
        route.locator(f"tr[data-param-name={name}] input").fill(value)
    route.get_by_role("button", name="Execute").click()
    return route.locator(".live-responses-table")


def test_the_page_shows_and_tries_the_routes(browser: Browser, demo_index: Settings) -> None:
    with (
        served(create_app(api_settings(demo_index))) as address,
        opened(browser, f"{address}/docs") as page,
    ):
        expect(page.locator(".opblock").first).to_be_visible()
        shown = page.locator(".opblock-summary-path").all_inner_texts()
        # Swagger UI lets long paths break at zero-width spaces.
        assert "/health/live" in [path.replace("\u200b", "") for path in shown]
        expect(answer_to(page, "/health/live")).to_contain_text("alive")
        assert page.locator("#key-form").is_hidden()


def test_examples_of_what_may_be_left_out_are_told_and_not_sent(
    browser: Browser, demo_index: Settings
) -> None:
    with (
        served(create_app(api_settings(demo_index))) as address,
        opened(browser, f"{address}/docs") as page,
    ):
        route = page.locator(".opblock", has_text="preview.png")
        answer = answer_to(page, "preview.png", {"collection": "demo", "parcel_id": "demo-003"})
        expect(answer.locator("img")).to_be_visible()
        expect(route.locator("tr[data-param-name=datetime] input")).to_have_value("")
        expect(route.locator("tr[data-param-name=datetime]")).to_contain_text("For example: 20")


def test_the_page_asks_for_a_key_and_sends_it_along(browser: Browser, demo_index: Settings) -> None:
    with (
        served(create_app(api_settings(demo_index, keys="schlüssel"))) as address,
        opened(browser, f"{address}/docs", refused=[401]) as page,
    ):
        expect(page.locator("#key-form")).to_be_visible()
        expect(page.locator("#key-refused")).to_be_hidden()
        for key in ("wrong", "schlüssel"):
            page.fill("#key", key)
            page.get_by_role("button", name="Open").click()
            if key == "wrong":
                expect(page.locator("#key-refused")).to_be_visible()
        expect(page.locator(".opblock").first).to_be_visible()
        assert page.locator("#key-form").is_hidden()
        expect(answer_to(page, "/health/ready")).to_contain_text('"status": "ready"')
        # The key is kept as long as the tab is open.
        page.reload()
        expect(page.locator(".opblock").first).to_be_visible()


def test_the_page_says_so_when_there_is_nothing_to_show(
    browser: Browser, demo_index: Settings
) -> None:
    def fail(page: Page) -> None:
        page.route("**/api", lambda route: route.fulfill(status=503))

    with (
        served(create_app(api_settings(demo_index))) as address,
        opened(browser, f"{address}/docs", refused=[503], prepare=fail) as page,
    ):
        expect(page.locator("#trouble")).to_contain_text("The service answers 503.")
