import type {
  Channel, Device, DeviceStatus, Diagnosis, Page, PlayToken, Preset, Scope, Steered, Stream, Token,
  TokenCreated, Transport, Viewer, WhoAmI, Download, Playback, RecordingPage,
} from "./types";
import type { SteerApi } from "../steer";

/** What the gateway refused, or `status` 0 where it could not be reached. `code` is stable; message is English. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly remedy = "",
  ) {
    super(message);
  }
}

/** Make an ApiError of an answer's body; anything may stand in it, a proxy's HTML for example. */
export function errorOf(status: number, body: string): ApiError {
  try {
    const parsed: unknown = JSON.parse(body);
    const error = (parsed as { error?: { code?: unknown; message?: unknown; remedy?: unknown } }).error;
    if (error && typeof error.code === "string" && typeof error.message === "string") {
      return new ApiError(status, error.code, error.message, typeof error.remedy === "string" ? error.remedy : "");
    }
  } catch {
    // Not ours: told by its status below.
  }
  return new ApiError(status, `http_${status}`, `HTTP ${status}`);
}

export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof TypeError) return new ApiError(0, "unreachable", error.message);
  return new ApiError(0, "console_error", error instanceof Error ? error.message : String(error));
}

export const isAbort = (error: unknown): boolean => error instanceof DOMException && error.name === "AbortError";

const PAGE = 1000;

/** The control API with one bearer token. */
export class Api {
  constructor(
    readonly base: string,
    readonly token: string,
    private readonly onUnauthorized: () => void = () => undefined,
  ) {}

  async fetch(path: string, init: RequestInit = {}): Promise<Response> {
    const headers = new Headers(init.headers);
    headers.set("Authorization", `Bearer ${this.token}`);
    let response: Response;
    try {
      response = await fetch(`${this.base}api/v1${path}`, { ...init, headers, cache: "no-store" });
    } catch (error) {
      if (isAbort(error)) throw error;
      throw toApiError(error);
    }
    if (response.ok) return response;
    const error = errorOf(response.status, await response.text().catch(() => ""));
    if (error.status === 401) this.onUnauthorized();
    throw error;
  }

