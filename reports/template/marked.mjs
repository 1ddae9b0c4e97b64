// A text whose words tell their numbers: on hover, on focus, and by the arrow keys. Without it each
// word has them as its title.

import { element } from "./dom.mjs";

// What a title says, a line each: [[name, value], ...].
export const told = (title) => title.split("\n").map((line) => line.split(/: (.*)/s).slice(0, 2));

// The word in the line above (-1) or below (1) that lies nearest; places are [left, top].
export function beside(places, at, way) {
  const [left, top] = places[at];
  const tops = places.map(([, y]) => y).filter((y) => (way < 0 ? y < top - 4 : y > top + 4));
  if (!tops.length) return at;
  const line = way < 0 ? Math.max(...tops) : Math.min(...tops);
  const far = places.map(([x, y]) => (Math.abs(y - line) < 4 ? Math.abs(x - left) : Infinity));
  return far.indexOf(Math.min(...far));
}

function marked(figure) {
  const list = figure.querySelector(".words"), words = [...list.querySelectorAll("span")];
  const rows = words.map((word) => told(word.title)), panel = element("dl", "", { class: "numbers" });
  let at = 0;
  const values = rows[0].map(([name]) => {
    const pair = element("div"), value = element("dd");
    pair.append(element("dt", name), value);
    panel.append(pair);
    return value;
  });
  const show = (i) => rows[i].forEach(([, value], j) => { values[j].textContent = value; });
  const go = (i) => {
    words[at].tabIndex = -1;
    words[at].setAttribute("aria-selected", "false");
    at = Math.min(Math.max(i, 0), words.length - 1);
    words[at].tabIndex = 0;
    words[at].setAttribute("aria-selected", "true");
    show(at);
  };
  const moves = {
    ArrowLeft: () => at - 1, ArrowRight: () => at + 1, Home: () => 0, End: () => words.length - 1,
    ArrowUp: () => beside(words.map((it) => [it.offsetLeft, it.offsetTop]), at, -1),
    ArrowDown: () => beside(words.map((it) => [it.offsetLeft, it.offsetTop]), at, 1),
  };

  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", "Words of the text; arrow keys go from word to word");
  words.forEach((word, i) => {
    word.removeAttribute("title");
    word.setAttribute("role", "option");
    word.setAttribute("aria-selected", "false");
    word.tabIndex = -1;
    // The name that is read out: the word, and its numbers.
    word.setAttribute("aria-label", rows[i].map(([name, value]) => `${name} ${value}`).join(", "));
    word.addEventListener("pointerenter", () => show(i));
    word.addEventListener("focus", () => go(i));
  });
  list.addEventListener("pointerleave", () => show(at));
  list.addEventListener("keydown", (event) => {
    if (!moves[event.key]) return;
    event.preventDefault();
    go(moves[event.key]());
    words[at].focus();
  });
  list.after(panel);
  go(0);
}

globalThis.document?.querySelectorAll(".marked").forEach(marked);
