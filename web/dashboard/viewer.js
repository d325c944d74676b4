// A minimal WebRTC client, to check whether signaling, ICE and media work. It signals through server_connector.js, as
// Cuttlefish's own page does.

import { createConnector } from '../js/server_connector.js';
import { PATIENCE } from './details.js';
import { byId, element, show, showFacts } from './dom.js';
import { token } from './feed.js';
import { duration, escaped, setWords, size, words } from './words.js';

/** The most lines of data channels shown. */
const MOST_LINES = 20;
const STATS_EVERY = 1_000;

let session;

/** Connects to a device, after it has disconnected from the previous one. */
export async function connect(deviceId) {
  disconnect();
  session = new Session(deviceId);
  await session.start();
}

/** Disconnects. */
export function disconnect() {
  session?.close();
  session = undefined;
  byId('stage').hidden = true;
  byId('connect').textContent = 'Connect';
  setWords(byId('viewer-state'), 'Not connected');
  byId('viewer-state').classList.remove('bad');
}

export const isConnected = () => session !== undefined;

/** Sends the typed text on the selected data channel. */
export function say(text) {
  session?.say(text);
}

/** One connection to one device, from the first request to the close. */
class Session {
  #deviceId;
  #connector;
  #peer;
  #channels = new Map();
  #early = [];
  #statsTimer;
  #facts = {};
  #closed = false;
  /** The time at which the device was asked for something that it has not answered yet. */
  #askedAt;
  #askTimer;

  constructor(deviceId) {
    this.#deviceId = deviceId;
  }

  async start() {
    byId('stage').hidden = false;
    byId('connect').textContent = 'Disconnect';
    byId('screens').replaceChildren();
    byId('said').replaceChildren();
    byId('said-before').textContent = '';
    this.#tell('waiting for the device');
    try {
      this.#connector = await createConnector({ token: token() });
      this.#connector.onDeviceMsg((message) => this.#hear(message).catch((error) => this.#fail(error)));
      this.#connector.onStateChange((state, reason) => this.#fact('signaling', reason ? `${state}: ${reason}` : state));
      const { infraConfig } = await this.#connector.requestDevice(this.#deviceId);
      if (this.#closed) return;
      const ice_servers = infraConfig?.ice_servers ?? [];
      this.#fact('ICE servers', ice_servers.flatMap((server) => server.urls).join(', ') || 'none');
      this.#open(ice_servers);
      this.#tell('asking for an offer');
      this.#awaitAnswer();
      await this.#connector.sendToDevice({ type: 'request-offer', ice_servers });
    } catch (error) {
      this.#fail(error);
    }
  }

  close() {
    this.#closed = true;
    clearInterval(this.#statsTimer);
    clearInterval(this.#askTimer);
    this.#peer?.close();
    this.#connector?.close();
    this.#facts = {};
    showFacts(byId('media-facts'), []);
    this.#showChannels();
  }

  say(text) {
    const label = byId('channel').value;
    const channel = this.#channels.get(label);
    if (channel?.readyState !== 'open') return;
    channel.send(text);
    log(label, 'you', text);
  }

  #open(iceServers) {
    const peer = new RTCPeerConnection({ iceServers });
    this.#peer = peer;
    const states = () => {
      this.#fact('ICE', `${peer.iceConnectionState}, gathering ${peer.iceGatheringState}`);
      this.#fact('connection', peer.connectionState);
      if (peer.connectionState === 'connected') this.#tell('connected');
      if (peer.connectionState === 'failed') this.#tell('ICE found no way: is there a TURN server both can reach?', true);
    };
    peer.oniceconnectionstatechange = peer.onicegatheringstatechange = peer.onconnectionstatechange = states;
    peer.onicecandidate = ({ candidate }) => {
      if (candidate?.candidate) this.#send({ type: 'ice-candidate', candidate: candidate.toJSON() });
    };
    peer.ontrack = ({ track, streams }) => this.#showTrack(track, streams[0] ?? new MediaStream([track]));
    peer.ondatachannel = ({ channel }) => this.#addChannel(channel);
    states();
    this.#statsTimer = setInterval(() => this.#showStats().catch(console.error), STATS_EVERY);
  }

  /** Tells that the device does not answer, after a time. The connection itself has no deadline: it may be slow. */
  #awaitAnswer() {
    this.#askedAt = performance.now();
    this.#askTimer = setInterval(() => {
      const seconds = Math.floor((performance.now() - this.#askedAt) / 1000);
      if (seconds >= PATIENCE) this.#tell(`the device has not answered for ${seconds} s`, true);
    }, 1_000);
  }

  #send(message) {
    this.#connector.sendToDevice(message).catch((error) => this.#fail(error));
  }

