// Creates and updates elements. Text is always set as text, so that text of a peer is never markup.

/** Returns the element with this id. */
export const byId = (id) => document.getElementById(id);

/** Creates an element with these properties and children. Strings become text. */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** Sets the text if it has changed, so that a screen reader does not read the same text again. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Gives `parent` one child for each item, in order. A child whose key stays is reused, so that it keeps the focus.
 *
 * @param {Element} parent
 * @param {any[]} items
 * @param {(item: any) => string} keyOf
 * @param {(item: any) => Element} make
 * @param {(child: Element, item: any) => void} update
 */
export function show(parent, items, keyOf, make, update) {
  const kept = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = keyOf(item);
    let child = kept.get(key);
    kept.delete(key);
    if (!child) {
      child = make(item);
      child.dataset.key = key;
    }
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
    update(child, item);
  }
  for (const child of kept.values()) child.remove();
}

/** Shows names and values in a `<dl>`. Omits values that are `null`. */
export function showFacts(list, facts) {
  const make = () => element('div', {}, element('dt'), element('dd'));
  show(list, facts.filter(([, value]) => value !== null), ([name]) => name, make, (pair, [name, value]) => {
    setText(pair.firstElementChild, name);
    setText(pair.lastElementChild, String(value));
  });
}

/** Formats the time since a moment, given in Unix seconds. */
export function ago(since) {
  const seconds = Math.max(0, Math.round(Date.now() / 1000 - since));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

/** Formats a duration from 0.1 ms to minutes. */
export function duration(seconds) {
  if (seconds < 0.0001) return '0.1 ms';
  if (seconds < 0.01) return `${(seconds * 1000).toFixed(1)} ms`;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  return seconds < 60 ? `${seconds.toFixed(1)} s` : `${Math.round(seconds / 60)} min`;
}

/** Formats a number of bytes. */
export function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  return bytes < 1024 * 1024 ? `${(bytes / 1024).toFixed(1)} KiB` : `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}
