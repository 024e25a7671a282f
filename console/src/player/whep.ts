import { ApiError, errorOf, toApiError, isAbort } from "../api/client";
import { rebase } from "../api/base";
import type { Engine, EngineContext, Losses } from "./engine";

/** The losses of the picture in an inbound-rtp report; what a browser does not count is 0. */
export function lossesOf(report: Readonly<Record<string, unknown>>): Losses {
  const count = (name: string): number => (typeof report[name] === "number" ? report[name] : 0);
  const packetsLost = Math.max(0, count("packetsLost")); // negative where packets came twice
  return {
    packetsLost,
    nacks: count("nackCount"),
    repaired: Math.min(packetsLost, count("retransmittedPacketsReceived")), // each comes twice
    plis: count("pliCount") + count("firCount"),
    freezes: count("freezeCount"),
    freezeSeconds: count("totalFreezesDuration"),
  };
}

/** ICE servers of Link headers: `<stun:host:port>; rel="ice-server"; username="u"; credential="c"`. */
export function iceServersOf(link: string | null): RTCIceServer[] {
  const servers: RTCIceServer[] = [];
  for (const part of (link ?? "").matchAll(/<([^>]*)>((?:\s*;\s*[\w-]+\s*=\s*(?:"(?:[^"\\]|\\.)*"|[^;,\s]+))*)/g)) {
    const parameters = new Map<string, string>();
    for (const [, name, quoted, plain] of part[2]!.matchAll(/;\s*([\w-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;,\s]+))/g)) {
      parameters.set(name!.toLowerCase(), quoted?.replace(/\\(.)/g, "$1") ?? plain ?? "");
    }
    if (parameters.get("rel") !== "ice-server" || !/^(stun|turn)s?:/.test(part[1]!)) continue;
    const server: RTCIceServer = { urls: part[1]! };
    const username = parameters.get("username");
    const credential = parameters.get("credential");
    if (username !== undefined) server.username = username;
    if (credential !== undefined) server.credential = credential;
    servers.push(server);
  }
  return servers;
}

/** Address of the session: Location is relative to the URL posted to, and absolute ones come below our own folder. */
export function sessionUrl(location: string, posted: string, base: string): string {
  return rebase(new URL(location, posted).href, base);
}

const GATHER_MS = 800; // candidates of this host take milliseconds; servers that do not answer must not delay a picture
const CONNECT_MS = 8000;
const LOST_MS = 5000; // "disconnected" often heals

/** WebRTC play by WHEP: offer posted whole, no trickle; DELETE when it ends. */
export class WhepEngine implements Engine {
  readonly chases = false;
  bytes = 0;
  viewer: string | null = null;
  private peer: RTCPeerConnection | null = null;
  private session: string | null = null;
  private lost = 0;
  private connecting = 0;
  private stopped = false;
  private jitter: { delay: number; emitted: number } | null = null;
  private buffered: number | null = null;
  private lossy: Losses | null = null;

  constructor(
    private readonly context: EngineContext,
    private readonly base: string,
  ) {}

  async start(): Promise<void> {
    const { url, signal, video } = this.context;
    const options = await fetch(url, { method: "OPTIONS", signal }).catch(() => null);
    signal.throwIfAborted();
    const peer = new RTCPeerConnection({ iceServers: iceServersOf(options?.headers.get("Link") ?? null) });
    this.peer = peer;
    peer.addTransceiver("video", { direction: "recvonly" });
    peer.addTransceiver("audio", { direction: "recvonly" });
    const media = new MediaStream();
    peer.ontrack = ({ track, receiver }) => {
      media.addTrack(track);
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
      if (video.srcObject !== media) video.srcObject = media;
    };
    peer.onconnectionstatechange = () => this.watch(peer);
    await peer.setLocalDescription(await peer.createOffer());
    await gathered(peer, signal);
    const response = await fetch(url, {
      method: "POST",
      headers: { "Content-Type": "application/sdp" },
      body: peer.localDescription!.sdp,
      signal,
    }).catch((error: unknown) => {
      throw isAbort(error) ? error : toApiError(error);
    });
    const location = response.headers.get("Location");
    if (response.status === 201 && location) this.session = sessionUrl(location, url, this.base);
    if (this.stopped) return this.end(); // stopped while the answer was on its way
    const body = await response.text();
    if (response.status !== 201) throw errorOf(response.status, body);
    this.viewer = response.headers.get("X-Gbgw-Viewer");
    await peer.setRemoteDescription({ type: "answer", sdp: body });
    // The connection stays "connected" for seconds after the gateway ended it; its transport knows at once.
    const transport = peer.getReceivers()[0]?.transport;
    if (transport) transport.onstatechange = () => this.transportChanged(transport);
    this.connecting = window.setTimeout(() => {
      if (peer.connectionState !== "connected") this.fail("The browser and the gateway found no common path by UDP.");
    }, CONNECT_MS);
  }

  stop(): void {
    if (this.stopped) return;
    this.stopped = true;
    clearTimeout(this.lost);
    clearTimeout(this.connecting);
    this.context.video.srcObject = null;
    this.end();
  }

  bufferSeconds(): number | null {
    return this.buffered;
  }

  losses(): Losses | null {
    return this.lossy;
  }

  async sample(): Promise<void> {
    if (!this.peer || this.stopped) return;
    let bytes = 0;
    for (const report of (await this.peer.getStats()).values()) {
      if (report.type !== "inbound-rtp") continue;
      bytes += (report.bytesReceived as number) + ((report.headerBytesReceived as number | undefined) ?? 0);
      if (report.kind !== "video") continue;
      this.lossy = lossesOf(report as Record<string, unknown>);
      const delay = (report.jitterBufferDelay as number | undefined) ?? 0;
      const emitted = (report.jitterBufferEmittedCount as number | undefined) ?? 0;
      const before = this.jitter;
      if (before && emitted > before.emitted) this.buffered = (delay - before.delay) / (emitted - before.emitted);
      this.jitter = { delay, emitted };
    }
    this.bytes = bytes;
  }

  private watch(peer: RTCPeerConnection): void {
    clearTimeout(this.lost);
    if (this.stopped) return;
    if (peer.connectionState === "failed") this.fail("The WebRTC connection failed.");
    else if (peer.connectionState === "closed") this.fail("The gateway ended the WebRTC connection.");
    else if (peer.connectionState === "disconnected") {
      this.lost = window.setTimeout(() => this.fail("The WebRTC connection was lost."), LOST_MS);
    }
  }

  private transportChanged(transport: RTCDtlsTransport): void {
    if (transport.state === "closed") this.fail("The gateway ended the WebRTC connection.");
  }

  private fail(message: string): void {
    if (!this.stopped) this.context.fail(new ApiError(0, "player_connection", message));
  }

  /** DELETE goes first: closing the connection would make the gateway forget the session that is to be deleted. */
  private end(): void {
    const { session, peer } = this;
    this.session = null;
    if (peer) peer.onconnectionstatechange = null;
    if (!session) return peer?.close();
    void fetch(session, { method: "DELETE", keepalive: true })
      .catch(() => undefined)
      .finally(() => peer?.close());
  }
}

function gathered(peer: RTCPeerConnection, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const done = (): void => {
      clearTimeout(timer);
      peer.onicegatheringstatechange = null;
      resolve();
    };
    const timer = window.setTimeout(done, GATHER_MS);
    peer.onicegatheringstatechange = () => {
      if (peer.iceGatheringState === "complete") done();
    };
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason as Error);
    });
    if (peer.iceGatheringState === "complete") done();
  });
}
