// Curves over the steps: losses, state, effective step sizes.

import { clamped, colour, sharp, ticks, written } from "./canvas.js";

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
    // What diverges leaves the picture above.
    const first = Math.max(...lines.map(({ values }) => Math.abs(values.find(Number.isFinite) ?? 0)), 0);
    if (first > 0 && high > 1e4 * first) high = 1e2 * first;
    if (low < 0 && -low > 1e4 * Math.max(first, 1)) low = -1e2 * Math.max(first, 1);
    if (!(high >= low)) [low, high] = [0, 1];
    if (this.log) {
      low = Math.max(least, high * 1e-12);
      this.range = [Math.log10(low) - 0.1, Math.log10(high) + 0.1];
    } else {
      const margin = (high - low || Math.abs(high) || 1) * 0.06;
      this.range = [low - margin, high + margin];
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
