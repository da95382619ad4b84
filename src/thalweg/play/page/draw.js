// Pictures on canvases: the surface with its paths, and curves over the steps.

export const dark = matchMedia("(prefers-color-scheme: dark)");

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

// Numbers as the server packs them.
export function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

// A canvas as sharp as the screen; returns its context in CSS pixels.
function sharp(canvas) {
  const { width, height } = canvas.getBoundingClientRect();
  const ratio = Math.min(devicePixelRatio || 1, 2);
  const size = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
  if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height, ratio };
}

// About `count` round numbers within [low, high].
function ticks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((m) => m * power >= raw * 0.999);
  const found = [];
  for (let x = Math.ceil(low / step - 1e-9) * step; x <= high + step * 1e-9; x += step) found.push(Number(x.toPrecision(12)));
  return found;
}

const written = (x) => (Math.abs(x) >= 1e4 || (x !== 0 && Math.abs(x) < 1e-3) ? x.toExponential(0).replace("e+", "e") : String(x)).replaceAll("-", "−");

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
      const room = (high - low || 1) * 0.08;
      this.y = [low - room, high + room];
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

const clamped = (x) => Math.max(-1e5, Math.min(1e5, x)); // NaN stays NaN and ends the line

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

const SPACE = { left: 54, right: 12, top: 8, bottom: 22 };

// Lines over the steps, with a mark at the step shown.
export class Curves {
  constructor(canvas) {
    this.canvas = canvas;
    this.still = document.createElement("canvas");
    this.lines = [];
  }

  // Lines: {values, colour, dash}, one value a step from 0 on. The scale is logarithmic where all are positive
  // and far apart.
  set(lines) {
    this.lines = lines;
    let [low, high, least] = [Infinity, -Infinity, Infinity];
    this.steps = 1;
    for (const { values } of lines) {
      this.steps = Math.max(this.steps, values.length - 1);
      for (const v of values) {
        if (!Number.isFinite(v)) continue;
        if (v < low) low = v;
        if (v > high) high = v;
        if (v > 0 && v < least) least = v;
      }
    }
    this.log = low >= 0 && high > 50 * Math.max(least, 1e-30);
    // What is lost leaves the picture above.
    const first = Math.max(...lines.map(({ values }) => Math.abs(values.find(Number.isFinite) ?? 0)), 0);
    if (first > 0 && high > 1e4 * first) high = 1e2 * first;
    if (low < 0 && -low > 1e4 * Math.max(first, 1)) low = -1e2 * Math.max(first, 1);
    if (!(high >= low)) [low, high] = [0, 1];
    if (this.log) {
      low = Math.max(least, high * 1e-12);
      this.range = [Math.log10(low) - 0.1, Math.log10(high) + 0.1];
    } else {
      const room = (high - low || Math.abs(high) || 1) * 0.06;
      this.range = [low - room, high + room];
    }
    this.resize();
  }

  toX = (t) => SPACE.left + (t / this.steps) * (this.width - SPACE.left - SPACE.right);
  toY = (v) => this.height - SPACE.bottom - (((this.log ? Math.log10(v) : v) - this.range[0]) / (this.range[1] - this.range[0])) * (this.height - SPACE.top - SPACE.bottom);

  resize() {
    if (!this.range) return;
    const { width, height, ratio } = sharp(this.canvas);
    Object.assign(this, { width, height, ratio });
    this.still.width = this.canvas.width;
    this.still.height = this.canvas.height;
    const context = this.still.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.font = `11px ${getComputedStyle(document.body).fontFamily}`;
    context.fillStyle = colour("--faint");
    context.strokeStyle = colour("--grid");
    const [left, right] = [SPACE.left, width - SPACE.right];
    context.textAlign = "right";
    context.textBaseline = "middle";
    const marks = this.log
      ? ticks(...this.range, 4).filter(Number.isInteger).map((e) => [10 ** e, `1e${e}`.replace("-", "−")])
      : ticks(...this.range, 4).map((v) => [v, written(v)]);
    for (const [v, text] of marks) {
      const y = Math.round(this.toY(v)) + 0.5;
      context.beginPath();
      context.moveTo(left, y);
      context.lineTo(right, y);
      context.stroke();
      context.fillText(text, left - 5, y);
    }
    context.textAlign = "center";
    context.textBaseline = "top";
    for (const t of ticks(0, this.steps, width > 320 ? 6 : 4).filter(Number.isInteger))
      context.fillText(String(t), this.toX(t), height - SPACE.bottom + 5);
    context.save();
    context.beginPath();
    context.rect(left, 0, right - left + 2, height - SPACE.bottom + 1);
    context.clip();
    context.lineWidth = 1.8;
    context.lineJoin = "round";
    for (const { values, colour, dash } of this.lines) {
      context.beginPath();
      context.setLineDash(dash);
      context.strokeStyle = colour;
      let drawing = false;
      values.forEach((v, t) => {
        const y = this.toY(v);
        if (!Number.isFinite(y)) drawing = false;
        else {
          drawing ? context.lineTo(this.toX(t), clamped(y)) : context.moveTo(this.toX(t), clamped(y));
          drawing = true;
        }
      });
      context.stroke();
    }
    context.restore();
  }

  draw(step) {
    if (!this.range) return;
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.drawImage(this.still, 0, 0);
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    const x = this.toX(Math.min(step, this.steps));
    context.strokeStyle = colour("--faint");
    context.setLineDash([2, 3]);
    context.beginPath();
    context.moveTo(x, SPACE.top);
    context.lineTo(x, this.height - SPACE.bottom);
    context.stroke();
    context.setLineDash([]);
    for (const { values, colour } of this.lines) {
      const t = Math.min(Math.round(step), values.length - 1);
      const y = this.toY(values[t]);
      if (!Number.isFinite(y) || y < 0) continue;
      context.beginPath();
      context.arc(this.toX(t), y, 3.4, 0, 7);
      context.fillStyle = colour;
      context.fill();
    }
  }
}
