// The page: wires the stream of events to its parts, and its buttons to the bot.
import { Charts } from "./charts.js";
import { Detail, fillLine } from "./detail.js";
import { confirm, h, icon, setClass, setText, toast } from "./dom.js";
import * as format from "./format.js";
import { follow, get, post, takeToken } from "./server.js";
import { Slate } from "./slate.js";

const $ = (id) => document.getElementById(id);
const STALE_S = 4;

takeToken();
let totals = null, mayAct = false, connection = "connecting", lastAt = 0, needsHistory = true;
const banners = new Map();
const charts = new Charts();
const slate = new Slate({ onOpen: (ticker) => { slate.choose(ticker); detail.open(ticker); }, onPause: pause, onFlatten: flatten });
const detail = new Detail({ onClose: () => slate.choose(null), onPause: pause, onFlatten: flatten });

// --- acting ---

const nameOf = (ticker) => slate.markets.get(ticker)?.name ?? ticker;
const isReal = () => totals && totals.environment === "prod" && !totals.is_paper;

async function act(path, body, done) {
  try {
    await post(path, body);
    toast(done);
  } catch (error) {
    toast(error.message, true);
    if (error.status === 403) learnAccess();
  }
}

const marketPath = (ticker, action) => `/api/markets/${encodeURIComponent(ticker)}/${action}`;

async function pause(ticker) {
  const isPaused = slate.markets.get(ticker)?.is_paused;
  const name = nameOf(ticker);
  if (isPaused) return act(marketPath(ticker, "resume"), {}, `${name} is quoted again`);
  const answer = await confirm({ title: `Pause ${name}?`, action: "Pause", lines: ["Our quotes in this market are pulled and none are placed until you resume. The position stays; the risk rules go on watching it."] });
  if (answer) act(marketPath(ticker, "pause"), {}, `${name} is paused`);
}

async function flatten(ticker) {
  const market = slate.markets.get(ticker);
  const name = nameOf(ticker);
  if (!market || market.position === 0) return toast(`${name} is flat already`);
  const verb = market.position > 0 ? "Sell" : "Buy";
  const answer = await confirm({
    title: `Flatten ${name}?`, action: "Flatten", isDanger: true,
    lines: [`${verb} ${format.contracts(Math.abs(market.position))} contracts by crossing the spread (${format.cents(market.best_bid)} / ${format.cents(market.best_ask)}), taker fees included, until the position is zero.`, ...(isReal() ? ["This trades real money."] : [])],
    option: { label: "Keep the market paused afterwards", checked: true },
  });
  if (answer) act(marketPath(ticker, "flatten"), { pause: answer.option }, `Flattening ${name}`);
}

$("pause-all").addEventListener("click", async () => {
  if (totals.is_all_paused) return act("/api/resume", {}, "Quoting is allowed again");
  const answer = await confirm({ title: "Pause every market?", action: "Pause all", lines: ["All our quotes are pulled and none are placed, also in markets still to come, until you resume. Positions stay; exits go on."] });
  if (answer) act("/api/pause", {}, "Everything is paused");
});

$("stop").addEventListener("click", async () => {
  const answer = await confirm({
    title: "Stop the bot?", action: "Stop the bot", isDanger: true,
    lines: ["Every order is taken off the exchange, that is verified, and the program ends. Open positions are kept, and nobody watches them then.", totals.gross ? `Held now: ${format.contracts(totals.gross)} contracts gross.` : "Nothing is held now."],
  });
  if (answer) act("/api/stop", {}, "The bot is stopping");
});

async function learnAccess() {
  try {
    mayAct = (await get("/api/access")).may_act;
  } catch (error) {
    if (error.status !== 403) return;
    mayAct = false;
  }
  banner("access", "note", mayAct ? "" : "Read-only: open the address that the bot printed at its start to pause, flatten or stop.");
  slate.allow(mayAct);
  detail.mayAct = mayAct;
  $("pause-all").disabled = $("stop").disabled = !mayAct;
}

// --- showing ---

function banner(key, css, text) {
  let found = banners.get(key);
  if (!text) { found?.remove(); banners.delete(key); return; }
  if (!found) { banners.set(key, (found = h("div"))); $("banners").append(found); }
  setClass(found, css);
  setText(found, text);
}

function showConnection() {
  const isLost = connection !== "live";
  if (isLost && totals?.stopping) banner("connection", "note", `The bot has ended (${totals.stopping}). Last state of ${format.time(totals.at)}.`);
  else if (connection === "lost") banner("connection", "bad", `Connection to the bot lost${totals ? `, last state of ${format.time(totals.at)}` : ""}. Trying again.`);
  else banner("connection", "bad", "");
  document.body.classList.toggle("stale", isLost);
  showStatus();
}

