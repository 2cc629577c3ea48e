// Draws what /ui/data says. All text is set as text, never as markup.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const REFRESH_MS = 10_000;

const $ = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== "") node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

function draw(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Numbers as people read them.

const whole = (n) => Math.round(n).toLocaleString("en");
const short = (n) => n < 10_000 ? whole(n)
  : n < 1e6 ? `${(n / 1e3).toFixed(n < 1e5 ? 1 : 0)} k` : `${(n / 1e6).toFixed(n < 1e8 ? 1 : 0)} M`;
const money = (n) => n === 0 ? "$0" : n >= 100 ? `$${whole(n)}` : n >= 1 ? `$${n.toFixed(2)}`
  : n >= 0.01 ? `$${n.toFixed(3)}` : n >= 1e-6 ? `$${Number(n.toPrecision(2))}` : "< $0.000001";
const share = (part, all) => all ? `${(100 * part / all).toFixed(part && part < all / 100 ? 1 : 0)} %` : "–";
const bytes = (n) => n < 1000 ? `${whole(n)} B` : n < 1e6 ? `${(n / 1e3).toFixed(1)} kB`
  : n < 1e9 ? `${(n / 1e6).toFixed(1)} MB` : `${(n / 1e9).toFixed(2)} GB`;
const seconds = (s) => s < 1 ? `${whole(s * 1000)} ms` : `${s.toFixed(s < 10 ? 2 : 1)} s`;
const plain = (n) => Number(n.toPrecision(3)).toString();
const some = (n, show) => n ? show(n) : "–";
const worded = (kind) => kind.toLowerCase().replaceAll("_", " ");
const many = (n, word) => `${whole(n)} ${word}${n === 1 ? "" : "s"}`;
const clock = (at) => new Date(at * 1000).toLocaleTimeString("en-GB");
function moment(at, now) {
  const day = new Date(at * 1000).toLocaleDateString("en-GB", { day: "numeric", month: "short" });
  return now - at < 12 * 3600 ? clock(at) : `${day} ${clock(at).slice(0, 5)}`;
}

function none(text) {
  return make("p", { class: "none" }, text);
}

function chips(kinds) {
  const found = Object.entries(kinds);
  if (!found.length) return ["–"];
  return found.map(([kind, count]) => make("span", { class: "chip" }, `${worded(kind)} × ${whole(count)}`));
}

function table(columns, rows) {
  const head = make("tr", {}, ...columns.map(([name, kind]) => make("th", { class: kind }, name)));
  const body = rows.map((row) => make("tr", {}, ...row.map((cell, i) => {
    const parts = Array.isArray(cell) ? cell : [cell];
    return make("td", { class: columns[i][1] }, ...parts);
  })));
  return make("table", {}, make("thead", {}, head), make("tbody", {}, ...body));
}

// The parts of the page.

function tiles(data) {
  const t = data.total;
  const called = t.requests - t.alone - t.errors;
  const all = [
    ["Spent", money(t.usd), `${short(t.tokens)} tokens`],
    ["Requests", short(t.requests), t.errors ? `${many(t.errors, "error")}` : "no errors"],
    ["Calls saved", share(t.alone, t.requests), `${short(t.alone)} answered without the large model`],
    ["Sent", bytes(t.bytes_up), `${short(Math.max(called, 0))} requests called the large model`],
    ["Private values", short(t.entities), "left as placeholders"],
    ["Latency", t.p50 ? seconds(t.p50) : "–", t.p95 ? `median; 95 % within ${seconds(t.p95)}` : "median"],
  ];
  $("tiles").replaceChildren(...all.map(([what, value, more]) => make("div", { class: "tile" },
    make("div", { class: "what" }, what), make("div", { class: "value" }, value),
    make("div", { class: "more" }, more))));
}

// About `count` round numbers that cover everything from `low` to `high`.
function ticks(low, high, count, least = 0) {
  const raw = (high - low) / count || Math.abs(high) || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = Math.max([1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999), least);
  const first = Math.floor(low / step + 1e-9), last = Math.ceil(high / step - 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step);
}

function hours(data) {
  const spans = { "1h": 2, "24h": 25, "7d": 169, "30d": 721 };
  const last = Math.floor(data.now / 3600) * 3600;
  const by = new Map(data.hours.map((hour) => [hour.at, hour]));
  let slots = [];
  for (let i = spans[data.span] - 1; i >= 0; i -= 1) {
    const at = last - i * 3600;
    slots.push({ at, requests: 0, alone: 0, errors: 0, usd: 0, ...by.get(at) });
  }
  let unit = "hour";
  if (data.span === "30d") {
    unit = "day";
    const days = new Map();
    for (const slot of slots) {
      const at = Math.floor(slot.at / 86400) * 86400;
      const day = days.get(at) || { at, requests: 0, alone: 0, errors: 0, usd: 0 };
      for (const name of ["requests", "alone", "errors", "usd"]) day[name] += slot[name];
      days.set(at, day);
    }
    slots = [...days.values()];
  }
  document.querySelector("#hours").closest("section").querySelector("h2").textContent = `Requests by ${unit}`;
  $("hours-legend").replaceChildren(
    ...[["lm", "large model called"], ["alone", "answered without it"], ["error", "failed"]].map(
      ([name, text]) => make("span", {}, make("span", { class: `key ${name}` }), text)));

  const narrow = $("hours").clientWidth < 560;
  const width = narrow ? 420 : 1040, height = narrow ? 190 : 220;
  const left = 46, bottom = 24, top = 8;
  const marks = ticks(0, Math.max(...slots.map((s) => s.requests), 1), 4, 1);
  const most = marks.at(-1);
  const y = (n) => top + (height - top - bottom) * (1 - n / most);
  const step = (width - left) / slots.length;
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Requests by ${unit}` });
  for (const mark of marks) {
    svg.append(draw("line", { class: "rule", x1: left, x2: width, y1: y(mark), y2: y(mark) }),
      draw("text", { x: left - 8, y: y(mark) + 4, "text-anchor": "end" }, short(mark)));
  }
  const every = Math.ceil(slots.length / (narrow ? 4 : 9));
  slots.forEach((slot, i) => {
    const x = left + i * step + Math.min(step * 0.12, 3);
    const wide = Math.min(Math.max(step - 2 * Math.min(step * 0.12, 3), 0.5), 48);
    const called = Math.max(slot.requests - slot.alone - slot.errors, 0);
    let base = 0;
    const column = draw("g", {}, draw("title", {}, `${moment(slot.at, 0)}: ${many(slot.requests, "request")}, `
      + `${whole(slot.alone)} without the large model, ${many(slot.errors, "error")}, ${money(slot.usd)}`));
    for (const [name, count] of [["lm", called], ["alone", slot.alone], ["error", slot.errors]]) {
      if (!count) continue;
      column.append(draw("rect", { class: name, x, width: wide, y: y(base + count), height: y(base) - y(base + count) }));
      base += count;
    }
    svg.append(column);
    if (i % every === 0) {
      const label = unit === "day" || data.span === "7d"
        ? new Date(slot.at * 1000).toLocaleDateString("en-GB", { day: "numeric", month: "short" })
        : clock(slot.at).slice(0, 5);
      svg.append(draw("text", { x, y: height - 6 }, label));
    }
  });
  $("hours").replaceChildren(svg);
}

function bar(part, kind = "") {
  return draw("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" },
    draw("rect", { class: "track", width: 100, height: 10 }),
    draw("rect", { class: `fill ${kind}`, width: Math.min(100 * part, 100), height: 10 }));
}

function kinds(data) {
  const found = Object.entries(data.kinds).sort((a, b) => b[1] - a[1]);
  const most = found.length ? found[0][1] : 1;
  $("kinds").replaceChildren(...(found.length ? found.map(([kind, count]) => make("div", { class: "bar" },
    make("span", {}, worded(kind)), bar(count / most), make("span", {}, short(count))))
    : [none("Nothing private has left.")]));
}

function front(data) {
  const card = $("front-card");
  card.hidden = !data.front;
  if (!data.front) return;
  const { x: ax, y: ay, points } = data.front;
  const served = new Set(data.served.map((point) => point.name));
  const narrow = $("front").clientWidth < 380;
  const width = narrow ? 340 : 500, height = narrow ? 280 : 320;
  const box = { left: 44, right: width - 16, top: 34, bottom: height - 42 };
  const scale = (values, from, to) => {
    const marks = ticks(Math.min(...values), Math.max(...values), 4);
    const room = (marks.at(-1) - marks[0]) * 0.04;
    const low = marks[0] - room, high = marks.at(-1) + room;
    const at = (value) => from + (to - from) * (value - low) / (high - low);
    at.ticks = marks;
    return at;
  };
  const x = scale(points.map((p) => p.x), box.left, box.right);
  const y = scale(points.map((p) => p.y), box.bottom, box.top);
  const called = (axis) => axis.unit ? `${axis.name} (${axis.unit})` : axis.name;
  const titled = (axis) => `${called(axis)}, ${axis.better === "min" ? "less" : "more"} is better`;
  $("front-note").textContent = "As measured on the run's validation items. Filled: being served. Dashed: the front, where no point is better on both.";
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `${called(ay)} against ${called(ax)} of ${many(points.length, "operating point")}` });
  for (const t of y.ticks) svg.append(draw("line", { class: "rule", x1: box.left, x2: box.right, y1: y(t), y2: y(t) }),
    draw("text", { x: box.left - 8, y: y(t) + 4, "text-anchor": "end" }, plain(t)));
  for (const t of x.ticks) svg.append(draw("text", { x: x(t), y: box.bottom + 18, "text-anchor": "middle" }, plain(t)));
  svg.append(draw("text", { x: (box.left + box.right) / 2, y: height - 6, "text-anchor": "middle" }, titled(ax)),
    draw("text", { x: 0, y: 14 }, titled(ay)));
  const line = points.filter((p) => p.front).sort((a, b) => a.x - b.x);
  if (line.length > 1) svg.append(draw("polyline", { class: "front", points: line.map((p) => `${x(p.x)},${y(p.y)}`).join(" ") }));
  const taken = [];
  for (const p of [...points].sort((a, b) => served.has(b.name) - served.has(a.name) || b.front - a.front)) {
    const chosen = served.has(p.name);
    const mark = draw("g", {}, draw("title", {}, `${p.name}: ${called(ax)} ${plain(p.x)}, ${called(ay)} ${plain(p.y)}`));
    if (chosen) mark.append(draw("circle", { class: "ring", cx: x(p.x), cy: y(p.y), r: 10 }));
    mark.append(draw("circle", { class: `dot ${chosen ? "chosen" : p.front ? "best" : ""}`, cx: x(p.x), cy: y(p.y), r: 5.5 }));
    // A label goes to the side that has room, and only where it covers no other; the title has it anyway.
    const text = p.name.length > 26 ? `${p.name.slice(0, 25)}…` : p.name;
    const long = text.length * 6.6;
    const places = [[14, 4], [-14 - long, 4], [-long / 2, -15], [-long / 2, 24]].map(([dx, dy]) => ({ x: x(p.x) + dx, y: y(p.y) + dy }));
    const free = places.find((at) => at.x > box.left && at.x + long < width && at.y > 26 && at.y < box.bottom
      && taken.every((t) => at.x + long < t.x || t.x + t.long < at.x || Math.abs(at.y - t.y) > 13)
      && points.every((q) => q === p || Math.abs(y(q.y) - at.y + 4) > 11 || x(q.x) < at.x - 8 || x(q.x) > at.x + long + 8));
    if (free) {
      taken.push({ ...free, long });
      mark.append(draw("text", { class: `label halo ${chosen ? "chosen" : ""}`, x: free.x, y: free.y }, text));
    }
    svg.append(mark);
  }
  $("front").replaceChildren(svg);
}

function upstreams(data) {
  const kind = { closed: "good", open: "bad", "half-open": "doubt" };
  const said = { closed: "closed: answering", open: "open: left alone", "half-open": "half-open: being tried" };
  $("upstreams").replaceChildren(data.upstreams.length ? table([["model", "name"], ["breaker", ""]],
    data.upstreams.map((u) => {
      const state = u.state === "closed" && u.workers_open ? "half-open" : u.state;
      const text = u.state === "closed" && u.workers_open ? `open in ${many(u.workers_open, "worker")}` : said[u.state];
      return [u.name, make("span", { class: `chip ${kind[state]}` }, text)];
    })) : none("No point here asks a large model."));
}

// Without a defence nothing is looked for: 0 would say that no private value left.
function hidden(point, count) {
  return point.upstreams.length && !point.defences.length ? "not looked for" : short(count);
}

function points(data) {
  const by = new Map(data.points.map((p) => [p.name, p]));
  const rows = data.served.map((s) => {
    const p = by.get(s.name) || { requests: 0, alone: 0, errors: 0, usd: 0, entities: 0, p50: 0, p95: 0 };
    return [s.name, s.strategy, s.upstreams.length ? s.upstreams.join(" → ") + (s.fallback === "small" ? " → small" : "") : "–",
      short(p.requests), share(p.alone, p.requests), hidden(s, p.entities), money(p.usd),
      p.p50 ? `${seconds(p.p50)} / ${seconds(p.p95)}` : "–", short(p.errors)];
  });
  $("points").replaceChildren(rows.length ? table([["point", "name"], ["strategy", "name"], ["large model", "name"], ["requests", "n"],
    ["calls saved", "n"], ["placeholders left", "n"], ["spent", "n"], ["median / 95 %", "n"], ["errors", "n"]], rows)
    : none("No point is being served."));
}

function keys(data) {
  const kind = { active: "good", revoked: "bad", expired: "doubt" };
  const rows = data.keys.map((k) => {
    const budgets = k.budgets.map((b) => {
      const part = b.limit ? (b.used + b.held) / b.limit : 1;
      const show = b.kind === "usd" ? money : b.kind === "epsilon" ? plain : short;
      const text = b.kind === "usd" ? "" : ` ${b.kind === "epsilon" ? "ε" : b.kind}`;
      const per = k.period === "total" || b.kind === "epsilon" ? "" : ` a ${k.period}`;
      return make("div", { class: "budget" }, `${show(b.used)} of ${show(b.limit)}${text}${per}`
        + (b.held ? `, ${show(b.held)} held` : ""), bar(part, part >= 1 ? "bad" : part >= 0.8 ? "doubt" : ""));
    });
    const state = make("span", { class: `chip ${kind[k.state]}` }, k.state);
    const local = k.local_only ? [make("span", { class: "chip" }, "local only")] : [];
    const admin = k.admin ? [make("span", { class: "chip" }, "admin")] : [];
    return [k.name, make("code", {}, k.id), [state, ...admin, ...local], money(k.usd_total), short(k.requests_total), budgets.length ? budgets : "no limits"];
  });
  $("keys").replaceChildren(table([["key", "name"], ["id", ""], ["state", ""], ["spent, ever", "n"], ["requests, ever", "n"], ["budgets", "name"]], rows));
}

function recent(data) {
  const rows = data.recent.map((r) => {
    const state = r.outcome === "ok" ? (r.fallback ? "doubt" : "good") : r.outcome === "cancelled" ? "doubt" : "bad";
    const said = r.outcome === "ok" ? (r.fallback ? "fallback" : "ok") : r.outcome;
    const who = r.by || "–";
    const row = [moment(r.at, data.now), r.point || "–", make("span", { class: `chip ${state}` }, said), who, r.processed,
      some(r.lm_calls, whole), some(r.bytes_up, bytes), chips(r.kinds), some(r.tokens, short), some(r.usd, money), seconds(r.seconds)];
    if (data.admin) row.splice(1, 0, r.key);
    return row;
  });
  const columns = [["time", "time"], ["point", "name"], ["outcome", ""], ["answered by", "name"], ["processed at", "name"], ["calls", "n"],
    ["sent", "n"], ["private values", "chips"], ["tokens", "n"], ["spent", "n"], ["took", "n"]];
  if (data.admin) columns.splice(1, 0, ["key", "name"]);
  $("recent").replaceChildren(rows.length ? table(columns, rows) : none("No request in this time."));
}

// Fetching and drawing again.

let span = "24h";
let shown = null;

function show(data) {
  shown = data;
  $("who").textContent = data.admin ? `${data.who} (admin): all keys` : `${data.who}: this key's own requests`;
  for (const button of document.querySelectorAll("[data-span]")) {
    button.setAttribute("aria-pressed", String(button.dataset.span === data.span));
  }
  for (const part of [tiles, hours, kinds, front, upstreams, points, keys, recent]) part(data);
  $("footer").textContent = `As of ${clock(data.now)}. Hours are whole hours, so the span begins at the full hour before.`;
}

async function refresh() {
  try {
    const answer = await fetch(`/ui/data?span=${span}`, { credentials: "same-origin" });
    if (answer.status === 401) {
      location.reload();
      return;
    }
    if (!answer.ok) throw new Error(`the gateway answered ${answer.status}`);
    show(await answer.json());
    $("trouble").hidden = true;
  } catch (error) {
    $("trouble").textContent = `The numbers could not be fetched (${error.message}); trying again.`;
    $("trouble").hidden = false;
  }
}

for (const button of document.querySelectorAll("[data-span]")) {
  button.addEventListener("click", () => {
    span = button.dataset.span;
    refresh();
  });
}

let width = innerWidth;
addEventListener("resize", () => {
  if (shown && innerWidth !== width) show(shown);
  width = innerWidth;
});
setInterval(() => { if (!document.hidden) refresh(); }, REFRESH_MS);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
for (const box of document.querySelectorAll(".scroll")) box.tabIndex = 0;
refresh();
