import { describe as group, expect, it } from "vitest";
import { DICTIONARIES, describe, fill, languageOf } from "../src/i18n";

const holes = (text: string): string[] => [...text.matchAll(/\{(\w+)\}/g)].map((hole) => hole[1]!).sort();

group("dictionaries", () => {
  const { en, zh } = DICTIONARIES;
  it("have the same keys", () => expect(Object.keys(zh).sort()).toEqual(Object.keys(en).sort()));
  it("leave nothing empty and lose no placeholder", () => {
    for (const [key, text] of Object.entries(en)) {
      const other = zh[key as keyof typeof en];
      expect(text.trim(), key).not.toBe("");
      expect(other.trim(), key).not.toBe("");
      expect(holes(other), key).toEqual(holes(text));
    }
  });
  it("are translated: Chinese texts have Chinese in them, except names", () => {
    const names = /^(player\.(webrtc|ws-flv|hls|flv)|nav\.language)$/;
    for (const [key, text] of Object.entries(zh)) if (!names.test(key)) expect(text, key).toMatch(/[\u4e00-\u9fff]/);
  });
  it("have a title for every remedy", () => {
    for (const key of Object.keys(en)) if (key.endsWith(".remedy")) expect(en).toHaveProperty([key.slice(0, -7)]);
  });
});

group("describe", () => {
  it("translates known causes and keeps the server's sentence", () => {
    const error = { code: "device_offline", message: "device 3402 is offline (expired)", remedy: "check its power" };
    expect(describe("zh", error)).toEqual({
      title: "摄像机离线", remedy: "请检查它的电源和网络。", detail: "device 3402 is offline (expired)",
    });
  });
  it("shows unknown causes in the server's words", () => {
    expect(describe("zh", { code: "brand_new", message: "Something new.", remedy: "Do this." })).toEqual({
      title: "Something new.", remedy: "Do this.", detail: "",
    });
  });
  it("tells the SIP status of a refusal", () => {
    const text = describe("en", { code: "invite_rejected_403", message: "forbidden", remedy: "Ask its owner." });
    expect(text.title).toBe("The camera refused to send its picture (SIP 403)");
    expect(text.remedy).toBe("Ask its owner.");
    expect(describe("en", { code: "invite_rejected_486", message: "m", remedy: "" }).title).toBe("The camera is busy (SIP 486)");
  });
  it("does not take a hostile code for a property", () => {
    expect(describe("en", { code: "constructor", message: "m", remedy: "" }).title).toBe("m");
  });
});

group("languageOf", () => {
  it("follows the choice, then the browser, then English", () => {
    expect(languageOf("en", ["zh-CN"])).toBe("en");
    expect(languageOf(null, ["fr", "zh-TW", "en"])).toBe("zh");
    expect(languageOf("xx", ["de"])).toBe("en");
  });
});

group("fill", () => {
  it("fills holes and leaves unknown ones", () => expect(fill("{a} of {b}", { a: 1 })).toBe("1 of {b}"));
});