function showStatus() {
  if (!totals) return;
  const isFresh = totals.is_feed_up && totals.feed_age_s !== null && totals.feed_age_s < STALE_S;
  const total = slate.markets.size;
  let css = "good", text = `${totals.quoted}/${total} quoted`;
  if (connection !== "live") [css, text] = ["bad", totals.stopping ? "ended" : "no connection"];
  else if (totals.stopping) [css, text] = ["held", "stopping"];
  else if (!isFresh) [css, text] = ["bad", totals.is_feed_up ? `feed ${format.age(totals.feed_age_s)} old` : "feed down"];
  else if (totals.is_all_paused) [css, text] = ["held", "paused"];
  else if (totals.notice) [css, text] = ["held", total ? "not quoting" : "waiting"];
  else if (totals.quoted < total) css = totals.quoted ? "good" : "held";
  setClass($("status"), `status ${css}`);
  setText($("status-text"), text);
  document.title = `${format.dollars(totals.realized + totals.unrealized, { sign: true })} · ${text} · mm`;
}

const kpi = {};
function makeKpis() {
  const tile = (key, label, ...more) => {
    kpi[key] = h("div", { class: "value" }); kpi[`${key}Sub`] = h("div", { class: "sub" });
    return h("div", { class: `kpi ${key}` }, h("div", { class: "label" }, label), kpi[key], ...more, kpi[`${key}Sub`]);
  };
  const meter = (key) => { const bar = h("i"); kpi[key] = bar; return h("div", { class: "meter" }, bar); };
  const budget = (key, label) => { kpi[`${key}Text`] = h("b"); return h("div", { class: "budget" }, h("span", {}, label), meter(key), kpi[`${key}Text`]); };
  kpi.budgetSub = h("div", { class: "sub" });
  $("kpis").append(
    tile("pnl", "P&L this run"), tile("exposure", "Exposure, worst case"),
    tile("orders", "Orders"), tile("fills", "Fills"), tile("position", "Position"),
    h("div", { class: "kpi budgets" }, h("div", { class: "label" }, "Budget left"), budget("writes", "write"), budget("reads", "read"), kpi.budgetSub),
    tile("feed", "Feed age"));
}

function showMeter(bar, share, { warnBelow = -1, badAbove = Infinity, warnAbove = Infinity } = {}) {
  bar.style.width = `${Math.min(100, Math.max(0, 100 * share)).toFixed(1)}%`;
  setClass(bar.parentElement, `meter ${share >= badAbove ? "down" : share < warnBelow || share >= warnAbove ? "warn" : ""}`);
}

function value(element, main, small = "") {
  if (element.dataset.shown === main + small) return;
  element.dataset.shown = main + small;
  element.replaceChildren(main, ...(small ? [h("small", {}, ` ${small}`)] : []));
}

function showTotals() {
  const t = totals;
  const total = t.realized + t.unrealized;
  value(kpi.pnl, format.dollars(total, { sign: true }), "$");
  setClass(kpi.pnl, `value ${format.moneyTone(total)}`);
  setText(kpi.pnlSub, `real. ${format.dollars(t.realized, { sign: true })} · open ${format.dollars(t.unrealized, { sign: true })} · fees ${format.dollars(t.fees)}`);
  kpi.pnlSub.title = "Realized net of fees in this run; open positions at the mark; fees paid";
  const global = t.limits.find((limit) => limit.name === "MAX_GLOBAL_INVENTORY");
  value(kpi.exposure, format.contracts(t.worst), global ? `of ${global.limit} contracts` : "contracts");
  setText(kpi.exposureSub, `${global ? Math.round((100 * global.used) / global.limit) : 0} % of the limit`);
  kpi.exposureSub.title = "Contracts over all markets if every working order fills against us";
  value(kpi.orders, String(t.orders_working), "working");
  setText(kpi.ordersSub, t.orders_unknown ? `${t.orders_unknown} of unknown outcome` : `${t.orders_placed.toLocaleString("en-US")} placed`);
  kpi.ordersSub.title = `${t.orders_placed} placed, ${t.orders_cancelled} cancelled, ${t.writes_refused} writes refused`;
  setClass(kpi.ordersSub, t.orders_unknown ? "sub warn" : "sub");
  value(kpi.fills, t.fills.toLocaleString("en-US"));
  setText(kpi.fillsSub, `${format.contracts(t.contracts)} contracts`);
  $("markouts").replaceChildren("mean ", ...t.markouts.map((m) => h("span", { class: m === null ? "faint" : format.tone(m) }, ` ${format.centsSigned(m)} `)));
  value(kpi.position, format.contractsSigned(t.net), "net");
  setText(kpi.positionSub, t.drifts ? `${t.drifts} differ from the exchange` : `${format.contracts(t.gross)} gross`);
  setClass(kpi.positionSub, t.drifts ? "sub down" : "sub");
  for (const key of ["writes", "reads"]) {
    if (!t[key]) continue;
    showMeter(kpi[key], t[key].share, { warnBelow: 0.2 });
    setText(kpi[`${key}Text`], `${Math.round(100 * t[key].share)} %`);
  }
  setText(kpi.budgetSub, t.writes?.waiting ? `${t.writes.waiting} writes wait` : "");
  value(kpi.feed, t.is_feed_up ? format.age(t.feed_age_s) : "down");
  setClass(kpi.feed, `value ${t.is_feed_up && t.feed_age_s !== null && t.feed_age_s < STALE_S ? "" : "down"}`);
  setText(kpi.feedSub, t.latency_p50_s === null ? "no writes yet" : `writes ${format.latency(t.latency_p50_s)}`);
  kpi.feedSub.title = `Half of the writes are answered within ${format.latency(t.latency_p50_s)}, 99 of 100 within ${format.latency(t.latency_p99_s)}`;

  const venue = $("venue");
  setText(venue, isReal() ? "prod · real money" : `${t.environment}${t.is_paper ? " · paper" : ""}`);
  setClass(venue, `badge ${isReal() ? "real" : t.is_paper ? "paper" : ""}`);
  setText($("clock"), `up ${format.duration((t.at - t.started_at) / 1e6)} · ${format.time(t.at)}`);
  setText($("pause-all"), t.is_all_paused ? "Resume all" : "Pause all");
  setClass($("pause-all"), t.is_all_paused ? "primary" : "");
  banner("notice", "held", t.stopping ? `Stopping (${t.stopping}): orders are being taken off.` : t.notice);
  showLimits(t.limits);
}

