// The playground: one state, kept in the address; the server follows the optimizers, this page draws them.

import { dark, unpacked } from "./canvas.js";
import { Curves } from "./curves.js";
import { Space } from "./space.js";
import { Stage } from "./stage.js";
import { fill, languageMenu, loadWording, number, say, translated } from "./wording.js";

const $ = (id) => document.getElementById(id);

// What is shown first: the picture of Saito 2016, section 6.1.
const FIRST = {
  surface: "ravine", formula: "x²/20 + y²", window: [[-8, 8], [-4, 4]], start: [-7, 2], steps: 40, seed: 0, noise: 0, batch: 1,
  optimizers: [
    { method: "sgd", dialect: "paper", values: { lr: 0.95 } },
    { method: "momentum", dialect: "paper", values: { lr: 0.1 } },
    { method: "adagrad", dialect: "paper", values: { lr: 1.5 } },
    { method: "adam", dialect: "paper", values: { lr: 0.3 } },
  ],
  view: "2d", spoken: 3, quantity: "effective",
};

let catalogue, state, surface;
let paths = [];
let step = 0, playing = false, before = 0;
const stage = new Stage($("canvas"));
const space = new Space($("space"));
const losses = new Curves($("loss"));
const states = new Curves($("state"));

// -- the server -----------------------------------------------------------------------------------

