const DELAYS_SECONDS = [1, 3, 5, 10, 20, 30] as const; // a media worker that died is replaced within the first

/** Causes that pass: the camera restarts, the network returns. Not here: what somebody decided, what never will work. */
const PASSING: ReadonlySet<string> = new Set([
  "media_stopped", "closed_by_camera", "tracks_changed", "timestamps_exhausted", "device_offline", "invite_no_answer", "no_media",
  "no_key_frame", "stopping", "session_expired", "worker_lost", "worker_slow", "stream_moved", "player_connection",
  "player_timeout", "unreachable",
]);

/** Causes of which the gateway has the other picture already. */
const AT_ONCE: ReadonlySet<string> = new Set(["tracks_changed", "timestamps_exhausted", "stream_moved"]);

/** Seconds until a picture that was there is asked for again, `tries` having failed before; null: not at all. */
export function againAfter(code: string, tries: number): number | null {
  if (tries === 0 && AT_ONCE.has(code)) return 0;
  if (!PASSING.has(code) && !/^http_5\d\d$/.test(code)) return null;
  return DELAYS_SECONDS[Math.min(tries, DELAYS_SECONDS.length - 1)]!;
}
