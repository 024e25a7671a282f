import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ApiError } from "../src/api/client";
import type { Motion, Steered } from "../src/api/types";
import { STILL, Steering, motionOf } from "../src/steer";

const RIGHT: Motion = { ...STILL, pan: 50 };
const UP: Motion = { ...STILL, tilt: 50 };

class Camera {
  told: Motion[] = [];
  given = 0;
  answers: ((value: Steered) => void)[] = [];
  failure: ApiError | null = null;
  slow = false;

  move = (motion: Motion): Promise<Steered> => {
    this.told.push(motion);
    if (this.failure) return Promise.reject(this.failure);
    const steered: Steered = { moving: true, holder: "me", priority: 5, until: null, mine: true, motion };
    return this.slow ? new Promise((resolve) => this.answers.push(resolve)) : Promise.resolve(steered);
  };
  letGo = (): void => {
    this.given += 1;
  };
}

const settle = (): Promise<unknown> => vi.advanceTimersByTimeAsync(1);

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe("Steering", () => {
  it("renews what is held and says once that it stopped", async () => {
    const camera = new Camera();
    const steering = new Steering(camera);
    steering.hold(RIGHT);
    await vi.advanceTimersByTimeAsync(1200);
    expect(camera.told).toEqual([RIGHT, RIGHT, RIGHT]);
    steering.release();
    steering.release();
    await vi.advanceTimersByTimeAsync(5000);
    expect(camera.told.slice(3)).toEqual([STILL]);
  });
  it("has one request under way and goes on with the newest wish", async () => {
    const camera = new Camera();
    camera.slow = true;
    const steering = new Steering(camera);
    steering.hold(RIGHT);
    steering.hold(UP);
    steering.release();
    await settle();
    expect(camera.told).toEqual([RIGHT]);
    camera.answers.shift()!({} as Steered);
    await settle();
    expect(camera.told).toEqual([RIGHT, STILL]);
  });
  it("stops and tells when another has the camera", async () => {
    const camera = new Camera();
    camera.failure = new ApiError(409, "ptz_locked", "Ann steers this camera");
    const steering = new Steering(camera);
    steering.hold(RIGHT);
    await vi.advanceTimersByTimeAsync(3000);
    expect(camera.told).toHaveLength(1);
    expect(steering.state.get()).toMatchObject({ motion: STILL, holder: "Ann steers this camera" });
  });
  it("gives back what it has touched when the page goes", async () => {
    const camera = new Camera();
    const steering = new Steering(camera);
    steering.leave();
    expect(camera.given).toBe(0);
    steering.hold(RIGHT);
    await settle();
    steering.leave();
    await vi.advanceTimersByTimeAsync(3000);
    expect([camera.given, camera.told.length]).toEqual([1, 1]);
  });
});

describe("motionOf", () => {
  it("adds up what is pressed", () => {
    expect(motionOf(["ArrowLeft", "ArrowUp", "+"], 40)).toEqual({ ...STILL, pan: -40, tilt: 40, zoom: 40 });
    expect(motionOf(["ArrowLeft", "ArrowRight"], 40)).toEqual(STILL);
  });
  it("leaves other keys alone", () => expect(motionOf(["a", "Enter"], 40)).toBeNull());
});
