import { rebase, withQuery } from "../api/base";
import { type Api, ApiError, errorOf, isAbort, toApiError } from "../api/client";
import type { PlayToken, Track } from "../api/types";
import { Store, settings } from "../store";
import { againAfter } from "./again";
import { type Attempt, type Choice, CHOICES, DeadEnds, type Note, type Protocol, askBrowser, haveMore, haveOtherCodecs, maybeOtherwise, plan } from "./choose";
import type { Engine, EngineContext, Losses } from "./engine";
import { FlvEngine } from "./flv";
import { HlsEngine } from "./hls";
import { RateMeter, chase, overHole } from "./meter";
import { WhepEngine } from "./whep";

export interface Figures {
  bufferSeconds: number | null;
  latencySeconds: number | null; // behind the gateway
  queueBytes: number | null;
  bitrate: number | null; // bits per second, as received
  width: number;
  height: number;
  fps: number | null;
  dropped: number | null;
  losses: Losses | null; // of WebRTC, as the browser counts them
  roundTripMs: number | null; // of WebRTC, as the gateway measures it
}

export interface PlayerState {
  key: string | null;
  phase: "idle" | "opening" | "playing" | "error";
  choice: Choice;
  protocol: Protocol | null; // of the attempt now running
  notes: Note[];
  tracks: Track[];
  error: ApiError | null;
  againIn: number | null; // seconds until a picture that broke is asked for again
  firstPictureMs: number | null;
  stalled: boolean;
  paused: boolean;
  muted: boolean;
  mutedByBrowser: boolean;
  volume: number;
  figures: Figures;
}

const NO_FIGURES: Figures = {
  bufferSeconds: null, latencySeconds: null, queueBytes: null, bitrate: null, width: 0, height: 0, fps: null, dropped: null,
  losses: null, roundTripMs: null,
};
const TICK_MS = 500;
const PICTURE_MS = 12_000; // from the gateway's answer to the first picture: a long GOP and a slow transcode
const STALL_MS = 2_500;
const STEADY_MS = 20_000; // a picture that held this long begins a new row of retries

/** Plays one channel at a time in one <video>; its state is for the page to show. */
export class Player {
  readonly state: Store<PlayerState>;
  private readonly can = askBrowser();
  private readonly deadEnds = new DeadEnds();
  private run: Run | null = null;
  private tries = 0;
  private countdown = 0;

  constructor(
    private readonly api: Api,
    readonly video: HTMLVideoElement,
  ) {
    const saved = settings.get("protocol") as Choice | null;
    const volume = Number(settings.get("volume") ?? "1");
    this.state = new Store<PlayerState>({
      key: null,
      phase: "idle",
      choice: saved && CHOICES.includes(saved) ? saved : "auto",
      protocol: null,
      notes: [],
      tracks: [],
      error: null,
      againIn: null,
      firstPictureMs: null,
      stalled: false,
      paused: false,
      muted: settings.get("muted") === "1",
      mutedByBrowser: false,
      volume: volume >= 0 && volume <= 1 ? volume : 1,
      figures: NO_FIGURES,
    });
    video.playsInline = true;
    video.muted = this.state.get().muted;
    video.volume = this.state.get().volume;
  }

  play(key: string): void {
    this.tries = 0;
    this.begin(key);
  }

  private begin(key: string): void {
    this.halt();
    this.state.set({
      key, phase: "opening", protocol: null, notes: [], tracks: [], error: null, againIn: null, firstPictureMs: null,
      stalled: false, paused: false, figures: NO_FIGURES,
    });
    const run = new Run(this.api, this.video, this.state, this.can, this.deadEnds, key, (error, playedMs) => this.broke(error, playedMs));
    this.run = run;
    void run.go();
  }

  /** A picture that was there comes back by itself; one that never came waits for a person. */
  private broke(error: ApiError, playedMs: number): void {
    if (playedMs === 0 && this.tries === 0) return;
    if (playedMs > STEADY_MS) this.tries = 0;
    let seconds = againAfter(error.code, this.tries);
    if (seconds === null) return;
    this.tries += 1;
    const { key } = this.state.get();
    if (seconds === 0 && key) return this.begin(key);
    this.state.set({ againIn: seconds });
    this.countdown = window.setInterval(() => {
      seconds! -= 1;
      const { key } = this.state.get();
      if (seconds! > 0) this.state.set({ againIn: seconds });
      else if (key) this.begin(key);
    }, 1000);
  }

