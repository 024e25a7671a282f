import { describe, expect, it } from "vitest";
import { ApiError } from "../src/api/client";
import type { Channel, Device } from "../src/api/types";
import type { ChannelList } from "../src/model";
import { againAfter } from "../src/player/again";
import { RateMeter, chase, overHole } from "../src/player/meter";
import { rowsOf } from "../src/tree";

describe("RateMeter", () => {
  it("measures over its window only", () => {
    const meter = new RateMeter(2000);
    expect(meter.perSecond).toBeNull();
    for (let at = 0; at <= 4000; at += 500) meter.push(at <= 2000 ? at : 2000 + (at - 2000) * 3, at);
    expect(meter.perSecond).toBe(3000);
  });
  it("begins anew when the counter does", () => {
    const meter = new RateMeter();
    meter.push(1000, 0);
    meter.push(2000, 1000);
    meter.push(10, 1500);
    expect(meter.perSecond).toBeNull();
    meter.push(510, 2000);
    expect(meter.perSecond).toBe(1000);
  });
});

describe("chase", () => {
  it("leaves a player near the live edge alone", () => expect(chase(0.9, 1)).toEqual({ rate: 1, seekBehind: null }));
  it("speeds up when more than 1.5 s behind, and slows down only near the edge", () => {
    expect(chase(1.6, 1).rate).toBeGreaterThan(1);
    expect(chase(1, 1.2)).toEqual({ rate: 1.2, seekBehind: null });
    expect(chase(0.5, 1.2)).toEqual({ rate: 1, seekBehind: null });
  });
  it("jumps when far behind", () => expect(chase(30, 1.5)).toEqual({ rate: 1, seekBehind: 0.5 }));
});

describe("overHole", () => {
  const ranges = (...pairs: [number, number][]): Parameters<typeof overHole>[0] => ({
    length: pairs.length, start: (index) => pairs[index]![0], end: (index) => pairs[index]![1],
  });
  it("goes to the next range when this one is at its end", () => {
    expect(overHole(ranges([0, 5], [5.04, 9]), 4.99)).toBe(5.04);
    expect(overHole(ranges([0, 5], [7, 9], [10, 11]), 8.9)).toBe(10);
  });
  it("stays where there is something to show, or nothing to go to", () => {
    expect(overHole(ranges([0, 5], [7, 9]), 3)).toBeNull();
    expect(overHole(ranges([0, 5]), 5)).toBeNull();
    expect(overHole(ranges(), 0)).toBeNull();
    expect(overHole(ranges([0, 5], [7, 9]), 9)).toBeNull();
  });
});

describe("againAfter", () => {
  it("waits longer every time, up to a limit", () => {
    expect([0, 1, 2, 3, 4, 5, 99].map((tries) => againAfter("media_stopped", tries))).toEqual([1, 3, 5, 10, 20, 30, 30]);
    expect(againAfter("http_502", 0)).toBe(1);
  });
  it("asks again for what a media worker took with it", () => {
    for (const code of ["worker_lost", "session_expired", "player_connection"]) expect(againAfter(code, 0), code).toBe(1);
  });
  it("goes on at once where the other picture is there already, but not for ever", () => {
    expect([0, 1, 2].map((tries) => againAfter("tracks_changed", tries))).toEqual([0, 3, 5]);
    expect(againAfter("stream_moved", 0)).toBe(0);
  });
  it("does not undo what somebody decided, nor try what cannot work", () => {
    for (const code of ["stream_stopped", "token_invalid", "unknown_channel", "codec_unsupported", "http_404"]) {
      expect(againAfter(code, 0), code).toBeNull();
    }
  });
});

const device = (id: string, name: string, online = true): Device =>
  ({ id, name, online, channel_count: 2 }) as unknown as Device;
const channel = (device_id: string, id: string, name: string): Channel =>
  ({ id, device_id, name, online: true, playable: true }) as unknown as Channel;

describe("rowsOf", () => {
  const devices = [device("1", "Gate"), device("2", "Yard", false), device("3", "")];
  const channels = new Map<string, ChannelList>([
    ["1", [channel("1", "11", "North"), channel("1", "12", "South")]],
    ["2", [channel("2", "21", "north corner")]],
    ["3", new ApiError(0, "unreachable", "")],
  ]);
  const ids = (open: string[], query = ""): string[] => rowsOf(devices, channels, new Set(open), query).map((row) => row.id);

  it("shows the channels of open devices", () => {
    expect(ids([])).toEqual(["1", "2", "3"]);
    expect(ids(["1", "3"])).toEqual(["1", "1-11", "1-12", "2", "3", "3:note"]);
  });
  it("shows a channel of a device that is gone as offline", () => {
    const row = rowsOf(devices, channels, new Set(["2"]), "").find(({ id }) => id === "2-21");
    expect(row).toMatchObject({ kind: "channel", online: false });
  });
  it("finds channels and devices, and opens what it found", () => {
    expect(ids([], "NORTH")).toEqual(["1", "1-11", "2", "2-21"]);
    expect(ids([], "yard")).toEqual(["2"]);
    expect(ids(["2"], "yard")).toEqual(["2", "2-21"]);
    expect(ids([], "12")).toEqual(["1", "1-12"]);
    expect(ids([], "nothing")).toEqual([]);
  });
  it("is quick for 10,000 channels", () => {
    const many = new Map<string, ChannelList>([
      ["1", Array.from({ length: 10_000 }, (_, index) => channel("1", `c${index}`, `Camera ${index}`))],
    ]);
    expect(rowsOf([device("1", "NVR")], many, new Set(["1"]), "")).toHaveLength(10_001);
  });
});
