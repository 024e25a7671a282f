import { type Api, isAbort } from "./client";
import type { GatewayEvent } from "./types";

/** Incremental reader of a text/event-stream (HTML standard section 9.2.6): push text, get the data of whole events. */
export class SseParser {
  private rest = "";
  private data: string[] = [];

  push(text: string): string[] {
    const out: string[] = [];
    const lines = (this.rest + text).split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop() ?? "";
    for (const line of lines) {
      if (line === "") {
        if (this.data.length > 0) out.push(this.data.join("\n"));
        this.data = [];
      } else if (line.startsWith("data:")) {
        this.data.push(line.slice(line[5] === " " ? 6 : 5));
      }
    }
    return out;
  }
}

const HIDDEN_SECONDS = 60; // then a background tab gives its connection back: browsers allow six a host over all tabs
const SILENT_SECONDS = 45; // three heartbeats of the gateway

/**
 * Follow /api/v1/events from now on, for ever, through losses.
 *
 * With fetch, because EventSource cannot send Authorization and a bearer token does not belong into URLs and logs.
 * `onGap` says that events may have been missed: lists must be read anew.
 */
export class EventFollower {
  private abort: AbortController | null = null;
  private lastId: number | null = null;
  private failures = 0;
  private timer = 0;
  private hiddenTimer = 0;
  private stopped = false;

  constructor(
    private readonly api: Api,
    private readonly onEvent: (event: GatewayEvent) => void,
    private readonly onGap: () => void,
    private readonly onState: (connected: boolean) => void,
  ) {}

  start(): void {
    document.addEventListener("visibilitychange", this.visibility);
    void this.run();
  }

  stop(): void {
    this.stopped = true;
    document.removeEventListener("visibilitychange", this.visibility);
    clearTimeout(this.timer);
    clearTimeout(this.hiddenTimer);
    this.abort?.abort();
  }

  private visibility = (): void => {
    clearTimeout(this.hiddenTimer);
    if (document.hidden) {
      this.hiddenTimer = window.setTimeout(() => this.abort?.abort(), HIDDEN_SECONDS * 1000);
    } else if (this.abort === null) {
      void this.run();
    }
  };

  private async run(): Promise<void> {
    if (this.stopped || this.abort) return;
    clearTimeout(this.timer);
    const abort = new AbortController();
    this.abort = abort;
    let watchdog = 0;
    try {
      const resume = this.lastId === null ? "" : `?last_event_id=${this.lastId}`;
      const response = await this.api.fetch(`/events${resume}`, { signal: abort.signal });
      this.failures = 0;
      this.onState(true);
      this.onGap(); // what happened between the first lists and this moment, or while we were away
      const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
      const parser = new SseParser();
      for (;;) {
        watchdog = window.setTimeout(() => abort.abort(), SILENT_SECONDS * 1000);
        const { value, done } = await reader.read();
        clearTimeout(watchdog);
        if (done) break;
        for (const text of parser.push(value)) {
          const event = JSON.parse(text) as GatewayEvent;
          // A restarted gateway counts from one again.
          this.lastId = event.id;
          this.onEvent(event);
        }
      }
    } catch (error) {
      if (!isAbort(error)) this.failures += 1;
    } finally {
      clearTimeout(watchdog);
      this.abort = null;
    }
    if (this.stopped) return;
    this.onState(false);
    if (!document.hidden) {
      this.timer = window.setTimeout(() => void this.run(), Math.min(1000 * 2 ** this.failures, 15_000));
    }
  }
}
