// What every part of the page's script uses. It runs once the page is there, in one module that
// paper/script.py joins of these files; without it every section shows its static form.

export function element(tag, text = "", attributes = {}) {
  const made = Object.assign(document.createElement(tag), { textContent: text });
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// The contents stand open beside the text where there is room, so that the keyboard reaches them.
const contents = globalThis.document?.querySelector(".toc"), roomy = globalThis.matchMedia?.("(min-width: 76rem)");
const unfold = () => { contents.open = roomy.matches; };
if (contents) {
  roomy.addEventListener("change", unfold);
  unfold();
}