  retry(): void {
    const { key } = this.state.get();
    if (key) this.play(key);
  }

  stop(): void {
    this.halt();
    this.state.set({ key: null, phase: "idle", protocol: null, error: null, againIn: null, notes: [], tracks: [], figures: NO_FIGURES });
  }

  choose(choice: Choice): void {
    settings.set("protocol", choice);
    this.state.set({ choice });
    this.retry();
  }

  setMuted(muted: boolean): void {
    this.video.muted = muted;
    settings.set("muted", muted ? "1" : "0");
    this.state.set({ muted, mutedByBrowser: false });
  }

  setVolume(volume: number): void {
    this.video.volume = volume;
    settings.set("volume", String(volume));
    this.state.set({ volume });
    if (volume > 0 && this.video.muted) this.setMuted(false);
  }

  togglePause(): void {
    if (this.state.get().phase !== "playing") return;
    if (this.video.paused) {
      const { buffered } = this.video;
      // What was missed is not watched later: this is live.
      if (!this.video.srcObject && buffered.length > 0) this.video.currentTime = Math.max(0, buffered.end(buffered.length - 1) - 0.5);
      void this.video.play();
    } else {
      this.video.pause();
    }
    this.state.set({ paused: this.video.paused });
  }

  /** The picture as PNG; null before there is one. */
  async snapshot(): Promise<Blob | null> {
    const { videoWidth: width, videoHeight: height } = this.video;
    if (width === 0 || this.state.get().phase !== "playing") return null;
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    canvas.getContext("2d")!.drawImage(this.video, 0, 0, width, height);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }

  private halt(): void {
    clearInterval(this.countdown);
    this.run?.replace();
    this.run = null;
  }
}

/** One request for a picture: from the click to the end. */
class Run {
  private readonly abort = new AbortController();
  private readonly began = performance.now();
  private engine: Engine | null = null;
  private ticker = 0;
  private meter = new RateMeter();
  private frames = new RateMeter();
  private lastTime = -1;
  private lastMoved = 0;
  private polling = false;
  private queueBytes: number | null = null;
  private roundTripMs: number | null = null;
  private pictured = 0; // when the first picture came
  private replaced = false;

  constructor(
    private readonly api: Api,
    private readonly video: HTMLVideoElement,
    private readonly state: Store<PlayerState>,
    private readonly can: ReturnType<typeof askBrowser>,
    private readonly deadEnds: DeadEnds,
    private readonly key: string,
    private readonly onBroke: (error: ApiError, playedMs: number) => void,
  ) {}

  async go(): Promise<void> {
    try {
      const [token, running] = await Promise.all([
        this.api.playToken(this.key, this.abort.signal),
        this.tracksNow(),
      ]);
      const tracks = running ?? (await this.startAndAsk(token));
      this.show({ tracks });
      const attempts = plan(this.state.get().choice, tracks, this.can, (protocol) => this.deadEnds.has(protocol, performance.now()));
      if (attempts.length === 0) throw new ApiError(0, "player_cannot_decode", codecsOf(tracks));
      await this.tryAll(attempts, token);
    } catch (error) {
      this.giveUp(error);
    }
  }

  /** End it for good: somebody wants another picture, or none. */
  replace(): void {
    this.replaced = true;
    this.stop();
  }

  private stop(): void {
    this.abort.abort();
    clearInterval(this.ticker);
    this.engine?.stop();
    this.engine = null;
    this.video.playbackRate = 1;
  }

  private get stopped(): boolean {
    return this.abort.signal.aborted;
  }

  private show(change: Partial<PlayerState>): void {
    if (!this.stopped) this.state.set(change);
  }

  private giveUp(error: unknown): void {
    if (this.stopped || isAbort(error)) return;
    const playedMs = this.pictured === 0 ? 0 : performance.now() - this.pictured;
    this.stop();
    const known = toApiError(error);
    // A picture that broke may be back at once: nobody need read of an error meanwhile.
    this.state.set({ phase: playedMs > 0 ? "opening" : "error", error: playedMs > 0 ? null : known, stalled: false, figures: NO_FIGURES });
    void this.explain(known).then((cause) => {
      if (this.replaced) return;
      this.state.set({ phase: "error", error: cause });
      this.onBroke(cause, playedMs);
    });
  }

