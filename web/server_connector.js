// The contract between a signaling server and Cuttlefish's web client. The client imports this module from the server
// that it was loaded from, and signals through it. It does not know the transport.
//
//   import { createConnector, deviceId } from './server_connector.js';
//
//   const connector = await createConnector();
//   connector.onDeviceMsg((message) => …);
//   const { deviceInfo, infraConfig } = await connector.requestDevice(deviceId());
//   await connector.sendToDevice({ type: 'request-offer' });
//
// The transport is WebSocket, or long polling if WebSocket is not available. The connector reopens a broken link. It
// reports a refusal of the server as an `Error` with the server's text.

/** How long to try to reopen a lost link, in milliseconds. */
const PATIENCE = 60_000;
/** The pause before the first attempt, in milliseconds. It doubles with each attempt, up to the longest. */
const FIRST_PAUSE = 250;
const LONGEST_PAUSE = 5_000;
/** How long the server may hold a poll without messages, in seconds. */
const HOLD = 20;
/** The server drops a polled connection after this time without a poll, in milliseconds. */
const POLLED_TIMEOUT = 30_000;

/** The server's text when the device of a connection leaves. */
const DEVICE_GONE = 'Device disconnected';
/** The server's text for an unknown polled connection. */
const UNKNOWN_CONNECTION = 'Unknown connection';
/** The server's text for a polled connection that took its messages too slowly. */
const SLOW_CONSUMER = 'Slow consumer';
/** The server's text when it stops. */
const STOPPING = 'Server stopping';
/** The text when the link broke without a text of the server. */
const LINK_LOST = 'the connection to the server was lost';

// The contract -------------------------------------------------------------------------------------------------------

/**
 * Returns the id of this page's device: from the path `…/devices/ID/files/…` of current pages, or from the query
 * `?deviceId=ID` of older ones.
 *
 * @returns {string}
 * @throws {Error} if the address of the page contains no id.
 */
