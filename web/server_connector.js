// The contract between a signaling server and Cuttlefish's web client: the client imports this module from whatever
// server it was loaded from, and signals through it without knowing how.
//
//   import { createConnector, deviceId } from './server_connector.js';
//
//   const connector = await createConnector();
//   connector.onDeviceMsg((message) => …);
//   const { deviceInfo, infraConfig } = await connector.requestDevice(deviceId());
//   await connector.sendToDevice({ type: 'request-offer' });
//
// How: over WebSocket, or by long polling where that is not to be had. A link that breaks is made anew. What the server
// refuses is refused here with the server's own words, as an `Error`.

/** For how long a lost link is tried to be made anew, in milliseconds. */
const PATIENCE = 60_000;
/** How long to wait before the first attempt at that; it doubles with each, up to the longest. */
const FIRST_PAUSE = 250;
const LONGEST_PAUSE = 5_000;
/** For how many seconds a poll is held by the server where there is nothing to tell. */
const HOLD = 20;
/** A polled connection that was not heard of for so long is given up by the server, in milliseconds. */
const POLLED_TIMEOUT = 30_000;

/** What a server says when the device of a connection leaves. */
const DEVICE_GONE = 'Device disconnected';
/** What it says of a polled connection that it does not know. */
const UNKNOWN_CONNECTION = 'Unknown connection';
/** What is said here where nobody else can. */
const LINK_LOST = 'the connection to the server was lost';

// The contract -------------------------------------------------------------------------------------------------------

/**
 * The id of the device that this page is for: from the path, `…/devices/ID/files/…`, as today's pages are loaded, or
 * from the query, `?deviceId=ID`, as those before.
 *
 * @returns {string}
 * @throws {Error} where the address of the page names none.
 */
