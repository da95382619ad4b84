// Everything that the page says, in the language chosen. A file of languages/ is a language.

let all = {};
let chosen = { interface: {}, texts: {} };
export let code = "en";

export async function loadWording() {
  all = await (await fetch("/api/languages")).json();
  choose(preferred());
}

function preferred() {
  const asked = new URLSearchParams(location.search).get("lang");
  const wanted = [asked, remembered(), ...navigator.languages, "en"].filter(Boolean);
  for (const tag of wanted) {
    if (all[tag]) return tag;
    const found = Object.keys(all).find((code) => all[code].matches.includes(tag.toLowerCase().split("-")[0]));
    if (found) return found;
  }
  return Object.keys(all)[0];
}

function remembered() {
  try {
    return localStorage.getItem("language");
  } catch {
    return null; // storage may be forbidden
  }
}

export function choose(language) {
  code = language;
  chosen = all[language];
  try {
    localStorage.setItem("language", language);
  } catch {}
}

export const languages = () => Object.entries(all).map(([code, { name }]) => [code, name]);

// A text of the interface; {name} in it is replaced.
export function say(key, values = {}) {
  return (chosen.interface[key] ?? key).replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

// A text that the library brings in English.
export const translated = (text) => chosen.texts[text] ?? text;
export const isTranslated = (text) => text in chosen.texts || code === "en";

// Fills everything marked with data-say (its text) or data-label (its name for screen readers).
export function fill(root = document) {
  document.documentElement.lang = code;
  for (const element of root.querySelectorAll("[data-say]")) element.textContent = say(element.dataset.say);
  for (const element of root.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", say(element.dataset.label));
    if (element.tagName === "BUTTON") element.title = say(element.dataset.label);
  }
}

export function languageMenu(select, changed) {
  select.replaceChildren(...languages().map(([value, name]) => new Option(name, value, false, value === code)));
  for (const option of select.options) option.lang = option.value;
  select.addEventListener("change", () => {
    choose(select.value);
    fill();
    changed();
  });
}

// Four digits, with a true minus.
export function number(x, digits = 4) {
  if (Number.isNaN(x)) return "–";
  if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
  const size = Math.abs(x);
  const text = size !== 0 && (size < 1e-3 || size >= 1e5) ? Number(x.toPrecision(3)).toExponential() : String(Number(x.toPrecision(digits)));
  return text.replace(/e\+?/, "e").replaceAll("-", "−");
}
