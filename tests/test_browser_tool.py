"""tools/browser.py: what it says where something is missing, and that it installs once."""

import pytest

from tools import browser


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """Commands that would have run; all succeed. The folder that they would fill is empty."""
    found = []
    monkeypatch.setattr(browser, "BUILD", tmp_path / "browser")
    monkeypatch.setattr(browser.subprocess, "call", lambda command, **_: found.append(command) or 0)
    monkeypatch.setattr(browser.shutil, "which", lambda name: f"/bin/{name}")
    return found


def test_without_chromium_one_line_says_so(commands, monkeypatch, capsys):
    monkeypatch.setattr(browser.shutil, "which", lambda name: "/bin/npm" if name == "npm" else None)
    browser.main(["--if-present"])
    said = capsys.readouterr().out
    assert said == "browser tests not run: install Chromium (on Debian: chromium, npm)\n" and not commands
    with pytest.raises(SystemExit, match="install Chromium"):
        browser.main([])
    assert browser.missing() == "no Chromium"


def test_what_is_needed_is_installed_once(commands):
    for _ in range(2):
        with pytest.raises(SystemExit) as end:
            browser.main(["--if-present", "-q"])
        assert end.value.code == 0
    pip, npm, *runs = commands
    assert browser.PLAYWRIGHT in pip and browser.AXE_CORE in npm
    assert [command[1:] for command in runs] == [["-m", "pytest", "-q", "tests/browser"]] * 2


def test_a_failed_installation_is_one_sentence_and_is_tried_again(commands, monkeypatch):
    monkeypatch.setattr(browser.subprocess, "call", lambda command, **_: commands.append(command) or 1)
    for count in (1, 2):
        with pytest.raises(SystemExit, match="the installation failed"):
            browser.main([])
        assert len(commands) == count