export function deviceId() {
  const inPath = location.pathname.match(/\/devices\/([^/]+)\/files\//);
  if (inPath) return decodeURIComponent(inPath[1]);
  const inQuery = new URLSearchParams(location.search).get('deviceId');
  if (inQuery) return inQuery;
  throw new Error(`no device in ${location.href}: expected /devices/ID/files/ or ?deviceId=ID`);
}

/**
 * A connector for one device at a time.
 *
 * @param {{token?: string}} [options] Beyond the contract: `token` is brought along where the server asks who one is.
 * @returns {Promise<Connector>}
 */
export async function createConnector(options = {}) {
  return new Connector(options);
}

/**
 * Talks to the page around this one, if there is any.
 *
 * @returns {ParentController}
 */
export function createParentController() {
  return new ParentController();
}

/** The way to one device. Made by `createConnector()`. */
class Connector {
  #options;
  #deviceId;
  /** The link there is, or a promise of the next, or why there is none. */
  #link = Promise.reject(new Error('no device was requested'));
  /** Which link counts: what earlier ones have to say does not matter any more. */
  #generation = 0;
  #onDeviceMsg = () => console.error('a message of the device came before onDeviceMsg() was called');
  #onStateChange = () => {};

  constructor(options) {
    this.#options = options;
    this.#link.catch(() => {});
  }

  /**
   * Has every message of the device handed to `callback`. To be called before `requestDevice()`.
   *
   * @param {(message: any) => void} callback
   */
  onDeviceMsg(callback) {
    this.#onDeviceMsg = callback;
  }

  /**
   * Beyond the contract: has `callback` told of the link, as `connected`, `reconnecting` or `disconnected`, and why.
   *
   * @param {(state: string, reason?: string) => void} callback
   */
  onStateChange(callback) {
    this.#onStateChange = callback;
  }

  /**
   * Connects to a device. That takes as long as the server waits for a device that is not there yet.
   *
   * @param {string} deviceId
   * @returns {Promise<{deviceInfo: any, infraConfig: {ice_servers: RTCIceServer[]}}>}
   * @throws {Error} what the server says why not, or that it can not be reached.
   */
  async requestDevice(deviceId) {
    this.close();
    this.#deviceId = deviceId;
    const link = await this.#use(this.#open());
    return { deviceInfo: link.deviceInfo, infraConfig: link.infraConfig };
  }

  /**
   * Sends a message to the device, in the order of the calls, and never twice. While a lost link is made anew, it waits
   * for that.
   *
   * @param {any} message Anything JSON can say.
   * @throws {Error} why it can not be delivered: no device was requested, it has left, the server is gone.
   */
  async sendToDevice(message) {
    for (;;) {
      const link = await this.#link;
      try {
        return await link.send(message);
      } catch (failure) {
        // Whoever throws this has told of the loss before: there is another link, or a promise of one.
        if (!(failure instanceof NotSent)) throw failure;
      }
    }
  }

  /**
   * A hint, of use where the server does not hold polls: ask more often for a while.
   *
   * @param {number} milliseconds
   */
  expectMessagesSoon(milliseconds) {
    this.#link.then((link) => link.hurry(milliseconds), () => {});
  }

  /** Beyond the contract: hangs up. */
  close() {
    this.#generation += 1;
    this.#link.then((link) => link.close(), () => {});
    this.#fail(new Error('the connector was closed'));
  }

  /** Makes a promised link the one that is used. */
  #use(promised) {
    this.#link = promised;
    promised.catch(() => {});
    return promised;
  }

  #fail(failure) {
    this.#use(Promise.reject(failure));
  }

  async #open() {
    const generation = this.#generation;
    const link = await openLink(this.#deviceId, this.#options, {
      heard: (message) => {
        if (generation === this.#generation) this.#hear(message);
      },
      lost: (failure) => {
        if (generation === this.#generation) this.#lose(failure);
      },
    });
    if (generation !== this.#generation) {
      link.close();
      throw new Error('the connector was closed');
    }
    this.#onStateChange('connected');
    return link;
  }

  #hear(message) {
    try {
      this.#onDeviceMsg(message);
    } catch (error) {
      reportError(error);
    }
  }

  /** The link is lost: by the network, then whoever sends waits for the next one; or the server has said why. */
  #lose(failure) {
    this.#generation += 1;
    const returns = failure instanceof Unreachable || failure.message === DEVICE_GONE;
    this.#onStateChange(returns ? 'reconnecting' : 'disconnected', failure.message);
    if (!returns) {
      this.#fail(failure);
    } else if (failure instanceof Unreachable) {
      this.#use(this.#reopen());
    } else {
      // Nobody has to wait for a device that may never come again.
      this.#fail(failure);
      const generation = this.#generation;
      this.#reopen().then((link) => generation === this.#generation && this.#use(Promise.resolve(link)), () => {});
    }
  }

  async #reopen() {
    const generation = this.#generation;
    const until = Date.now() + PATIENCE;
    for (let pause = FIRST_PAUSE; ; pause = Math.min(2 * pause, LONGEST_PAUSE)) {
      // Not all at the same time, where a server has lost a hundred pages.
      await sleep(pause * (0.5 + Math.random()));
      if (generation !== this.#generation) throw new Error('the connector was closed');
      try {
        return await this.#open();
      } catch (failure) {
        if (Date.now() < until && generation === this.#generation) continue;
        this.#onStateChange('disconnected', failure.message);
        throw failure;
      }
    }
  }
}

/** Tells the page around this one about the device. Made by `createParentController()`. */
class ParentController {
  /**
   * A message about the displays, to be filled and sent.
   *
   * @param {number} rotation Of all displays, in degrees.
   * @returns {DeviceDisplaysMessage}
   */
  createDeviceDisplaysMessage(rotation) {
    return new DeviceDisplaysMessage(this, rotation);
  }

  /** Posts it to the page around this one, if it is of the same origin. */
  postMessageToParent(type, payload) {
    if (window.parent !== window) {
      window.parent.postMessage(new DeviceFrameMessage(type, payload), location.origin);
    }
  }
}