  /** A connection that broke says little; the gateway may know that it was the camera that stopped, and what to do. */
  private async explain(error: ApiError): Promise<ApiError> {
    if (error.status !== 0 || error.code === "unreachable") return error;
    const { cause } = await this.api.diagnosis(this.key).catch(() => ({ cause: null }));
    const fits = cause && (error.code === "player_connection" || error.code === cause.code);
    if (fits) return new ApiError(0, cause.code, cause.message, cause.remedy);
    if (error.code !== "player_connection" && error.code !== "player_decode") return error;
    // WebRTC and HLS end without a word where the stream goes on in another codec.
    const now = await this.api.stream(this.key).catch(() => null);
    const { tracks } = this.state.get();
    const other = now !== null && (haveOtherCodecs(tracks, now.tracks) || (error.code === "player_decode" && haveMore(tracks, now.tracks)));
    return other ? new ApiError(0, "tracks_changed", codecsOf(now.tracks)) : error;
  }

  /** Tracks of the stream where it runs already; its diagnosis answers for those that do not run, too. */
  private async tracksNow(): Promise<Track[] | null> {
    const { state } = await this.api.diagnosis(this.key, this.abort.signal);
    if (state !== "playing" && state !== "lingering") return null;
    const { tracks } = await this.api.stream(this.key, this.abort.signal);
    return tracks.length > 0 ? tracks : null;
  }

  /**
   * Start an on-demand stream by asking for it as a viewer does, since a view token may not POST /streams; the answer's
   * head says that it plays, or its body why it does not. The gateway keeps it for a moment after we let go.
   */
  private async startAndAsk(token: PlayToken): Promise<Track[]> {
    const url = withQuery(rebase(token.urls["flv"]!, this.api.base), { audio: "native" });
    const asked = new AbortController();
    const forward = (): void => asked.abort();
    this.abort.signal.addEventListener("abort", forward);
    try {
      const response = await fetch(url, { signal: asked.signal, cache: "no-store" });
      if (!response.ok) throw errorOf(response.status, await response.text());
      const tracks = (await this.api.stream(this.key, this.abort.signal)).tracks;
      return tracks;
    } finally {
      this.abort.signal.removeEventListener("abort", forward);
      asked.abort();
    }
  }

  private async tryAll(attempts: Attempt[], token: PlayToken): Promise<void> {
    for (const [index, attempt] of attempts.entries()) {
      try {
        await this.tryOne(attempt, token);
        this.deadEnds.forget(attempt.protocol);
        return;
      } catch (error) {
        this.engine?.stop();
        this.engine = null;
        clearInterval(this.ticker);
        const known = toApiError(error);
        if (!this.stopped && !isAbort(error)) this.deadEnds.note(attempt.protocol, known.code, performance.now());
        if (this.stopped || isAbort(error) || index === attempts.length - 1 || !maybeOtherwise(known.code)) throw error;
      }
    }
  }

  private async tryOne(attempt: Attempt, token: PlayToken): Promise<void> {
    this.show({ protocol: attempt.protocol, notes: attempt.notes });
    let url = rebase(token.urls[attempt.protocol]!, this.api.base);
    if (attempt.transcode) url = withQuery(url, { video: "h264" });
    // A page cannot read the headers of a WebSocket's answer, so it names its viewer row itself.
    const viewer = attempt.protocol === "ws-flv" ? crypto.getRandomValues(new BigUint64Array(2)).join("-") : null;
    if (viewer) url = withQuery(url, { viewer });
    await new Promise<void>((resolve, reject) => {
      let playing = false;
      const context: EngineContext = {
        video: this.video,
        url,
        signal: this.abort.signal,
        fail: (error) => {
          if (playing) this.giveUp(error);
          else reject(error);
        },
      };
      const engine = make(attempt.protocol, context, this.api.base);
      this.engine = engine;
      if (viewer) Object.assign(engine, { viewer });
      this.abort.signal.addEventListener("abort", () => reject(this.abort.signal.reason as Error), { once: true });
      let patience = 0;
      whenPictured(this.video, this.state.get().tracks, this.abort.signal, () => {
        if (playing || this.engine !== engine) return;
        playing = true;
        clearTimeout(patience);
        this.lastMoved = this.pictured = performance.now();
        this.show({ phase: "playing", firstPictureMs: Math.round(this.pictured - this.began) });
        resolve();
      });
      engine.start().then(() => {
        if (this.stopped) return engine.stop();
        patience = window.setTimeout(
          () => reject(new ApiError(0, "player_timeout", `No picture within ${PICTURE_MS / 1000} s.`)),
          PICTURE_MS,
        );
        this.ticker = window.setInterval(() => void this.tick(engine), TICK_MS);
        void this.begin();
      }, reject);
    });
  }

