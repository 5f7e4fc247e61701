// The table of markets: one row a market, touched only where something changed.
import { h, icon, setClass, setText } from "./dom.js";
import * as format from "./format.js";

const COLUMNS = [
  ["name", "Market", (m) => m.name],
  ["book", "Book", (m) => m.mark ?? -1],
  ["sizes", "Size", null],
  ["bidq", "Our bid", (m) => m.bid?.price ?? -1],
  ["askq", "Our ask", (m) => m.ask?.price ?? -1],
  ["pos", "Position", (m) => Math.abs(m.position)],
  ["avg", "Average", null],
  ["pnl", "P&L", (m) => pnl(m)],
  ["state", "State", (m) => stateOf(m).word + m.reason],
];
const CHIPS = [
  ["all", "All", () => true],
  ["quoted", "Quoted", (m) => m.bid || m.ask],
  ["idle", "Not quoted", (m) => !m.bid && !m.ask],
  ["held", "Position", (m) => m.position !== 0],
];

const calm = matchMedia("(prefers-reduced-motion: reduce)");

export const pnl = (m) => m.realized + (m.unrealized ?? 0);

export function stateOf(m) {
  if (m.is_paused && m.state !== "flattening") return { word: "paused", css: "paused" };
  return { word: m.state, css: m.state.replace(/[^a-z]/g, "-") };
}

export class Slate {
  constructor({ onOpen, onPause, onFlatten }) {
    this.markets = new Map();
    this.rows = new Map();
    this.order = { key: "name", isDown: false };
    this.chip = "all";
    this.filter = "";
    this.chosen = null;
    this.mayAct = false;
    this.handlers = { onOpen, onPause, onFlatten };
    this.element = document.getElementById("rows");
    this.empty = h("div", { class: "empty" }, "No markets yet.");
    this.head = this.makeHead();
    this.element.append(this.head, this.empty);
    this.makeChips();
    const filter = document.getElementById("filter");
    filter.addEventListener("input", () => { this.filter = filter.value.trim().toLowerCase(); this.arrange(); });
    document.addEventListener("keydown", (event) => {
      if (event.key === "/" && !/INPUT|TEXTAREA/.test(document.activeElement.tagName)) { event.preventDefault(); filter.focus(); }
    });
  }

  makeHead() {
    const cells = COLUMNS.map(([key, label, value]) => {
      if (!value) return h("span", { class: key, role: "columnheader" }, label);
      return h("span", { class: key, role: "columnheader" }, h("button", { onclick: () => this.sortBy(key) }, label));
    });
    return h("div", { class: "row head", role: "row" }, ...cells, h("span", { role: "columnheader", "aria-label": "Actions" }));
  }

  makeChips() {
    const chips = document.getElementById("chips");
    for (const [key, label] of CHIPS) {
      chips.append(h("button", { "aria-pressed": String(key === this.chip), onclick: (event) => {
        this.chip = key;
        for (const button of chips.children) button.setAttribute("aria-pressed", String(button === event.target));
        this.arrange();
      } }, label));
    }
  }

  sortBy(key) {
    // Words rise first, numbers fall first: that is what one looks for.
    const isDown = this.order.key === key ? !this.order.isDown : !["name", "state"].includes(key);
    this.order = { key, isDown };
    for (const cell of this.head.children) cell.removeAttribute("aria-sort");
    this.head.querySelector(`.${key}`).setAttribute("aria-sort", isDown ? "descending" : "ascending");
    this.arrange();
  }

  update({ markets, gone = [], whole }) {
    if (whole) {
      const known = new Set(markets.map((m) => m.ticker));
      for (const ticker of [...this.markets.keys()]) if (!known.has(ticker)) this.remove(ticker);
    }
    for (const ticker of gone) this.remove(ticker);
    for (const market of markets) {
      this.markets.set(market.ticker, market);
      let row = this.rows.get(market.ticker);
      if (!row) this.rows.set(market.ticker, (row = this.makeRow(market.ticker)));
      this.fill(row, market);
    }
    if (whole || markets.length || gone.length) this.arrange();
  }

  remove(ticker) {
    this.rows.get(ticker)?.element.remove();
    this.rows.delete(ticker);
    this.markets.delete(ticker);
  }

  choose(ticker) {
    this.rows.get(this.chosen)?.element.classList.remove("chosen");
    this.chosen = ticker;
    this.rows.get(ticker)?.element.classList.add("chosen");
  }

  allow(mayAct) {
    this.mayAct = mayAct;
    for (const row of this.rows.values()) row.pause.disabled = row.flatten.disabled = !mayAct;
  }

  makeRow(ticker) {
    const { onOpen, onPause, onFlatten } = this.handlers;
    const part = (name, ...children) => h("span", { class: name, role: "cell" }, ...children);
    const row = { position: null, game: h("i"), team: h("b"), touch: h("b"), bidPrice: h("b"), bidMore: h("small"), askPrice: h("b"), askMore: h("small"), pos: h("b"), word: h("em") };
    row.name = part("name", row.game, row.team);
    row.book = part("book", row.touch);
    row.sizes = part("sizes");
    row.bid = part("quote bidq bid", row.bidPrice, row.bidMore);
    row.ask = part("quote askq ask", row.askPrice, row.askMore);
    row.positionCell = part("pos", row.pos);
    row.avg = part("avg soft");
    row.pnl = part("pnl");
    row.state = part("state", row.word);
    const stop = (act) => (event) => { event.stopPropagation(); act(ticker); };
    row.pause = h("button", { onclick: stop(onPause), disabled: !this.mayAct, class: "pause" });
    row.flatten = h("button", { onclick: stop(onFlatten), disabled: !this.mayAct, class: "flatten", title: "Flatten: close the position", "aria-label": "Flatten" }, icon("flatten"));
    row.element = h("div", { class: "row", role: "row", tabindex: "0", "data-ticker": ticker, onclick: () => onOpen(ticker),
      onkeydown: (event) => { if (event.key === "Enter" && event.target === row.element) onOpen(ticker); } },
      row.name, row.book, row.sizes, row.bid, row.ask, row.positionCell, row.avg, row.pnl, row.state, part("acts", row.pause, row.flatten));
    return row;
  }

