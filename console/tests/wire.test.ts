import { describe, expect, it } from "vitest";
import { baseOf, rebase, withQuery } from "../src/api/base";
import { allows, errorOf } from "../src/api/client";
import { SseParser } from "../src/api/events";
import { iceServersOf, lossesOf, sessionUrl } from "../src/player/whep";

describe("addresses", () => {
  it("finds the folder of the page", () => {
    expect(baseOf("http://h:8080/#/live/1-2")).toBe("http://h:8080/");
    expect(baseOf("https://h/gb/index.html?x=/y#/z")).toBe("https://h/gb/");
  });
  it("puts the API's URLs below the folder, whatever host or prefix they name", () => {
    const url = "http://10.0.0.1:8080/gb/live/1-2.flv?token=a.b-c";
    expect(rebase(url, "https://cam.example/video/")).toBe("https://cam.example/video/live/1-2.flv?token=a.b-c");
    expect(rebase("ws://10.0.0.1/live/1-2.flv?token=x", "https://h/")).toBe("wss://h/live/1-2.flv?token=x");
    expect(rebase("wss://x/live/1-2.flv", "http://h:1/p/")).toBe("ws://h:1/p/live/1-2.flv");
  });
  it("adds to a query", () => {
    expect(withQuery("http://h/live/1-2/whep?token=a.b", { video: "h264" })).toBe(
      "http://h/live/1-2/whep?token=a.b&video=h264",
    );
  });
});

describe("WHEP", () => {
  it("resolves Location against the URL posted to and keeps it below our folder", () => {
    const posted = "http://h/gb/live/1-2/whep?token=t";
    expect(sessionUrl("/gb/live/1-2/whep/abc", posted, "http://h/gb/")).toBe("http://h/gb/live/1-2/whep/abc");
    expect(sessionUrl("whep/abc", posted, "http://h/gb/")).toBe("http://h/gb/live/1-2/whep/abc");
    expect(sessionUrl("https://evil/live/1-2/whep/abc", posted, "http://h/gb/")).toBe("http://h/gb/live/1-2/whep/abc");
  });
  it("reads ICE servers of Link headers", () => {
    expect(
      iceServersOf(
        '<stun:s.example:3478>; rel="ice-server", ' +
          '<turn:t.example?transport=udp>; rel="ice-server"; username="u,1"; credential="p\\"w;"; credential-type="password", ' +
          '<https://x/>; rel="next", <javascript:1>; rel="ice-server"',
      ),
    ).toEqual([
      { urls: "stun:s.example:3478" },
      { urls: "turn:t.example?transport=udp", username: "u,1", credential: 'p"w;' },
    ]);
    expect(iceServersOf(null)).toEqual([]);
  });
  it("reads what a browser counts, and takes what it does not count for nothing", () => {
    const report = { packetsLost: 7, nackCount: 5, retransmittedPacketsReceived: 6, pliCount: 1, firCount: 1, freezeCount: 2, totalFreezesDuration: 0.5 };
    const found = { packetsLost: 7, nacks: 5, repaired: 6, plis: 2, freezes: 2, freezeSeconds: 0.5 };
    expect(lossesOf(report)).toEqual(found);
    expect(lossesOf({ ...report, retransmittedPacketsReceived: 12 })).toEqual({ ...found, repaired: 7 }); // each came twice
    expect(lossesOf({ packetsLost: -2 })).toEqual({ packetsLost: 0, nacks: 0, repaired: 0, plis: 0, freezes: 0, freezeSeconds: 0 });
  });
});

describe("SseParser", () => {
  const text = 'retry: 2000\n\n: beat\n\nid: 1\nevent: a\ndata: {"id":1}\n\nid: 2\r\ndata:x\r\ndata: y\r\n\r\ndata: never ended';
  it("gives the data of whole events", () => expect(new SseParser().push(text)).toEqual(['{"id":1}', "x\ny"]));
  it("does so at any cut", () => {
    for (let cut = 0; cut <= text.length; cut++) {
      const parser = new SseParser();
      expect([...parser.push(text.slice(0, cut)), ...parser.push(text.slice(cut))], `cut ${cut}`).toEqual(['{"id":1}', "x\ny"]);
    }
  });
});

describe("errors and scopes", () => {
  it("reads the gateway's errors, and survives others", () => {
    const error = errorOf(504, '{"error":{"code":"no_media","message":"m","remedy":"r","stream":"1-2"}}');
    expect([error.status, error.code, error.message, error.remedy]).toEqual([504, "no_media", "m", "r"]);
    expect(errorOf(502, "<html>Bad gateway</html>").code).toBe("http_502");
    expect(errorOf(500, "null").code).toBe("http_500");
    expect(errorOf(500, '{"error":{"code":7}}').code).toBe("http_500");
  });
  it("knows that admin may control and control may view", () => {
    expect(allows(["admin"], "view")).toBe(true);
    expect(allows(["control"], "view")).toBe(true);
    expect(allows(["view"], "control")).toBe(false);
    expect(allows([], "view")).toBe(false);
  });
});
