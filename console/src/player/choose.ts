import type { Track } from "../api/types";

export type Protocol = "webrtc" | "ws-flv" | "hls" | "flv";
export type Choice = "auto" | Protocol;
export const CHOICES: readonly Choice[] = ["auto", "webrtc", "ws-flv", "hls", "flv"];

/** What this browser decodes, asked once. */
export interface Abilities {
  webrtcVideo: ReadonlySet<string>; // lower-case, without "video/"
  webrtcAudio: ReadonlySet<string>;
  mse: (type: string) => boolean; // MediaSource.isTypeSupported, or false for everything
  nativeHls: (type: string) => boolean; // only where the browser must play HLS itself, lacking Media Source Extensions
}

/** Why an attempt is not the plain one; told to the user. */
export type Note = "transcoded" | "no_sound_webrtc" | "b_frames";

export interface Attempt {
  protocol: Protocol;
  transcode: boolean; // ask for ?video=h264
  notes: Note[];
}

const BASELINE = "avc1.42e01f"; // what the gateway's transcoder makes fits whatever decodes this
const AAC = "mp4a.40.2"; // what the gateway makes of G.711 for FLV and HLS
const WEBRTC_AUDIO: Readonly<Record<string, string>> = { PCMA: "pcma", PCMU: "pcmu" };

export function askBrowser(): Abilities {
  const codecs = (kind: "audio" | "video"): Set<string> => {
    const known = typeof RTCRtpReceiver === "undefined" ? null : RTCRtpReceiver.getCapabilities?.(kind);
    return new Set((known?.codecs ?? []).map((codec) => codec.mimeType.split("/")[1]!.toLowerCase()));
  };
  const source = mediaSource();
  return {
    webrtcVideo: codecs("video"),
    webrtcAudio: codecs("audio"),
    mse: (type) => source?.isTypeSupported(type) ?? false,
    nativeHls: (type) => {
      const video = document.createElement("video");
      return source === null && video.canPlayType("application/vnd.apple.mpegurl") !== "" && video.canPlayType(type) !== "";
    },
  };
}

function mediaSource(): { isTypeSupported(type: string): boolean } | null {
  if (typeof MediaSource !== "undefined") return MediaSource;
  const managed = (globalThis as { ManagedMediaSource?: { isTypeSupported(type: string): boolean } }).ManagedMediaSource;
  return managed ?? null; // iPhone
}

/**
 * How to play `tracks`, best attempt first; empty when this browser cannot play them at all.
 *
 * Auto prefers WebRTC (least delay), then FLV over WebSocket, then HLS, then plain FLV; but a protocol that would lose
 * the sound or need a transcode comes after those that do not. The gateway's WebRTC carries H.264 and, where the browser
 * takes it, H.265, both without B-frames, and G.711; its FLV and HLS carry H.264, H.265 and AAC (G.711 becomes AAC on
 * demand). What found no way a while ago comes last: where no UDP passes, only the first picture waits for WebRTC to
 * give up.
 */
export function plan(
  choice: Choice,
  tracks: readonly Track[],
  can: Abilities,
  isDeadEnd: (protocol: Protocol) => boolean = () => false,
): Attempt[] {
  if (choice !== "auto") {
    const attempt = attemptBy(choice, tracks, can);
    return attempt ? [attempt] : [];
  }
  const order: readonly Protocol[] = ["webrtc", "ws-flv", "hls", "flv"];
  return order
    .map((protocol) => attemptBy(protocol, tracks, can))
    .filter((attempt) => attempt !== null)
    .map((attempt, rank) => ({ attempt, cost: rank + (attempt.transcode ? 100 : 0) + penalty(attempt) + (isDeadEnd(attempt.protocol) ? 1000 : 0) }))
    .sort((a, b) => a.cost - b.cost)
    .map(({ attempt }) => attempt);
}

const DEAD_END_MS = 300_000; // by then the network may be another one

/** Protocols by which no picture came although the gateway was willing. */
export class DeadEnds {
  private readonly since = new Map<Protocol, number>();

  note(protocol: Protocol, code: string, now: number): void {
    if (code === "player_connection" || code === "player_timeout") this.since.set(protocol, now);
  }

  forget(protocol: Protocol): void {
    this.since.delete(protocol);
  }

  has(protocol: Protocol, now: number): boolean {
    const since = this.since.get(protocol);
    return since !== undefined && now - since < DEAD_END_MS;
  }
}

function penalty(attempt: Attempt): number {
  return attempt.notes.includes("no_sound_webrtc") ? 10 : 0;
}

function attemptBy(protocol: Protocol, tracks: readonly Track[], can: Abilities): Attempt | null {
  const video = tracks.find((track) => track.kind === "video");
  const audio = tracks.find((track) => track.kind === "audio");
  const notes: Note[] = [];
  let transcode = false;
  if (protocol === "webrtc") {
    if (video) {
      const isPlain = (video.reorder_depth ?? 0) === 0;
      if (video.codec !== "H264" && !(video.codec === "H265" && isPlain && can.webrtcVideo.has("h265"))) {
        if (!can.webrtcVideo.has("h264")) return null;
        transcode = true;
        notes.push("transcoded");
      } else if (!isPlain || !can.webrtcVideo.has(video.codec.toLowerCase())) {
        return null;
      }
    }
    const carried = audio && WEBRTC_AUDIO[audio.codec];
    if (audio && !(carried && can.webrtcAudio.has(carried))) {
      if (!video) return null;
      notes.push("no_sound_webrtc");
    }
    return { protocol, transcode, notes };
  }
  const plays = (type: string): boolean => can.mse(type) || (protocol === "hls" && can.nativeHls(type));
  if (video && !plays(mp4("video", video.rfc6381))) {
    if (video.codec === "H264" || !plays(mp4("video", BASELINE))) return null;
    transcode = true;
    notes.push("transcoded");
  }
  if (!video && audio && !plays(mp4("audio", AAC))) return null;
  return { protocol, transcode, notes };
}

export function mp4(kind: "audio" | "video", codecs: string): string {
  return `${kind}/mp4; codecs="${codecs}"`;
}

/** Is a track of `now` in another codec than the same kind of track was? One that came or went is no such change. */
export function haveOtherCodecs(before: readonly Track[], now: readonly Track[]): boolean {
  return now.some((track) => before.some((old) => old.kind === track.kind && old.codec !== track.codec));
}

/** Is there sound, or a picture, where there was none? Media Source Extensions take no further track once they have begun. */
export function haveMore(before: readonly Track[], now: readonly Track[]): boolean {
  return now.some((track) => before.every((old) => old.kind !== track.kind));
}

/** Causes that another protocol may not have; everything else is the camera's or the caller's and stays. */
const OF_THE_PROTOCOL: ReadonlySet<string> = new Set([
  "no_codec_fits", "b_frames_unsupported", "codec_unsupported", "sdp_offer_invalid", "webrtc_off", "webrtc_slow",
  "webrtc_ports_exhausted", "candidate_invalid", "origin_refused",
  "player_connection", "player_decode", "player_timeout", "unreachable",
]);

export const maybeOtherwise = (code: string): boolean => OF_THE_PROTOCOL.has(code) || code.startsWith("http_5");