export function deviceId() {
  const inPath = location.pathname.match(/\/devices\/([^/]+)\/files\//);
  if (inPath) return decodeURIComponent(inPath[1]);
  const inQuery = new URLSearchParams(location.search).get('deviceId');
  if (inQuery) return inQuery;
  throw new Error(`no device in ${location.href}: expected /devices/ID/files/ or ?deviceId=ID`);
}

/**
 * Creates a connector for one device at a time.
 *
 * @param {{token?: string}} [options] Beyond the contract: `token` authenticates the client to the server.
 * @returns {Promise<Connector>}
 */
export async function createConnector(options = {}) {
  return new Connector(options);
}

/**
 * Creates a controller that posts messages to the parent page, if there is one.
 *
 * @returns {ParentController}
 */
export function createParentController() {
  return new ParentController();
}

/** The connection to one device. Created by `createConnector()`. */
class Connector {
  #options;
  #deviceId;
  /** A promise of the current link, or of the next one. It rejects with the reason why there is none. */
  #link = Promise.reject(new Error('no device was requested'));
  /** The number of the current link. Events of earlier links are ignored. */
  #generation = 0;
  #onDeviceMsg = () => console.error('a message of the device came before onDeviceMsg() was called');
  #onStateChange = () => {};

  constructor(options) {
    this.#options = options;
    this.#link.catch(() => {});
  }

  /**
   * Sets the callback for messages of the device. Call this before `requestDevice()`.
   *
   * @param {(message: any) => void} callback
   */
  onDeviceMsg(callback) {
    this.#onDeviceMsg = callback;
  }

  /**
   * Beyond the contract: sets the callback for the state of the link, `connected`, `reconnecting` or `disconnected`, with
   * a reason.
   *
   * @param {(state: string, reason?: string) => void} callback
   */
  onStateChange(callback) {
    this.#onStateChange = callback;
  }

  /**
   * Connects to a device. If the device is not registered yet, the server may let the client wait.
   *
   * @param {string} deviceId
   * @returns {Promise<{deviceInfo: any, infraConfig: {ice_servers: RTCIceServer[]}}>}
   * @throws {Error} with the reason of the server, or because the server cannot be reached.
   */
  async requestDevice(deviceId) {
    this.close();
    this.#deviceId = deviceId;
    const link = await this.#use(this.#open());
    return { deviceInfo: link.deviceInfo, infraConfig: link.infraConfig };
  }

  /**
   * Sends a message to the device, in the order of the calls, and never twice. Waits while a lost link is reopened.
   *
   * @param {any} message Any JSON value.
   * @throws {Error} if it cannot be delivered: no device was requested, the device has left, or the server is gone.
   */
  async sendToDevice(message) {
    for (;;) {
      const link = await this.#link;
      try {
        return await link.send(message);
      } catch (failure) {
        // The link reports its loss before it throws `NotSent`, so `#link` is the next one here.
        if (!(failure instanceof NotSent)) throw failure;
      }
    }
  }

  /**
   * Polls more often for a while, if the server does not hold polls.
   *
   * @param {number} milliseconds
   */
  expectMessagesSoon(milliseconds) {
    this.#link.then((link) => link.hurry(milliseconds), () => {});
  }

  /** Beyond the contract: closes the link. */
  close() {
    this.#generation += 1;
    this.#link.then((link) => link.close(), () => {});
    this.#fail(new Error('the connector was closed'));
  }

  /** Makes a promised link the current one. */
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
    // The callback may send at once.
    this.#use(Promise.resolve(link));
    this.#tell('connected');
    return link;
  }

  #hear(message) {
    try {
      this.#onDeviceMsg(message);
    } catch (error) {
      reportError(error);
    }
  }

  #tell(state, reason) {
    try {
      this.#onStateChange(state, reason);
    } catch (error) {
      reportError(error);
    }
  }

  /** Handles a lost link. After a network failure, senders wait for the next link; after a refusal they fail. */
  #lose(failure) {
    this.#generation += 1;
    const returns = failure instanceof Unreachable || failure.message === DEVICE_GONE;
    if (failure instanceof Unreachable) {
      this.#use(this.#reopen());
    } else {
      // The device may never come back, so senders fail at once instead of waiting.
      this.#fail(failure);
      if (returns) this.#reopen().catch(() => {});
    }
    this.#tell(returns ? 'reconnecting' : 'disconnected', failure.message);
  }

  async #reopen() {
    const generation = this.#generation;
    const until = Date.now() + PATIENCE;
    for (let pause = FIRST_PAUSE; ; pause = Math.min(2 * pause, LONGEST_PAUSE)) {
      // Jitter: a hundred pages that lost the same server must not all reconnect at once.
      await sleep(pause * (0.5 + Math.random()));
      if (generation !== this.#generation) throw new Error('the connector was closed');
      try {
        return await this.#open();
      } catch (failure) {
        if (Date.now() < until && generation === this.#generation) continue;
        this.#tell('disconnected', failure.message);
        throw failure;
      }
    }
  }
}

/** Posts messages about the device to the parent page. Created by `createParentController()`. */
class ParentController {
  /**
   * Creates a message about the displays. The caller adds the displays and sends it.
   *
   * @param {number} rotation The rotation of all displays, in degrees.
   * @returns {DeviceDisplaysMessage}
   */
  createDeviceDisplaysMessage(rotation) {
    return new DeviceDisplaysMessage(this, rotation);
  }

  /** Posts a message to the parent page, if it has the same origin. */
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

/** The sizes of a device's displays, by which the parent page lays out the frame. */
export class DeviceDisplaysMessage {
  #controller;
  device_id = deviceId();
  rotation;
  displays = [];

  constructor(parentController, rotation) {
    this.#controller = parentController;
    this.rotation = rotation;
  }

  /** Adds a display: its id, and its size in pixels. */
  addDisplay(display_id, width, height) {
    this.displays.push(new DisplayInfo(display_id, width, height));
  }

  /** Sends the message. Does nothing without a parent page. */
  send() {
    this.#controller.postMessageToParent(DeviceFrameMessage.TYPE_DISPLAYS_INFO, this);
  }
}

/** A message from the page of a device to its parent page. */
export class DeviceFrameMessage {
  static TYPE_DISPLAYS_INFO = 'displays_info';

  constructor(type, payload) {
    Object.assign(this, { type, payload });
  }

