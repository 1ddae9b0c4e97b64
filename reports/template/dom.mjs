// What every part of the page's script uses. It runs once the page is there, in one module that
// paper/script.py joins of these files; without it every section shows its static form.

export function element(tag, text = "", attributes = {}) {
  const made = Object.assign(document.createElement(tag), { textContent: text });
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}
