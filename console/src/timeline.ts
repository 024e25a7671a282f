// A day of recordings on a line: where a moment lies, and which moment a place means. Times are milliseconds.

import type { Recording } from "./api/types";

export const DAY_MS = 86_400_000;
export const SPEEDS = [0.25, 0.5, 1, 2, 4, 8] as const;

export interface Block {
  left: number; // 0 to 1 of the day
  width: number;
  kind: string;
}

/** Midnight of a day as <input type="date"> writes it, by the browser's clock. */
export function midnight(day: string): number {
  const [year = 1970, month = 1, date = 1] = day.split("-").map(Number);
  return new Date(year, month - 1, date).getTime();
}

/** The other direction; for "today" give the time of now. */
export function dayOf(at: number): string {
  const moment = new Date(at);
  const two = (value: number): string => String(value).padStart(2, "0");
  return `${moment.getFullYear()}-${two(moment.getMonth() + 1)}-${two(moment.getDate())}`;
}

/** What to draw of the recordings of a day; what lies outside of it is cut off. */
export function blocks(records: readonly Recording[], start: number): Block[] {
  return records.flatMap(({ start: from, end: to, kind }) => {
    const left = Math.max(0, (Date.parse(from) - start) / DAY_MS);
    const right = Math.min(1, (Date.parse(to) - start) / DAY_MS);
    return right > left ? [{ left, width: right - left, kind }] : [];
  });
}

/** The moment at a part of the day, or the beginning of the next recording where it lies in none; null behind the last. */
export function momentAt(part: number, records: readonly Recording[], start: number): number | null {
  const wanted = start + Math.min(Math.max(part, 0), 1) * DAY_MS;
  const found = records
    .filter(({ end }) => Date.parse(end) > wanted)
    .reduce<number | null>((first, record) => {
      const at = Math.max(wanted, Date.parse(record.start));
      return first === null || at < first ? at : first;
    }, null);
  return found === null ? null : Math.floor(found / 1000) * 1000;
}