  /** Posted messages arrive as plain objects, so `instanceof` checks for both fields. */
  static [Symbol.hasInstance](value) {
    return typeof value === 'object' && value !== null && 'type' in value && 'payload' in value;
  }
}

// Links: the internals behind the contract ----------------------------------------------------------------------------
//
// A link is {deviceInfo, infraConfig, send(message), hurry(milliseconds), close()}. While it is open, it calls `heard`
// for each message. It calls `lost` once, with the reason, when it breaks.

/** The server does not answer. */
class Unreachable extends Error {}

/** The server does not answer, and the message has certainly not arrived. */
class NotSent extends Unreachable {}

/** The server has refused, with a reason. */
class Refused extends Error {}

async function openLink(deviceId, options, events) {
  try {
    return await openSocket(deviceId, options, events);
  } catch (failure) {
    if (failure instanceof Refused) throw failure;
    // WebSocket is not available, or the server refused the upgrade: then the answer to polling contains the reason.
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
      const failure = endOf(code, said ?? reason, connected);
      if (connected) lost(failure);
      else reject(failure);
    };
  });
}

/**
 * Converts the close of a WebSocket to an error. Going away, restart and a missing close frame count as failures of the
 * network. So does "try again later" once the link was connected: a page that stood still has read too slowly. Every
 * other code is a refusal.
 */
function endOf(code, reason, connected) {
  if ([1001, 1005, 1006, 1012].includes(code)) return new Unreachable(LINK_LOST);
  if (code === 1013 && connected) return new Unreachable(reason || LINK_LOST);
  return new Refused(reason || `the server has closed the connection [${code}]`);
}

/** A link over HTTP requests, which the server holds until there are messages. */
async function openPolling(deviceId, { token }, { heard, lost }) {
  const ask = (path, body) => fetchJson(path, token, body);
  const infraConfig = await ask('infra_config');
  const connection = await ask('polled_connections', { device_id: deviceId });
  const path = `polled_connections/${connection.connection_id}`;
  const pace = new Pace();
  let closed = false;
  let lastSent = Promise.resolve();

  async function listen() {
    for (let received = 0, heardAt = Date.now(), pause = FIRST_PAUSE; !closed; ) {
      const askedAt = Date.now();
      try {
        const messages = await ask(`${path}/messages?start=${received}&wait=${HOLD}`);
        heardAt = Date.now();
        pause = FIRST_PAUSE;
        received += messages.length;
        for (const { payload } of messages) if (!closed) heard(payload);
        await pace.after(messages.length, heardAt - askedAt);
      } catch (failure) {
        // The connection survives short failures of the network and of the server.
        if (isOver(failure) || failure instanceof Refused || Date.now() - heardAt > POLLED_TIMEOUT) throw failure;
        await sleep(pause);
        pause = Math.min(2 * pause, LONGEST_PAUSE);
      }
    }
  }

  /**
   * A server that stops has ended the connection, a restarted one does not know it, and one that waited for the page
   * in vain gives it up: a lost link, not a refusal.
   */
  const isOver = (failure) => [UNKNOWN_CONNECTION, SLOW_CONSUMER, STOPPING].includes(failure.message);
  const end = (failure) => {
    const reason = failure.message === SLOW_CONSUMER ? SLOW_CONSUMER : LINK_LOST;
    if (!closed) lost(isOver(failure) ? new Unreachable(reason) : failure);
    closed = true;
  };

  async function forward(payload) {
    try {
      await ask(`${path}/:forward`, { payload });
    } catch (failure) {
      if (!isOver(failure)) throw failure;
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
      // One request after another: concurrent requests may arrive in any order.
      const sent = lastSent.then(() => forward(payload));
      lastSent = sent.catch(() => {});
      return sent;
    },
  };
}

/** The pause between polls: none if the server holds polls. Otherwise it grows, and `hurry` makes it short for a while. */
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
    throw new Unreachable(`the signaling server cannot be reached: ${error.message}`);
  }
  if (response.ok) return answer;
  const reason = answer?.error ?? `the signaling server answers ${response.status}`;
  throw isPassing(response.status) ? new Unreachable(reason) : new Refused(reason);
}

/** Whether the same request may succeed later: a failure of the server or of a proxy, a timeout, too many requests. */
function isPassing(status) {
  return status >= 500 || status === 408 || status === 429;
}

/** The URL of a path on the server of this module, behind the same path prefix. */
function at(path) {
  const here = new URL(import.meta.url);
  const [whole] = here.pathname.match(/(devices\/[^/]+\/files\/)?js\/server_connector\.js$/) ?? [];
  return here.origin + (whole ? here.pathname.slice(0, -whole.length) : '/') + path;
}

function sleep(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
