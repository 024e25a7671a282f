import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import type { SessionProps } from "../app";
import { useStore } from "../store";
import { nameOf } from "../tree";
import { PlayerView, usePlayer } from "../ui/player";
import { SteerPanel } from "../ui/steer";
import { Tree } from "../ui/tree";

/** Channel tree and player. The channel being watched is in the address, so that it can be kept and sent. */
export function LivePage(props: SessionProps & { wanted: string | null }): JSX.Element {
  const { model, wanted } = props;
  const player = usePlayer(props);
  const { key, phase } = useStore(player.state);
  const world = useStore(model.world);

  useEffect(() => {
    if (wanted && wanted !== player.state.get().key) player.play(wanted);
    else if (!wanted && player.state.get().key) player.stop();
  }, [wanted]);

  const choose = (next: string): void => {
    window.scrollTo({ top: 0 }); // on a phone the player is above the list
    if (next === wanted) player.retry();
    else location.hash = `#/live/${next}`;
  };
  const title = key ? nameOf(world, key) : "";
  const [deviceId, channelId] = (key ?? "").split("@")[0]!.split("-");
  const channels = deviceId ? world.channels.get(deviceId) : undefined;
  const channel = Array.isArray(channels) ? channels.find(({ id }) => id === channelId) : undefined;
  useEffect(() => {
    if (deviceId && world.devices.has(deviceId)) model.loadChannels(deviceId); // opened by its address, not by the tree
  }, [deviceId, world.devices]);

  return (
    <div class="live-page">
      <h1 class="hidden">{title || "gbgw"}</h1>
      <PlayerView player={player} title={title} session={props} onStop={() => (location.hash = "#/live")}>
        {channel && props.may("control") && <SteerPanel key={key} session={props} channel={channel} playing={phase === "playing"} />}
      </PlayerView>
      <Tree model={model} current={key} onPlay={choose} />
    </div>
  );
}
