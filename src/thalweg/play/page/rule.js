// A rule's page: formula, history, hyperparameters, dialects, where it shines and fails.

import { code, fill, isTranslated, languageMenu, loadWording, number, say, translated } from "./wording.js";

const $ = (id) => document.getElementById(id);
let facts, catalogue;

function made(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// A paragraph of the library's: marked as English where it is not translated; addresses are links.
function spoken(text, tag = "p") {
  const element = made(tag, { lang: isTranslated(text) ? code : "en" });
  for (const part of translated(text).split(/(https?:\/\/\S+)/)) {
    if (part.startsWith("http")) element.append(made("a", { href: part, textContent: part, rel: "noreferrer" }));
    else for (const [i, piece] of part.split("`").entries()) element.append(i % 2 ? made("code", { textContent: piece }) : piece);
  }
  return element;
}

function table(columns, rows) {
  const head = made("tr", {}, ...columns.map((text) => made("th", { scope: "col", textContent: text })));
  const body = rows.map(([name, ...cells]) =>
    made("tr", {}, made("th", { scope: "row" }, name), ...cells.map((cell) => made("td", {}, cell))),
  );
  return made("div", { className: "wide", tabIndex: 0, role: "region", ariaLabel: columns[0] }, made("table", {}, made("thead", {}, head), made("tbody", {}, ...body)));
}

const dialect = (name) => (name === "paper" ? say("paper") : name);
const shown = (value) => value === true ? say("yes") : value === false ? say("no") : value === null ? "–" : number(value);

function show() {
  document.title = `${facts.title} – ${say("title")}`;
  $("rules").replaceChildren(
    ...catalogue.rules.map(({ name, title }) => {
      const link = made("a", { href: `/rules/${name}`, textContent: title });
      if (name === facts.name) link.setAttribute("aria-current", "page");
      return link;
    }),
  );
  const names = facts.dialects.map(({ name }) => name);
  const parts = [made("h1", { className: "title", textContent: facts.title }), spoken(facts.summary)];
  if (facts.aliases.length) parts.push(made("p", { className: "help", textContent: `${say("also")} ${facts.aliases.join(", ")}` }));
  if (facts.guide) parts.push(spoken(facts.guide.how));
  const values = {};
  for (const { name, values: per } of facts.hyperparameters) if (name === "lr") values.lr = per.paper;
  const state = encodeURIComponent(JSON.stringify({ optimizers: [{ method: facts.name, dialect: "paper", values: { lr: Math.max(values.lr ?? 0.1, 0.1) } }], spoken: 0 }));
  parts.push(made("p", {}, made("a", { href: `/#${state}`, textContent: say("watch", { name: facts.title }) })));
  parts.push(made("h2", { textContent: say("rule_formula") }));
  for (const { dialects, text } of facts.formulas)
    parts.push(made("p", { className: "help", textContent: dialects.map(dialect).join(", ") }), made("pre", { textContent: text, tabIndex: 0 }));
  if (facts.guide) parts.push(made("h2", { textContent: say("rule_well") }), spoken(facts.guide.well), made("h2", { textContent: say("rule_badly") }), spoken(facts.guide.badly));
  parts.push(made("h2", { textContent: say("hyperparameters") }));
  parts.push(
    table(
      [say("name"), say("symbol"), say("range"), say("meaning"), ...names.map(dialect)],
      facts.hyperparameters.map((h) => [made("code", { textContent: h.name }), h.symbol, h.range.replaceAll(" ", "\u00a0"), spoken(h.meaning, "span"), ...names.map((d) => shown(h.values[d]))]),
    ),
  );
  if (facts.switches.length)
    parts.push(
      table(
        [say("switch"), say("meaning"), ...names.map(dialect)],
        facts.switches.map((s) => [made("code", { textContent: s.name }), spoken(s.meaning, "span"), ...names.map((d) => shown(s.values[d]))]),
      ),
    );
  parts.push(made("h2", { textContent: say("dialects") }));
  parts.push(
    table(
      [say("dialect"), say("spelling"), say("differs")],
      facts.dialects.filter(({ name }) => name !== "paper").map(({ name, spelling, differs }) => [name, made("code", { textContent: spelling }), made("span", { textContent: differs || say("as_paper") })]),
    ),
  );
  parts.push(made("h2", { textContent: say("rule_history") }), spoken(facts.source));
  $("rule").replaceChildren(...parts);
}

async function begin() {
  await loadWording();
  fill();
  const name = decodeURIComponent(location.pathname.split("/").pop());
  [catalogue, facts] = await Promise.all(["/api/catalogue", `/api/rules/${name}`].map(async (url) => (await fetch(url)).json()));
  languageMenu($("language"), show);
  show();
  document.documentElement.dataset.ready = "yes";
}

begin();
