// The surface in three dimensions, by plotly.js, which is fetched when it is first asked for.

import { levelsOf, LEVELS } from "./stage.js";
import { say } from "./wording.js";

let loading;
const loaded = () =>
  (loading ??= new Promise((done, failed) => {
    const script = document.createElement("script");
    script.src = "/plotly.js";
    script.onload = done;
    script.onerror = () => failed(new Error(say("no_plotly")));
    document.head.append(script);
  }));

const STYLES = ["solid", "dash", "dot"]; // in the order of the dashes

// Heights are levels, as in the plane: true heights would show the walls of a valley and nothing in it.
export class Space {
  constructor(element) {
    this.element = element;
    this.drawn = null;
    this.last = 0;
  }

  async show(surface, paths, step) {
    await loaded();
    const side = surface.side;
    const [x, y] = surface.window.map(([low, high]) => Array.from({ length: side }, (_, i) => low + (i / (side - 1)) * (high - low)));
    const level = levelsOf(surface.values);
    this.lift = LEVELS * 0.012;
    this.ways = paths.map((path) => {
      const way = { x: [], y: [], z: [] };
      path.values.forEach((value, t) => {
        const [px, py] = [path.points[2 * t], path.points[2 * t + 1]];
        const inside = px >= x[0] && px <= x[side - 1] && py >= y[0] && py <= y[side - 1];
        way.x.push(inside ? px : null);
        way.y.push(inside ? py : null);
        way.z.push(inside ? level(value) + this.lift : null);
      });
      return way;
    });
    const css = getComputedStyle(document.documentElement);
    const named = (name) => css.getPropertyValue(name).trim();
    const z = Array.from({ length: side }, (_, j) => Array.from({ length: side }, (_, i) => Math.min(LEVELS * 1.1, level(surface.values[j * side + i]))));
    const ground = {
      type: "surface", x, y, z, showscale: false, hoverinfo: "skip",
      colorscale: [[0, named("--deep")], [1, named("--high")]],
      contours: { z: { show: true, usecolormap: false, color: named("--line"), width: 1, start: 0, end: LEVELS, size: 1 } },
      lighting: { ambient: 0.75, diffuse: 0.5, specular: 0.05 },
    };
    const lines = this.ways.map((way, i) => ({
      type: "scatter3d", mode: "lines", name: paths[i].label, hoverinfo: "name",
      line: { color: paths[i].colour, width: 6, dash: STYLES[i % STYLES.length] }, ...this.upto(way, step),
    }));
    const heads = { type: "scatter3d", mode: "markers", hoverinfo: "skip", marker: { size: 5, color: paths.map((path) => path.colour) }, ...this.heads(step) };
    const axis = { color: named("--ink"), gridcolor: named("--grid"), zeroline: false };
    const layout = {
      margin: { l: 0, r: 0, t: 0, b: 0 }, showlegend: false, uirevision: surface.formula, paper_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", color: named("--ink") },
      scene: {
        xaxis: { ...axis, title: { text: "x" } }, yaxis: { ...axis, title: { text: "y" } },
        zaxis: { ...axis, title: { text: "" }, showticklabels: false },
        aspectratio: { x: 1.2, y: 1.2, z: 0.5 }, camera: { eye: { x: -0.7, y: -1.1, z: 1.35 }, center: { x: 0, y: 0, z: -0.12 } },
      },
    };
    await Plotly.react(this.element, [ground, ...lines, heads], layout, { displayModeBar: false, responsive: true });
    this.drawn = step;
  }

  upto(way, step) {
    const end = Math.floor(step) + 1;
    return { x: way.x.slice(0, end), y: way.y.slice(0, end), z: way.z.slice(0, end) };
  }

  heads(step) {
    const at = (way, axis) => way[axis][Math.min(Math.floor(step), way.x.length - 1)];
    return Object.fromEntries(["x", "y", "z"].map((axis) => [axis, this.ways.map((way) => at(way, axis))]));
  }

  draw(step) {
    // WebGL takes longer than a frame here: thirty pictures a second.
    if (this.drawn === null || Math.floor(step) === Math.floor(this.drawn) || performance.now() - this.last < 33) return;
    const parts = [...this.ways.map((way) => this.upto(way, step)), this.heads(step)];
    const gathered = Object.fromEntries(["x", "y", "z"].map((axis) => [axis, parts.map((part) => part[axis])]));
    Plotly.restyle(this.element, gathered, parts.map((_, i) => i + 1));
    this.drawn = step;
    this.last = performance.now();
  }

  image() {
    return Plotly.toImage(this.element, { format: "png", width: 1200, height: 900 });
  }
}
