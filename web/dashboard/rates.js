// Messages per second, as a number and a small line over the last minute.

import { setText } from './dom.js';

const SVG = 'http://www.w3.org/2000/svg';
const SECONDS = 60;
const [WIDTH, HEIGHT] = [120, 28];

/** The rates of one counter, in the last minute. */
export class Rates {
  #box;
  #line;
  #number;
  #rates = [];
  #last;

  /** @param {Element} box Gets the number and the line. */
  constructor(box) {
    this.#box = box;
    const svg = document.createElementNS(SVG, 'svg');
    svg.setAttribute('viewBox', `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute('role', 'img');
    this.#line = svg.appendChild(document.createElementNS(SVG, 'polyline'));
    this.#number = document.createElement('span');
    box.replaceChildren(this.#number, svg);
    this.clear();
  }

  /** Forgets the rates, for another counter or after a break. */
  clear() {
    this.#rates = [];
    this.#last = undefined;
    this.#show();
  }

  /** Adds the value of the counter. Call it each second. @param {number} counted */
  add(counted) {
    const now = performance.now() / 1000;
    // A counter that has gone down is that of another server, or of another registration.
    if (this.#last && counted >= this.#last.counted) {
      const rate = (counted - this.#last.counted) / Math.max(0.5, now - this.#last.now);
      this.#rates = [...this.#rates, rate].slice(-SECONDS);
    }
    this.#last = { counted, now };
    this.#show();
  }

  #show() {
    const now = written(this.#rates.at(-1) ?? 0);
    const most = Math.max(0, ...this.#rates);
    setText(this.#number, `${now} messages/s`);
    const y = (rate) => (HEIGHT - 2 - (most && rate / most) * (HEIGHT - 4)).toFixed(1);
    const begin = WIDTH - (this.#rates.length - 1) * (WIDTH / (SECONDS - 1));
    const points = this.#rates.map((rate, at) => `${(begin + at * (WIDTH / (SECONDS - 1))).toFixed(1)},${y(rate)}`);
    this.#line.setAttribute('points', points.join(' '));
    const label = `Messages per second in the last minute: now ${now}, at most ${written(most)}`;
    this.#line.parentNode.setAttribute('aria-label', label);
    this.#box.title = label;
  }
}

const written = (rate) => (rate > 0 && rate < 10 ? rate.toFixed(1) : Math.round(rate).toLocaleString('en'));
