import { describe, expect, it } from "vitest";
import type { Recording } from "../src/api/types";
import { DAY_MS, blocks, dayOf, midnight, momentAt } from "../src/timeline";

const START = midnight("2026-02-03");
const at = (hours: number): string => new Date(START + hours * 3_600_000).toISOString();
const record = (from: number, to: number, kind = "time"): Recording => ({ id: at(from), start: at(from), end: at(to), name: "", kind, bytes: null });

describe("a day of recordings", () => {
  it("begins at the browser's midnight", () => {
    expect(dayOf(START)).toBe("2026-02-03");
    expect(dayOf(START + DAY_MS - 1)).toBe("2026-02-03");
    expect(dayOf(START - 1)).toBe("2026-02-02");
  });
  it("is drawn as parts of the day, cut at its ends", () => {
    const drawn = blocks([record(-1, 6), record(12, 18, "alarm"), record(23, 30), record(30, 31)], START);
    expect(drawn.map(({ left, width }) => [left, width])).toEqual([[0, 0.25], [0.5, 0.25], [23 / 24, 1 - 23 / 24]]);
    expect(drawn[1]!.kind).toBe("alarm");
  });
  it("is entered at what is recorded there, or next", () => {
    const records = [record(12, 18), record(2, 4)];
    expect(momentAt(3 / 24, records, START)).toBe(START + 3 * 3_600_000);
    expect(momentAt(8 / 24, records, START)).toBe(START + 12 * 3_600_000);
    expect(momentAt(-1, records, START)).toBe(START + 2 * 3_600_000);
    expect(momentAt(20 / 24, records, START)).toBeNull();
    expect(momentAt(0.5, [], START)).toBeNull();
  });
});