const limitLines = new Map();
function showLimits(limits) {
  for (const limit of limits) {
    let line = limitLines.get(limit.name);
    if (!line) {
      line = { name: h("span"), text: h("span"), bar: h("i") };
      limitLines.set(limit.name, line);
      $("limits").append(h("div", {}, h("div", { class: "line" }, line.name, line.text), h("div", { class: "meter" }, line.bar)));
    }
    const words = limit.name.toLowerCase().replaceAll("_", " ").replace("mae", "MAE");
    setText(line.name, limit.market ? `${words} (${nameOf(limit.market)})` : words);
    line.name.title = limit.name;
    const number = (n) => (limit.unit === "dollars" ? n.toFixed(2) : String(Math.round(n * 100) / 100));
    setText(line.text, `${number(limit.used)} / ${number(limit.limit)}${limit.unit === "dollars" ? " $" : ""}`);
    const isCount = limit.unit === "markets";
    showMeter(line.bar, limit.limit ? limit.used / limit.limit : 0, isCount ? {} : { warnAbove: 0.75, badAbove: 1 });
  }
}

function showFills(fills) {
  $("fills").replaceChildren(...(fills.length ? fills.map((f) => fillLine(f, nameOf(f.ticker).split("-").at(-1))) : [h("p", { class: "empty" }, "No fills in this run yet.")]));
}

function showAlerts(alerts) {
  $("alerts").replaceChildren(...(alerts.length
    ? alerts.map((a) => h("div", { class: `alert ${a.severity}`, onclick: (event) => event.currentTarget.classList.toggle("open") }, h("time", {}, format.time(a.at)), h("p", {}, a.text)))
    : [h("p", { class: "empty" }, "Nothing to report.")]));
}

async function loadHistory() {
  needsHistory = false;
  try {
    charts.load(await get("/api/history"));
  } catch {
    needsHistory = true;
  }
}

function onMessage(message) {
  if (!message.totals) return;
  lastAt = Date.now();
  totals = message.totals;
  slate.update(message);
  if (message.fills) showFills(message.fills);
  if (message.alerts) showAlerts(message.alerts);
  showTotals();
  showStatus();
  if (needsHistory) loadHistory(); else charts.add(totals);
}

function onState(state) {
  if (state === connection) return;
  if (state === "live") { needsHistory = true; learnAccess(); }
  connection = state;
  showConnection();
}

// --- light and dark ---

const scheme = matchMedia("(prefers-color-scheme: dark)");
const stored = () => { try { return localStorage.getItem("mm-theme"); } catch { return null; } };
const isDark = () => (document.documentElement.dataset.theme ?? (scheme.matches ? "dark" : "light")) === "dark";
function showTheme() {
  $("theme").replaceChildren(icon(isDark() ? "sun" : "moon"));
  charts.restyle();
}
if (stored()) document.documentElement.dataset.theme = stored();
$("theme").addEventListener("click", () => {
  const next = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  try { localStorage.setItem("mm-theme", next); } catch { /* it lasts as long as the page */ }
  showTheme();
});
scheme.addEventListener("change", showTheme);

makeKpis();
showTheme();
showFills([]);
showAlerts([]);
const stream = follow({ onMessage, onState });
addEventListener("hashchange", () => { takeToken(); learnAccess(); stream.restart(); });
setInterval(() => { if (connection === "live" && Date.now() - lastAt > 5000) { connection = "lost"; showConnection(); } }, 1000);
