// The surface from above, or a curve of one variable, and the paths on it.

import { clamped, colour, sharp, ticks, written } from "./canvas.js";

const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

export const LEVELS = 22;

// Heights as levels from 0 to LEVELS: logarithmic as far as half of the window is to lie in the lower half.
export function levelsOf(values) {
  const sorted = Array.from(values).filter(Number.isFinite).sort((a, b) => a - b);
  const at = (q) => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];
  const low = at(0) ?? 0;
  const span = at(0.995) - low || 1;
  const middle = (at(0.5) - low) / span;
  let [a, b] = [1e-6, 1e9];
  for (let i = 0; i < 60; i++) {
    const k = Math.sqrt(a * b);
    if (Math.log1p(k * middle) / Math.log1p(k) < 0.5) a = k;
    else b = k;
  }
  const k = middle > 0 && middle < 0.5 ? a : 1e-6;
  return (v) => {
    const share = (v - low) / span;
    return (LEVELS * (share <= 0 ? share : Math.log1p(k * share) / Math.log1p(k)));
  };
}

const EDGE = { left: 40, right: 10, top: 8, bottom: 24 };

export class Stage {
  constructor(canvas) {
    this.canvas = canvas;
    this.back = document.createElement("canvas");
    this.paths = [];
  }

  setSurface(surface) {
    this.surface = surface;
    this.flat = surface.window.length === 1;
    this.values = surface.values;
    this.level = levelsOf(surface.values);
    if (this.flat) {
      const seen = Array.from(surface.values).filter(Number.isFinite);
      const [low, high] = [Math.min(...seen), Math.max(...seen)];
      const margin = (high - low || 1) * 0.08;
      this.y = [low - margin, high + margin];
    } else this.y = surface.window[1];
    this.x = surface.window[0];
    this.resize();
  }

  setPaths(paths) {
    this.paths = paths;
    this.place();
  }

  resize() {
    if (!this.surface) return;
    const { width, height, ratio } = sharp(this.canvas);
    Object.assign(this, { width, height, ratio });
    this.paintBack();
    this.place();
  }

  toX = (x) => EDGE.left + ((x - this.x[0]) / (this.x[1] - this.x[0])) * (this.width - EDGE.left - EDGE.right);
  toY = (y) => this.height - EDGE.bottom - ((y - this.y[0]) / (this.y[1] - this.y[0])) * (this.height - EDGE.top - EDGE.bottom);
  fromX = (px) => this.x[0] + ((px - EDGE.left) / (this.width - EDGE.left - EDGE.right)) * (this.x[1] - this.x[0]);
  fromY = (py) => this.y[0] + ((this.height - EDGE.bottom - py) / (this.height - EDGE.top - EDGE.bottom)) * (this.y[1] - this.y[0]);

  // The value at a point of a 1-D surface, for its start's place on the curve.
  valueAt(x) {
    const at = ((x - this.x[0]) / (this.x[1] - this.x[0])) * (this.values.length - 1);
    const i = Math.max(0, Math.min(this.values.length - 2, Math.floor(at)));
    return this.values[i] + (at - i) * (this.values[i + 1] - this.values[i]);
  }

