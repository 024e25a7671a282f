import { describe, expect, it } from "vitest";
import type { Track } from "../src/api/types";
import { type Abilities, DeadEnds, haveMore, haveOtherCodecs, maybeOtherwise, plan } from "../src/player/choose";

const track = (kind: "video" | "audio", codec: string, rfc6381: string, more: Partial<Track> = {}): Track => ({
  kind, codec, rfc6381, width: 0, height: 0, sample_rate: 0, channels: 0, frame_rate: null, ...more,
});
const H264 = track("video", "H264", "avc1.42c01e");
const H265 = track("video", "H265", "hvc1.1.6.L93.B0");
const PCMA = track("audio", "PCMA", "alaw");
const AAC = track("audio", "AAC", "mp4a.40.2");

const abilities = (change: Partial<Abilities> = {}): Abilities => ({
  webrtcVideo: new Set(["vp8", "h264"]),
  webrtcAudio: new Set(["opus", "pcmu", "pcma"]),
  mse: (type) => /avc1|mp4a/.test(type),
  nativeHls: () => false,
  ...change,
});
const withH265 = abilities({ mse: (type) => /avc1|hvc1|mp4a/.test(type) });
const short = (attempts: ReturnType<typeof plan>): string[] =>
  attempts.map(({ protocol, transcode }) => protocol + (transcode ? "+h264" : ""));

describe("plan", () => {
  it("prefers WebRTC for H.264 with G.711, and knows what to fall back to", () => {
    expect(short(plan("auto", [H264, PCMA], abilities()))).toEqual(["webrtc", "ws-flv", "hls", "flv"]);
  });
  it("comes back last to what found no way, and forgets that after five minutes", () => {
    const deadEnds = new DeadEnds();
    deadEnds.note("webrtc", "player_connection", 1_000);
    deadEnds.note("hls", "busy", 1_000);
    const order = (now: number): string[] =>
      short(plan("auto", [H264, PCMA], abilities(), (protocol) => deadEnds.has(protocol, now)));
    expect(order(2_000)).toEqual(["ws-flv", "hls", "flv", "webrtc"]);
    expect(order(301_000)).toEqual(["webrtc", "ws-flv", "hls", "flv"]);
    expect(short(plan("webrtc", [H264], abilities(), () => true))).toEqual(["webrtc"]);
    deadEnds.note("ws-flv", "player_timeout", 302_000);
    deadEnds.forget("ws-flv");
    expect(deadEnds.has("ws-flv", 302_000)).toBe(false);
  });
  it("does not lose the sound to WebRTC while something else carries it", () => {
    const attempts = plan("auto", [H264, AAC], abilities());
    expect(short(attempts)).toEqual(["ws-flv", "hls", "flv", "webrtc"]);
    expect(attempts.at(-1)!.notes).toEqual(["no_sound_webrtc"]);
  });
  it("plays H.265 untouched where the browser decodes it", () => {
    expect(short(plan("auto", [H265, PCMA], withH265))).toEqual(["ws-flv", "hls", "flv", "webrtc+h264"]);
    const all = { ...withH265, webrtcVideo: new Set(["h264", "h265"]) };
    expect(short(plan("auto", [H265, PCMA], all))).toEqual(["webrtc", "ws-flv", "hls", "flv"]);
    expect(short(plan("webrtc", [{ ...H265, reorder_depth: 2 }], all))).toEqual(["webrtc+h264"]);
  });
  it("asks for H.264 where it does not, and says so", () => {
    const attempts = plan("auto", [H265, PCMA], abilities());
    expect(short(attempts)).toEqual(["webrtc+h264", "ws-flv+h264", "hls+h264", "flv+h264"]);
    expect(attempts.every(({ notes }) => notes.includes("transcoded"))).toBe(true);
  });
  it("keeps B-frames away from WebRTC", () => {
    const bFrames = track("video", "H264", "avc1.4d401f", { reorder_depth: 2 });
    expect(short(plan("auto", [bFrames, PCMA], abilities()))).toEqual(["ws-flv", "hls", "flv"]);
    expect(plan("webrtc", [bFrames, PCMA], abilities())).toEqual([]);
  });
  it("takes the protocol it is told", () => {
    expect(short(plan("hls", [H265], abilities()))).toEqual(["hls+h264"]);
    expect(short(plan("flv", [H264, PCMA], abilities()))).toEqual(["flv"]);
  });
  it("leaves only WebRTC to a browser that has H.264 only there", () => {
    expect(short(plan("auto", [H264, PCMA], abilities({ mse: () => false })))).toEqual(["webrtc"]);
  });
  it("plays HLS natively on a phone without Media Source Extensions", () => {
    const phone = abilities({ mse: () => false, webrtcVideo: new Set(), nativeHls: (type) => /hvc1|avc1/.test(type) });
    expect(short(plan("auto", [H265, AAC], phone))).toEqual(["hls"]);
  });
  it("gives up honestly", () => {
    expect(plan("auto", [H264], abilities({ mse: () => false, webrtcVideo: new Set() }))).toEqual([]);
  });
  it("plays sound alone", () => {
    expect(short(plan("auto", [PCMA], abilities()))).toEqual(["webrtc", "ws-flv", "hls", "flv"]);
    expect(short(plan("auto", [AAC], abilities()))).toEqual(["ws-flv", "hls", "flv"]);
  });
});

describe("maybeOtherwise", () => {
  it("tries another protocol for the protocol's faults only", () => {
    expect(maybeOtherwise("b_frames_unsupported")).toBe(true);
    expect(maybeOtherwise("player_connection")).toBe(true);
    expect(maybeOtherwise("device_offline")).toBe(false);
    expect(maybeOtherwise("no_media")).toBe(false);
    expect(maybeOtherwise("invite_rejected_486")).toBe(false);
  });
});

describe("what changed", () => {
  const track = (kind: "audio" | "video", codec: string): Track => ({ kind, codec }) as unknown as Track;
  const picture = track("video", "H264");
  const sound = track("audio", "PCMA");
  it("is another codec of the same kind", () => {
    expect(haveOtherCodecs([picture, sound], [track("video", "H265"), sound])).toBe(true);
    expect(haveOtherCodecs([picture, sound], [picture])).toBe(false);
    expect(haveOtherCodecs([picture], [picture, sound])).toBe(false);
  });
  it("or a kind that was not there", () => {
    expect(haveMore([picture], [picture, sound])).toBe(true);
    expect(haveMore([picture, sound], [track("video", "H265"), sound])).toBe(false);
    expect(haveMore([picture, sound], [picture])).toBe(false);
  });
});
