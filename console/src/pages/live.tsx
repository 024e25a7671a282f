import type { JSX } from "preact";
import { useEffect } from "preact/hooks";
import type { SessionProps } from "../app";
import { useStore } from "../store";
import { titleOf } from "../tree";
import { PlayerView, usePlayer } from "../ui/player";
import { Tree } from "../ui/tree";

/** Channel tree and player. The channel being watched is in the address, so that it can be kept and sent. */
export function LivePage(props: SessionProps & { wanted: string | null }): JSX.Element {
  const { model, wanted } = props;
  const player = usePlayer(props);
  const { key } = useStore(player.state);
  const world = useStore(model.world);

  useEffect(() => {
    if (wanted && wanted !== player.state.get().key) player.play(wanted);
    else if (!wanted && player.state.get().key) player.stop();
  }, [wanted]);

  const choose = (next: string): void => {
    if (next === wanted) player.retry();
    else location.hash = `#/live/${next}`;
  };
  const [deviceId = "", channelId = ""] = (key ?? "").split("@")[0]!.split("-");
  const device = world.devices.get(deviceId);
  const list = world.channels.get(deviceId);
  const channel = Array.isArray(list) ? list.find(({ id }) => id === channelId) : undefined;
  const title = [device && titleOf(device), channel && titleOf(channel)].filter(Boolean).join(" · ");

  return (
    <div class="live-page">
      <h1 class="hidden">{title || "gbgw"}</h1>
      <PlayerView player={player} title={title} session={props} onStop={() => (location.hash = "#/live")} />
      <Tree model={model} current={key} onPlay={choose} />
    </div>
  );
}
