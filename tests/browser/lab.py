"""A JupyterLab of its own, and what one can see of a notebook in it."""

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
THEMES = ("JupyterLab Light", "JupyterLab Dark")
SETTINGS = {
    # Cells out of sight stay on the page, so that all of them can be looked at.
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    # Nothing is asked of the network.
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}

# The least contrast of text in listings, after WCAG 2.2: {contrast, text, kind of what surrounds it}.
CONTRAST = """() => {
  const parse = c => { const v = c.match(/[\\d.]+/g).map(Number); return v.length < 4 ? [...v, 1] : v; };
  const over = (top, below) => [0, 1, 2].map(i => top[3] * top[i] + (1 - top[3]) * below[i]);
  const luminance = c => { const [r, g, b] = c.map(x => x / 255)
      .map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = e => { const layers = [];
    for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
      layers.unshift(c); if (c[3] === 1) break; }
    return layers.reduce((below, top) => over(top, below), [255, 255, 255]); };
  const found = [];
  for (const pre of document.querySelectorAll('.jp-OutputArea-output pre')) {
    if (!/^\\s*(@|def |class |\\"\\"\\"|import |from )/.test(pre.textContent)) continue;
    const walk = document.createTreeWalker(pre, NodeFilter.SHOW_TEXT);
    for (let node; node = walk.nextNode();) {
      if (!node.textContent.trim()) continue;
      const below = ground(node.parentElement);
      const [a, b] = [over(parse(getComputedStyle(node.parentElement).color), below), below].map(luminance);
      found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), node.textContent]);
    }
  }
  return found.sort((a, b) => a[0] - b[0]);
}"""

# Of each explorer: what reaches out of its cell, and its picture's size as shown over its size as drawn.
FIT = """() => [...document.querySelectorAll('.jp-OutputArea-output:has(.widget-vbox)')].map(o => {
    const right = o.getBoundingClientRect().right + 1, image = o.querySelector('.widget-html img');
    const parts = o.querySelectorAll('img, p, .widget-hbox, .widget-slider, .widget-dropdown, .widget-html');
    const clipped = [o, ...parts].filter(e => e.scrollWidth > e.clientWidth + 1);
    return { out: [...parts].filter(e => e.getBoundingClientRect().right > right).concat(clipped)
                 .map(e => e.tagName + '.' + e.className),
             scale: image.clientWidth / image.getAttribute('width') }; })"""


# The notebook has a kernel that waits for work.
READY = """() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"""


class Lab:
    """A running JupyterLab that serves one folder, with settings of its own."""

    def __init__(self, folder, state):
        names = ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")
        places = {f"JUPYTER_{name}": state / name.lower() for name in names}
        places |= {f"JUPYTERLAB_{name}_DIR": state / name.lower() for name in ("SETTINGS", "WORKSPACES")}
        for name, settings in SETTINGS.items():
            file = state / "settings" / f"{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(settings))
        command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.port=0"]
        command += ["--expose-app-in-browser", f"--ServerApp.root_dir={folder}", *options_of_make_lab()]
        pythonpath = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        settings = {"CLKIT_PRESET": "smoke", "OMP_NUM_THREADS": "1", "PYTHONPATH": pythonpath}
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **settings, **{k: str(v) for k, v in places.items()}},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = []
        for line in self.process.stdout:
            self.said.append(line)
            if found := re.search(r"(http://127\.0\.0\.1:\d+)/lab\?token=(\w+)", line):
                break
        else:
            raise RuntimeError("JupyterLab did not start:\n" + "".join(self.said))
        self.address, self.token = found.groups()
        threading.Thread(target=lambda: self.said.extend(self.process.stdout), daemon=True).start()

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def _ask(self, method, path):
        request = urllib.request.Request(self.address + path, method=method)
        request.add_header("Authorization", f"token {self.token}")
        with urllib.request.urlopen(request) as answer:
            return answer.read()

    def stop_kernels(self):
        for session in json.loads(self._ask("GET", "/api/sessions")):
            self._ask("DELETE", f"/api/sessions/{session['id']}")

    @contextlib.contextmanager
    def opened(self, browser, path, width=1400):
        """A notebook on a fresh page, all cells on it: Notebook."""
        context = browser.new_context(viewport={"width": width, "height": 1000})
        context.set_default_timeout(60_000)
        try:
            yield Notebook(context.new_page(), f"{self.address}/lab/tree/{path}?token={self.token}&reset")
        finally:
            context.close()


def options_of_make_lab():
    """Options that `make lab` gives to JupyterLab."""
    line = re.search(r"-m jupyterlab (.*) notebooks$", (ROOT / "Makefile").read_text(), re.M)
    return line.group(1).split()


class Notebook:
    """An open notebook: what it shows, and what can be done with it."""

    def __init__(self, page, address):
        self.page, self.errors = page, []
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(address)
        page.wait_for_selector(".jp-NotebookPanel .jp-Cell")
        page.wait_for_function(READY)
        self.uncovered()

    def do(self, command, **options):
        """Run a command of JupyterLab, to its end."""
        self.page.evaluate(
            "([c, o]) => window.jupyterapp.commands.execute(c, o).then(() => 0)", [command, options]
        )

    def run(self):
        self.do("notebook:run-all-cells")
        self.settled(".widget-html img")

    def uncovered(self):
        """Wait until JupyterLab's splash screen, which covers each change of theme, is off the page.

        JupyterLab (4.6) removes the splash 200 ms after a change, with removeChild. A second change that ends
        within this time makes it remove the splash twice, and the second removal throws an error.
        """
        self.page.wait_for_selector("#jupyterlab-splash", state="detached")

    def save(self):
        self.do("docmanager:save")

    def settled(self, pictures):
        """Wait until all pictures that a selector finds are drawn."""
        self.page.wait_for_function(
            "s => [...document.querySelectorAll(s)].every(i => i.complete && i.naturalWidth)", arg=pictures
        )

    def contrast(self, theme):
        """[(contrast, text)] of all pieces of text in listings, the faintest first."""
        self.do("apputils:change-theme", theme=theme)
        light = str("Light" in theme).lower()
        self.page.wait_for_selector(f"body[data-jp-theme-light='{light}']", state="attached")
        self.uncovered()
        return self.page.evaluate(CONTRAST)

    def fit(self, width):
        """[{out, scale}] of the explorers in a window of this width."""
        self.page.set_viewport_size({"width": width, "height": 1000})
        self.page.wait_for_function("w => window.innerWidth === w", arg=width)
        return self.page.evaluate(FIT)

    def errors_in_cells(self):
        """Text of the cells' errors."""
        return self.page.locator("[data-mime-type='application/vnd.jupyter.error']").all_inner_texts()
