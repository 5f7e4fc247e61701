// Talking to the bot: the token, single requests, and the stream of events with reconnection.

const TOKEN_KEY = "mm-token";
const STALLED_MS = 8_000;
const HIDDEN_MS = 30_000;

/** The token comes in the fragment of the printed address and stays in this browser for this origin. */
export function takeToken() {
  const given = location.hash.slice(1);
  if (!given) return;
  try { localStorage.setItem(TOKEN_KEY, given); } catch { fallback = given; }
  history.replaceState(null, "", location.pathname);
}
let fallback = "";
const token = () => { try { return localStorage.getItem(TOKEN_KEY) ?? fallback; } catch { return fallback; } };
const headers = () => (token() ? { "X-MM-Token": token() } : {});

/** Read JSON. Throws an Error with the bot's words. */
export async function get(path) {
  const response = await fetch(path, { headers: headers(), cache: "no-store" });
  return answer(response);
}

/** Do something. Throws an Error with the bot's words. */
export async function post(path, body = {}) {
  const response = await fetch(path, {
    method: "POST", headers: { ...headers(), "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  return answer(response);
}

async function answer(response) {
  const found = await response.json().catch(() => ({ error: response.statusText }));
  if (response.ok) return found;
  const error = new Error(found.error || `HTTP ${response.status}`);
  error.status = response.status;
  throw error;
}

/** Events for ever: `onMessage(payload)`, `onState("live" | "lost" | "refused", why)`. */
export function follow({ onMessage, onState }) {
  let controller = null, failures = 0, timer = 0, hiddenSince = 0, isPaused = false, lastAt = 0;

  async function connect() {
    clearTimeout(timer);
    controller = new AbortController();
    lastAt = Date.now();
    let isRefused = false;
    try {
      const response = await fetch("/api/events", { headers: headers(), cache: "no-store", signal: controller.signal });
      if (!response.ok) {
        isRefused = response.status === 403;
        await answer(response);
      }
      await read(response.body.pipeThrough(new TextDecoderStream()).getReader());
      throw new Error("the bot closed the connection");
    } catch (error) {
      if (isPaused) return;
      onState(isRefused ? "refused" : "lost", error.message);
      failures += 1;
      timer = setTimeout(connect, Math.min(8000, 500 * 2 ** Math.min(failures, 4)));
    }
  }

  async function read(reader) {
    let waiting = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      lastAt = Date.now();
      waiting += value;
      let end;
      while ((end = waiting.indexOf("\n\n")) >= 0) {
        const message = waiting.slice(0, end);
        waiting = waiting.slice(end + 2);
        if (!message.startsWith("data: ")) continue;
        failures = 0;
        onState("live", "");
        onMessage(JSON.parse(message.slice(6)));
      }
    }
  }

  // A sleeping laptop or a cut network does not always end the connection: silence does.
  setInterval(() => {
    if (isPaused) return;
    if (document.hidden && hiddenSince && Date.now() - hiddenSince > HIDDEN_MS) {
      isPaused = true;
      controller.abort();
    } else if (Date.now() - lastAt > STALLED_MS) {
      lastAt = Date.now();
      controller.abort();
    }
  }, 1000);
  document.addEventListener("visibilitychange", () => {
    hiddenSince = document.hidden ? Date.now() : 0;
    if (!document.hidden && isPaused) { isPaused = false; connect(); }
  });
  connect();
  return { restart() { failures = 0; controller.abort(); } };
}