async function asked(url, body) {
  const options = body && { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(url, options);
  if (response.ok) return response;
  let why = response.statusText;
  try {
    why = (await response.json()).error;
  } catch {}
  throw new Error(why);
}

function request() {
  const { start, steps, seed, noise, batch, optimizers } = state;
  return { surface: surfaceAsked(), start, steps, seed, noise, batch, optimizers };
}

const surfaceAsked = () => state.surface ?? { formula: state.formula, window: state.window };

async function fetchSurface() {
  const query = state.surface ? { name: state.surface } : { formula: state.formula, window: JSON.stringify(state.window) };
  const key = new URLSearchParams(query).toString();
  if (surface?.key === key) return;
  const found = await (await asked(`/api/surface?${key}`)).json();
  surface = { ...found, key, values: unpacked(found.values) };
  if (state.start.length !== surface.window.length)
    state.start = surface.window.map((_, i) => state.start[i] ?? surface.start[i]);
  stage.setSurface(surface);
}

// One question at a time; what changes meanwhile is asked next.
let asking = false, again = false;

async function refresh() {
  again = true;
  if (asking) return;
  asking = true;
  while (again) {
    again = false;
    try {
      await fetchSurface();
      showStart();
      const body = request();
      const answer = body.optimizers.length ? await (await asked("/api/paths", body)).json() : { paths: [] };
      const atEnd = !paths.length || step >= longest();
      paths = answer.paths.map(readable);
      step = playing ? Math.min(step, longest()) : atEnd ? longest() : Math.min(step, longest());
      $("error").textContent = "";
      show();
    } catch (error) {
      $("error").textContent = error.message;
    }
  }
  asking = false;
  remember();
  announce();
}

function readable(path, i) {
  const entry = state.optimizers[i] ?? {};
  for (const one of Object.values(path.series)) one.numbers = unpacked(one.numbers);
  const points = unpacked(path.points);
  const n = surface.window.length;
  return {
    ...path, points, entry, values: unpacked(path.values),
    series: { ...path.series, points: { symbol: "θ", entries: n, numbers: points } },
    ...look(i),
  };
}

// The colour and dashes of the optimizer at a place, on the page as it is.
function look(i) {
  const { dashes, [dark.matches ? "dark" : "light"]: colours } = catalogue.looks;
  return { colour: colours[i % colours.length], dash: dashes[i % dashes.length] };
}

const longest = () => Math.max(1, ...paths.map((path) => path.steps));

// -- the address ----------------------------------------------------------------------------------

const encoded = () => encodeURIComponent(JSON.stringify(state));

let remembering;
function remember() {
  clearTimeout(remembering); // browsers allow few changes a second
  remembering = setTimeout(() => history.replaceState(null, "", `#${encoded()}`), 250);
}

// A state from the address, as far as it is one; the server checks what is in it.
function recalled() {
  if (location.hash.length < 2) return structuredClone(FIRST);
  try {
    const found = { ...structuredClone(FIRST), ...JSON.parse(decodeURIComponent(location.hash.slice(1))) };
    const pairs = (list) => Array.isArray(list) && list.every((pair) => Array.isArray(pair) && pair.every(Number.isFinite));
    const fine =
      Array.isArray(found.start) && found.start.every(Number.isFinite) && pairs(found.window) && found.window.length === 2 &&
      [found.steps, found.seed, found.noise, found.batch].every(Number.isFinite) && Array.isArray(found.optimizers) &&
      (found.surface === null || typeof found.surface === "string") && typeof found.formula === "string" &&
      found.optimizers.every((one) => method(one?.method) && typeof (one.values ?? {}) === "object");
    if (!fine) throw new Error();
    for (const one of found.optimizers) {
      one.values ??= {};
      if (!method(one.method).dialects?.[one.dialect]) one.dialect = "paper";
    }
    return found;
  } catch {
    $("status").textContent = $("error").textContent = say("bad_link");
    return structuredClone(FIRST);
  }
}

// -- the controls ---------------------------------------------------------------------------------

const method = (name) => catalogue.rules.find((r) => r.name === name) ?? catalogue.solvers.find((s) => s.name === name);
const isSolver = (name) => catalogue.solvers.some((s) => s.name === name);

function showControls() {
  const select = $("surface");
  select.replaceChildren(
    ...catalogue.surfaces.map((s) => new Option(translated(s.title), s.name)),
    new Option(say("own_formula"), ""),
  );
  select.value = state.surface ?? "";
  $("own").hidden = state.surface !== null;
  $("formula").value = state.formula;
  for (const input of document.querySelectorAll("[data-window]")) {
    const [i, j] = input.dataset.window.split(",");
    input.value = state.window[i][j];
  }
  for (const name of ["steps", "seed", "noise", "batch"]) $(name).value = state[name];
  $("steps").max = catalogue.limits.steps;
  $("speed").replaceChildren(
    new Option(say("speed_auto"), 0),
    ...[2, 5, 10, 20, 50, 100, 500].map((s) => new Option(say("per_second", { count: s }), s, false, s === speed)),
  );
  showOptimizers();
}

let speed = 0; // steps a second; 0: so many that the whole takes five seconds

function showStart() {
  state.start.forEach((x, i) => {
    if (document.activeElement !== $(`start-${i}`)) $(`start-${i}`).value = x;
  });
  const plane = surface.window.length === 2;
  $("start-1").closest("label").hidden = !plane;
  for (const input of document.querySelectorAll('[data-window^="1"]')) input.closest("label").hidden = !plane;
  $("surface-formula").textContent = surface.formula;
  $("view-3d").disabled = !plane;
  if (!plane && state.view === "3d") setView("2d");
  placeHandle();
}

function placeHandle() {
  const handle = $("start");
  const [x, y] = state.start;
  const plane = surface.window.length === 2;
  handle.style.left = `${stage.toX(x)}px`;
  handle.style.top = `${stage.toY(plane ? y : stage.valueAt(x))}px`;
  const label = plane ? say("start_at", { x: number(x), y: number(y) }) : say("start_at_1d", { x: number(x) });
  handle.setAttribute("aria-label", label);
  handle.title = label;
  handle.hidden = state.view === "3d";
}

function moveStart(point) {
  // As many digits as the picture has pixels.
  state.start = surface.window.map(([low, high], i) => Number(Math.max(low, Math.min(high, point[i])).toPrecision(4)));
  showStart();
  state.start.forEach((x, i) => ($(`start-${i}`).value = x));
  refresh();
}

function showOptimizers() {
  $("optimizers").replaceChildren(...state.optimizers.map(card));
  $("add").disabled = state.optimizers.length >= catalogue.limits.optimizers;
}

function made(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function card(entry, i) {
  const solver = isSolver(entry.method);
  const group = (label, list) => {
    const options = list.map((one) => new Option(translated(one.title), one.name, false, one.name === entry.method));
    const made = document.createElement("optgroup");
    made.label = label;
    made.append(...options);
    return made;
  };
  const rule = made("select", { ariaLabel: say("optimizer") });
  rule.append(group(say("group_rules"), catalogue.rules), group(say("group_solvers"), catalogue.solvers));
  rule.addEventListener("change", () => {
    state.optimizers[i] = { method: rule.value, dialect: "paper", values: {} };
    changedOptimizers(i);
  });
  const dialect = made("select", { ariaLabel: say("dialect"), hidden: solver });
  if (!solver) dialect.append(...Object.keys(method(entry.method).dialects).map((d) => new Option(d === "paper" ? say("paper") : d, d, false, d === entry.dialect)));
  dialect.addEventListener("change", () => {
    // The learning rate stays, for it is what was tuned; all else is as the dialect has it.
    const { lr } = entry.values;
    state.optimizers[i] = { ...entry, dialect: dialect.value, values: lr === undefined ? {} : { lr } };
    changedOptimizers(i);
  });
  const remove = made("button", { type: "button", className: "remove", textContent: "✕", ariaLabel: say("remove", { name: method(entry.method).title }) });
  remove.addEventListener("click", () => {
    state.optimizers.splice(i, 1);
    const others = [...open].filter((j) => j !== i).map((j) => (j > i ? j - 1 : j));
    open.clear();
    others.forEach((j) => open.add(j));
    changedOptimizers();
    $("add").focus();
  });
  const key = made("span", { className: "key" });
  key.append(keyLine(i));
  const box = made("fieldset", { className: "card" }, made("legend", { className: "unseen", textContent: method(entry.method).title }));
  box.append(made("div", { className: "head" }, key, rule, dialect, remove));
  if (solver) return box;
  const form = method(entry.method).dialects[entry.dialect];
  const names = Object.keys(form.numbers);
  const first = names.filter((name) => name === "lr");
  for (const name of first) box.append(slider(entry, name, form.numbers[name]));
  const more = made("details", {}, made("summary", { textContent: say("hyperparameters") }));
  more.open = open.has(i);
  more.addEventListener("toggle", () => (more.open ? open.add(i) : open.delete(i)));
  for (const name of names) if (!first.includes(name)) more.append(slider(entry, name, form.numbers[name]));
  for (const [name, about] of Object.entries(form.switches)) more.append(toggle(entry, name, about));
  const link = made("a", { href: `/rules/${entry.method}`, textContent: say("about", { name: method(entry.method).title }) });
  more.append(made("p", { className: "help" }, translated(method(entry.method).summary), " ", link));
  box.append(more);
  return box;
}

const open = new Set();

function changedOptimizers(focus) {
  showOptimizers();
  if (focus !== undefined) $("optimizers").children[focus].querySelector("select").focus();
  refresh();
}

function keyLine(i) {
  const { colour, dash } = look(i);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 34 8");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  const all = { x1: 0, y1: 4, x2: 34, y2: 4, "stroke-width": 4, stroke: colour, "stroke-dasharray": dash.join(" ") };
  for (const [name, value] of Object.entries(all)) line.setAttribute(name, value);
  svg.append(line);
  return svg;
}

// Sliders go by the logarithm of the value or, for what is near 1, of its distance from 1.
function scale(about) {
  if (about.complement) return { min: 0, max: 4, to: (v) => -Math.log10(Math.max(1 - v, 1e-4)), from: (s) => Number((1 - 10 ** -s).toPrecision(4)) };
  if (about.search) {
    const [low, high] = about.search;
    return { min: Math.log10(low), max: Math.log10(high) + 1, to: (v) => Math.log10(Math.max(v, low)), from: (s) => Number((10 ** s).toPrecision(3)) };
  }
  const [low, high] = [about.low ?? -1, about.high ?? 1];
  return { min: low, max: high, to: (v) => v, from: (s) => Number(s.toPrecision(3)) };
}

function slider(entry, name, about) {
  const { min, max, to, from } = scale(about);
  const value = entry.values[name] ?? about.value;
  const meaning = `${translated(about.meaning)}, ${about.range}`;
  const label = `${name} ${about.symbol}`;
  const range = made("input", { type: "range", min, max, step: (max - min) / 200, value: to(value), ariaLabel: `${label}: ${meaning}` });
  const box = made("input", { type: "number", step: "any", value, ariaLabel: label });
  range.ariaValueText = String(value);
  const change = (v) => {
    entry.values[name] = v;
    range.ariaValueText = String(v);
    refresh();
  };
  range.addEventListener("input", () => {
    const v = from(Number(range.value));
    box.value = v;
    change(v);
  });
  box.addEventListener("change", () => {
    const v = box.valueAsNumber;
    if (!Number.isFinite(v)) return;
    range.value = to(v);
    change(v);
  });
  const title = made("span", { className: "name", title: meaning }, made("b", { textContent: about.symbol }), ` ${name === about.symbol ? "" : name}`);
  return made("div", { className: "slider" }, title, range, box);
}

function toggle(entry, name, about) {
  const box = made("input", { type: "checkbox", checked: entry.values[name] ?? about.value });
  box.addEventListener("change", () => {
    entry.values[name] = box.checked;
    refresh();
  });
  return made("label", { className: "toggle" }, box, made("span", {}, made("b", { textContent: name }), `: ${translated(about.meaning)}`));
}

// -- the picture ----------------------------------------------------------------------------------

function show() {
  stage.setPaths(paths);
  $("step").max = longest();
  const above = surface.lowest === null ? (v) => v : (v) => v - surface.lowest;
  $("loss-title").textContent = say(surface.lowest === null ? "loss" : "loss_above");
  losses.set(paths.map(({ values, colour, dash }) => ({ values: values.map(above), colour, dash })));
  showSpoken();
  showStates();
  showResults();
  showPicture();
  if (state.view === "3d") space.show(surface, paths, step).catch((error) => ($("error").textContent = error.message));
}

function showSpoken() {
  const select = $("spoken");
  select.replaceChildren(...paths.map((path, i) => new Option(translated(path.label), i)));
  state.spoken = Math.max(0, Math.min(state.spoken, paths.length - 1));
  select.value = state.spoken;
  showFormulas();
}

const variables = () => ["x", "y"].slice(0, surface.window.length);

let cells = [];
function showFormulas() {
  const path = paths[state.spoken];
  cells = [];
  $("formulas").replaceChildren();
  $("settings").textContent = "";
  if (!path) return;
  const form = method(path.entry.method)?.dialects?.[path.entry.dialect];
  if (!form || !path.formulas.length) {
    const { value, gradient, hessian } = path.evaluations;
    $("settings").textContent = say("evaluations", { value: value ?? 0, gradient: gradient ?? 0, hessian: hessian ?? 0 });
    return;
  }
  $("settings").textContent = Object.entries(form.numbers).map(([name, about]) => `${about.symbol} = ${number(path.entry.values[name] ?? about.value)}`).join(",  ");
  for (const { text, numbers, series } of path.formulas) {
    const reckoned = made("span", { className: "reckoned" });
    const result = made("output", { className: "result" });
    $("formulas").append(made("div", { className: "line" }, made("span", { className: "formula", textContent: text }), reckoned, result));
    cells.push({ reckoned, result, numbers, series: path.series[series] });
  }
}

// The number of a series at a step; of its first entry, x, unless another is asked for.
function numberAt(series, t, entry = 0) {
  return series && t >= 0 ? series.numbers[t * series.entries + Math.min(entry, series.entries - 1)] : NaN;
}

function showNumbers() {
  const path = paths[state.spoken];
  if (!path) return;
  const t = Math.min(Math.floor(step), path.steps);
  for (const { reckoned, result, numbers, series } of cells) {
    const put = (_, name, later) => {
      if (name === "t") return String(t);
      const text = number(numberAt(path.series[name], t - (later === "0" ? 1 : 0)));
      return text.startsWith("−") || text.includes("e") ? `(${text})` : text;
    };
    reckoned.textContent = t ? `${series.entries > 1 ? "x: " : ""}${numbers.replace(/⟦(\w+?)(?:\|(\d))?⟧/g, put)}` : "";
    result.textContent = series.entries === 1
      ? `= ${number(numberAt(series, t))}`
      : variables().map((v, i) => `${v}: ${number(numberAt(series, t, i))}`).join("   ");
  }
}

function showStates() {
  const names = new Map();
  for (const path of paths) for (const [name, one] of Object.entries(path.series)) if (!names.has(name)) names.set(name, one.symbol);
  const title = (name, symbol) => (["effective", "gradient", "points"].includes(name) ? say(`quantity_${name}`) : `${symbol}${symbol === name ? "" : ` (${name})`}`);
  if (!names.has(state.quantity)) state.quantity = "effective";
  $("quantity").replaceChildren(...[...names].map(([name, symbol]) => new Option(title(name, symbol), name, false, name === state.quantity)));
  const lines = [];
  for (const { series, colour } of paths) {
    const one = series[state.quantity];
    for (let i = 0; one && i < one.entries; i++)
      lines.push({ values: one.numbers.filter((_, j) => j % one.entries === i), colour, dash: i ? [5, 3] : [] });
  }
  states.set(lines);
  $("state").setAttribute("aria-label", say("state_label", { name: title(state.quantity, names.get(state.quantity) ?? "") }));
}

let rows = [];
function showResults() {
  const outcome = (path) => path.diverged !== null ? say("diverged", { steps: path.diverged }) : path.steps < state.steps ? say("ended", { steps: path.steps }) : say("steps_done", { steps: path.steps });
  rows = paths.map((path, i) => {
    const now = made("td");
    const name = made("th", { scope: "row" }, keyLine(i), ` ${translated(path.label)}`);
    const end = made("td", { textContent: number(path.values[path.steps]) });
    return { now, path, row: made("tr", {}, name, now, end, made("td", { textContent: outcome(path) })) };
  });
  $("results").replaceChildren(...rows.map(({ row }) => row));
}

const still = matchMedia("(prefers-reduced-motion: reduce)");

function showPicture() {
  stage.draw(still.matches ? Math.floor(step) : step); // from step to step rather than gliding
  losses.draw(step);
  states.draw(step);
  if (state.view === "3d") space.draw(step);
  const t = Math.floor(step);
  if (t !== showPicture.last || showPicture.paths !== paths) {
    for (const { now, path } of rows) now.textContent = number(path.values[Math.min(t, path.steps)]);
    showNumbers();
    $("step").value = t;
    $("step").ariaValueText = say("step_of", { step: t, steps: longest() });
    $("step-now").textContent = `${t} / ${longest()}`;
    Object.assign(showPicture, { last: t, paths });
  }
}

// What a reader who does not see the picture hears.
let announcing;
function announce() {
  const each = paths.map((path) => path.diverged !== null ? say("summary_diverged", { name: translated(path.label), steps: path.diverged }) : say("summary", { name: translated(path.label), value: number(path.values[path.steps]), steps: path.steps }));
  const summary = each.join("; ");
  $("canvas").setAttribute("aria-label", say("canvas_label", { surface: surface?.formula ?? "", paths: summary }));
  $("loss").setAttribute("aria-label", say("loss_label", { paths: summary }));
  clearTimeout(announcing); // aloud only once it stands still
  announcing = setTimeout(() => ($("status").textContent = summary), 500);
}

function setView(view) {
  state.view = view;
  const deep = view === "3d";
  $("view-2d").setAttribute("aria-pressed", String(!deep));
  $("view-3d").setAttribute("aria-pressed", String(deep));
  $("canvas").style.visibility = deep ? "hidden" : ""; // its size is still asked for
  $("start").hidden = deep;
  $("space").hidden = !deep;
  if (deep && surface) space.show(surface, paths, step).catch((error) => ($("error").textContent = error.message));
  remember();
}

// -- time -----------------------------------------------------------------------------------------

function setPlaying(on) {
  playing = on;
  $("play").textContent = say(on ? "pause" : "play");
  if (!on) return;
  if (step >= longest()) step = 0;
  before = performance.now();
  requestAnimationFrame(tick);
}

function tick(now) {
  if (!playing) return;
  // A window that was hidden does not leap.
  const pace = speed || longest() / 5;
  step = Math.min(longest(), step + (pace * Math.min(Math.max(0, now - before), 100)) / 1000);
  before = now;
  showPicture();
  if (step >= longest()) setPlaying(false);
  else requestAnimationFrame(tick);
}

function goTo(t) {
  setPlaying(false);
  step = Math.max(0, Math.min(longest(), t));
  showPicture();
}

// -- what can be taken away -----------------------------------------------------------------------

function saved(blob, name) {
  const link = made("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// A button that is busy stays where it is, lest the focus go elsewhere; pressed again, it does nothing.
async function announced(button, work) {
  if (button.ariaBusy === "true") return;
  button.ariaBusy = "true";
  try {
    await work();
    $("error").textContent = "";
  } catch (error) {
    $("error").textContent = error.message;
  } finally {
    button.ariaBusy = "false";
  }
}

async function copied(text, button) {
  const was = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without leave, or over plain http from elsewhere: by hand.
    const box = made("textarea", { value: text, className: "unseen" });
    (document.querySelector("dialog[open]") ?? document.body).append(box);
    box.select();
    document.execCommand("copy");
    box.remove();
  }
  button.textContent = $("status").textContent = say("copied");
  setTimeout(() => (button.textContent = was), 1500);
}

async function picture() {
  if (state.view === "3d") return (await fetch(await space.image())).blob();
  // The canvas on paper of its own, with names: the page's own background and legend are not part of it.
  const css = getComputedStyle(document.documentElement);
  const named = (name) => css.getPropertyValue(name).trim();
  const [from, ratio] = [$("canvas"), stage.ratio];
  const line = 20;
  const out = made("canvas", { width: from.width, height: from.height + (paths.length + 2) * line * ratio });
  const context = out.getContext("2d");
  context.fillStyle = named("--paper");
  context.fillRect(0, 0, out.width, out.height);
  context.drawImage(from, 0, 0);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.font = `13px ${getComputedStyle(document.body).fontFamily}`;
  context.textBaseline = "middle";
  context.lineWidth = 3;
  paths.forEach((path, i) => {
    const y = stage.height + (i + 0.7) * line;
    context.strokeStyle = path.colour;
    context.setLineDash(path.dash);
    context.beginPath();
    context.moveTo(40, y);
    context.lineTo(74, y);
    context.stroke();
    context.fillStyle = named("--ink");
    context.fillText(`${translated(path.label)}: ${number(path.values[Math.min(Math.floor(step), path.steps)])}`, 84, y);
  });
  context.fillText(surface.formula, 40, stage.height + (paths.length + 0.8) * line);
  return new Promise((done) => out.toBlob(done, "image/png"));
}

async function tuneAll() {
  const { steps } = state;
  const limit = catalogue.limits.steps_tuning;
  const found = await (await asked("/api/tune", { ...request(), steps: Math.min(steps, limit) })).json();
  found.forEach(({ lr }, i) => {
    if (lr !== null && state.optimizers[i]) state.optimizers[i].values.lr = lr;
  });
  showOptimizers();
  await refresh();
  const each = found.filter(({ lr }) => lr !== null).map(({ label, lr, steps }) => say(steps === null ? "tuned_none" : "tuned_one", { name: translated(label), lr: number(lr), steps }));
  $("tuned").textContent = `${say("tuned")} ${each.join("; ")}. ${say("tune_help")}`;
}

// -- all together ---------------------------------------------------------------------------------

function listen() {
  $("surface").addEventListener("change", () => {
    const chosen = $("surface").value || null;
    const known = catalogue.surfaces.find((s) => s.name === chosen);
    state.surface = chosen;
    if (known) Object.assign(state, { start: [...known.start], noise: known.noise, batch: 1 });
    else state.start = state.window.map(([low, high]) => low + (high - low) / 8);
    showControls();
    refresh();
  });
  let typing;
  $("formula").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => {
      state.formula = $("formula").value;
      refresh();
    }, 250);
  });
  for (const input of document.querySelectorAll("[data-window]"))
    input.addEventListener("change", () => {
      const [i, j] = input.dataset.window.split(",");
      if (Number.isFinite(input.valueAsNumber)) state.window[i][j] = input.valueAsNumber;
      refresh();
    });
  for (const name of ["steps", "seed", "noise", "batch"])
    $(name).addEventListener("input", () => {
      if (Number.isFinite($(name).valueAsNumber)) state[name] = $(name).valueAsNumber;
      refresh();
    });
  for (const i of [0, 1])
    $(`start-${i}`).addEventListener("input", () => {
      if (!Number.isFinite($(`start-${i}`).valueAsNumber)) return;
      state.start[i] = $(`start-${i}`).valueAsNumber;
      refresh();
    });
  const handle = $("start");
  const at = (event) => {
    const box = $("canvas").getBoundingClientRect();
    return [stage.fromX(event.clientX - box.left), stage.fromY(event.clientY - box.top)];
  };
  handle.addEventListener("pointerdown", (event) => handle.setPointerCapture(event.pointerId));
  handle.addEventListener("pointermove", (event) => handle.hasPointerCapture(event.pointerId) && moveStart(at(event)));
  $("canvas").addEventListener("click", (event) => moveStart(at(event)));
  handle.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!way) return;
    event.preventDefault();
    const share = event.shiftKey ? 0.1 : 0.01;
    moveStart(surface.window.map(([low, high], i) => state.start[i] + way[i] * share * (high - low)));
  });
  $("view-2d").addEventListener("click", () => setView("2d"));
  $("view-3d").addEventListener("click", () => setView("3d"));
  $("play").addEventListener("click", () => setPlaying(!playing));
  $("first").addEventListener("click", () => goTo(0));
  $("last").addEventListener("click", () => goTo(longest()));
  $("back").addEventListener("click", () => goTo(Math.ceil(step) - 1));
  $("forward").addEventListener("click", () => goTo(Math.floor(step) + 1));
  $("step").addEventListener("input", () => goTo(Number($("step").value)));
  $("speed").addEventListener("change", () => (speed = Number($("speed").value)));
  $("spoken").addEventListener("change", () => {
    state.spoken = Number($("spoken").value);
    showFormulas();
    showNumbers();
    remember();
  });
  $("quantity").addEventListener("change", () => {
    state.quantity = $("quantity").value;
    showStates();
    states.draw(step);
    remember();
  });
  $("add").addEventListener("click", () => {
    const used = state.optimizers.map((one) => one.method);
    const next = catalogue.rules.find((rule) => !used.includes(rule.name)) ?? catalogue.rules[0];
    state.optimizers.push({ method: next.name, dialect: "paper", values: {} });
    changedOptimizers(state.optimizers.length - 1);
  });
  $("tune").addEventListener("click", () => announced($("tune"), tuneAll));
  $("share").addEventListener("click", () => {
    history.replaceState(null, "", `#${encoded()}`);
    copied(location.href, $("share"));
  });
  $("png").addEventListener("click", () => announced($("png"), async () => saved(await picture(), "thalweg.png")));
  for (const kind of ["gif", "csv"])
    $(kind).addEventListener("click", () => announced($(kind), async () => saved(await (await asked(`/api/${kind}`, request())).blob(), `thalweg.${kind}`)));
  $("code").addEventListener("click", () =>
    announced($("code"), async () => {
      $("code-text").textContent = await (await asked("/api/code", request())).text();
      $("code-box").showModal();
    }),
  );
  $("code-copy").addEventListener("click", () => copied($("code-text").textContent, $("code-copy")));
  $("code-save").addEventListener("click", () => saved(new Blob([$("code-text").textContent], { type: "text/x-python" }), "thalweg_paths.py"));
  $("code-close").addEventListener("click", () => $("code-box").close());
  addEventListener("hashchange", () => {
    state = recalled();
    showControls();
    setView(state.view);
    refresh();
  });
  const redraw = () => {
    if (!surface) return;
    stage.resize();
    losses.resize();
    states.resize();
    placeHandle();
    showPicture();
  };
  new ResizeObserver(redraw).observe($("stage"));
  dark.addEventListener("change", () => {
    paths.forEach((path, i) => Object.assign(path, look(i)));
    showOptimizers();
    show();
    redraw();
  });
}

async function begin() {
  await loadWording();
  fill();
  document.title = say("title");
  catalogue = await (await asked("/api/catalogue")).json();
  state = recalled();
  languageMenu($("language"), () => {
    document.title = say("title");
    showControls();
    if (paths.length) show();
    placeHandle();
    setPlaying(playing);
    announce();
  });
  showControls();
  setView(state.view === "3d" ? "3d" : "2d");
  listen();
  setPlaying(false);
  await refresh();
  if ($("error").textContent) return;
  step = longest();
  showPicture();
  document.documentElement.dataset.ready = "yes";
}

begin();
