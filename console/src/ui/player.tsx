import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { SessionProps } from "../app";
import { toApiError } from "../api/client";
import { bits, bytes, codecName } from "../format";
import { type Key, describe, useWords } from "../i18n";
import { CHOICES, type Choice } from "../player/choose";
import { Player, type PlayerState } from "../player/player";
import { useStore } from "../store";
import { Icon } from "./icons";
import { IconButton, say, sayError } from "./parts";

/** One player for the page's life: the <video> it plays in is put into whatever frame is mounted. */
export function usePlayer(session: SessionProps): Player {
  const made = useRef<Player | null>(null);
  if (made.current === null) {
    const video = document.createElement("video");
    video.dataset["testid"] = "player-video";
    video.setAttribute("playsinline", "");
    made.current = new Player(session.api, video);
  }
  const player = made.current;
  useEffect(() => {
    const leave = (): void => player.stop(); // WebRTC sessions end with the page, not by a timeout
    window.addEventListener("pagehide", leave);
    return () => {
      window.removeEventListener("pagehide", leave);
      player.stop();
    };
  }, [player]);
  return player;
}

export function PlayerView(props: {
  player: Player;
  title: string;
  session: SessionProps;
  onStop: () => void;
  children?: ComponentChildren;
}): JSX.Element {
  const { t, lang } = useWords();
  const { player, title, session } = props;
  const state = useStore(player.state);
  const frame = useRef<HTMLDivElement>(null);
  const slot = useRef<HTMLDivElement>(null);
  const [full, setFull] = useState(false);

  useEffect(() => {
    slot.current!.prepend(player.video);
  }, [player]);
  useEffect(() => {
    player.video.setAttribute("aria-label", title || t("player.title"));
  }, [title, lang]);
  useEffect(() => {
    const changed = (): void => setFull(document.fullscreenElement === frame.current);
    document.addEventListener("fullscreenchange", changed);
    return () => document.removeEventListener("fullscreenchange", changed);
  }, []);

  const { phase, key } = state;
  const playing = phase === "playing";
  const fullscreen = (): void => {
    if (full) void document.exitFullscreen();
    else if (document.fullscreenEnabled) void frame.current!.requestFullscreen().catch(() => undefined);
    // iPhone: only the video itself.
    else (player.video as { webkitEnterFullscreen?: () => void }).webkitEnterFullscreen?.();
  };
  const snapshot = async (): Promise<void> => {
    const blob = await player.snapshot();
    if (!blob) return;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${key}-${new Date().toISOString().replace(/[:.]/g, "").slice(0, 15)}Z.png`;
    link.click();
    window.setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  };
  const keyframe = async (): Promise<void> => {
    const [device, channel] = (key ?? "").split("@")[0]!.split("-");
    try {
      await session.api.keyframe(device!, channel!);
      say(t("player.keyframeSent"));
    } catch (error) {
      sayError(lang, toApiError(error));
    }
  };
  const onKey = (event: KeyboardEvent): void => {
    if (event.target instanceof HTMLElement && /^(INPUT|SELECT|BUTTON)$/.test(event.target.tagName)) return;
    if (event.key === "f") fullscreen();
    else if (event.key === "m") player.setMuted(!state.muted);
    else if (event.key === " ") player.togglePause();
    else return;
    event.preventDefault();
  };

  return (
    <section class="player card" aria-label={t("player.title")} data-phase={phase}>
      <div class="player-frame" ref={frame}>
        <div class="player-slot" role="group" aria-label={title || t("player.title")} tabIndex={key ? 0 : -1} onKeyDown={onKey} onDblClick={fullscreen}>
          <div class="player-media" ref={slot} />
          <Overlay state={state} onRetry={() => player.retry()} />
          {playing && state.mutedByBrowser && (
            <button type="button" class="unmute" data-testid="unmute" onClick={() => player.setMuted(false)}>
              <Icon name="muted" /> {t("player.unmute")}
            </button>
          )}
        </div>
        <div class="player-bar">
          <div class="player-name">
            <strong>{title || t("player.title")}</strong>
            {key && (
              <span class="mono">
                <span class="device-part">{key.split("-")[0]} / </span>
                {key.split("-")[1]}
              </span>
            )}
          </div>
          <div class="player-tools">
            <IconButton
              icon={state.paused ? "play" : "pause"}
              label={t(state.paused ? "player.resume" : "player.pause")}
              disabled={!playing}
              onClick={() => player.togglePause()}
            />
            <IconButton icon="stop" label={t("player.stop")} disabled={!key} onClick={props.onStop} testId="player-stop" />
            <span class="volume">
              <IconButton
                icon={state.muted ? "muted" : "sound"}
                label={t(state.muted ? "player.unmute" : "player.mute")}
                onClick={() => player.setMuted(!state.muted)}
                testId="mute"
              />
              <input
                type="range"
                min="0"
                max="1"
                step="0.05"
                value={state.muted ? 0 : state.volume}
                aria-label={t("player.volume")}
                onInput={(event) => player.setVolume(Number(event.currentTarget.value))}
              />
            </span>
            {session.may("control") && (
              <IconButton
                icon="keyframe"
                label={t("player.keyframe")}
                disabled={!playing}
                onClick={() => void keyframe()}
                testId="keyframe"
              />
            )}
            <IconButton
              icon="camera"
              label={t("player.snapshot")}
              disabled={!playing}
              onClick={() => void snapshot()}
              testId="snapshot"
            />
            <IconButton icon="fullscreen" label={t("player.fullscreen")} pressed={full} onClick={fullscreen} />
            <label class="protocol">
              <span>{t("player.protocol")}</span>
              <select
                data-testid="protocol-select"
                data-protocol={state.protocol ?? ""}
                value={state.choice}
                onChange={(event) => player.choose(event.currentTarget.value as Choice)}
              >
                {CHOICES.map((choice) => (
                  <option key={choice} value={choice}>
                    {choice === "auto" && state.choice === "auto" && state.protocol
                      ? t("player.autoNow", { protocol: t(`player.${state.protocol}`) })
                      : t(`player.${choice}`)}
                  </option>
                ))}
              </select>
            </label>
          </div>
        </div>
      </div>
      <Notes state={state} />
      {props.children}
      <Statistics state={state} />
    </section>
  );
}

function Overlay({ state, onRetry }: { state: PlayerState; onRetry: () => void }): JSX.Element | null {
  const { t, lang } = useWords();
  if (state.phase === "error" && state.error) {
    const text = describe(lang, state.error);
    const isLocal = state.error.code === "player_cannot_decode";
    return (
      <div class="overlay error" role="alert" data-testid="player-error" data-code={state.error.code}>
        <Icon name="alert" size={34} />
        <strong>{text.title}</strong>
        {text.remedy && <p>{text.remedy}</p>}
        <small>
          {isLocal
            ? t("player.codecs", { codecs: state.tracks.map((track) => codecName(track.codec)).join(" + ") || "?" })
            : [text.detail, state.error.code].filter(Boolean).join(" · ")}
        </small>
        <button type="button" class="button primary" onClick={onRetry} data-testid="player-retry">
          <Icon name="refresh" /> {t("common.retry")}
        </button>
        {state.againIn !== null && <small aria-hidden="true">{t("player.again", { seconds: state.againIn })}</small>}
      </div>
    );
  }
  if (state.phase === "idle") {
    return (
      <div class="overlay idle">
        <Icon name="live" size={44} />
        <strong>{t("player.idle")}</strong>
        <p>{t("player.idleHint")}</p>
      </div>
    );
  }
  if (state.phase === "opening" || state.stalled) {
    return (
      <div class={`overlay ${state.stalled ? "stalled" : "opening"}`} role="status">
        <span class="spinner" />
        <strong>
          {state.stalled
            ? t("player.stalled")
            : state.protocol
              ? t("player.openingBy", { protocol: t(`player.${state.protocol}`) })
              : t("player.opening")}
        </strong>
      </div>
    );
  }
  return null;
}

function Notes({ state }: { state: PlayerState }): JSX.Element | null {
  const { t } = useWords();
  if (state.notes.length === 0 || state.phase === "error") return null;
  const codec = (kind: "audio" | "video"): string =>
    codecName(state.tracks.find((track) => track.kind === kind)?.codec ?? "");
  return (
    <ul class="notes" data-testid="player-notes">
      {state.notes.map((note) => (
        <li key={note}>
          <Icon name="info" size={16} />
          {t(`note.${note}`, { codec: codec(note === "no_sound_webrtc" ? "audio" : "video") })}
        </li>
      ))}
    </ul>
  );
}

function Statistics({ state }: { state: PlayerState }): JSX.Element {
  const { t } = useWords();
  const { figures } = state;
  const video = state.tracks.find((track) => track.kind === "video");
  const audio = state.tracks.find((track) => track.kind === "audio");
  const transcoded = state.notes.includes("transcoded");
  const codecs = [
    video && (transcoded ? `${codecName(video.codec)} → H.264` : codecName(video.codec)),
    audio && !state.notes.includes("no_sound_webrtc") && codecName(audio.codec),
  ].filter(Boolean);
  const rows: { id: string; label: Key; help?: Key; value: number | string | null; text: string }[] = [
    {
      id: "stat-buffer", label: "stat.buffer", help: "stat.bufferHelp", value: figures.bufferSeconds,
      text: figures.bufferSeconds === null ? "–" : `${figures.bufferSeconds.toFixed(2)} s`,
    },
    {
      id: "stat-latency", label: "stat.latency", help: "stat.latencyHelp", value: figures.latencySeconds,
      text: figures.latencySeconds === null ? "–" : `${figures.latencySeconds.toFixed(2)} s`,
    },
    {
      id: "stat-queue", label: "stat.queue", help: "stat.queueHelp", value: figures.queueBytes,
      text: figures.queueBytes === null ? "–" : bytes(figures.queueBytes),
    },
    {
      id: "stat-bitrate", label: "stat.bitrate", value: figures.bitrate && Math.round(figures.bitrate),
      text: figures.bitrate === null ? "–" : bits(figures.bitrate),
    },
    {
      id: "first-picture-ms", label: "stat.first", value: state.firstPictureMs,
      text: state.firstPictureMs === null ? "–" : `${state.firstPictureMs} ms`,
    },
    {
      id: "stat-resolution", label: "stat.resolution", value: figures.width ? `${figures.width}x${figures.height}` : null,
      text: figures.width ? `${figures.width} × ${figures.height}` : "–",
    },
    { id: "stat-codec", label: "stat.codec", value: video?.rfc6381 ?? null, text: codecs.join(" + ") || "–" },
    {
      id: "stat-fps", label: "stat.fps", value: figures.fps,
      text: figures.fps === null ? "–" : figures.fps.toFixed(1),
    },
    {
      id: "stat-dropped", label: "stat.dropped", value: figures.dropped,
      text: figures.dropped === null ? "–" : String(figures.dropped),
    },
  ];
  const { losses } = figures;
  if (losses) {
    rows.push(
      {
        id: "stat-lost", label: "stat.lost", help: "stat.lostHelp", value: losses.packetsLost,
        text: `${losses.packetsLost}, ${losses.repaired}`,
      },
      {
        id: "stat-asked", label: "stat.asked", help: "stat.askedHelp", value: losses.nacks,
        text: `${losses.nacks}, ${losses.plis}`,
      },
      {
        id: "stat-freezes", label: "stat.freezes", value: losses.freezes,
        text: losses.freezes ? `${losses.freezes} (${losses.freezeSeconds.toFixed(1)} s)` : "0",
      },
      {
        id: "stat-round-trip", label: "stat.roundTrip", value: figures.roundTripMs,
        text: figures.roundTripMs === null ? "–" : `${figures.roundTripMs.toFixed(0)} ms`,
      },
    );
  }
  return (
    <dl class={state.phase === "playing" ? "stats" : "stats waiting"}>
      {rows.map(({ id, label, help, value, text }) => (
        <div key={id} title={help && t(help)}>
          <dt>{t(label)}</dt>
          <dd data-testid={id} data-value={value ?? ""}>
            {text}
          </dd>
        </div>
      ))}
    </dl>
  );
}