  /** Play with sound, or without where the browser wants a click first. */
  private async begin(): Promise<void> {
    try {
      await this.video.play();
    } catch (error) {
      if (!(error instanceof DOMException) || error.name !== "NotAllowedError") return; // ended meanwhile: told elsewhere
      this.video.muted = true;
      this.show({ muted: true, mutedByBrowser: true });
      await this.video.play().catch(() => this.show({ paused: true }));
    }
  }

  private async tick(engine: Engine): Promise<void> {
    await engine.sample?.();
    if (this.stopped || this.engine !== engine) return;
    const { video } = this;
    const now = performance.now();
    this.meter.push(engine.bytes, now);
    const quality = video.getVideoPlaybackQuality?.();
    if (quality) this.frames.push(quality.totalVideoFrames, now);
    const buffered = engine.bufferSeconds ? engine.bufferSeconds() : bufferOf(video);
    if (engine.chases && buffered !== null && !video.paused) {
      const wanted = chase(buffered, video.playbackRate);
      if (wanted.seekBehind !== null) video.currentTime += buffered - wanted.seekBehind;
      if (video.playbackRate !== wanted.rate) video.playbackRate = wanted.rate;
      const next = video.currentTime === this.lastTime ? overHole(video.buffered, video.currentTime) : null;
      if (next !== null) video.currentTime = next + 0.01;
    }
    if (video.currentTime !== this.lastTime || video.paused) {
      this.lastTime = video.currentTime;
      this.lastMoved = now;
    }
    const bytes = this.meter.perSecond;
    this.show({
      stalled: this.state.get().phase === "playing" && now - this.lastMoved > STALL_MS,
      paused: video.paused && this.state.get().phase === "playing",
      figures: {
        bufferSeconds: buffered,
        latencySeconds: engine.latencySeconds?.() ?? null,
        queueBytes: this.queueBytes,
        bitrate: bytes === null ? null : bytes * 8,
        width: video.videoWidth,
        height: video.videoHeight,
        fps: this.frames.perSecond,
        dropped: quality?.droppedVideoFrames ?? null,
        losses: engine.losses?.() ?? null,
        roundTripMs: this.roundTripMs,
      },
    });
    void this.pollQueue(engine);
  }

  private async pollQueue(engine: Engine): Promise<void> {
    if (!engine.viewer || this.polling) return;
    this.polling = true;
    try {
      const row = await this.api.viewer(this.key, engine.viewer, this.abort.signal);
      this.queueBytes = row.queue_bytes;
      this.roundTripMs = row.round_trip_ms;
    } catch (error) {
      this.queueBytes = this.roundTripMs = null; // shown as unknown
      // Our row is gone, so the gateway has ended this: WebRTC alone would notice it only after many seconds.
      if (toApiError(error).code === "unknown_viewer" && this.state.get().protocol !== "hls") {
        this.giveUp(new ApiError(0, "player_connection", "The gateway ended the stream."));
      }
    }
    window.setTimeout(() => (this.polling = false), 1000);
  }
}

function make(protocol: Protocol, context: EngineContext, base: string): Engine {
  if (protocol === "webrtc") return new WhepEngine(context, base);
  if (protocol === "hls") return new HlsEngine(context);
  return new FlvEngine(context);
}

function whenPictured(video: HTMLVideoElement, tracks: readonly Track[], signal: AbortSignal, call: () => void): void {
  const hasVideo = tracks.some((track) => track.kind === "video");
  if (hasVideo && typeof video.requestVideoFrameCallback === "function") {
    const handle = video.requestVideoFrameCallback(() => call());
    signal.addEventListener("abort", () => video.cancelVideoFrameCallback(handle), { once: true });
  } else {
    video.addEventListener("playing", call, { once: true, signal }); // sound alone never presents a frame
  }
}

function bufferOf(video: HTMLVideoElement): number | null {
  const { buffered, currentTime } = video;
  if (buffered.length === 0) return null;
  return Math.max(0, buffered.end(buffered.length - 1) - currentTime);
}

export function codecsOf(tracks: readonly Track[]): string {
  return tracks.map((track) => track.codec).join(" + ");
}
