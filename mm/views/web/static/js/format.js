// Numbers in words. The wire has integers: prices in 1/10,000 dollar, counts in 1/100 contract, money in 1/1,000,000.

const trim = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);
const minus = (text) => text.replace("-", "−");

export const cents = (price) => (price === null ? "–" : minus(trim((price / 100).toFixed(2))));
export const centsSigned = (price) => (price === null ? "·" : (price > 0 ? "+" : "") + minus((price / 100).toFixed(1)));
export const contracts = (count) => minus(trim((count / 100).toFixed(2)));
export const contractsSigned = (count) => (count > 0 ? "+" : "") + contracts(count);

export function short(count) {
  const whole = count / 100;
  if (whole >= 99_950) return trim((whole / 1000).toFixed(0)) + "k";
  if (whole >= 1_000) return trim((whole / 1000).toFixed(1)) + "k";
  return trim(whole.toFixed(whole < 10 ? 2 : 0));
}

export function dollars(money, { sign = false } = {}) {
  const cents = Math.round(Math.abs(money) / 10_000);
  const text = (cents / 100).toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
  if (cents === 0) return text;
  return (money < 0 ? "−" : sign ? "+" : "") + text;
}

export const tone = (value) => (value > 0 ? "up" : value < 0 ? "down" : "");
/** Money that rounds to nothing has no colour. */
export const moneyTone = (money) => (Math.abs(money) < 5_000 ? "faint" : tone(money));

export const time = (micros) => new Date(micros / 1000).toLocaleTimeString("en-GB");

export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")} min`;
  return `${Math.floor(whole / 86_400)} d ${Math.floor((whole % 86_400) / 3600)} h`;
}

export function age(seconds) {
  if (seconds === null) return "never";
  return seconds < 10 ? `${seconds.toFixed(1)} s` : duration(seconds);
}

export function latency(seconds) {
  if (seconds === null) return "–";
  if (seconds < 0) return "> 5 s";
  return seconds < 1 ? `≤ ${Math.round(seconds * 1000)} ms` : `≤ ${seconds} s`;
}
