// The cache law as sliders: minitransformer/bench/timemodel.py, moved. Without it the static figure
// of the same numbers stands alone, and on paper too.

// The constants at another width, overhead (times this run's) and bandwidth: `law` is timemodel.json.
// Reading and computing follow the architecture's own counts; attention and cache grow with the width.
export function moved(law, { width, overhead, bandwidth }) {
  const [to, own] = [width, law.width].map((one) => law.widths.find((it) => it.width === one));
  const wider = width / law.width, slower = law.bandwidth_bytes_per_second / bandwidth;
  return {
    overhead: law.overhead * overhead,
    cached_overhead: law.cached_overhead * overhead,
    weights: to.read_bytes / bandwidth,
    compute: (law.compute * to.flops) / own.flops,
    head: (law.head * to.head_flops) / own.head_flops,
    attention: law.attention * wider,
    kappa: Math.max(law.kappa, 0) * wider * slower,
  };
}

// The same weights without overhead, at the machine's measured peak, the head once a forward.
export function roofline(law, { width, bandwidth }) {
  const to = law.widths.find((it) => it.width === width), peak = law.peak_flops_per_second;
  return {
    overhead: 0, cached_overhead: 0, attention: 0, kappa: 0,
    weights: to.read_bytes / bandwidth, compute: to.flops / peak, head: to.head_flops / peak,
  };
}

export const uncached = (m, t) => m.overhead + Math.max(m.weights, m.head + m.compute * t + m.attention * t * t);
export const cached = (m, t) => m.cached_overhead + Math.max(m.weights + m.kappa * t, m.head + m.compute);

// Seconds of `n` tokens after a prompt: [recomputed, with a cache].
export function seconds(m, prompt, n) {
  let slow = 0, fast = uncached(m, prompt);
  for (let t = prompt; t < prompt + n; t++) {
    slow += uncached(m, t);
    if (t < prompt + n - 1) fast += cached(m, t);
  }
  return [slow, fast];
}

export const speedup = (m, prompt, n) => { const [slow, fast] = seconds(m, prompt, n); return slow / fast; };

// What a cached step is spent on, in shares of 1.
export function spent(m, t) {
  const all = cached(m, t), read = m.weights + m.kappa * t;
  const parts = read >= m.head + m.compute ? { "reading weights": m.weights, "reading the cache": m.kappa * t }
    : { computing: m.head + m.compute };
  return Object.entries({ overhead: m.cached_overhead, ...parts }).map(([name, part]) => [name, part / all]);
}

// The same in words; what the fit cannot tell from noise is said to be so.
export const spentInWords = (law, m, t) => spent(m, t).map(([what, share]) => {
  const unresolved = what === "reading the cache" && law.kappa_interval[0] <= 0;
  return `${what} ${(100 * share).toFixed(0)} %${unresolved ? " (not resolvable)" : ""}`;
}).join(", ");

const LENGTHS = Array.from({ length: 45 }, (_, i) => Math.round(2 * 2 ** (i / 4))); // 2 to 4,096
const [WIDE, HIGH, LEFT, RIGHT, TOP, FOOT] = [576, 300, 44, 96, 26, 40];
const short = (x, unit = "") => `${Number(x.toPrecision(3)).toLocaleString("en")}${unit && `\u202f${unit}`}`;
const time = (s) => (s < 1e-3 ? short(1e6 * s, "µs") : s < 1 ? short(1e3 * s, "ms") : short(s, "s"));

