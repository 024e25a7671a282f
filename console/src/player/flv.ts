import type MpegtsModule from "mpegts.js";
import { ApiError, errorOf, toApiError, isAbort } from "../api/client";
import type { Engine, EngineContext } from "./engine";

type Mpegts = typeof MpegtsModule;
const OPEN_MS = 20_000; // an on-demand camera may take its time; the gateway answers before that

/** FLV over WebSocket or plain HTTP, demuxed by mpegts.js into Media Source Extensions. */
export class FlvEngine implements Engine {
  readonly chases = true;
  bytes = 0;
  viewer: string | null = null;
  private player: ReturnType<Mpegts["createPlayer"]> | null = null;
  private source: Source | null = null;
  private stopped = false;

  constructor(private readonly context: EngineContext) {}

  async start(): Promise<void> {
    const mpegts = (await import("mpegts.js")).default;
    const { url, video, signal } = this.context;
    signal.throwIfAborted();
    mpegts.LoggingControl.enableAll = false;
    const source = url.startsWith("ws") ? new SocketSource(url) : new HttpSource(url);
    this.source = source;
    source.onBytes = (length) => (this.bytes += length);
    source.onEnd = (error) => this.fail(error);
    await source.open(signal);
    this.viewer = source.viewer;
    const player = mpegts.createPlayer(
      { type: "flv", isLive: true, url: "flv:" }, // the loader below has the real one
      {
        customLoader: loaderOf(mpegts, source),
        enableWorker: false,
        enableStashBuffer: false,
        lazyLoad: false,
        deferLoadAfterSourceOpen: false,
        autoCleanupSourceBuffer: true,
        autoCleanupMaxBackwardDuration: 30,
        autoCleanupMinBackwardDuration: 15,
        fixAudioTimestampGap: false,
      },
    );
    this.player = player;
    player.on(mpegts.Events.ERROR, (type: string, detail: string, info?: { msg?: string }) => {
      const code = type === mpegts.ErrorTypes.MEDIA_ERROR ? "player_decode" : "player_connection";
      this.fail(new ApiError(0, code, info?.msg ?? detail));
    });
    player.attachMediaElement(video);
    player.load();
  }

  stop(): void {
    if (this.stopped) return;
    this.stopped = true;
    this.source?.close();
    const { player } = this;
    this.player = null;
    player?.detachMediaElement();
    // Not from within an event of its own: it goes on to tell of an error after that.
    window.setTimeout(() => player?.destroy());
    this.context.video.removeAttribute("src");
  }

  private fail(error: Error): void {
    if (!this.stopped) this.context.fail(error);
  }
}

/** Where the bytes come from. What arrives before the demuxer is ready waits in `early`. */
abstract class Source {
  viewer: string | null = null;
  onBytes: (length: number) => void = () => undefined;
  onEnd: (error: Error) => void = () => undefined;
  private early: ArrayBuffer[] = [];
  private sink: ((data: ArrayBuffer) => void) | null = null;

  abstract open(signal: AbortSignal): Promise<void>;
  abstract close(): void;

  attach(sink: (data: ArrayBuffer) => void): void {
    this.sink = sink;
    for (const data of this.early.splice(0)) sink(data);
  }

  protected push(data: ArrayBuffer): void {
    this.onBytes(data.byteLength);
    if (this.sink) this.sink(data);
    else this.early.push(data);
  }
}

class SocketSource extends Source {
  private socket: WebSocket | null = null;

  constructor(private readonly url: string) {
    super();
  }

  open(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(this.url);
      socket.binaryType = "arraybuffer";
      this.socket = socket;
      let opened = false;
      const timer = window.setTimeout(() => socket.close(), OPEN_MS);
      socket.onopen = () => {
        opened = true;
        clearTimeout(timer);
        resolve();
      };
      socket.onmessage = ({ data }) => this.push(data as ArrayBuffer);
      socket.onclose = ({ reason, code }) => {
        clearTimeout(timer);
        // The gateway puts its cause code into the reason; a refused handshake tells a browser nothing.
        const known = reason !== "ended" && /^[a-z][a-z0-9_]{2,60}$/.test(reason);
        if (opened) this.onEnd(new ApiError(0, known ? reason : "player_connection", `WebSocket closed (${code}).`));
        else this.explain(signal).then(reject, reject);
      };
      signal.addEventListener("abort", () => {
        clearTimeout(timer);
        socket.onclose = null;
        socket.close();
        reject(signal.reason as Error);
      });
    });
  }

  close(): void {
    if (!this.socket) return;
    this.socket.onclose = null;
    this.socket.onmessage = null;
    this.socket.close();
  }

  /** Ask the same URL by HTTP why the handshake was refused. */
  private async explain(signal: AbortSignal): Promise<Error> {
    const asked = new AbortController();
    signal.addEventListener("abort", () => asked.abort());
    try {
      const response = await fetch(this.url.replace(/^ws/, "http"), { signal: asked.signal });
      if (!response.ok) return errorOf(response.status, await response.text());
      return new ApiError(0, "player_connection", "The WebSocket was refused, perhaps by a proxy between.");
    } catch (error) {
      return toApiError(error);
    } finally {
      asked.abort();
    }
  }
}

class HttpSource extends Source {
  private readonly abort = new AbortController();

  constructor(private readonly url: string) {
    super();
  }

  async open(signal: AbortSignal): Promise<void> {
    signal.addEventListener("abort", () => this.abort.abort());
    const response = await fetch(this.url, { signal: this.abort.signal }).catch((error: unknown) => {
      throw isAbort(error) ? error : toApiError(error);
    });
    if (!response.ok) throw errorOf(response.status, await response.text());
    this.viewer = response.headers.get("X-Gbgw-Viewer");
    void this.read(response.body!.getReader());
  }

  close(): void {
    this.abort.abort();
  }

  private async read(reader: ReadableStreamDefaultReader<Uint8Array>): Promise<void> {
    try {
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        this.push(value.buffer.slice(value.byteOffset, value.byteOffset + value.byteLength) as ArrayBuffer);
      }
      this.onEnd(new ApiError(0, "player_connection", "The gateway ended the stream."));
    } catch (error) {
      if (!isAbort(error)) this.onEnd(new ApiError(0, "player_connection", String(error)));
    }
  }
}

/** The class that mpegts.js makes its loader of; it only passes on what `source` receives. */
function loaderOf(mpegts: Mpegts, source: Source): new () => InstanceType<Mpegts["BaseLoader"]> {
  return class extends mpegts.BaseLoader {
    private received = 0;

    constructor() {
      super("gbgw");
      this._needStash = false;
    }

    override open(): void {
      this._status = 2; // buffering
      source.attach((data) => {
        const start = this.received;
        this.received += data.byteLength;
        this.onDataArrival(data, start, this.received);
      });
    }

    override abort(): void {
      this._status = 4; // complete
      source.close();
    }

    override destroy(): void {
      source.close();
      super.destroy();
    }
  };
}
