"""Tests in a real browser. `make browser` brings what they need; without it they are not collected."""

import pytest

from tools import browser

if browser.missing():
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def chromium():
    """A running Chromium: playwright's Browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=browser.chromium(), args=["--no-sandbox", "--disable-gpu"]
        )
        yield running
        running.close()