/** One display of a device. */
export class DisplayInfo {
  constructor(display_id, width, height) {
    Object.assign(this, { display_id, width, height });
  }
}

/** How large the displays of a device are: for the page around this one, which gives it room. */
export class DeviceDisplaysMessage {
  #controller;
  device_id = deviceId();
  rotation;
  displays = [];

  constructor(parentController, rotation) {
    this.#controller = parentController;
    this.rotation = rotation;
  }

  /** One display more: its id, and its size in pixels. */
  addDisplay(display_id, width, height) {
    this.displays.push(new DisplayInfo(display_id, width, height));
  }

  /** Sends it; where there is no page around this one, nothing happens. */
  send() {
    this.#controller.postMessageToParent(DeviceFrameMessage.TYPE_DISPLAYS_INFO, this);
  }
}

/** What a page is told by the device's page within it. */
export class DeviceFrameMessage {
  static TYPE_DISPLAYS_INFO = 'displays_info';

  constructor(type, payload) {
    Object.assign(this, { type, payload });
  }

  /** Posted messages arrive as plain objects: whatever has both is one. */
  static [Symbol.hasInstance](value) {
    return typeof value === 'object' && value !== null && 'type' in value && 'payload' in value;
  }
}

// Links: what is beyond the contract ---------------------------------------------------------------------------------
//
// A link is {deviceInfo, infraConfig, send(message), hurry(milliseconds), close()}. While it is open, `heard` is told of
// each message, and `lost` once, why it is no more.

/** Nobody answers. */
class Unreachable extends Error {}

/** Nobody answers, and what was to be sent has certainly not arrived. */
class NotSent extends Unreachable {}

/** The server has said no, and why. */
class Refused extends Error {}

async function openLink(deviceId, options, events) {
  try {
    return await openSocket(deviceId, options, events);
  } catch (failure) {
    if (failure instanceof Refused) throw failure;
    // No WebSocket to be had here; and where the server has refused the upgrade, this is how to find out why.
    return await openPolling(deviceId, options, events);
  }
}

/** A link over WebSocket. */
function openSocket(deviceId, { token }, { heard, lost }) {
  return new Promise((resolve, reject) => {
    if (typeof WebSocket === 'undefined') throw new Unreachable('there is no WebSocket');
    const protocols = token ? ['webrtc-operator', `bearer.${token}`] : [];
    const socket = new WebSocket(at('connect_client').replace(/^http/, 'ws'), protocols);
    const say = (message) => socket.send(JSON.stringify(message));
    let connected = false;
    let infraConfig;
    let said;
    const link = {
      hurry() {},
      close: () => socket.close(1000),
      async send(payload) {
        if (socket.readyState !== WebSocket.OPEN) {
          lost(new Unreachable(LINK_LOST));
          throw new NotSent(LINK_LOST);
        }
        say({ message_type: 'forward', payload });
      },
    };
    socket.onopen = () => say({ message_type: 'connect', device_id: deviceId });
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.error !== undefined) {
        said = message.error;
        if (connected) console.warn(`the signaling server says: ${said}`);
      } else if (message.message_type === 'config') {
        infraConfig = message;
      } else if (message.message_type === 'device_info') {
        connected = true;
        resolve(Object.assign(link, { deviceInfo: message.device_info, infraConfig }));
      } else if (message.message_type === 'device_msg') {
        heard(message.payload);
      }
    };
    socket.onclose = ({ code, reason }) => {
      const failure = endOf(code, said ?? reason);
      if (connected) lost(failure);
      else reject(failure);
    };
  });
}

/** What a WebSocket's close means: going away, restarting, and no goodbye at all are the network's; else it is a no. */
function endOf(code, reason) {
  if ([1001, 1005, 1006, 1012].includes(code)) return new Unreachable(LINK_LOST);
  return new Refused(reason || `the server has closed the connection [${code}]`);
}

