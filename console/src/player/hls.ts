import { ApiError, errorOf } from "../api/client";
import type { Engine, EngineContext } from "./engine";

/** HLS by hls.js, or by the browser itself where Media Source Extensions are missing (iPhone). */
export class HlsEngine implements Engine {
  readonly chases = false; // hls.js keeps to the live edge on its own
  bytes = 0;
  viewer: string | null = null;
  private destroy: () => void = () => undefined;
  private latency: () => number | null = () => null;
  private stopped = false;

  constructor(private readonly context: EngineContext) {}

  async start(): Promise<void> {
    const { default: Hls } = await import("hls.js");
    const { url, video, signal } = this.context;
    signal.throwIfAborted();
    if (!Hls.isSupported()) return this.startNative();
    const hls = new Hls({
      lowLatencyMode: true,
      backBufferLength: 15,
      maxLiveSyncPlaybackRate: 1.5,
      enableWorker: true,
      manifestLoadPolicy: { default: { maxTimeToFirstByteMs: 20_000, maxLoadTimeMs: 20_000, timeoutRetry: null, errorRetry: null } },
    });
    const ended = (): void => this.fail(new ApiError(0, "player_connection", "The gateway ended the stream."));
    video.addEventListener("ended", ended);
    let lastPicture = 0;
    hls.on(Hls.Events.LEVEL_UPDATED, (_event, { details }) => {
      if (details.live || lastPicture !== 0) return;
      // hls.js does not tell the <video> of an end whose parts it had all buffered before: it would stand, not end.
      const { buffered, currentTime } = video;
      const left = buffered.length > 0 ? buffered.end(buffered.length - 1) - currentTime : 0;
      lastPicture = window.setTimeout(ended, Math.max(0, left) * 1000);
    });
    this.destroy = () => {
      clearTimeout(lastPicture);
      video.removeEventListener("ended", ended);
      hls.destroy();
    };
    let recovered = 0;
    hls.on(Hls.Events.MANIFEST_LOADED, (_event, data) => {
      const request = data.networkDetails as XMLHttpRequest | null;
      this.viewer = request?.getResponseHeader?.("X-Gbgw-Viewer") ?? null;
    });
    hls.on(Hls.Events.FRAG_LOADED, (_event, data) => {
      this.bytes += data.payload.byteLength; // of a part, in low-latency mode
    });
    hls.on(Hls.Events.ERROR, (_event, data) => {
      // A playlist that is gone stays gone: hls.js would ask for it again and again.
      const isGone = data.details === Hls.ErrorDetails.LEVEL_LOAD_ERROR && [403, 404, 410].includes(data.response?.code ?? 0);
      if (!data.fatal && !isGone) return;
      if (data.type === Hls.ErrorTypes.MEDIA_ERROR) {
        const isHopeless = data.details === Hls.ErrorDetails.MANIFEST_INCOMPATIBLE_CODECS_ERROR;
        if (!isHopeless && Date.now() - recovered > 10_000) {
          recovered = Date.now();
          hls.recoverMediaError();
          return;
        }
        this.fail(new ApiError(0, "player_decode", data.error.message));
        return;
      }
      const request = data.networkDetails as XMLHttpRequest | null | undefined;
      const status = data.response?.code ?? 0;
      this.fail(
        status >= 400
          ? errorOf(status, textOf(request))
          : new ApiError(0, "player_connection", data.error.message || data.details),
      );
    });
    this.latency = () => (hls.latency > 0 ? hls.latency : null);
    hls.loadSource(url);
    hls.attachMedia(video);
  }

  latencySeconds(): number | null {
    return this.latency();
  }

  stop(): void {
    if (this.stopped) return;
    this.stopped = true;
    this.destroy();
    this.context.video.removeAttribute("src");
    this.context.video.load();
  }

  private async startNative(): Promise<void> {
    const { url, video, signal } = this.context;
    const response = await fetch(url, { signal });
    const body = await response.text();
    if (!response.ok) throw errorOf(response.status, body);
    const broken = (): void =>
      this.fail(new ApiError(0, "player_decode", video.error?.message ?? "The browser gave up."));
    const ended = (): void => this.fail(new ApiError(0, "player_connection", "The gateway ended the stream."));
    video.addEventListener("error", broken);
    video.addEventListener("ended", ended);
    this.destroy = () => {
      video.removeEventListener("error", broken);
      video.removeEventListener("ended", ended);
    };
    video.src = url;
  }

  private fail(error: Error): void {
    if (!this.stopped) this.context.fail(error);
  }
}

function textOf(request: XMLHttpRequest | null | undefined): string {
  try {
    return request?.responseText ?? "";
  } catch {
    return ""; // an answer that is not text
  }
}
