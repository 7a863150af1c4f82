// A notebook in JupyterLab, as a learner handles it: menus, keys, mouse, and eyes.

import { until } from "./lab.mjs";

const RUN_SECONDS = 420; // for all cells of a lesson, on a slow and busy machine
const SEE_SECONDS = 120;

/** Fail with the sentence that should have been true. */
export function check(holds, sentence) {
  if (!holds) throw new Error(`This does not hold: ${sentence}`);
}

export class Notebook {
  constructor(page, path) {
    this.page = page;
    this.path = path;
  }

  /** Open it in a tab of its own and wait until its kernel is ready. */
  static async open(context, lab, path) {
    const page = await context.newPage();
    await page.goto(`${lab.url}lab/tree/${path}?reset&token=${lab.token}`);
    const notebook = new Notebook(page, path);
    let kernel = "no kernel, not even a page";
    try {
      await until(
        `${path} is open and its kernel idle`,
        async () => {
          await notebook.heedDialogs();
          kernel = (await notebook.state())?.kernel ?? "not open yet";
          return kernel === "idle";
        },
        SEE_SECONDS * 2,
      );
    } catch (error) {
      throw new Error(`${error.message} (at last: ${kernel})`);
    }
    return notebook;
  }

  /** JupyterLab asks or complains in a dialog: nobody will answer it, so it is told. */
  async heedDialogs() {
    const dialogs = await this.page.locator(".jp-Dialog").allInnerTexts();
    check(!dialogs.length, `JupyterLab asks nothing. It says: ${dialogs.join(" | ")}`);
  }

  /** What JupyterLab holds of the notebook; null while it is not open yet. */
  state() {
    return this.page.evaluate((path) => {
      const app = window.jupyterapp;
      if (!app?.shell?.widgets) return null;
      const panels = [...app.shell.widgets("main")];
      const panel = panels.find((widget) => widget.context?.path === path);
      if (!panel?.content?.model) return null;
      const cells = panel.content.widgets.map((cell, index) => {
        const source = cell.model.sharedModel.getSource();
        const code = cell.model.type === "code" && source.trim() !== "";
        const outputs = code ? cell.model.outputs.toJSON() : [];
        return {
          index,
          code,
          source,
          count: code ? cell.model.executionCount : null,
          outputs: outputs.length,
          error: outputs.find((output) => output.output_type === "error") ?? null,
        };
      });
      const kernel = panel.sessionContext.session?.kernel?.status ?? "none";
      return { kernel, cells };
    }, this.path);
  }

  async menu(name, entry) {
    const bar = this.page.locator(".lm-MenuBar-itemLabel");
    await bar.getByText(name, { exact: true }).click();
    const item = this.page.locator(".lm-Menu-itemLabel");
    await item.getByText(entry, { exact: true }).click();
  }

  /** Forget what was saved with the notebook, so that what is there was run here. */
  async clearOutputs() {
    await this.menu("Edit", "Clear Outputs of All Cells");
    await until(
      "all outputs are cleared",
      async () => (await this.state()).cells.every((cell) => !cell.outputs),
      SEE_SECONDS,
    );
  }

  /** Run all cells by the menu; returns the number of code cells. */
  async runAll() {
    await this.menu("Run", "Run All Cells");
    let said = -1;
    return until(
      `all cells of ${this.path} have run`,
      async () => {
        await this.heedDialogs();
        const { kernel, cells } = await this.state();
        const code = cells.filter((cell) => cell.code);
        const failed = code.find((cell) => cell.error);
        if (failed) {
          const { ename, evalue } = failed.error;
          throw new Error(`${ename}: ${evalue}\nin the cell\n${failed.source}`);
        }
        const done = code.filter((cell, place) => cell.count === place + 1).length;
        if (done >= said + 10) {
          said = done;
          console.log(`        ${done} of ${code.length} cells`);
        }
        return done === code.length && kernel === "idle" ? code.length : 0;
      },
      RUN_SECONDS,
    );
  }

  /** The cell whose source holds this text, scrolled into view. */
  async find(text) {
    const { cells } = await this.state();
    const found = cells.filter((cell) => cell.code && cell.source.includes(text));
    check(found.length === 1, `one cell of ${this.path} holds ${text}`);
    const { index } = found[0];
    await this.page.evaluate(
      async ([path, place]) => {
        const panels = [...window.jupyterapp.shell.widgets("main")];
        const panel = panels.find((widget) => widget.context?.path === path);
        panel.content.activeCellIndex = place;
        await panel.content.scrollToItem(place, "center");
      },
      [this.path, index],
    );
    const cell = this.page.locator(`.jp-Notebook .jp-Cell.jp-mod-active`);
    await cell.waitFor({ state: "visible" });
    return cell;
  }

  /** Put other code into a cell and run it, by keyboard. */
  async rewrite(cell, code) {
    await cell.locator(".cm-content").click();
    await this.page.keyboard.press("Control+A");
    await this.page.keyboard.insertText(code);
    await this.page.keyboard.press("Control+Enter");
  }

  /** Wait until a cell's output says this; returns the whole output. */
  async seeOutput(cell, pattern) {
    const area = cell.locator(".jp-Cell-outputArea");
    let text = "";
    try {
      return await until(
        `the output says ${pattern}`,
        async () => {
          text = (await area.allInnerTexts()).join("\n");
          return pattern.test(text) ? text : "";
        },
        SEE_SECONDS,
      );
    } catch (error) {
      throw new Error(`${error.message}\nIt says:\n${text}`);
    }
  }

  /** The temperature slider of this notebook. */
  async slider() {
    const cell = await this.find("temperature_slider(");
    const handle = cell.locator(".widget-slider .noUi-handle");
    await handle.waitFor({ state: "visible" });
    await handle.scrollIntoViewIfNeeded();
    return new Slider(this.page, cell, handle);
  }

  close() {
    return this.page.close();
  }
}

class Slider {
  constructor(page, cell, handle) {
    this.page = page;
    this.cell = cell;
    this.handle = handle;
  }

  /** What a learner sees: the sentence, and the lengths of the bars. */
  async read() {
    const text = await this.cell.locator("[role=status]").innerText();
    const widths = await this.cell
      .locator("svg rect")
      .evaluateAll((bars) => bars.map((bar) => bar.getBoundingClientRect().width));
    return {
      text,
      widths,
      shares: text.match(/\d+ %/g) ?? [],
      temperature: Number(/temperature ([\d.]+)/.exec(text)?.[1]),
      perplexity: Number(/Perplexity ([\d.]+)/.exec(text)?.[1]),
    };
  }

  async press(key, times) {
    await this.handle.focus();
    for (let n = 0; n < times; n++) await this.page.keyboard.press(key);
  }

  /** Drag the handle to this share of the slider's length. */
  async drag(share) {
    const track = await this.cell.locator(".widget-slider .noUi-base").boundingBox();
    const handle = await this.handle.boundingBox();
    const y = handle.y + handle.height / 2;
    await this.page.mouse.move(handle.x + handle.width / 2, y);
    await this.page.mouse.down();
    await this.page.mouse.move(track.x + track.width * share, y, { steps: 10 });
    await this.page.mouse.up();
  }

  /** Wait until the sentence has changed and stands still. */
  async changed(before) {
    let last = "";
    await until(
      `the sentence below the slider changes from: ${before.text}`,
      async () => {
        const { text } = await this.read();
        const still = text === last && text !== before.text;
        last = text;
        return still;
      },
      SEE_SECONDS,
    );
    return this.read();
  }
}
