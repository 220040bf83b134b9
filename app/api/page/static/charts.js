// Charts as inline SVG, coloured by the style sheet.

import { make } from "./dom.js";

/** Return a bar from 0 to 1 that is filled up to a share, with a mark. */
export function gauge(share, mark, label) {
  return make("svg", { viewBox: "0 0 100 13", role: "img", "aria-label": label },
    make("rect", { class: "fill-quiet", width: 100, height: 5, y: 2, rx: 1 }),
    make("rect", { class: share >= mark ? "fill-up" : "fill-down", width: Math.max(100 * share, 0.5), height: 5, y: 2, rx: 1 }),
    make("line", { class: "mark", x1: 100 * mark, x2: 100 * mark, y1: 0.5, y2: 8.5 }));
}

/** Return a bar between two values on a scale, for a table's cell. */
export function span(from, to, [low, high], kind) {
  const at = (value) => (100 * (value - low)) / (high - low);
  const [left, right] = [Math.min(from, to), Math.max(from, to)];
  return make("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true", class: "thin" },
    make("line", { class: "axis", x1: at(0), x2: at(0), y1: 0, y2: 8 }),
    make("rect", { class: kind, x: at(left), width: Math.max(at(right) - at(left), 0.4), height: 6, y: 1 }));
}

const SIZE = 240;
const EDGE = 44;

/** Return a curve in the unit square with its diagonal; `dots` marks the points. */
export function curve(xs, ys, label, [xName, yName], dots = false) {
  const at = (x, y) => [EDGE + SIZE * x, SIZE + 10 - SIZE * y];
  const points = xs.map((x, i) => at(x, ys[i]));
  const ticks = [0, 0.5, 1].flatMap((tick) => [
    make("text", { x: at(tick, 0)[0], y: SIZE + 26, "text-anchor": "middle" }, String(tick)),
    make("text", { x: EDGE - 6, y: at(0, tick)[1] + 4, "text-anchor": "end" }, String(tick)),
  ]);
  const [x0, y0] = at(0, 0), [x1, y1] = at(1, 1);
  return make("svg", { viewBox: `0 0 ${SIZE + EDGE + 12} ${SIZE + 46}`, role: "img", "aria-label": label },
    make("rect", { class: "axis", x: x0, y: y1, width: SIZE, height: SIZE }),
    make("line", { class: "dashed", x1: x0, y1: y0, x2: x1, y2: y1 }),
    make("path", { class: "line", d: "M" + points.map((point) => point.map((v) => v.toFixed(1)).join(" ")).join("L") }),
    dots ? points.map(([cx, cy]) => make("circle", { class: "fill-accent", cx, cy, r: 3 })) : null,
    ticks,
    make("text", { x: EDGE + SIZE / 2, y: SIZE + 42, "text-anchor": "middle" }, xName),
    make("text", { x: 10, y: 10 + SIZE / 2, "text-anchor": "middle", transform: `rotate(-90 10 ${10 + SIZE / 2})` }, yName));
}
