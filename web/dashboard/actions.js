// The actions of a viewer: to copy an address, to save a file, and, with the right to it, to disconnect a peer.

import { byId, element, setText } from './dom.js';
import { ask } from './feed.js';
import { escaped, words } from './words.js';

/** Shows and announces the outcome of an action, until the next one. */
export function report(text, isBad = false) {
  const note = byId('note');
  // A text that comes twice is announced twice.
  note.replaceChildren();
  note.classList.toggle('bad', isBad);
  note.append(element('span', { textContent: text }));
  clearTimeout(report.timer);
  report.timer = setTimeout(() => note.replaceChildren(), isBad ? 15_000 : 4_000);
}

/** Creates a button that copies a text. @param {() => string} text @param {string} what For people. */
export function copyButton(text, what) {
  const button = element('button', { type: 'button', className: 'quiet', textContent: 'Copy', ariaLabel: `Copy ${what}` });
  button.addEventListener('click', () => copy(text(), what));
  return button;
}

/** Copies a text. */
export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // A page of plain HTTP from another machine has no clipboard.
    if (!copyBySelection(text)) {
      report(`This browser does not let the page copy. The text is: ${text}`, true);
      return;
    }
  }
  report(`Copied ${what}`);
}

function copyBySelection(text) {
  const focused = document.activeElement;
  const area = element('textarea', { value: text, className: 'unseen' });
  document.body.append(area);
  area.select();
  const done = document.execCommand('copy');
  area.remove();
  focused?.focus();
  return done;
}

/** Saves a text as a file. */
export function save(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  element('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
  report(`Saved ${name}`);
}

/** Makes a file name of a device id: letters, digits, `-`, `_` and `.`, as every system takes them. */
export function fileName(id, ending) {
  const safe = id.replace(/[^\w.-]+/g, '_').replace(/^\.+/, '').slice(0, 60);
  return `${safe || 'device'}.${ending}`;
}

let agreed = () => {};

/** Asks before a peer is disconnected. @param {string} device @param {number | null} client The device itself if `null`. */
export function askToDisconnect(device, client) {
  const name = words(device, 'name');
  const peer = client === null ? [name] : [`client ${client} of `, name];
  byId('ask-title').replaceChildren('Disconnect ', ...peer, '?');
  const effect = client === null ? 'All of its clients are disconnected too. ' : '';
  setText(byId('ask-text'), `${effect}It may connect again at once: most devices and pages do so by themselves.`);
  agreed = () => disconnect(device, client);
  byId('ask').showModal();
}

async function disconnect(device, client) {
  const query = new URLSearchParams({ device, ...(client !== null && { client }) });
  const name = client === null ? escaped(device) : `client ${client} of ${escaped(device)}`;
  try {
    await ask(`dashboard/disconnect?${query}`, { method: 'POST' });
    report(`Disconnected ${name}`);
  } catch (error) {
    report(`Could not disconnect ${name}: ${error.message}`, true);
  }
}

byId('ask-yes').addEventListener('click', () => {
  byId('ask').close();
  agreed();
});
byId('ask-no').addEventListener('click', () => byId('ask').close());
