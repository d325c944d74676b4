// Words and numbers for people. A peer's words may have invisible characters: each is shown as a mark.

import { element } from './dom.js';

/** Characters that show nothing, move others, or look like another one: controls, formats, separators, fillers. */
const INVISIBLE = /([\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800]|(?! )\p{Zs})/u;

/** The usual abbreviations (Unicode, 23.2; RFC 20). */
const NAMES = new Map(Object.entries({
  '\0': 'NUL', '\t': 'TAB', '\n': 'LF', '\r': 'CR', '\x1b': 'ESC', '\x7f': 'DEL', '\x85': 'NEL', '\xa0': 'NBSP', '\xad': 'SHY',
  '\u061c': 'ALM', '\u200b': 'ZWSP', '\u200c': 'ZWNJ', '\u200d': 'ZWJ', '\u200e': 'LRM', '\u200f': 'RLM',
  '\u2028': 'LS', '\u2029': 'PS', '\u202a': 'LRE', '\u202b': 'RLE', '\u202c': 'PDF', '\u202d': 'LRO', '\u202e': 'RLO',
  '\u2060': 'WJ', '\u2066': 'LRI', '\u2067': 'RLI', '\u2068': 'FSI', '\u2069': 'PDI', '\ufeff': 'BOM',
}));

const codePoint = (character) => `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, '0')}`;

const shown = new WeakMap();

/** Shows a peer's words in an element: as text only, with a mark for each invisible character. */
export function setWords(node, text) {
  if (shown.get(node) === text) return;
  shown.set(node, text);
  const mark = (character) => {
    const name = NAMES.get(character) ?? codePoint(character);
    return element('span', { className: 'mark', title: codePoint(character), textContent: name });
  };
  // Each second part is what the expression has matched.
  node.replaceChildren(...text.split(INVISIBLE).map((part, at) => (at % 2 ? mark(part) : part)));
}

/** Creates an element for a peer's words, whose direction does not change that of the text around it. */
export function words(text, className = '') {
  const node = element('bdi', { className });
  setWords(node, text);
  return node;
}

/** Formats a peer's words for titles and labels, where there are no elements: `cvd\u{202e}1`. */
export function escaped(text) {
  return text.split(INVISIBLE).map((part, at) => (at % 2 ? `\\u{${part.codePointAt(0).toString(16)}}` : part)).join('');
}

/** Formats a number of things: `1 client`, `2 clients`. */
export const count = (number, what) => `${number.toLocaleString('en')} ${what}${number === 1 ? '' : 's'}`;

/** Formats the time since a moment, given in Unix seconds. */
export function ago(since) {
  const seconds = secondsSince(since);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

/** The same in one unit, so that a long list changes rarely. */
export const age = (since) => ago(since).split(' ', 2).join(' ');

const secondsSince = (since) => Math.max(0, Math.round(Date.now() / 1000 - since));

/** Formats a time of the day, given in Unix seconds: `14:03:22.123`. */
export function clock(at) {
  const time = new Date(at * 1000);
  const [hours, minutes, seconds] = [time.getHours(), time.getMinutes(), time.getSeconds()].map((part) => padded(part, 2));
  return `${hours}:${minutes}:${seconds}.${padded(time.getMilliseconds(), 3)}`;
}

const padded = (number, digits) => String(number).padStart(digits, '0');

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
