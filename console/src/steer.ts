import { ApiError, toApiError } from "./api/client";
import type { Motion, Steered } from "./api/types";
import { Store } from "./store";

export const STILL: Motion = { pan: 0, tilt: 0, zoom: 0, focus: 0, iris: 0 };
const LEASE_SECONDS = 1.5; // a camera turns no longer than this when the page is gone
const RENEW_MS = 500;

export interface SteerApi {
  move(motion: Motion, seconds: number): Promise<Steered>;
  letGo(): void;
}

export interface SteerState {
  motion: Motion; // wanted
  holder: string | null; // who else has the camera
  error: ApiError | null;
}

export const moves = (motion: Motion): boolean => Object.values(motion).some((speed) => speed !== 0);
const same = (a: Motion, b: Motion): boolean => (Object.keys(STILL) as (keyof Motion)[]).every((axis) => a[axis] === b[axis]);

/** Says how a camera should move while something is held: one request under way at a time, the newest wish next, renewed
 * until it is let go. */
export class Steering {
  readonly state = new Store<SteerState>({ motion: STILL, holder: null, error: null });
  private told: Motion = STILL;
  private busy = false;
  private touched = false;
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly api: SteerApi) {}

  /** Move like this until told otherwise. */
  hold(motion: Motion): void {
    this.state.set({ motion, error: null });
    void this.tell();
  }

  release(): void {
    if (moves(this.state.get().motion)) this.hold(STILL);
  }

  /** The page goes away: stop, and give the camera back. */
  leave(): void {
    clearTimeout(this.timer);
    this.state.set({ motion: STILL });
    if (this.touched) this.api.letGo();
    this.touched = false;
  }

  private async tell(): Promise<void> {
    if (this.busy) return;
    clearTimeout(this.timer);
    const { motion } = this.state.get();
    if (same(motion, this.told) && !moves(motion)) return;
    this.busy = true;
    this.touched = true;
    try {
      await this.api.move(motion, LEASE_SECONDS);
      this.told = motion;
      this.state.set({ holder: null });
    } catch (error) {
      const problem = toApiError(error);
      this.told = STILL;
      this.state.set({ motion: STILL, error: problem, holder: problem.code === "ptz_locked" ? problem.message : null });
    }
    this.busy = false;
    const wanted = this.state.get().motion;
    if (!same(wanted, this.told)) void this.tell();
    else if (moves(wanted)) this.timer = setTimeout(() => void this.tell(), RENEW_MS);
  }
}

const KEYS: Readonly<Record<string, Partial<Motion>>> = {
  ArrowLeft: { pan: -1 }, ArrowRight: { pan: 1 }, ArrowUp: { tilt: 1 }, ArrowDown: { tilt: -1 },
  "+": { zoom: 1 }, "=": { zoom: 1 }, "-": { zoom: -1 }, PageUp: { zoom: 1 }, PageDown: { zoom: -1 },
};

/** The motion of all keys that are down, or null where none of them steers. */
export function motionOf(keys: Iterable<string>, speed: number): Motion | null {
  const motion = { ...STILL };
  let known = false;
  for (const key of keys) {
    for (const [axis, sign] of Object.entries(KEYS[key] ?? {}) as [keyof Motion, number][]) {
      motion[axis] = Math.max(-speed, Math.min(speed, motion[axis] + sign * speed));
      known = true;
    }
  }
  return known ? motion : null;
}
