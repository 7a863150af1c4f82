// A JupyterLab and a browser of our own: in a temporary folder, gone when we are.

import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { accessSync, constants, mkdirSync, openSync, readdirSync } from "node:fs";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { delimiter, join } from "node:path";

export const SECOND = 1000;
const BROWSERS = ["chromium", "chromium-browser", "google-chrome", "chrome"];
const FLAGS = [
  "--no-sandbox", // as root, in a container, Chromium has none
  "--disable-gpu",
  "--disable-quic",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--no-first-run",
];

/** Something that the reader of the message can mend. */
export class Remediable extends Error {}

/** Ask `probe` again and again until it gives something true, and return that. */
export async function until(what, probe, seconds) {
  const end = Date.now() + seconds * SECOND;
  for (;;) {
    const found = await probe();
    if (found) return found;
    if (Date.now() > end) throw new Error(`${seconds} s have passed without: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

/** The path of a Chromium, from the variable CHROMIUM or from the PATH. */
export function findBrowser() {
  const folders = (process.env.PATH ?? "").split(delimiter);
  const named = process.env.CHROMIUM;
  const candidates = named
    ? [named]
    : BROWSERS.flatMap((name) => folders.map((folder) => join(folder, name)));
  const found = candidates.find((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
  if (found) return found;
  throw new Remediable(
    `There is no ${named ?? "Chromium"} on this machine.\n` +
      "  Wanted: Chromium (or Chrome) of the last two years\n" +
      "  To do: install the package 'chromium' of your system (apt-get install " +
      "chromium), or give its path: CHROMIUM=/path/to/it make test-browser",
  );
}

/** Start a browser without a window; its profile is new and goes with it. */
export async function startBrowser(executablePath) {
  let chromium;
  try {
    ({ chromium } = await import("playwright-core"));
  } catch {
    throw new Remediable(
      "The package playwright-core is not installed.\n" +
        "  Wanted: the packages of tests/browser/package.json\n" +
        "  To do: run `make test-browser`, which installs them",
    );
  }
  return chromium.launch({
    executablePath,
    args: FLAGS,
    timeout: 120 * SECOND,
    handleSIGINT: false, // we end everything ourselves, in order
    handleSIGTERM: false,
    handleSIGHUP: false,
  });
}

/**
 * Start JupyterLab on copies: `folder` holds `course`, which it serves, and everything
 * that Jupyter, IPython and kdcourse would write into the user's home. The lab is there
 * at once, for whoever has to stop it; it answers once `lab.ready` is fulfilled.
 */
export async function startLab(python, folder) {
  const token = randomBytes(24).toString("hex");
  const port = await freePort();
  const runtime = join(folder, "runtime");
  const settings = join(folder, "settings", "@jupyterlab", "apputils-extension");
  for (const path of [runtime, settings]) mkdirSync(path, { recursive: true });
  writeFileSync(
    join(settings, "notification.jupyterlab-settings"),
    JSON.stringify({ fetchNews: "false", checkForUpdates: false }), // asks, else
  );
  const log = join(folder, "jupyter.log");
  const output = openSync(log, "a");
  const server = spawn(python, labArguments(join(folder, "course"), port, token), {
    cwd: folder,
    detached: true, // a process group of its own: it and its kernels end together
    stdio: ["ignore", output, output],
    env: {
      ...process.env,
      JUPYTER_CONFIG_DIR: join(folder, "config"),
      JUPYTER_DATA_DIR: join(folder, "data"),
      JUPYTER_RUNTIME_DIR: runtime,
      JUPYTERLAB_SETTINGS_DIR: join(folder, "settings"),
      JUPYTERLAB_WORKSPACES_DIR: join(folder, "workspaces"),
      IPYTHONDIR: join(folder, "ipython"),
      KDCOURSE_MODE: "fast",
      KDCOURSE_OFFLINE: "1",
      KDCOURSE_PROGRESS: join(folder, "progress.json"),
      KDCOURSE_WIDGETS: "",
      HF_HUB_OFFLINE: "1",
      OMP_NUM_THREADS: "1",
      PYTHONDONTWRITEBYTECODE: "1",
      TMPDIR: folder,
    },
  });
  const lab = { server, token, log, url: "" };
  server.on("error", (error) => (lab.broken = `${python}: ${error.message}`));
  lab.ready = until("JupyterLab answers", () => address(lab, runtime), 180);
  lab.ready.then((url) => (lab.url = url)).catch(() => {}); // told where it is awaited
  return lab;
}

function labArguments(root, port, token) {
  const given = {
    "ServerApp.ip": "127.0.0.1",
    "ServerApp.port": port,
    "ServerApp.root_dir": root,
    "ServerApp.open_browser": false,
    "ServerApp.allow_root": true,
    "IdentityProvider.token": token,
    "LabApp.expose_app_in_browser": true, // so that the test can read the notebook
    "LabApp.news_url": "",
  };
  const lines = Object.entries(given).map(([key, value]) => {
    const text = typeof value === "boolean" ? (value ? "True" : "False") : value;
    return `--${key}=${text}`;
  });
  return ["-m", "jupyterlab", ...lines];
}

/** The server's address once it has told it and answers; it may take another port. */
async function address(lab, runtime) {
  if (lab.broken) throw new Error(lab.broken);
  if (lab.server.exitCode !== null) {
    throw new Error(`JupyterLab ended at once:\n${tail(lab.log)}`);
  }
  const file = readdirSync(runtime).find((name) => /^jpserver-\d+\.json$/.test(name));
  if (!file) return null;
  try {
    const { url } = JSON.parse(readFileSync(join(runtime, file), "utf8"));
    const headers = { Authorization: `token ${lab.token}` };
    const answer = await fetch(`${url}api/status`, { headers });
    return answer.ok ? url : null;
  } catch {
    return null; // half written, or not listening yet
  }
}

/** Ask the server to end, with its kernels; what does not listen is killed. */
export async function stopLab(lab) {
  const { server } = lab;
  if (server.pid === undefined || server.exitCode !== null) return;
  const ended = new Promise((resolve) => server.once("exit", resolve));
  const patience = new Promise((resolve) => setTimeout(resolve, 30 * SECOND, "late"));
  try {
    const headers = { Authorization: `token ${lab.token}` };
    await fetch(`${lab.url}api/shutdown`, { method: "POST", headers });
  } catch {
    killLab(lab, "SIGTERM"); // it does not answer yet, or any more
  }
  if ((await Promise.race([ended, patience])) === "late") {
    killLab(lab, "SIGKILL");
  }
}

/** Signal the server's process group: it and its children, and nobody else. */
export function killLab({ server }, signal) {
  if (server.pid === undefined || server.exitCode !== null) return;
  try {
    process.kill(-server.pid, signal);
  } catch {
    // it has gone
  }
}

/** The last lines of a log. */
export function tail(path, lines = 25) {
  try {
    return readFileSync(path, "utf8").trimEnd().split("\n").slice(-lines).join("\n");
  } catch {
    return "";
  }
}

function freePort() {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}