  paintBack() {
    const { back, ratio } = this;
    back.width = this.canvas.width;
    back.height = this.canvas.height;
    const context = back.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const inner = [EDGE.left, EDGE.top, this.width - EDGE.left - EDGE.right, this.height - EDGE.top - EDGE.bottom];
    if (this.flat) {
      context.fillStyle = colour("--panel");
      context.fillRect(...inner);
    } else {
      const picture = this.contours(Math.round(inner[2] * ratio), Math.round(inner[3] * ratio));
      context.putImageData(picture, Math.round(inner[0] * ratio), Math.round(inner[1] * ratio));
    }
    context.font = `12px ${getComputedStyle(document.body).fontFamily}`;
    context.fillStyle = colour("--faint");
    context.strokeStyle = colour("--grid");
    context.textAlign = "center";
    context.textBaseline = "top";
    for (const x of ticks(...this.x, this.width > 420 ? 8 : 5)) {
      context.fillRect(this.toX(x), this.height - EDGE.bottom, 1, 4);
      context.fillText(written(x), this.toX(x), this.height - EDGE.bottom + 6);
    }
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const y of ticks(...this.y, 6)) {
      context.fillRect(EDGE.left - 4, this.toY(y), 4, 1);
      context.fillText(written(y), EDGE.left - 6, this.toY(y));
    }
    context.strokeRect(...inner);
    context.save();
    context.beginPath();
    context.rect(...inner);
    context.clip();
    if (this.flat) {
      context.beginPath();
      this.values.forEach((v, i) => context.lineTo(this.toX(this.x[0] + (i / (this.values.length - 1)) * (this.x[1] - this.x[0])), this.toY(v)));
      context.strokeStyle = colour("--faint");
      context.lineWidth = 2;
      context.stroke();
    }
    context.strokeStyle = colour("--ink");
    context.lineWidth = 1.5;
    const place = (point) => [this.toX(point[0]), this.toY(this.flat ? this.valueAt(point[0]) : point[1])];
    for (const point of this.surface.minima) {
      const [x, y] = place(point);
      context.beginPath();
      for (const [dx, dy] of [[-4, -4], [4, 4], [-4, 4], [4, -4]]) dx < 0 ? context.moveTo(x + dx, y + dy) : context.lineTo(x + dx, y + dy);
      context.stroke();
    }
    for (const point of this.surface.saddles) {
      const [x, y] = place(point);
      context.strokeRect(x - 3.5, y - 3.5, 7, 7);
    }
    context.restore();
  }

  // Bands of colour with smooth lines between them: a pixel's distance from a line is its level's over the slope.
  contours(width, height) {
    const side = this.surface.side;
    const known = Float32Array.from(this.values, (v) => this.level(v));
    const levels = new Float32Array(width * height);
    for (let row = 0; row < height; row++) {
      const y = (1 - row / (height - 1)) * (side - 1);
      const j = Math.min(side - 2, Math.floor(y));
      const v = y - j;
      for (let column = 0; column < width; column++) {
        const x = (column / (width - 1)) * (side - 1);
        const i = Math.min(side - 2, Math.floor(x));
        const u = x - i;
        const at = j * side + i;
        levels[row * width + column] =
          (1 - v) * ((1 - u) * known[at] + u * known[at + 1]) + v * ((1 - u) * known[at + side] + u * known[at + side + 1]);
      }
    }
    // Where the surface is rough, every second, fourth, … line, or they would run together.
    let rough = 0;
    for (let at = 1; at < levels.length; at++) rough += Math.abs(levels[at] - levels[at - 1]) || 0;
    const stride = 2 ** Math.max(0, Math.ceil(Math.log2((rough / levels.length) * this.ratio / 0.09)));
    const picture = new ImageData(width, height);
    const [deep, high, line] = ["--deep", "--high", "--line"].map((name) => rgb(colour(name)));
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) {
        const at = row * width + column;
        const level = levels[at] / stride;
        const across = levels[column + 1 < width ? at + 1 : at - 1] / stride - level;
        const down = levels[row + 1 < height ? at + width : at - width] / stride - level;
        const slope = Math.hypot(across, down);
        const away = Math.abs(level - Math.round(level)) / Math.max(slope, 1e-9);
        const ink = slope < 0.3 ? Math.max(0, 1 - away / this.ratio) * 0.6 * (1 - slope / 0.3) : 0;
        const share = Math.max(0, Math.min(1, ((Math.floor(level) + 0.5) * stride) / LEVELS)) || 0;
        for (let c = 0; c < 3; c++) {
          const band = deep[c] + share * (high[c] - deep[c]);
          picture.data[4 * at + c] = band + ink * (line[c] - band);
        }
        picture.data[4 * at + 3] = Number.isNaN(level) ? 0 : 255;
      }
    }
    return picture;
  }

  // Each path's points in pixels.
  place() {
    if (!this.surface) return;
    for (const path of this.paths) {
      const n = this.surface.window.length;
      const count = path.values.length;
      path.at = new Float32Array(2 * count);
      for (let t = 0; t < count; t++) {
        path.at[2 * t] = clamped(this.toX(path.points[n * t]));
        path.at[2 * t + 1] = clamped(this.toY(this.flat ? path.values[t] : path.points[n * t + 1]));
      }
    }
  }

  draw(step) {
    if (!this.surface) return;
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.drawImage(this.back, 0, 0);
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.save();
    context.beginPath();
    context.rect(EDGE.left, EDGE.top, this.width - EDGE.left - EDGE.right, this.height - EDGE.top - EDGE.bottom);
    context.clip();
    context.lineJoin = "round";
    const halo = colour("--halo");
    const lines = this.paths.map((path) => {
      const line = new Path2D();
      path.head = trail(path, step, line);
      return line;
    });
    context.strokeStyle = halo;
    context.lineWidth = 5;
    for (const line of lines) context.stroke(line);
    for (const [i, path] of this.paths.entries()) {
      context.strokeStyle = context.fillStyle = path.colour;
      context.lineWidth = 2.4;
      context.setLineDash(path.dash);
      context.stroke(lines[i]);
      context.setLineDash([]);
      if (path.steps <= 80)
        for (let t = 0; t <= Math.min(step, path.steps); t++) {
          context.beginPath();
          context.arc(path.at[2 * t], path.at[2 * t + 1], 2.4, 0, 7);
          context.fill();
        }
    }
    for (const path of this.paths) {
      context.beginPath();
      context.arc(...path.head, 6, 0, 7);
      context.fillStyle = path.colour;
      context.fill();
      context.strokeStyle = halo;
      context.lineWidth = 2;
      context.stroke();
    }
    context.restore();
  }
}

// The line through the first steps, a fraction of the next included; where it ends.
function trail(path, step, line) {
  const last = Math.min(step, path.steps);
  let [x, y] = [path.at[0], path.at[1]];
  line.moveTo(x, y);
  for (let t = 1; t <= Math.floor(last); t++) {
    const [nextX, nextY] = [path.at[2 * t], path.at[2 * t + 1]];
    if (Number.isNaN(nextX + nextY)) return [x, y];
    // What is nearer than half a pixel is not seen.
    if (Math.abs(nextX - x) + Math.abs(nextY - y) > 0.5 || t === Math.floor(last)) {
      line.lineTo(nextX, nextY);
      [x, y] = [nextX, nextY];
    }
  }
  const t = Math.floor(last);
  if (last > t) {
    const [nextX, nextY] = [path.at[2 * t + 2], path.at[2 * t + 3]];
    if (!Number.isNaN(nextX + nextY)) {
      x += (last - t) * (nextX - x);
      y += (last - t) * (nextY - y);
      line.lineTo(x, y);
    }
  }
  return [x, y];
}
