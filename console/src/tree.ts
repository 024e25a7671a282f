// The device tree as the flat rows a virtual list shows.

import { ApiError } from "./api/client";
import type { Channel, Device } from "./api/types";
import type { ChannelList, World } from "./model";

export type Row =
  | { kind: "device"; id: string; device: Device; open: boolean; shown: number }
  | { kind: "channel"; id: string; channel: Channel; online: boolean; index: number; of: number }
  | { kind: "note"; id: string; device: Device; note: "loading" | "empty" | "failed" };

export const streamKey = (device: string, channel: string): string => `${device}-${channel}`;

/** Title of a thing that may have no name, and need not have a unique one. */
export const titleOf = (thing: { name: string; id: string }): string => thing.name || thing.id;

/** What a stream shows, in words as far as they are known. */
export function nameOf(world: Pick<World, "devices" | "channels">, key: string): string {
  const [deviceId = "", channelId = ""] = key.split("@")[0]!.split("-");
  const device = world.devices.get(deviceId);
  const list = world.channels.get(deviceId);
  const channel = Array.isArray(list) ? list.find(({ id }) => id === channelId) : undefined;
  return [device ? titleOf(device) : deviceId, channel && titleOf(channel)].filter(Boolean).join(" · ");
}

export function rowsOf(
  devices: Iterable<Device>,
  channels: ReadonlyMap<string, ChannelList>,
  open: ReadonlySet<string>,
  query: string,
): Row[] {
  const wanted = query.trim().toLowerCase();
  const matches = (thing: { name: string; id: string }): boolean =>
    thing.id.includes(wanted) || thing.name.toLowerCase().includes(wanted);
  const rows: Row[] = [];
  for (const device of devices) {
    const list = channels.get(device.id);
    const known = Array.isArray(list) ? list : [];
    const whole = wanted === "" || matches(device);
    const fitting = whole ? known : known.filter(matches);
    if (!whole && fitting.length === 0) continue;
    const isOpen = wanted === "" ? open.has(device.id) : fitting.length > 0 && (!whole || open.has(device.id));
    rows.push({ kind: "device", id: device.id, device, open: isOpen, shown: fitting.length });
    if (!isOpen) continue;
    if (fitting.length === 0) {
      const note = list instanceof ApiError ? "failed" : Array.isArray(list) ? "empty" : "loading";
      rows.push({ kind: "note", id: `${device.id}:note`, device, note });
    }
    fitting.forEach((channel, index) =>
      rows.push({
        kind: "channel",
        id: streamKey(device.id, channel.id),
        channel,
        online: device.online && channel.online,
        index,
        of: fitting.length,
      }),
    );
  }
  return rows;
}
