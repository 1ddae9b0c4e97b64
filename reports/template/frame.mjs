// A figure that is wider than its frame, as on a phone, is reached by the keyboard and says that it
// scrolls. Without the script the shadow at the frame's edge says so.

export function reached(frame) {
  const scrolls = frame.scrollWidth > frame.clientWidth;
  const figure = frame.closest("figure")?.querySelector("figcaption b")?.textContent.replace(".", "");
  const named = { tabindex: "0", role: "group", "aria-label": `${figure}, scrolls sideways` };
  for (const [name, value] of Object.entries(named)) {
    if (scrolls) frame.setAttribute(name, value);
    else frame.removeAttribute(name);
  }
}

const sized = globalThis.ResizeObserver && new ResizeObserver((all) => all.forEach((it) => reached(it.target)));
for (const frame of globalThis.document?.querySelectorAll(".frame") ?? []) sized?.observe(frame);
