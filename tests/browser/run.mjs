// A learner's first half hour, in a real browser: open the lesson in JupyterLab, run
// all cells, move the slider; open the exercises, err, mend it, and see "passed".
//
//   PYTHON=.venv/bin/python node tests/browser/run.mjs [lesson.ipynb [exercise.ipynb]]
//
// Everything happens on copies in a temporary folder, and no request leaves 127.0.0.1.

import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync } from "node:fs";
import { readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import * as labs from "./lab.mjs";
import { Notebook, check } from "./notebook.mjs";

const HERE = dirname(fileURLToPath(import.meta.url));
const ROOT = resolve(HERE, "..", "..");
const SCREENSHOT = join(HERE, "failure.png");
const LIMIT = 900; // seconds for everything: a slow machine, busy with other things

const HEAD = 'def megabytes(parameters, bits):\n    """The weight in MB."""\n';
const CHECK = "\n\n\nex00.megabytes.check(megabytes)";
const WRONG = `${HEAD}    return parameters * bits / 1_000_000${CHECK}`; // bits for bytes
const RIGHT = `${HEAD}    return parameters * bits / 8 / 1_000_000${CHECK}`;

const started = Date.now();
let current = "start";

/** Say what comes next; if it fails, this is where. */
function step(text) {
  current = text;
  const seconds = Math.round((Date.now() - started) / labs.SECOND);
  console.log(`${String(seconds).padStart(4)} s  ${text}`);
}

/** Run every cell of the lesson, then move its slider with keys and with the mouse. */
async function followLesson(context, lab, name) {
  step(`open notebooks/${name} in JupyterLab`);
  const lesson = await Notebook.open(context, lab, `notebooks/${name}`);
  step("run all cells");
  await lesson.clearOutputs();
  const cells = await lesson.runAll();
  step(`${cells} code cells have run, none with an error`);

  const slider = await lesson.slider();
  const before = await slider.read();
  step(`the slider is there: ${before.text}`);
  check(before.temperature === 1, "the slider begins at temperature 1");
  check(before.shares.length >= 2, "there are bars");

  await slider.press("ArrowRight", 8);
  const hot = await slider.changed(before);
  step(`moved with the arrow keys: ${hot.text}`);
  check(hot.temperature > 1, "the right arrow raises the temperature");
  check(hot.widths[0] < before.widths[0], "a higher temperature: a shorter first bar");
  check(hot.perplexity > before.perplexity, "a higher temperature: more perplexity");

  await slider.drag(0.1);
  const cold = await slider.changed(hot);
  step(`dragged with the mouse: ${cold.text}`);
  check(cold.temperature < 1, "dragging to the left lowers the temperature");
  check(cold.widths[0] > before.widths[0], "a low temperature: a longer first bar");
  await lesson.close();
}

/** See "not attempted", then a diagnosis for a wrong solution, then "passed". */
async function solveExercise(context, lab, name, progress) {
  step(`open exercises/${name}`);
  const stub = await Notebook.open(context, lab, `exercises/${name}`);
  await stub.runAll();
  const cell = await stub.find("ex00.megabytes.check(");
  await stub.seeOutput(cell, /not attempted/i);
  step("untouched, the exercise says: not attempted");

  await stub.rewrite(cell, WRONG);
  const diagnosis = await stub.seeOutput(cell, /not yet right/i);
  check(/bits/.test(diagnosis), `the diagnosis names the bits: ${diagnosis}`);
  step("a wrong solution gets its diagnosis");

  await stub.rewrite(cell, RIGHT);
  const praise = await stub.seeOutput(cell, /\bpassed\b/i);
  step(`the right solution: ${praise.trim().split("\n")[0]}`);
  const kept = JSON.parse(readFileSync(progress, "utf8"));
  check(
    kept.exercises["ex00.megabytes"]?.status === "passed",
    "the learner's progress remembers it",
  );
  await stub.close();
}

/** Copies of the notebooks, laid out as in the course. */
function copyNotebooks(folder, lesson, exercise) {
  for (const [where, path] of [
    ["notebooks", lesson],
    ["exercises", exercise],
  ]) {
    mkdirSync(join(folder, "course", where), { recursive: true });
    copyFileSync(path, join(folder, "course", where, basename(path)));
  }
}

function choose(where, prefix, given) {
  if (given) return resolve(given);
  const folder = join(ROOT, where);
  const name = readdirSync(folder).find((file) => file.startsWith(prefix));
  if (name) return join(folder, name);
  throw new labs.Remediable(
    `There is no ${prefix}*.ipynb in ${where}.\n  Wanted: the lesson or exercise\n` +
      "  To do: restore it with git, or name another one",
  );
}

/** The Python of the course; a path is taken from here, a bare name from the PATH. */
function python() {
  const given = process.env.PYTHON || "python3";
  return given.includes("/") ? resolve(given) : given;
}

/** Requests that would have left this machine; they are refused. */
async function stayHome(context) {
  const outside = [];
  await context.route(
    (url) => !["127.0.0.1", ""].includes(url.hostname),
    (route) => {
      outside.push(route.request().url());
      return route.abort();
    },
  );
  return outside;
}

async function main(folder, keep) {
  const lesson = choose("notebooks", "01_", process.argv[2]);
  const exercise = choose("exercises", "00_", process.argv[3]);
  const executable = labs.findBrowser();
  copyNotebooks(folder, lesson, exercise);
  step("start JupyterLab");
  keep.lab = await labs.startLab(python(), folder);
  await keep.lab.ready;
  step(`start ${basename(executable)}`);
  keep.browser = await labs.startBrowser(executable);
  const context = await keep.browser.newContext({
    viewport: { width: 1280, height: 1000 },
    reducedMotion: "reduce",
  });
  context.setDefaultTimeout(120 * labs.SECOND);
  keep.context = context;
  const outside = await stayHome(context);
  await followLesson(context, keep.lab, basename(lesson));
  await solveExercise(
    context,
    keep.lab,
    basename(exercise),
    join(folder, "progress.json"),
  );
  check(!outside.length, `no request left this machine: ${outside.join(", ")}`);
}

/** What is known of a failure: the step, the error, a picture, the server's last words. */
async function report(error, keep) {
  if (error instanceof labs.Remediable) {
    console.error(`\nThe browser test cannot run. ${error.message}`);
    return;
  }
  console.error(`\nFAILED after the step "${current}":\n${error.stack ?? error}`);
  const page = keep.context?.pages().at(-1);
  if (page) {
    try {
      await page.screenshot({ path: SCREENSHOT, timeout: 30 * labs.SECOND });
      console.error(`A picture of the page: ${SCREENSHOT}`);
    } catch (problem) {
      console.error(`No picture of the page: ${problem.message.split("\n")[0]}`);
    }
  }
  if (keep.lab) console.error(`JupyterLab's last lines:\n${labs.tail(keep.lab.log)}`);
}

async function cleanUp(folder, keep) {
  await keep.browser?.close().catch(() => {});
  if (keep.lab) await labs.stopLab(keep.lab);
  rmSync(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 250 });
}

const folder = mkdtempSync(join(tmpdir(), "kdcourse-browser-"));
const keep = {};
const interrupted = new Promise((_, reject) => {
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
    process.once(signal, () => reject(new Error(`stopped by ${signal}`)));
  }
  const late = () => reject(new Error(`not done after ${LIMIT} s`));
  setTimeout(late, LIMIT * labs.SECOND).unref();
});
for (const stream of [process.stdout, process.stderr]) {
  stream.on("error", () => {}); // `… | head` closed the pipe: clean up all the same
}
process.on("exit", () => {
  if (keep.lab) labs.killLab(keep.lab, "SIGKILL"); // only where cleaning up failed
  rmSync(folder, { recursive: true, force: true });
});
if (existsSync(SCREENSHOT)) rmSync(SCREENSHOT);
try {
  await Promise.race([main(folder, keep), interrupted]);
  step("the browser test has passed");
} catch (error) {
  process.exitCode = 1;
  await report(error, keep);
} finally {
  await cleanUp(folder, keep);
}
process.exit();