// The figure as SVG: what moves, where it began, what was measured.
function drawn(law, now, roof, n, still) {
  const curve = (m) => LENGTHS.map((length) => [length, speedup(m, law.prompt_tokens, length)]);
  const lines = { roof: curve(roof), ...(still ? {} : { began: curve(law) }), now: curve(now) };
  const most = Math.max(...lines.roof.map(([, y]) => y), ...lines.now.map(([, y]) => y), 9);
  const top = 10 ** Math.ceil(Math.log10(most)), low = 0.8;
  const part = (value, from, to) => Math.log(value / from) / Math.log(to / from);
  const x = (tokens) => LEFT + (WIDE - LEFT - RIGHT) * part(tokens, LENGTHS[0], LENGTHS.at(-1));
  const y = (times) => HIGH - FOOT - (HIGH - FOOT - TOP) * part(Math.max(times, low), low, top);
  const ticks = (most) => Array.from({ length: 16 }, (_, i) => [1, 2, 5][i % 3] * 10 ** Math.floor(i / 3))
    .filter((tick) => tick <= most && (most <= 100 || String(tick)[0] === "1"));
  const text = (cls, px, py, words, anchor = "start") =>
    `<text class="${cls}" x="${px}" y="${py}" text-anchor="${anchor}">${words}</text>`;
  const points = (line) => line.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(" ");
  const path = (name) => `<polyline class="${name}" points="${points(lines[name])}"/>`;
  const ends = Object.entries(lines).map(([name, line]) => ({ name, at: y(line.at(-1)[1]) }));
  ends.sort((a, b) => a.at - b.at).forEach((end, i) => { if (i) end.at = Math.max(end.at, ends[i - 1].at + 14); });
  const words = { roof: "no overhead", began: "this run", now: still ? "time model" : "moved" };
  const grid = (at) => `<line class="grid" x1="${LEFT}" x2="${WIDE - RIGHT}" y1="${at}" y2="${at}"/>`;
  return ticks(top).map((tick) => grid(y(tick)) + text("", LEFT - 6, y(tick) + 4, short(tick), "end")).join("")
    + [2, 10, 50, 200, 1000, 4000].map((tick) => text("", x(tick), HIGH - FOOT + 18, short(tick), "middle")).join("")
    + text("", LEFT - 30, 12, "times as fast with a cache") + text("", WIDE - RIGHT, HIGH - 4, "new tokens", "end")
    + Object.keys(lines).map(path).join("")
    + law.speedup.map(({ new_tokens: t, measured, low: from, high: to }) =>
      `${to > from ? `<line class="iv" x1="${x(t)}" x2="${x(t)}" y1="${y(from)}" y2="${y(to)}"/>` : ""}`
      + `<circle class="dot" cx="${x(t)}" cy="${y(measured)}" r="4"/>`).join("")
    + `<line class="here" x1="${x(n)}" x2="${x(n)}" y1="${TOP}" y2="${HIGH - FOOT}"/>`
    + `<circle class="hollow" cx="${x(n)}" cy="${y(speedup(now, law.prompt_tokens, n))}" r="5"/>`
    + ends.map(({ name, at }) => text(name, WIDE - RIGHT + 6, at + 4, words[name])).join("");
}

function sliders(form, law, figure) {
  const { elements } = form, svg = form.querySelector("svg");
  const own = law.widths.findIndex((it) => it.width === law.width);
  const longest = law.speedup.at(-1).new_tokens;
  const far = LENGTHS.map((n) => Math.abs(n - longest)), start = far.indexOf(Math.min(...far));
  const begin = { n: start, width: own, overhead: 0, bandwidth: 0 };
  Object.assign(elements.width, { max: law.widths.length - 1 });
  Object.assign(elements.n, { max: LENGTHS.length - 1 });

  function show() {
    const value = (name) => Number(elements[name].value), n = value("n") === start ? longest : LENGTHS[value("n")];
    const how = {
      width: law.widths[value("width")].width, overhead: 10 ** value("overhead"),
      bandwidth: law.bandwidth_bytes_per_second * 10 ** value("bandwidth"),
    };
    const now = moved(law, how), written = {
      n: short(n), width: short(how.width), overhead: time(now.overhead),
      bandwidth: short(how.bandwidth / 1e9, "GB/s"),
    };
    for (const [name, text] of Object.entries(written)) {
      elements[name].setAttribute("aria-valuetext", text);
      elements[name].parentElement.querySelector("output").textContent = text;
    }
    const still = ["width", "overhead", "bandwidth"].every((name) => value(name) === begin[name]);
    svg.innerHTML = drawn(law, now, roofline(law, how), n, still);
    const [slow, fast] = seconds(now, law.prompt_tokens, n), last = law.prompt_tokens + n - 2;
    const said = `${short(n)} tokens take ${time(slow)} by recomputing and ${time(fast)} with a cache, which is `
      + `${short(slow / fast)} times as fast. The last cached step takes ${time(cached(now, last))}: `
      + `${spentInWords(law, now, last)}.`;
    form.querySelector(".said").textContent = said;
    svg.setAttribute("aria-label", `Times as fast with a cache over new tokens, both logarithmic. ${said}`);
  }

  const reset = () => {
    for (const [name, value] of Object.entries(begin)) elements[name].value = value;
    show();
  };
  form.addEventListener("input", show);
  elements.reset.addEventListener("click", reset);
  figure.after(form);
  form.hidden = false;
  reset();
}

const [lawForm, lawFigure] = ["law", "fig-latency"].map((id) => globalThis.document?.getElementById(id));
if (lawForm && lawFigure) sliders(lawForm, JSON.parse(document.getElementById("law-data").textContent), lawFigure);