  fill(row, m) {
    const dash = m.name.lastIndexOf("-");
    setText(row.game, dash > 0 ? m.name.slice(0, dash) + " " : "");
    setText(row.team, dash > 0 ? m.name.slice(dash + 1) : m.name);
    row.name.title = [m.outcome, m.title, m.ticker].filter(Boolean).join("\n");
    setText(row.touch, `${format.cents(m.best_bid)} / ${format.cents(m.best_ask)}`);
    setText(row.sizes, m.best_bid === null && m.best_ask === null ? "" : `${format.short(m.bid_size)}×${format.short(m.ask_size)}`);
    this.fillQuote(row.bid, row.bidPrice, row.bidMore, "bidq bid", m.bid, m.bid && m.bid.price === m.best_bid);
    this.fillQuote(row.ask, row.askPrice, row.askMore, "askq ask", m.ask, m.ask && m.ask.price === m.best_ask);
    setText(row.pos, m.position ? format.contractsSigned(m.position) : "0");
    setClass(row.pos, m.position ? "" : "faint");
    if (row.position !== null && row.position !== m.position) {
      // Not a class that is taken off and put on again: that would lay out the whole table for each row.
      row.positionCell.animate([{ backgroundColor: "var(--accent-soft)" }, { backgroundColor: "transparent" }], { duration: calm.matches ? 0 : 1200 });
    }
    row.position = m.position;
    setText(row.avg, m.entry === null ? "" : format.cents(m.entry));
    const result = pnl(m);
    setText(row.pnl, m.unrealized === null ? "?" : format.dollars(result, { sign: true }));
    row.pnl.title = `realized ${format.dollars(m.realized, { sign: true })}, unrealized ${m.unrealized === null ? "unknown" : format.dollars(m.unrealized, { sign: true })}`;
    setClass(row.pnl, `pnl ${format.moneyTone(result)}`);
    const { word, css } = stateOf(m);
    setText(row.word, m.reason && !m.is_paused ? (m.state === "held" ? m.reason : `${word}: ${m.reason}`) : word);
    setClass(row.state, `state ${css}`);
    row.state.title = m.reason || word;
    if (row.isPaused !== m.is_paused) {
      row.isPaused = m.is_paused;
      row.pause.replaceChildren(icon(m.is_paused ? "play" : "pause"));
      row.pause.title = m.is_paused ? "Resume quoting" : "Pause: pull our quotes, keep the position";
      row.pause.setAttribute("aria-label", m.is_paused ? "Resume" : "Pause");
    }
  }

  fillQuote(cell, price, more, css, quote, isAtTouch) {
    if (!quote) {
      setText(price, "");
      setText(more, "");
      setClass(cell, `quote ${css}`);
      cell.title = "";
      return;
    }
    setText(price, format.cents(quote.price));
    setText(more, `×${format.contracts(quote.count)}`);
    setClass(cell, `quote ${css} ${quote.is_sure ? (isAtTouch ? "" : "behind") : "unsure"}`);
    const queue = quote.ahead === null ? "queue not known" : quote.ahead === 0 ? "alone at its price" : `at most ${format.contracts(quote.ahead)} ahead in the queue`;
    cell.title = quote.is_sure ? `${isAtTouch ? "at the touch" : "behind the touch"}, ${queue}` : "sent, no answer yet";
  }

  /** Put the rows that are wanted in order. Nodes move only when their place changed. */
  arrange() {
    const wanted = CHIPS.find(([key]) => key === this.chip)[2];
    const { filter } = this;
    const matches = (m) => wanted(m) && (!filter || `${m.ticker} ${m.title} ${m.outcome} ${m.state} ${m.reason}`.toLowerCase().includes(filter));
    const value = COLUMNS.find(([key]) => key === this.order.key)[2];
    const sign = this.order.isDown ? -1 : 1;
    const shown = [...this.markets.values()].filter(matches);
    shown.sort((a, b) => {
      const x = value(a), y = value(b);
      return (x < y ? -sign : x > y ? sign : 0) || (a.ticker < b.ticker ? -1 : 1);
    });
    const kept = new Set(shown.map((m) => m.ticker));
    for (const [ticker, row] of this.rows) if (!kept.has(ticker)) row.element.remove();
    let before = this.head;
    for (const m of shown) {
      const { element } = this.rows.get(m.ticker);
      if (before.nextSibling !== element) before.after(element);
      before = element;
    }
    this.empty.hidden = shown.length > 0;
    setText(this.empty, this.markets.size ? "Nothing matches." : "No markets yet.");
    if (before.nextSibling !== this.empty) before.after(this.empty);
  }
}
