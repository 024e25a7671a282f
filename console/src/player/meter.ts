/** Rate of a growing counter over a sliding window. Times in milliseconds. */
export class RateMeter {
  private samples: { at: number; total: number }[] = [];

  constructor(private readonly windowMs = 3000) {}

  push(total: number, at: number): void {
    const last = this.samples.at(-1);
    if (last && total < last.total) this.samples = []; // the counter began anew
    this.samples.push({ at, total });
    while (this.samples.length > 2 && at - this.samples[0]!.at > this.windowMs) this.samples.shift();
  }

  /** Per second; null before there is anything to compare. */
  get perSecond(): number | null {
    const first = this.samples[0];
    const last = this.samples.at(-1);
    if (!first || !last || last.at - first.at < 400) return null;
    return ((last.total - first.total) * 1000) / (last.at - first.at);
  }
}

export interface Chase {
  rate: number;
  seekBehind: number | null; // seek to this many seconds before the end of the buffer
}

const TARGET_SECONDS = 0.5;
const BEHIND_SECONDS = 1.5;
const FAR_SECONDS = 4;

const TOUCHING_SECONDS = 0.2;

/** Where to go on when the picture stands before a hole in the buffer, as a change of resolution may leave; null: nowhere. */
export function overHole(buffered: Pick<TimeRanges, "length" | "start" | "end">, at: number): number | null {
  for (let index = 0; index + 1 < buffered.length; index += 1) {
    const stands = at >= buffered.start(index) - TOUCHING_SECONDS && at < buffered.start(index + 1);
    if (stands && buffered.end(index) - at < TOUCHING_SECONDS) return buffered.start(index + 1);
  }
  return null;
}

/** Keep a live FLV near the live edge: a little faster when more than 1.5 s behind, a jump when far behind. */
export function chase(bufferSeconds: number, rate: number): Chase {
  if (bufferSeconds > FAR_SECONDS) return { rate: 1, seekBehind: TARGET_SECONDS };
  if (bufferSeconds > BEHIND_SECONDS) return { rate: bufferSeconds > 2 ? 1.5 : 1.25, seekBehind: null };
  if (rate > 1 && bufferSeconds > TARGET_SECONDS) return { rate, seekBehind: null };
  return { rate: 1, seekBehind: null };
}
