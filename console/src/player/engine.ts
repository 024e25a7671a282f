/** What a lossy way has cost so far, as the browser counts it. */
export interface Losses {
  packetsLost: number; // RTP packets of the picture that did not come the first time
  nacks: number; // messages that asked for packets again
  repaired: number; // packets that came when asked for
  plis: number; // key frames asked for
  freezes: number;
  freezeSeconds: number;
}

/** Something that fills a <video> from one URL. Made, started once, stopped once. */
export interface Engine {
  /** Resolves when the answer is there and media may come; the picture itself is seen on the <video>. */
  start(): Promise<void>;
  stop(): void;
  /** Bytes received since the start. */
  readonly bytes: number;
  /** Id of our row in the gateway's list of viewers. */
  readonly viewer: string | null;
  /** Whether the player may change speed and position to come nearer to the live edge. */
  readonly chases: boolean;
  /** Seconds waiting in the player, where <video>.buffered does not tell. */
  bufferSeconds?(): number | null;
  /** Null where there is nothing to lose, or nothing known. */
  losses?(): Losses | null;
  /** Seconds behind the newest picture the gateway has, where the player knows. */
  latencySeconds?(): number | null;
  /** Called on every tick of the figures. */
  sample?(): Promise<void>;
}

export interface EngineContext {
  video: HTMLVideoElement;
  url: string;
  signal: AbortSignal;
  /** The stream broke; at most once, never after stop(). */
  fail: (error: Error) => void;
}
