// One market closely: its book with our orders, what was decided and why, its fills.
import { h, icon } from "./dom.js";
import * as format from "./format.js";
import { get } from "./server.js";
import { pnl, stateOf } from "./slate.js";

export class Detail {
  constructor({ onClose, onPause, onFlatten }) {
    this.ticker = null;
    this.mayAct = false;
    this.handlers = { onClose, onPause, onFlatten };
    this.element = document.getElementById("detail");
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.ticker && !document.getElementById("confirm").open) this.close();
    });
    setInterval(() => { if (this.ticker && !document.hidden) this.load(); }, 1000);
  }

  open(ticker) {
    this.ticker = ticker;
    this.title = h("h3"); this.about = h("p"); this.body = h("div", { class: "scroll" });
    this.pause = h("button", { onclick: () => this.handlers.onPause(ticker) }, "Pause");
    this.flatten = h("button", { class: "danger", onclick: () => this.handlers.onFlatten(ticker) }, "Flatten");
    this.element.replaceChildren(
      h("header", {}, h("div", {}, this.title, this.about), h("button", { class: "icon", title: "Close (Esc)", "aria-label": "Close", onclick: () => this.close() }, icon("close"))),
      this.body, h("footer", {}, this.pause, this.flatten));
    this.element.hidden = false;
    this.load();
  }

  close() {
    this.ticker = null;
    this.element.hidden = true;
    this.handlers.onClose();
  }

  async load() {
    const { ticker } = this;
    let found;
    try {
      found = await get(`/api/markets/${encodeURIComponent(ticker)}`);
    } catch (error) {
      if (ticker === this.ticker && error.status === 404) this.body.replaceChildren(h("p", { class: "empty" }, "This market is over."));
      return;
    }
    if (ticker === this.ticker) this.show(found);
  }

  show({ market, bids, asks, decisions, fills, max_position }) {
    this.title.textContent = market.outcome && market.title ? `${market.outcome}` : market.title || market.name;
    this.about.textContent = market.title ? `${market.title}  ${market.ticker}` : market.ticker;
    this.pause.textContent = market.is_paused ? "Resume quoting" : "Pause";
    this.pause.disabled = !this.mayAct;
    this.flatten.disabled = !this.mayAct || market.position === 0;
    const { word } = stateOf(market);
    const scroll = this.body.scrollTop;
    const facts = [
      ["Position", market.position ? format.contractsSigned(market.position) : "0", ""],
      ["Average", market.entry === null ? "–" : format.cents(market.entry), ""],
      ["Mark", format.cents(market.mark), ""],
      ["P&L", market.unrealized === null ? "?" : format.dollars(pnl(market), { sign: true }), format.moneyTone(pnl(market))],
      ["Worst case", `${format.contracts(market.worst)} / ${format.contracts(max_position)}`, ""],
      ["Realized", format.dollars(market.realized, { sign: true }), format.moneyTone(market.realized)],
      ["Queue bid", queue(market.bid), ""],
      ["Queue ask", queue(market.ask), ""],
    ];
    this.body.replaceChildren(
      h("dl", { class: "facts" }, ...facts.map(([name, value, css]) => h("div", {}, h("dt", {}, name), h("dd", { class: css }, value)))),
      h("h2", {}, "State"),
      h("div", { class: `state ${stateOf(market).css}` }, market.reason && market.reason !== word ? `${word}: ${market.reason}` : word),
      h("h2", {}, "Book"), this.ladder(bids, asks),
      h("h2", {}, "Decisions"),
      ...(decisions.length ? decisions.map(decision) : [h("p", { class: "faint" }, "None yet.")]),
      h("h2", {}, "Fills of this run"),
      ...(fills.length ? fills.map((f) => fillLine(f, null)) : [h("p", { class: "faint" }, "None yet.")]));
    this.body.scrollTop = scroll;
  }

  ladder(bids, asks) {
    if (!bids.length && !asks.length) return h("p", { class: "faint" }, "No book to be trusted now.");
    const most = Math.max(1, ...bids.map((l) => l.count), ...asks.map((l) => l.count));
    const line = (level, side) => {
      const bar = h("i");
      bar.style.width = `${Math.max(1, (100 * level.count) / most)}%`;
      return h("div", { class: `level ${side}` }, bar, h("span", {}, level.ours ? `ours ${format.contracts(level.ours)}` : ""), h("span", { class: side }, format.cents(level.price)), h("span", {}, format.short(level.count)));
    };
    const gap = bids.length && asks.length ? `spread ${format.cents(asks[0].price - bids[0].price)}` : "one-sided";
    return h("div", { class: "ladder" }, ...[...asks].reverse().map((l) => line(l, "ask")), h("div", { class: "gap" }, gap), ...bids.map((l) => line(l, "bid")));
  }
}

function queue(quote) {
  if (!quote || quote.ahead === null) return "–";
  return quote.ahead === 0 ? "alone" : `≤ ${format.short(quote.ahead)}`;
}

function decision(entry) {
  return h("div", { class: "decision" }, h("time", {}, format.time(entry.at)),
    h("div", {}, h("b", {}, entry.actions.length ? entry.actions.join(", ") : entry.state), h("p", {}, entry.why)));
}

export function fillLine(f, name) {
  const mark = (value) => h("span", { class: value === null ? "faint" : format.tone(value) }, format.centsSigned(value));
  return h("div", { class: "tick", title: `${f.ticker}\nfee ${format.dollars(f.fee)}, ${f.is_maker ? "maker" : "taker"}` },
    h("span", {}, format.time(f.at)), h("span", {}, name ?? (f.is_maker ? "maker" : "taker")),
    h("span", { class: f.side }, `${f.side === "bid" ? "+" : "−"}${format.contracts(f.count)}@${format.cents(f.price)}`),
    mark(f.edge), ...f.markouts.map(mark));
}
