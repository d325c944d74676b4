// Requests to the server, and its live events. The token, if the server needs one, is stored in this tab only.

const TOKEN = 'cuttlefish-signaling-token';
/** The pause before a failed request is repeated, in milliseconds. It doubles each time, up to the longest. */
export const FIRST_PAUSE = 250;
export const LONGEST_PAUSE = 5_000;
/** The server sends something every 10 s. After this silence it is unreachable, though no connection has ended. */
const LONGEST_SILENCE = 25_000;

/** The token of this tab, or an empty string. */
export const token = () => sessionStorage.getItem(TOKEN) ?? '';

export const setToken = (text) => sessionStorage.setItem(TOKEN, text);

/** Sends a request to this server. Throws its error, with the HTTP status in `status`. */
export async function ask(path, options = {}) {
  const headers = token() ? { Authorization: `Bearer ${token()}` } : {};
  const response = await fetch(path, { headers, cache: 'no-store', ...options });
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({}));
  throw Object.assign(new Error(answer.error ?? `the server answers ${response.status}`), { status: response.status });
}

/** Whether a request with this HTTP status may succeed later. */
export const isPassing = (status) => status >= 500 || status === 408 || status === 429;

/** The live events of one view, while the page is visible. Reopens a stream that breaks. */
export class Feed {
  #view = {};
  #events;
  #running;

  /**
   * @param {(name: string, data: any) => void} onEvent
   * @param {(state: 'live' | 'lost' | 'refused', reason?: string) => void} onState
   */
  constructor(onEvent, onState) {
    this.#events = { onEvent, onState };
    document.addEventListener('visibilitychange', () => this.watch(this.#view));
  }

  /** Changes the view: `search` and `device`. */
  watch(view) {
    this.#view = view;
    this.#running?.abort();
    if (document.hidden) return;
    this.#running = new AbortController();
    this.#run(`dashboard/events?${new URLSearchParams(view)}`, this.#running.signal);
  }

  async #run(path, signal) {
    const { onEvent, onState } = this.#events;
    const tell = (...state) => signal.aborted || onState(...state);
    for (let pause = FIRST_PAUSE; !signal.aborted; pause = Math.min(2 * pause, LONGEST_PAUSE)) {
      const silence = new Silence();
      try {
        const response = await ask(path, { signal: AbortSignal.any([signal, silence.signal]) });
        tell('live');
        pause = FIRST_PAUSE;
        for await (const { name, data } of eventsOf(response.body, silence)) {
          if (signal.aborted) return;
          try {
            onEvent(name, data);
          } catch (error) {
            reportError(error); // A fault of the page is not one of the server.
          }
        }
        tell('lost');
      } catch (error) {
        const refused = error.status === 401 || error.status === 403;
        // An error without a status is of the network, in words that differ between browsers.
        tell(refused ? 'refused' : 'lost', error.status && error.message);
        if (refused) return;
      } finally {
        silence.end();
      }
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }
}

/** Aborts a request of which nothing was heard for too long: a cable that is cut ends no connection. */
class Silence {
  #controller = new AbortController();
  #timer;

  constructor() {
    this.broken();
  }

  get signal() {
    return this.#controller.signal;
  }

  /** Something was heard. */
  broken() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#controller.abort(), LONGEST_SILENCE);
  }

  end() {
    clearTimeout(this.#timer);
  }
}

/** Parses server-sent events (WHATWG HTML, 9.2), as this server sends them. `EventSource` cannot send a token. */
async function* eventsOf(body, silence) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = '';
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    silence.broken();
    const whole = (text + part.value).split('\n\n');
    text = whole.pop();
    for (const event of whole) {
      // `s`: data may have U+2028 and U+2029, which are line breaks to a regular expression, but not in JSON or here.
      const [, name, data] = event.match(/^event: (.*?)\ndata: (.*)$/s) ?? [];
      if (name) yield { name, data: JSON.parse(data) };
    }
  }
}
