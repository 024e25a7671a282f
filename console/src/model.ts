import { type Api, ApiError, toApiError } from "./api/client";
import { EventFollower } from "./api/events";
import type { Channel, Device, GatewayEvent, StreamState } from "./api/types";
import { Store } from "./store";

export type ChannelList = Channel[] | "loading" | ApiError;

export interface World {
  connected: boolean;
  loaded: boolean;
  error: ApiError | null;
  devices: ReadonlyMap<string, Device>; // ordered by id
  channels: ReadonlyMap<string, ChannelList>; // of the devices somebody looked at
  streams: ReadonlyMap<string, StreamState>;
  events: number; // counts up with every event, for pages that read a list of their own
}

const GATHER_MS = 150; // events come in bursts: a registration storm is one reading of the list
const SINGLES = 8; // more changed devices than this are read as one list
const AT_ONCE = 4; // channel lists asked for at once

/** What the gateway knows, kept up to date by its events. */
export class Model {
  readonly world = new Store<World>({
    connected: false, loaded: false, error: null, devices: new Map(), channels: new Map(), streams: new Map(), events: 0,
  });
  private readonly follower: EventFollower;
  private readonly dirty = new Set<string>();
  private gatherer = 0;
  private waiting: string[] = [];
  private loading = 0;

  constructor(readonly api: Api) {
    this.follower = new EventFollower(
      api,
      (event) => this.happened(event),
      () => void this.reload(),
      (connected) => this.world.set({ connected }),
    );
  }

  start(): void {
    void this.reload();
    this.follower.start();
  }

  stop(): void {
    clearTimeout(this.gatherer);
    this.follower.stop();
  }

  async reload(): Promise<void> {
    try {
      const [devices, streams] = await Promise.all([this.api.devices(), this.api.streams()]);
      const { channels } = this.world.get();
      this.world.set({
        loaded: true,
        error: null,
        devices: new Map(devices.map((device) => [device.id, device])),
        streams: new Map(streams.map((stream) => [stream.key, stream.state])),
        channels: new Map([...channels].filter(([id]) => devices.some((device) => device.id === id))),
      });
      for (const id of this.world.get().channels.keys()) this.loadChannels(id, true);
    } catch (error) {
      this.world.set({ error: toApiError(error), loaded: true });
    }
  }

  /** Read a device's channels unless they are there; `again`: even then, showing the old ones meanwhile. */
  loadChannels(id: string, again = false): void {
    const known = this.world.get().channels.get(id);
    if (!again && known !== undefined && !(known instanceof ApiError)) return;
    if (!Array.isArray(known)) this.put(id, "loading");
    if (!this.waiting.includes(id)) this.waiting.push(id);
    void this.work();
  }

  /** Read the channels of every device, for a search. */
  loadAllChannels(): void {
    for (const device of this.world.get().devices.values()) if (device.channel_count > 0) this.loadChannels(device.id);
  }

  private async work(): Promise<void> {
    while (this.loading < AT_ONCE) {
      const id = this.waiting.shift();
      if (id === undefined) return;
      this.loading += 1;
      void this.api
        .channels(id)
        .then((list) => this.put(id, list))
        .catch((error: unknown) => this.put(id, toApiError(error)))
        .finally(() => {
          this.loading -= 1;
          void this.work();
        });
    }
  }

  private put(id: string, list: ChannelList): void {
    this.world.set({ channels: new Map(this.world.get().channels).set(id, list) });
  }

  private happened(event: GatewayEvent): void {
    const { data } = event;
    if (event.type === "stream.state" && typeof data["key"] === "string") {
      const streams = new Map(this.world.get().streams).set(data["key"], data["state"] as StreamState);
      this.world.set({ streams, events: this.world.get().events + 1 });
      return;
    }
    if (event.type === "device.deleted" && typeof data["id"] === "string") this.forget(data["id"]);
    else if (event.type.startsWith("device.") && typeof data["id"] === "string") {
      this.dirty.add(data["id"]);
      clearTimeout(this.gatherer);
      this.gatherer = window.setTimeout(() => void this.refreshDirty(), GATHER_MS);
    }
    this.world.set({ events: this.world.get().events + 1 });
  }

  private forget(id: string): void {
    const devices = new Map(this.world.get().devices);
    const channels = new Map(this.world.get().channels);
    devices.delete(id);
    channels.delete(id);
    this.dirty.delete(id);
    this.world.set({ devices, channels });
  }

  private async refreshDirty(): Promise<void> {
    const ids = [...this.dirty];
    this.dirty.clear();
    if (ids.length > SINGLES) return this.reload();
    const found = await Promise.all(
      ids.map((id) => this.api.device(id).catch((error: unknown) => toApiError(error))),
    );
    const devices = new Map(this.world.get().devices);
    const channels = new Map(this.world.get().channels);
    ids.forEach((id, index) => {
      const answer = found[index]!;
      if (!(answer instanceof ApiError)) devices.set(id, answer);
      else if (answer.status === 404) {
        devices.delete(id);
        channels.delete(id);
      }
    });
    this.world.set({ devices: new Map([...devices].sort(([a], [b]) => (a < b ? -1 : 1))), channels });
    for (const id of ids) if (channels.has(id)) this.loadChannels(id, true);
  }
}
