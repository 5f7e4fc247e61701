// P&L and exposure over time, with uPlot.
import { h } from "./dom.js";
import * as format from "./format.js";

const RANGES = [["10m", 600], ["1h", 3600], ["6h", 21_600], ["all", Infinity]];
const KEPT = 12_000;

export class Charts {
  constructor() {
    this.data = { at: [], total: [], realized: [], worst: [], gross: [] };
    this.limit = null;
    this.range = 600;
    this.plots = [];
    const ranges = document.getElementById("ranges");
    for (const [label, seconds] of RANGES) {
      ranges.append(h("button", { "aria-pressed": String(seconds === this.range), onclick: (event) => {
        this.range = seconds;
        for (const button of ranges.children) button.setAttribute("aria-pressed", String(button === event.target));
        this.draw();
      } }, label));
    }
    new ResizeObserver(() => this.resize()).observe(document.getElementById("pnl-chart"));
  }

  load(history) {
    const { data } = this;
    data.at = history.at.map((at) => at / 1e6);
    data.realized = history.realized.map((money) => money / 1e6);
    data.total = history.at.map((_, n) => (history.realized[n] + history.unrealized[n]) / 1e6);
    data.worst = history.worst.map((count) => count / 100);
    data.gross = history.gross.map((count) => count / 100);
    this.draw();
  }

  add(totals) {
    const { data } = this;
    const at = totals.at / 1e6;
    if (data.at.length && at <= data.at[data.at.length - 1]) return;
    data.at.push(at);
    data.realized.push(totals.realized / 1e6);
    data.total.push((totals.realized + totals.unrealized) / 1e6);
    data.worst.push(totals.worst / 100);
    data.gross.push(totals.gross / 100);
    if (data.at.length > KEPT) for (const column of Object.values(data)) column.splice(0, KEPT / 10);
    const limit = totals.limits.find((one) => one.name === "MAX_GLOBAL_INVENTORY");
    this.limit = limit ? limit.limit : null;
    this.draw();
  }

  /** The theme changed: colours are read anew. */
  restyle() {
    for (const plot of this.plots) plot.destroy();
    this.plots = [];
    this.draw();
  }

  resize() {
    for (const plot of this.plots) plot.setSize(this.size(plot.root.parentElement));
  }

  size(element) {
    return { width: element.clientWidth - 12, height: element.clientHeight - 6 };
  }

  draw() {
    const { data } = this;
    if (!data.at.length || typeof uPlot === "undefined" || document.hidden) return;
    const last = data.at[data.at.length - 1];
    let from = 0;
    if (this.range !== Infinity) {
      // Binary search for the first point inside the range.
      let high = data.at.length - 1;
      while (from < high) {
        const middle = (from + high) >> 1;
        if (data.at[middle] < last - this.range) from = middle + 1;
        else high = middle;
      }
    }
    const at = data.at.slice(from);
    const cut = (column) => column.slice(from);
    const pnl = [at, cut(data.total), cut(data.realized)];
    const exposure = [at, cut(data.worst), cut(data.gross)];
    if (!this.plots.length) {
      this.plots = [this.makePnl(pnl), this.makeExposure(exposure)];
      return;
    }
    this.plots[0].setData(pnl);
    this.plots[1].setData(exposure);
  }

  colours() {
    const style = getComputedStyle(document.documentElement);
    return (name) => style.getPropertyValue(name).trim();
  }

  axes(colour, values) {
    const grid = { stroke: colour("--line"), width: 1 };
    const font = "11px Inter, system-ui, sans-serif";
    return [
      { stroke: colour("--faint"), grid: { show: false }, ticks: { show: false }, font, size: 24, gap: 8, space: 64,
        values: (_, splits, __, ___, step) => splits.map((s) => {
          const text = new Date(s * 1000).toLocaleTimeString("en-GB");
          return step >= 60 ? text.slice(0, 5) : text;
        }) },
      { stroke: colour("--faint"), grid, ticks: { show: false }, font, size: 44, gap: 4, space: 26, values },
    ];
  }

  make(id, title, series, values, data, readout, scales = {}) {
    const colour = this.colours();
    const element = document.getElementById(id);
    const plot = new uPlot({
      ...this.size(element), padding: [6, 8, 0, 0], legend: { show: false },
      cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } },
      scales: { x: { time: true }, ...scales },
      axes: this.axes(colour, values), series: [{}, ...series(colour)],
      hooks: { setCursor: [(u) => readout(u, u.cursor.idx)], setData: [(u) => readout(u, u.cursor.idx)], ready: [(u) => readout(u, null)] },
    }, data, element);
    plot.root.setAttribute("role", "img");
    plot.root.setAttribute("aria-label", title);
    return plot;
  }

  makePnl(data) {
    const value = (number) => (number < 0 ? "−" : number > 0 ? "+" : "") + Math.abs(number).toFixed(2);
    const readout = (u, n) => {
      const place = n ?? u.data[0].length - 1;
      const when = n === null || n === undefined ? "" : format.time(u.data[0][place] * 1e6) + "  ";
      document.getElementById("pnl-readout").textContent =
        `${when}${value(u.data[1][place])}  realized ${value(u.data[2][place])}`;
    };
    return this.make("pnl-chart", "P&L over time", (colour) => [
      { stroke: colour("--accent"), width: 1.6, fill: colour("--accent-soft"), fillTo: 0, points: { show: false } },
      { stroke: colour("--faint"), width: 1, dash: [3, 3], points: { show: false } },
    ], (_, splits) => splits.map((s) => (Math.abs(s) >= 100 ? s.toFixed(0) : trimmed(s))), data, readout,
    { y: { range: (_, low, high) => spread(Math.min(low ?? 0, 0), Math.max(high ?? 0, 0), 0.5) } });
  }

  makeExposure(data) {
    const readout = (u, n) => {
      const place = n ?? u.data[0].length - 1;
      const when = n === null || n === undefined ? "" : format.time(u.data[0][place] * 1e6) + "  ";
      document.getElementById("exposure-readout").textContent =
        `${when}worst case ${u.data[1][place].toFixed(0)}  held ${u.data[2][place].toFixed(0)}`;
    };
    return this.make("exposure-chart", "Exposure over time", (colour) => [
      { stroke: colour("--ask"), width: 1.4, points: { show: false } },
      { stroke: colour("--bid"), width: 1.4, fill: colour("--accent-soft"), points: { show: false } },
    ], (_, splits) => splits.map((s) => s.toFixed(0)), data, readout,
    { y: { range: (_, low, high) => [0, Math.max((high ?? 0) * 1.1, 10)] } });
  }
}

const trimmed = (number) => String(Number(number.toFixed(2))).replace("-", "−");

function spread(low, high, least) {
  const margin = Math.max((high - low) * 0.08, least / 10);
  return [low - (low < 0 ? margin : margin / 2), Math.max(high + margin, low + least)];
}