  private async send<T>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
    const init: RequestInit = { method };
    if (signal) init.signal = signal;
    if (body !== undefined) {
      init.body = JSON.stringify(body);
      init.headers = { "Content-Type": "application/json" };
    }
    const response = await this.fetch(path, init);
    return (response.status === 204 ? undefined : await response.json()) as T;
  }

  private async all<T>(path: string, method = "GET"): Promise<T[]> {
    const items: T[] = [];
    let after: string | null = null;
    let verb = method;
    do {
      const query: string = `?limit=${PAGE}${after ? `&after=${encodeURIComponent(after)}` : ""}`;
      const page: Page<T> = await this.send(verb, path + query);
      items.push(...page.items);
      after = page.next;
      verb = "GET"; // further pages of an answer to POST are read, not asked for again
      path = path.replace(/\/catalog$/, "/channels");
    } while (after);
    return items;
  }

  whoami = (): Promise<WhoAmI> => this.send("GET", "/whoami");

  devices = (): Promise<Device[]> => this.all("/devices");
  device = (id: string): Promise<Device> => this.send("GET", `/devices/${id}`);
  addDevice = (body: {
    id: string;
    name: string;
    password?: string;
    media_transport?: Transport;
  }): Promise<Device> => this.send("POST", "/devices", body);
  deleteDevice = (id: string): Promise<void> => this.send("DELETE", `/devices/${id}`);
  channels = (id: string): Promise<Channel[]> => this.all(`/devices/${id}/channels`);
  refreshCatalog = (id: string): Promise<Channel[]> => this.all(`/devices/${id}/catalog`, "POST");
  keyframe = (device: string, channel: string): Promise<void> =>
    this.send("POST", `/devices/${device}/channels/${channel}/iframe`);

  /** Steering one camera; `session` names this page among those of the token. */
  steer = (device: string, channel: string, session: string): SteerApi => {
    const path = `/devices/${device}/channels/${channel}/ptz?session=${session}`;
    return {
      move: (motion, seconds) => this.send<Steered>("PUT", path, { ...motion, seconds }),
      letGo: () => void this.fetch(path, { method: "DELETE", keepalive: true }).catch(() => undefined), // its lease ends anyway
    };
  };
  presets = (device: string, channel: string): Promise<Preset[]> => this.all(`/devices/${device}/channels/${channel}/presets`);
  private preset = (device: string, channel: string, session: string, tail: string): string =>
    `/devices/${device}/channels/${channel}/presets/${tail}?session=${session}`;
  goToPreset = (device: string, channel: string, session: string, id: number): Promise<void> =>
    this.send("POST", this.preset(device, channel, session, `${id}/goto`));
  setPreset = (device: string, channel: string, session: string, id: number, name: string): Promise<void> =>
    this.send("PUT", this.preset(device, channel, session, `${id}`), { name });
  deletePreset = (device: string, channel: string, session: string, id: number): Promise<void> =>
    this.send("DELETE", this.preset(device, channel, session, `${id}`));
  deviceStatus = (device: string, channel: string): Promise<DeviceStatus> =>
    this.send("GET", `/devices/${device}/channels/${channel}/status`);
  reboot = (device: string): Promise<void> => this.send("POST", `/devices/${device}/reboot`);

  streams = (): Promise<Stream[]> => this.all("/streams");
  stream = (key: string, signal?: AbortSignal): Promise<Stream> => this.send("GET", `/streams/${key}`, undefined, signal);
  stopStream = (key: string): Promise<void> => this.send("DELETE", `/streams/${key}`);
  diagnosis = (key: string, signal?: AbortSignal): Promise<Diagnosis> =>
    this.send("GET", `/streams/${key}/diagnosis`, undefined, signal);
  viewers = (key: string): Promise<Viewer[]> => this.all(`/streams/${key}/viewers`);
  viewer = (key: string, id: string, signal?: AbortSignal): Promise<Viewer> =>
    this.send("GET", `/streams/${key}/viewers/${id}`, undefined, signal);
  playToken = (key: string, signal?: AbortSignal): Promise<PlayToken> =>
    this.send("POST", "/play-tokens", { key }, signal);

  /** Recordings of a channel on its device; times are milliseconds. */
  recordings = async (device: string, channel: string, start: number, end: number): Promise<RecordingPage> => {
    const path = `/devices/${device}/channels/${channel}/records?start=${Math.floor(start / 1000)}&end=${Math.floor(end / 1000)}&limit=${PAGE}`;
    const whole: RecordingPage = await this.send("GET", path);
    for (let { next } = whole; next; ) {
      const page: RecordingPage = await this.send("GET", `${path}&after=${encodeURIComponent(next)}`);
      whole.items.push(...page.items);
      next = page.next;
    }
    return whole;
  };
  makePlayback = (key: string, start: string, end: string): Promise<Playback> => this.send("POST", "/playbacks", { key, start, end });
  playback = (id: string): Promise<Playback> => this.send("GET", `/playbacks/${id}`);
  changePlayback = (id: string, body: { position?: string; speed?: number; paused?: boolean }): Promise<Playback> =>
    this.send("PATCH", `/playbacks/${id}`, body);
  endPlayback = (id: string): Promise<void> => this.send("DELETE", `/playbacks/${id}`);
  makeDownload = (body: { key: string; start: string; end: string }): Promise<Download> => this.send("POST", "/downloads", body);
  download = (id: string): Promise<Download> => this.send("GET", `/downloads/${id}`);
  /** A link sends no headers, so the token is in it; the gateway does not log queries. */
  downloadUrl = (id: string): string => `${this.base}api/v1/downloads/${id}/file?token=${encodeURIComponent(this.token)}`;

  tokens = (): Promise<Token[]> => this.all("/tokens");
  createToken = (body: { name: string; scopes: Scope[]; expires?: string }): Promise<TokenCreated> =>
    this.send("POST", "/tokens", body);
  revokeToken = (id: string): Promise<void> => this.send("DELETE", `/tokens/${id}`);
}

const RANK: Record<Scope, number> = { view: 0, control: 1, admin: 2 };

/** admin may control, control may view. */
export function allows(owned: readonly Scope[], wanted: Scope): boolean {
  return owned.some((scope) => RANK[scope] >= RANK[wanted]);
}
