// Building the page. Text goes in as text, never as markup: what the exchange calls a market cannot become a script.

const SVG = "http://www.w3.org/2000/svg";

/** An element with properties and children (elements or text). */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const ICONS = {
  pause: "M8 5v14M16 5v14",
  play: "M8 5l11 7-11 7z",
  flatten: "M4 12h16M12 3v5m0 0l-3-3m3 3l3-3M12 21v-5m0 0l-3 3m3-3l3 3",
  close: "M6 6l12 12M18 6L6 18",
  moon: "M20 14.5A8 8 0 0 1 9.5 4a8 8 0 1 0 10.5 10.5z",
  sun: "M12 4V2m0 20v-2M4 12H2m20 0h-2M6 6L4.6 4.6m14.8 14.8L18 18M6 18l-1.4 1.4M19.4 4.6L18 6M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8z",
};

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  for (const [key, value] of Object.entries({ fill: "none", stroke: "currentColor", "stroke-width": "2", "stroke-linecap": "round", "stroke-linejoin": "round" })) path.setAttribute(key, value);
  svg.append(path);
  return svg;
}

/** Set only what differs: touching the page costs layout. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
export function setClass(element, name) {
  if (element.className !== name) element.className = name;
}

export function toast(text, isBad = false) {
  const found = h("div", { class: isBad ? "toast bad" : "toast" }, text);
  document.getElementById("toasts").append(found);
  setTimeout(() => found.remove(), isBad ? 7000 : 3500);
}

/** Ask before acting. Resolves to null, or to an object with the state of the check box. */
export function confirm({ title, lines, action, isDanger = false, option = null }) {
  const dialog = document.getElementById("confirm");
  return new Promise((resolve) => {
    let result = null;
    const box = option ? h("input", { type: "checkbox", id: "confirm-option", checked: option.checked }) : null;
    const cancel = h("button", { type: "button", onclick: () => dialog.close() }, "Cancel");
    const go = h("button", { type: "button", id: "confirm-go", class: isDanger ? "primary danger" : "primary",
      onclick: () => { result = { option: box ? box.checked : false }; dialog.close(); } }, action);
    dialog.replaceChildren(
      h("h3", {}, title), ...lines.map((line) => h("p", {}, line)),
      ...(box ? [h("label", {}, box, option.label)] : []),
      h("div", { class: "buttons" }, cancel, go));
    dialog.addEventListener("close", () => resolve(result), { once: true });
    dialog.showModal();
    (isDanger ? cancel : go).focus();
  });
}
