// Records of /api/v1, as gbgw/serve/source.py and gbgw/serve/api/ define them.

export type Scope = "view" | "control" | "admin";
export type Transport = "udp" | "tcp-passive" | "tcp-active";
export type StreamState = "starting" | "playing" | "lingering" | "stopping" | "ended" | "failed";

export interface Page<T> {
  items: T[];
  next: string | null;
}

export interface Cause {
  code: string;
  message: string;
  remedy: string;
}

export interface Device {
  id: string;
  name: string;
  online: boolean;
  transport: "udp" | "tcp" | null;
  address: string | null;
  last_seen: string | null;
  channel_count: number;
  manufacturer: string;
  model: string;
  firmware: string;
  media_transport: Transport | null;
  has_password: boolean;
  registered: string | null;
  expires: string | null;
  edition: string;
}

export interface Channel {
  id: string;
  device_id: string;
  name: string;
  online: boolean;
  playable: boolean;
  parent_id: string | null;
  ptz: boolean;
  manufacturer: string;
  model: string;
  address: string;
}

export interface Track {
  kind: "video" | "audio";
  codec: string;
  rfc6381: string;
  width: number;
  height: number;
  sample_rate: number;
  channels: number;
  frame_rate: number | null;
  reorder_depth?: number;
}

export interface Stream {
  key: string;
  kind: string;
  state: StreamState;
  cause: Cause | null;
  tracks: Track[];
  viewers: number;
  viewers_by_protocol: Record<string, number>;
  urls: Record<string, string>;
  started: string | null;
  bitrate: number;
  gop_seconds: number | null;
  transport: Transport | null;
  packets: number;
  lost: number;
  reordered: number;
  late: number;
}

export interface Step {
  name: string;
  at: string | null;
  seconds: number | null;
  detail: string;
}

export interface Diagnosis {
  key: string;
  state: StreamState | "idle";
  cause: Cause | null;
  steps: Step[];
  summary: string;
}

export interface Viewer {
  id: string;
  key: string;
  protocol: string;
  remote: string;
  since: string;
  bytes: number;
  dropped: number;
  skips: number;
  queue_bytes: number;
  lost: number;
  nacks: number;
  resent: number;
  plis: number;
  round_trip_ms: number | null;
}

export interface Token {
  id: string;
  name: string;
  scopes: Scope[];
  created: string;
  expires: string | null;
}

export interface TokenCreated extends Token {
  token: string;
}

export interface PlayToken {
  key: string;
  token: string;
  expires: string;
  urls: Record<string, string>;
}

export interface WhoAmI {
  id: string;
  name: string;
  scopes: Scope[];
  expires: string | null;
}

export interface GatewayEvent {
  id: number;
  type: string;
  time: string;
  data: Record<string, unknown>;
}

/** Speeds in percent: right, up, closer, to the far and open are positive. */
export interface Motion {
  pan: number;
  tilt: number;
  zoom: number;
  focus: number;
  iris: number;
}

export interface Steered {
  moving: boolean;
  holder: string | null;
  priority: number | null;
  until: string | null;
  mine: boolean;
  motion: Motion;
}

export interface Preset {
  id: number;
  name: string;
}

export interface DeviceStatus {
  ok: boolean;
  online: boolean;
  working: boolean;
  reason: string;
  encoding: boolean | null;
  recording: boolean | null;
  device_time: string;
  alarm_inputs: { device_id: string; duty_status: string }[];
}

export interface Recording {
  id: string;
  start: string;
  end: string;
  name: string;
  kind: string;
  bytes: number | null;
}

export interface RecordingPage extends Page<Recording> {
  complete: boolean;
}

export interface Playback {
  id: string;
  stream: string;
  start: string;
  end: string;
  state: StreamState | "idle";
  cause: Cause | null;
  position: string | null;
  paused: boolean;
  speed: number;
  measured_speed: number | null;
  urls: Record<string, string>;
}

export interface Download {
  id: string;
  state: "waiting" | "running" | "finishing" | "done" | "failed";
  cause: Cause | null;
  percent: number;
  bytes: number;
}