  async #hear(message) {
    if (this.#closed || !this.#peer) return;
    clearInterval(this.#askTimer);
    if (message?.type === 'offer') {
      this.#tell('answering');
      await this.#peer.setRemoteDescription({ type: 'offer', sdp: message.sdp });
      await this.#peer.setLocalDescription();
      this.#send({ type: 'answer', sdp: this.#peer.localDescription.sdp });
      for (const candidate of this.#early.splice(0)) await this.#peer.addIceCandidate(candidate);
    } else if (message?.type === 'ice-candidate') {
      const { candidate, mid, mLineIndex } = message;
      const init = { candidate, sdpMid: mid, sdpMLineIndex: mLineIndex };
      if (!this.#peer.remoteDescription) this.#early.push(init);
      else if (candidate) await this.#peer.addIceCandidate(init);
    } else if (message?.type === 'error') {
      this.#fail(new Error(`the device says: ${message.error}`));
    }
  }

  #showTrack(track, stream) {
    const id = `track-${stream.id}`;
    if (track.kind === 'audio') {
      this.#fact('audio', 'yes, not played');
    } else if (![...byId('screens').children].some((screen) => screen.dataset.key === id)) {
      const screen = element('video', { autoplay: true, muted: true, playsInline: true, srcObject: stream });
      screen.dataset.key = id;
      screen.setAttribute('aria-label', `Display ${byId('screens').childElementCount + 1} of the device`);
      byId('screens').append(screen);
    }
  }

  #addChannel(channel) {
    this.#channels.set(channel.label, channel);
    channel.binaryType = 'arraybuffer';
    channel.onopen = channel.onclose = () => this.#showChannels();
    channel.onmessage = ({ data }) => log(channel.label, 'device', typeof data === 'string' ? data : binary(data));
    this.#showChannels();
  }

  #showChannels() {
    const open = this.#closed ? [] : [...this.#channels.values()].filter(({ readyState }) => readyState === 'open');
    show(byId('channel'), open, ({ label }) => label, ({ label }) => element('option', { value: label, textContent: escaped(label) }), () => {});
    byId('send').disabled = open.length === 0;
  }

  async #showStats() {
    const stats = await this.#peer.getStats();
    if (this.#closed) return;
    for (const report of stats.values()) {
      if (report.type === 'transport' && report.selectedCandidatePairId) {
        this.#showPair(stats, stats.get(report.selectedCandidatePairId));
      } else if (report.type === 'inbound-rtp' && report.kind === 'video') {
        const picture = `${report.frameWidth ?? '?'}×${report.frameHeight ?? '?'}, ${report.framesPerSecond ?? 0} frames/s`;
        this.#fact('video', `${picture}, ${report.framesDecoded ?? 0} decoded, ${report.packetsLost ?? 0} packets lost`);
      }
    }
  }

  #showPair(stats, pair) {
    const end = (candidate) => `${candidate.candidateType} ${candidate.address ?? '?'}:${candidate.port}`;
    const [local, remote] = [stats.get(pair.localCandidateId), stats.get(pair.remoteCandidateId)];
    this.#fact('candidate pair', `${end(local)} ⇄ ${end(remote)}, ${local.protocol}`);
    this.#fact('round trip', pair.currentRoundTripTime === undefined ? null : duration(pair.currentRoundTripTime));
    this.#fact('received', size(pair.bytesReceived ?? 0));
  }

  #fact(name, value) {
    if (this.#closed) return;
    this.#facts[name] = value;
    showFacts(byId('media-facts'), Object.entries(this.#facts), setWords);
  }

  #tell(text, isBad = false) {
    if (this.#closed) return;
    setWords(byId('viewer-state'), text);
    byId('viewer-state').classList.toggle('bad', isBad);
  }

  #fail(error) {
    clearInterval(this.#askTimer);
    this.#tell(error.message, true);
  }
}

function log(channel, who, text) {
  const list = byId('said');
  list.append(element('li', { className: who }, element('small', {}, words(channel), `, ${who}: `), words(text)));
  if (list.childElementCount <= MOST_LINES) return;
  list.firstElementChild.remove();
  byId('said-before').textContent = `Earlier lines are left out: the last ${MOST_LINES} are shown.`;
}

function binary(data) {
  const start = [...new Uint8Array(data, 0, Math.min(16, data.byteLength))];
  const more = data.byteLength > 16 ? ' …' : '';
  return `${size(data.byteLength)}: ${start.map((byte) => byte.toString(16).padStart(2, '0')).join(' ')}${more}`;
}
