// Creates and updates elements. Text is always set as text, so that text of a peer is never markup.

/** Returns the element with this id. */
export const byId = (id) => document.getElementById(id);

/** Creates an element with these properties and children. Strings become text. */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const texts = new WeakMap();

/** Sets the text if it has changed: a screen reader does not read the same text again, and nothing is laid out anew. */
export function setText(node, text) {
  if (texts.get(node) === text && node.textContent === text) return;
  texts.set(node, text);
  node.textContent = text;
}

/**
 * Gives `parent` one child for each item, in order. A child whose key stays is reused, and keeps the focus.
 *
 * @param {Element} parent
 * @param {any[]} items
 * @param {(item: any) => string} keyOf
 * @param {(item: any) => Element} make
 * @param {(child: Element, item: any) => void} update
 */
export function show(parent, items, keyOf, make, update) {
  const keys = new Set(items.map(keyOf));
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  // First, so that the children behind one that goes need no move.
  for (const child of [...parent.children]) if (!keys.has(child.dataset.key)) child.remove();
  const kept = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let child = kept.get(key);
    if (!child) {
      child = make(item);
      child.dataset.key = key;
    }
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
    update(child, item);
  }
  // A child that moves loses the focus.
  if (focused?.isConnected && focused !== document.activeElement) focused.focus({ preventScroll: true });
}

/**
 * Shows names and values in a `<dl>`. Omits values that are `null`.
 *
 * @param {Element} list
 * @param {[string, string | number | null][]} facts
 * @param {(node: Element, value: string) => void} set Shows a value. A peer's words need `setWords`.
 */
export function showFacts(list, facts, set = setText) {
  const make = () => element('div', {}, element('dt'), element('dd'));
  show(list, facts.filter(([, value]) => value !== null), ([name]) => name, make, (pair, [name, value]) => {
    setText(pair.firstElementChild, name);
    set(pair.lastElementChild, String(value));
  });
}
