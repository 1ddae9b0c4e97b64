// Claims and audit by verdict: buttons above each table. Without it, and on paper, every row shows.

import { element } from "./dom.mjs";

// How many rows have each verdict, the most frequent first; a row with a verdict twice counts once.
export function counted(rows) {
  const found = new Map();
  for (const verdicts of rows) for (const one of new Set(verdicts)) found.set(one, (found.get(one) ?? 0) + 1);
  return [...found].sort(([, a], [, b]) => b - a);
}

// Whether a row shows: where nothing is chosen, every one does.
export const chosenBy = (chosen, verdicts) => !chosen.size || verdicts.some((one) => chosen.has(one));

function filtered(table, what, where) {
  const rows = [...table.querySelectorAll("tbody tr:not(.group)")];
  const verdicts = rows.map((row) => [...row.querySelectorAll(".badge")].map((badge) => badge.textContent.trim()));
  const chosen = new Set(), told = element("p", "", { class: "shown", role: "status" });
  const bar = element("div", "", { class: "filter", role: "group", "aria-label": `${what} by verdict` });

  const show = () => {
    rows.forEach((row, i) => row.classList.toggle("off", !chosenBy(chosen, verdicts[i])));
    for (const body of table.tBodies) body.classList.toggle("off", !body.querySelector("tr:not(.group, .off)"));
    const left = rows.filter((row) => !row.classList.contains("off")).length;
    told.textContent = `${left} of ${rows.length} shown${chosen.size ? `: ${[...chosen].join(", ")}${where}` : ""}`;
  };

  for (const [verdict, count] of counted(verdicts)) {
    const button = element("button", "", { type: "button", "aria-pressed": "false" });
    button.append(rows.map((row) => [...row.querySelectorAll(".badge")]
      .find((badge) => badge.textContent.trim() === verdict)).find(Boolean).cloneNode(true), element("span", count));
    button.addEventListener("click", () => {
      chosen.delete(verdict) || chosen.add(verdict);
      button.setAttribute("aria-pressed", chosen.has(verdict));
      show();
    });
    bar.append(button);
  }
  table.before(bar, told);
  show();
}

for (const [selector, what, where] of [
  ["table.claims", "Claims", ""], ["table.audit", "Statements", ", at the one setting or the other"],
]) {
  const table = globalThis.document?.querySelector(selector);
  if (table?.querySelector(".badge")) filtered(table, what, where);
}
