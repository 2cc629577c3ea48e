"use strict";
// The front, drawn over any two objectives; sorting, filtering and picking of points.
// Numbers come from the JSON in #data; their texts were written by Python, so page and table agree.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  const element = (name, attributes = {}, ...children) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const html = (name, text, ...children) => {
    const made = document.createElement(name);
    if (text) made.textContent = text;
    made.append(...children);
    return made;
  };

  const state = { x: data.x, y: data.y, split: "test", hidden: new Set(), picked: null };
  const rows = new Map([...document.querySelectorAll("#points-table tbody tr")].map((row) => [+row.dataset.at, row]));
  const objective = (name) => data.objectives.find((o) => o.name === name);
  const measured = (point, name) => point[state.split][name];

  // ── the chart ────────────────────────────────────────────────────────────
  const chart = byId("chart");
  const tip = byId("tip");
  let marks = [];

  function axis(values) {
    const low = Math.min(...values), high = Math.max(...values);
    const spread = high - low || Math.abs(high) || 1;
    let start = low - 0.06 * spread;
    const end = high + 0.06 * spread;
    if (low >= 0 && start < 0) start = -0.03 * spread;
    return { start, end, least: low < 0 ? start : 0 };
  }
  function ticks({ start, end, least }, most) {
    const power = 10 ** Math.floor(Math.log10((end - start) / most));
    const step = power * [1, 2, 2.5, 5, 10].find((m) => (end - start) / (power * m) <= most);
    const found = [];
    for (let i = Math.ceil(Math.max(start, least) / step - 1e-9); i * step <= end; i++) found.push(i * step);
    return found;
  }
  function shown(o, value) {
    const v = o.share ? 100 * value : value;
    const size = Math.abs(v);
    const digits = size >= 1000 ? 0 : 4;
    return (size < 1e-12 ? 0 : +v.toPrecision(digits || 15)).toLocaleString("en", { maximumFractionDigits: size >= 1000 ? 0 : 6 }).replace("-", "−");
  }
  const title = (o) => (o.goal === "max" ? `${o.title}, more is better →` : `← less is better, ${o.title}`);
  const turned = (o, value) => (o.goal === "min" ? value : -value);

  function draw() {
    const X = objective(state.x), Y = objective(state.y);
    const width = Math.max(280, chart.clientWidth), narrow = width < 560;
    const height = Math.round(Math.min(470, Math.max(310, width * 0.52)));
    const left = narrow ? 46 : 62, right = width - 12, top = 14, base = height - 50;
    const found = data.points.filter((p) => !state.hidden.has(p.strategy) && measured(p, X.name) && measured(p, Y.name));
    const limits = (o) => data.limits.filter((l) => l.objective === o.name && l[state.split] !== null);
    const range = (o) => axis([
      ...found.flatMap((p) => measured(p, o.name).slice(0, 3)),
      ...limits(o).map((l) => l[state.split]),
      ...(found.length ? [] : [0, 1]),
    ].filter((v) => v !== null));
    const across = range(X), up = range(Y);
    const h = (v) => left + ((v - across.start) / (across.end - across.start)) * (right - left);
    const v = (value) => base - ((value - up.start) / (up.end - up.start)) * (base - top);
    const drawn = [];
    const line = (x1, y1, x2, y2, kind) => element("line", { x1, y1, x2, y2, class: kind });
    const text = (x, y, words, anchor, more = {}) => element("text", { x, y, "text-anchor": anchor, ...more }, words);

    for (const value of ticks(up, 5)) {
      drawn.push(line(left, v(value), right, v(value), "grid"), text(left - 8, v(value) + 4, shown(Y, value), "end"));
    }
    for (const value of ticks(across, narrow ? 4 : 7)) {
      drawn.push(line(h(value), base, h(value), base + 4, "axis"), text(h(value), base + 18, shown(X, value), "middle"));
    }
    drawn.push(line(left, base, right, base, "axis"));
    drawn.push(text((left + right) / 2, base + 40, title(X), "middle"));
    drawn.push(text(0, 0, title(Y), "middle", { transform: `translate(12,${(top + base) / 2}) rotate(-90)` }));

    for (const l of limits(X)) {
      const at = h(l[state.split]), most = X.goal === "min";
      drawn.push(element("rect", { x: most ? at : left, y: top, width: Math.max(0, most ? right - at : at - left), height: base - top, class: "outside" }));
      drawn.push(line(at, top, at, base, "limit"));
      drawn.push(text(0, 0, l.words, "end", { transform: `translate(${at - 5},${top + 4}) rotate(-90)` }));
    }
    for (const l of limits(Y)) {
      const at = v(l[state.split]), most = Y.goal === "min";
      drawn.push(element("rect", { x: left, y: most ? top : at, width: right - left, height: Math.max(0, most ? at - top : base - at), class: "outside" }));
      drawn.push(line(left, at, right, at, "limit"), text(right - 4, at - 5, l.words, "end"));
    }

    const value = (p, o) => measured(p, o.name)[0];
    const best = found.filter((p) => !found.some((q) => {
      const a = turned(X, value(q, X)) - turned(X, value(p, X)), b = turned(Y, value(q, Y)) - turned(Y, value(p, Y));
      return a <= 0 && b <= 0 && (a < 0 || b < 0);
    })).sort((p, q) => value(p, X) - value(q, X) || value(p, Y) - value(q, Y));
    if (best.length > 1) {
      // A corner lies on the side that the points before and after it both dominate.
      const path = best.map((p, i) => {
        const a = h(value(p, X)), b = v(value(p, Y));
        return i === 0 ? `M${a},${b}` : X.goal === "min" ? `H${a}V${b}` : `V${b}H${a}`;
      });
      drawn.push(element("path", { d: path.join(""), class: "stairs" }));
    }

    marks = found.map((p) => mark(p, X, Y, h, v)).sort((a, b) => a.h - b.h || a.v - b.v);
    // Names stay clear of the limits' words, which stand at the right end and at the top.
    const words = [
      ...limits(Y).map((l) => [right - 4 - 6.3 * l.words.length, v(l[state.split]) - 17, right, v(l[state.split]) - 2]),
      ...limits(X).map((l) => [h(l[state.split]) - 18, top, h(l[state.split]), top + 4 + 6.3 * l.words.length]),
    ];
    drawn.push(...marks.map((m) => m.drawn), ...names(best, found, words, X, Y, h, v, { left, right, top, base }));
    const label = `${found.length} operating points: ${Y.title} over ${X.title}. Arrow keys move between points, Enter picks one.`;
    chart.replaceChildren(element("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label }, ...drawn), tip);
    tip.hidden = true;
    rove(marks.findIndex((m) => m.point.at === state.picked));
    if (!found.length) byId("chart-empty").hidden = false;
    else byId("chart-empty").hidden = true;
  }

  function mark(point, X, Y, h, v) {
    const x = measured(point, X.name), y = measured(point, Y.name), at = h(x[0]), up = v(y[0]);
    const group = element("g", {
      class: `mark s${point.kind % 10}${point.front ? " front" : ""}`, role: "button", tabindex: "-1", "data-at": point.at,
      "aria-pressed": String(state.picked === point.at),
      "aria-label": `${point.name}${point.chosen ? ", " + data.chosen : ""}: ${said(Y, y)}; ${said(X, x)}`,
    });
    if (x[1] !== null && x[2] !== null) group.append(element("line", { x1: h(x[1]), x2: h(x[2]), y1: up, y2: up }));
    if (y[1] !== null && y[2] !== null) group.append(element("line", { x1: at, x2: at, y1: v(y[1]), y2: v(y[2]) }));
    group.append(element("circle", { class: "ring", cx: at, cy: up, r: 10, "pointer-events": "all" }));
    if (point.chosen) group.append(element("circle", { class: "chosen", cx: at, cy: up, r: 10.5 }));
    group.append(element("path", { d: data.shapes[point.kind % data.shapes.length], transform: `translate(${at},${up})` }));
    const made = { point, h: at, v: up, drawn: group };
    group.addEventListener("pointerenter", () => hover(made));
    group.addEventListener("pointerleave", () => { tip.hidden = true; });
    group.addEventListener("focus", () => hover(made));
    group.addEventListener("blur", () => { tip.hidden = true; });
    group.addEventListener("click", () => pick(state.picked === point.at ? null : point.at));
    return made;
  }

  function names(best, found, words, X, Y, h, v, frame) {
    const place = (p) => [h(measured(p, X.name)[0]), v(measured(p, Y.name)[0])];
    const taken = [...words, ...found.map((p) => { const [a, b] = place(p); return [a - 7, b - 7, a + 7, b + 7]; })];
    const drawn = [];
    for (const p of [...best].sort((a, b) => b.chosen - a.chosen)) {
      const name = p.name.length > 30 ? p.name.slice(0, 29).trimEnd() + "…" : p.name;
      const [a, b] = place(p), long = name.length * 6.3;
      const spots = [[a + 12, b + 15, "start"], [a + 12, b - 7, "start"], [a - 12 - long, b - 7, "end"], [a - 12 - long, b + 15, "end"]];
      for (const [x, y, anchor] of spots) {
        const box = [x, y - 10, x + long, y + 3];
        const inside = box[0] > frame.left && box[2] < frame.right + 4 && box[1] > frame.top - 8 && box[3] < frame.base;
        if (inside && !taken.some((t) => box[0] < t[2] && t[0] < box[2] && box[1] < t[3] && t[1] < box[3])) {
          taken.push(box);
          drawn.push(element("text", { class: "name", x: anchor === "start" ? x : x + long, y, "text-anchor": anchor, "pointer-events": "none" }, name));
          break;
        }
      }
    }
    return drawn;
  }

  const said = (o, m) => `${o.title} ${m[4]}${m[5] ? ` [${m[5]}]` : ""}`;
  const aside = (m) => [`n = ${m[3].toLocaleString("en")}`, m[6] && `base rate ${m[6]}`].filter(Boolean).join(", ");

  function hover({ point, h, v }) {
    const lines = [state.y, state.x].map((name) => {
      const m = measured(point, name);
      return html("div", said(objective(name), m), html("span", aside(m)));
    });
    tip.replaceChildren(html("b", point.name), html("span", [point.how, point.front && "on the front", point.chosen && data.chosen].filter(Boolean).join(" · ")), ...lines);
    tip.hidden = false;
    const wide = tip.offsetWidth, tall = tip.offsetHeight;
    tip.style.left = `${Math.max(0, Math.min(h + 14 + wide > chart.clientWidth ? h - wide - 14 : h + 14, chart.clientWidth - wide))}px`;
    tip.style.top = `${v - tall - 12 < -40 ? v + 16 : v - tall - 12}px`;
  }

  function rove(to) {
    marks.forEach((m, i) => m.drawn.setAttribute("tabindex", i === Math.max(0, to) ? "0" : "-1"));
  }
  chart.addEventListener("keydown", (event) => {
    const at = marks.findIndex((m) => m.drawn === event.target);
    if (at < 0) return;
    const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: marks.length - 1 }[event.key];
    if (to !== undefined) {
      const next = Math.min(marks.length - 1, Math.max(0, to));
      rove(next);
      marks[next].drawn.focus();
    } else if (event.key === "Enter" || event.key === " ") {
      pick(marks[at].point.at);
    } else if (event.key === "Escape") {
      pick(null);
    } else return;
    event.preventDefault();
  });

  // ── one point, picked in the chart or in the table ───────────────────────
  function pick(at) {
    state.picked = at;
    for (const [i, row] of rows) row.setAttribute("aria-selected", String(i === at));
    marks.forEach((m, i) => {
      m.drawn.setAttribute("aria-pressed", String(m.point.at === at));
      if (m.point.at !== at) return;
      rove(i);
      const focused = document.activeElement === m.drawn;
      m.drawn.parentNode.insertBefore(m.drawn, m.drawn.parentNode.querySelector(".name"));  // on top of the others
      if (focused) m.drawn.focus({ preventScroll: true });  // moving it took the focus away
    });
    show(data.points.find((p) => p.at === at));
    const row = rows.get(at), box = byId("points-box");
    if (row) box.scrollTop = row.offsetTop - box.clientHeight / 3;
  }
  function show(point) {
    const panel = byId("picked");
    panel.hidden = !point;
    if (!point) return;
    const list = html("dl");
    for (const o of data.objectives) {
      const m = measured(point, o.name);
      if (m) list.append(html("div", "", html("dt", o.title), html("dd", m[4], html("small", [m[5] && `[${m[5]}]`, aside(m), m[7]].filter(Boolean).join(" · ")))));
    }
    const left = html("a", "What left the building");
    left.href = `#left-${point.at}`;
    left.addEventListener("click", () => { const target = byId(`left-${point.at}`); if (target) target.open = true; });
    const about = html("p", `${point.how}${point.settings ? ` · ${point.settings}` : ""} · ${state.split} split · `);
    about.className = "note";
    about.append(left);
    panel.replaceChildren(html("h3", point.name), about, list);
  }

  // ── controls ─────────────────────────────────────────────────────────────
  for (const [id, key] of [["axis-x", "x"], ["axis-y", "y"]]) {
    byId(id).addEventListener("change", (event) => { state[key] = event.target.value; draw(); });
  }
  byId("swap").addEventListener("click", () => {
    [state.x, state.y] = [state.y, state.x];
    byId("axis-x").value = state.x;
    byId("axis-y").value = state.y;
    draw();
  });
  for (const input of document.querySelectorAll('input[name="split"]')) {
    input.addEventListener("change", () => {
      state.split = input.value;
      draw();
      if (state.picked !== null) show(data.points.find((p) => p.at === state.picked));
    });
  }
  const sift = () => {
    const only = byId("only-front").checked;
    for (const p of data.points) rows.get(p.at).hidden = state.hidden.has(p.strategy) || (only && !p.front);
  };
  for (const input of document.querySelectorAll("#keys input")) {
    input.addEventListener("change", () => {
      const name = data.strategies[+input.value];
      if (input.checked) state.hidden.delete(name);
      else state.hidden.add(name);
      sift();
      draw();
    });
  }
  byId("only-front").addEventListener("change", sift);
  const table = byId("points-table");
  byId("all-columns").addEventListener("change", (event) => table.classList.toggle("headline", !event.target.checked));

  // ── the table ────────────────────────────────────────────────────────────
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const down = before ? before === "ascending" : head.dataset.first === "descending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.v;
      const compare = column === 0
        ? (a, b) => key(a).localeCompare(key(b), "en", { numeric: true })
        : (a, b) => +key(a) - +key(b);
      const sorted = [...body.rows].sort((a, b) => {
        const missing = (key(a) === "") - (key(b) === "");  // what was not measured stays last
        return missing || (down ? -compare(a, b) : compare(a, b)) || a.dataset.at - b.dataset.at;
      });
      body.append(...sorted);
    });
  });
  for (const [at, row] of rows) {
    row.addEventListener("click", (event) => { if (!event.target.closest("a")) pick(state.picked === at ? null : at); });
    row.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pick(at); }
    });
  }

  // ── page ─────────────────────────────────────────────────────────────────
  const follow = () => {
    const target = byId(decodeURIComponent(location.hash.slice(1)));
    if (target && target.tagName === "DETAILS") target.open = true;
  };
  addEventListener("hashchange", follow);
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
  byId("front-live").hidden = false;
  let width = chart.clientWidth;
  draw();
  new ResizeObserver(() => { if (chart.clientWidth !== width) { width = chart.clientWidth; draw(); } }).observe(chart);
  follow();
})();