/** A link of HTTP requests, which the server holds until there is something to tell. */
async function openPolling(deviceId, { token }, { heard, lost }) {
  const ask = (path, body) => fetchJson(path, token, body);
  const infraConfig = await ask('infra_config');
  const connection = await ask('polled_connections', { device_id: deviceId });
  const path = `polled_connections/${connection.connection_id}`;
  const pace = new Pace();
  let closed = false;
  let lastSent = Promise.resolve();

  async function listen() {
    for (let received = 0, heardAt = Date.now(); !closed; ) {
      const askedAt = Date.now();
      try {
        const messages = await ask(`${path}/messages?start=${received}&wait=${HOLD}`);
        heardAt = Date.now();
        received += messages.length;
        for (const { payload } of messages) if (!closed) heard(payload);
        await pace.after(messages.length, heardAt - askedAt);
      } catch (failure) {
        // The connection outlives a network that fails for a moment.
        if (failure instanceof Refused || Date.now() - heardAt > POLLED_TIMEOUT) throw failure;
        await sleep(FIRST_PAUSE);
      }
    }
  }

  /** A server that was started anew knows nothing of it: nobody has said no, the link is lost. */
  const isForgotten = (failure) => failure.message === UNKNOWN_CONNECTION;
  const end = (failure) => {
    if (!closed) lost(isForgotten(failure) ? new Unreachable(LINK_LOST) : failure);
    closed = true;
  };

  async function forward(payload) {
    try {
      await ask(`${path}/:forward`, { payload });
    } catch (failure) {
      if (!isForgotten(failure)) throw failure;
      end(failure);
      throw new NotSent(LINK_LOST);
    }
  }

  listen().catch(end);
  return {
    deviceInfo: connection.device_info,
    infraConfig,
    hurry: (milliseconds) => pace.hurry(milliseconds),
    close() {
      closed = true;
    },
    send(payload) {
      // One after the other: requests that run side by side may arrive in any order.
      const sent = lastSent.then(() => forward(payload));
      lastSent = sent.catch(() => {});
      return sent;
    },
  };
}

/** How soon to poll again: at once where the server holds polls; else in growing steps, and quickly when told to. */
class Pace {
  #quickUntil = 0;
  #pause = 0;
  #wake = () => {};

  hurry(milliseconds) {
    this.#quickUntil = Date.now() + milliseconds;
    this.#wake();
  }

  after(messages, took) {
    const held = took > 1_000;
    const quick = messages > 0 || Date.now() < this.#quickUntil;
    this.#pause = quick ? FIRST_PAUSE : Math.min(2 * this.#pause + FIRST_PAUSE, LONGEST_PAUSE);
    if (messages > 0 || held) return undefined;
    return Promise.race([sleep(this.#pause), new Promise((resolve) => (this.#wake = resolve))]);
  }
}

async function fetchJson(path, token, body) {
  const headers = { ...(token && { Authorization: `Bearer ${token}` }) };
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  const options = { method: body === undefined ? 'GET' : 'POST', headers, cache: 'no-store' };
  let response;
  let answer;
  try {
    response = await fetch(at(path), { ...options, body: body && JSON.stringify(body) });
    answer = await response.json();
  } catch (error) {
    throw new Unreachable(`the signaling server can not be reached: ${error.message}`);
  }
  if (response.ok) return answer;
  const reason = answer?.error ?? `the signaling server answers ${response.status}`;
  throw response.status >= 502 ? new Unreachable(reason) : new Refused(reason);
}

/** The URL of a path of the server that this module comes from, whatever is in front of it. */
function at(path) {
  const here = new URL(import.meta.url);
  const [whole] = here.pathname.match(/(devices\/[^/]+\/files\/)?js\/server_connector\.js$/) ?? [];
  return here.origin + (whole ? here.pathname.slice(0, -whole.length) : '/') + path;
}

function sleep(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
