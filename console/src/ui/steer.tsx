import type { ButtonHTMLAttributes, JSX } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { SessionProps } from "../app";
import { type ApiError, toApiError } from "../api/client";
import type { Channel, DeviceStatus, Motion, Preset } from "../api/types";
import { type Key, describe, useWords } from "../i18n";
import { STILL, Steering, motionOf } from "../steer";
import { useStore } from "../store";
import { Icon, type IconName } from "./icons";
import { Confirm, IconButton, say, sayError } from "./parts";

const PAD: readonly { icon: IconName | null; label: Key; motion: Partial<Motion>; turn: number }[] = [
  { icon: "arrow", label: "steer.upLeft", motion: { pan: -1, tilt: 1 }, turn: -45 },
  { icon: "arrow", label: "steer.up", motion: { tilt: 1 }, turn: 0 },
  { icon: "arrow", label: "steer.upRight", motion: { pan: 1, tilt: 1 }, turn: 45 },
  { icon: "arrow", label: "steer.left", motion: { pan: -1 }, turn: -90 },
  { icon: null, label: "steer.stop", motion: {}, turn: 0 },
  { icon: "arrow", label: "steer.right", motion: { pan: 1 }, turn: 90 },
  { icon: "arrow", label: "steer.downLeft", motion: { pan: -1, tilt: -1 }, turn: -135 },
  { icon: "arrow", label: "steer.down", motion: { tilt: -1 }, turn: 180 },
  { icon: "arrow", label: "steer.downRight", motion: { pan: 1, tilt: -1 }, turn: 135 },
];
const LENS: readonly { axis: "zoom" | "focus" | "iris"; label: Key; less: Key; more: Key }[] = [
  { axis: "zoom", label: "steer.zoom", less: "steer.zoomOut", more: "steer.zoomIn" },
  { axis: "focus", label: "steer.focus", less: "steer.focusNear", more: "steer.focusFar" },
  { axis: "iris", label: "steer.iris", less: "steer.irisClose", more: "steer.irisOpen" },
];
type Held = Pick<
  ButtonHTMLAttributes<HTMLButtonElement>,
  "onPointerDown" | "onPointerUp" | "onPointerCancel" | "onContextMenu" | "onKeyDown" | "onKeyUp" | "onBlur"
>;
const PHONE = 760; // px, as in style.css: there the list comes below, and the panel would push it away
const SESSION = Math.random().toString(36).slice(2, 12); // this page, among those of one token

/** Turning a camera, its presets, what its device says of itself, and restarting it. */
export function SteerPanel(props: { session: SessionProps; channel: Channel; playing: boolean }): JSX.Element {
  const { session, channel, playing } = props;
  const { t } = useWords();
  return (
    <details class="steer" open={channel.ptz && window.innerWidth > PHONE} data-testid="steer">
      <summary data-testid="steer-open">
        <Icon name="arrow" /> {t("steer.title")}
      </summary>
      <div class="steer-parts">
        <Pad session={session} channel={channel} />
        <Presets session={session} channel={channel} />
        <DevicePart session={session} channel={channel} playing={playing} />
      </div>
    </details>
  );
}

function Pad({ session, channel }: { session: SessionProps; channel: Channel }): JSX.Element {
  const { t, lang } = useWords();
  const [speed, setSpeed] = useState(50);
  const steering = useMemo(() => new Steering(session.api.steer(channel.device_id, channel.id, SESSION)), [channel.id, channel.device_id]);
  const { motion, error } = useStore(steering.state);
  const keys = useRef(new Set<string>());

  useEffect(() => {
    const leave = (): void => steering.leave();
    const release = (): void => {
      keys.current.clear();
      steering.release();
    };
    const hidden = (): void => {
      if (document.hidden) release();
    };
    window.addEventListener("pagehide", leave);
    window.addEventListener("blur", release);
    document.addEventListener("visibilitychange", hidden);
    return () => {
      window.removeEventListener("pagehide", leave);
      window.removeEventListener("blur", release);
      document.removeEventListener("visibilitychange", hidden);
      steering.leave();
    };
  }, [steering]);

  const scaled = (part: Partial<Motion>): Motion => {
    const made = { ...STILL };
    for (const [axis, sign] of Object.entries(part) as [keyof Motion, number][]) made[axis] = sign * speed;
    return made;
  };
  /** Press and hold with mouse, finger, pen, or Space and Enter. */
  const holding = (part: Partial<Motion>): Held => ({
    onPointerDown: (event) => {
      if (event.button !== 0) return;
      event.currentTarget.setPointerCapture(event.pointerId);
      steering.hold(scaled(part));
    },
    onPointerUp: () => steering.release(),
    onPointerCancel: () => steering.release(),
    onContextMenu: (event) => event.preventDefault(),
    onKeyDown: (event) => {
      if (event.key !== " " && event.key !== "Enter") return;
      event.preventDefault();
      if (!event.repeat) steering.hold(scaled(part));
    },
    onKeyUp: (event) => {
      if (event.key === " " || event.key === "Enter") steering.release();
    },
    onBlur: () => steering.release(),
  });
  const keyed = (event: KeyboardEvent, down: boolean): void => {
    if (event.altKey || event.ctrlKey || event.metaKey || motionOf([event.key], speed) === null) return;
    if (event.target instanceof HTMLInputElement) return; // its own arrows
    event.preventDefault();
    if (event.repeat) return;
    if (down) keys.current.add(event.key);
    else keys.current.delete(event.key);
    const wanted = motionOf(keys.current, speed);
    if (wanted) steering.hold(wanted);
    else steering.release();
  };

  const text = error ? describe(lang, error) : null;
  return (
    <div class="steer-pad" onKeyDown={(event) => keyed(event, true)} onKeyUp={(event) => keyed(event, false)}>
      <div class="pad" role="group" tabIndex={0} aria-label={t("steer.padHint")} title={t("steer.padHint")} data-testid="pad"
        data-pan={motion.pan} data-tilt={motion.tilt} data-zoom={motion.zoom}>
        {PAD.map(({ icon, label, motion: part, turn }) =>
          icon ? (
            <button key={label} type="button" class="icon-button" aria-label={t(label)} data-testid={label} {...holding(part)}>
              <span style={{ transform: `rotate(${turn}deg)` }}>
                <Icon name={icon} />
              </span>
            </button>
          ) : (
            <button key={label} type="button" class="icon-button" aria-label={t(label)} data-testid={label}
              onClick={() => steering.hold(STILL)}>
              <Icon name="stop" />
            </button>
          ),
        )}
      </div>
      <div class="lens">
        {LENS.map(({ axis, label, less, more }) => (
          <div key={axis}>
            <button type="button" class="icon-button" aria-label={t(less)} title={t(less)} data-testid={less} {...holding({ [axis]: -1 })}>
              <Icon name="minus" />
            </button>
            <span>{t(label)}</span>
            <button type="button" class="icon-button" aria-label={t(more)} title={t(more)} data-testid={more} {...holding({ [axis]: 1 })}>
              <Icon name="plus" />
            </button>
          </div>
        ))}
        <label class="speed">
          <span>{t("steer.speed")}</span>
          <input type="range" min="5" max="100" step="5" value={speed} aria-valuetext={`${speed} %`}
            onInput={(event) => setSpeed(Number(event.currentTarget.value))} />
        </label>
      </div>
      {text && (
        <p class="problem" role="alert" data-testid="steer-problem">
          {text.title}. {error?.code === "ptz_locked" ? error.message : text.remedy}
        </p>
      )}
    </div>
  );
}

function Presets({ session, channel }: { session: SessionProps; channel: Channel }): JSX.Element {
  const { t, lang } = useWords();
  const [list, setList] = useState<Preset[] | null>(null);
  const [problem, setProblem] = useState<ApiError | null>(null);
  const [number, setNumber] = useState(1);
  const [name, setName] = useState("");
  const { api } = session;
  const read = async (): Promise<void> => {
    try {
      setList(await api.presets(channel.device_id, channel.id));
      setProblem(null);
    } catch (error) {
      setProblem(toApiError(error));
    }
  };
  useEffect(() => {
    setList(null);
    setName("");
    void read();
  }, [channel.device_id, channel.id]);

  const act = async (work: Promise<void>, done: string, again: boolean): Promise<void> => {
    try {
      await work;
      say(done);
      if (again) await read();
    } catch (error) {
      sayError(lang, toApiError(error));
    }
  };
  const place = [channel.device_id, channel.id, SESSION] as const;
  return (
    <div class="steer-presets">
      <h3>
        {t("steer.presets")}
        <IconButton icon="refresh" label={t("common.retry")} onClick={() => void read()} />
      </h3>
      {problem && <p class="hint">{describe(lang, problem).title}</p>}
      {list?.length === 0 && <p class="hint">{t("steer.noPresets")}</p>}
      {list && list.length > 0 && (
        <ul class="presets" data-testid="presets">
          {list.map((preset) => (
            <li key={preset.id}>
              <button type="button" class="button small" data-testid={`preset-${preset.id}`}
                onClick={() => void act(api.goToPreset(...place, preset.id), t("steer.went", { name: preset.name || preset.id }), false)}>
                <span class="mono">{preset.id}</span> {preset.name}
              </button>
              <IconButton icon="trash" danger label={t("steer.deletePreset", { name: preset.name || preset.id })}
                onClick={() => void act(api.deletePreset(...place, preset.id), t("steer.presetDeleted"), true)} />
            </li>
          ))}
        </ul>
      )}
      <form
        class="preset-new"
        onSubmit={(event) => {
          event.preventDefault();
          void act(api.setPreset(...place, number, name.trim()), t("steer.presetSet"), true);
        }}
      >
        <input type="number" min="1" max="255" value={number} aria-label={t("steer.presetNumber")} data-testid="preset-number"
          onInput={(event) => setNumber(Number(event.currentTarget.value))} />
        <input maxLength={32} value={name} placeholder={t("steer.presetName")} aria-label={t("steer.presetName")} data-testid="preset-name"
          onInput={(event) => setName(event.currentTarget.value)} />
        <button type="submit" class="button small" data-testid="preset-set">
          {t("steer.setPreset")}
        </button>
      </form>
    </div>
  );
}

function DevicePart(props: { session: SessionProps; channel: Channel; playing: boolean }): JSX.Element {
  const { session, channel, playing } = props;
  const { t, lang } = useWords();
  const [status, setStatus] = useState<DeviceStatus | null>(null);
  const [problem, setProblem] = useState<ApiError | null>(null);
  const [asking, setAsking] = useState(false);
  const { api } = session;
  const read = async (): Promise<void> => {
    try {
      setStatus(await api.deviceStatus(channel.device_id, channel.id));
      setProblem(null);
    } catch (error) {
      setStatus(null);
      setProblem(toApiError(error));
    }
  };
  useEffect(() => void read(), [channel.device_id, channel.id, playing]);

  const told = (value: boolean | null): string => (value === null ? t("common.unknown") : t(value ? "common.yes" : "common.no"));
  const rows: readonly [Key, string][] = status
    ? [
        ["steer.working", status.working ? t("common.yes") : status.reason || t("common.no")],
        ["steer.encoding", told(status.encoding)],
        ["steer.recording", told(status.recording)],
        ["steer.clock", status.device_time.replace("T", " ") || t("common.unknown")],
        ["steer.guard", status.alarm_inputs.map(({ duty_status }) => duty_status).join(", ") || t("common.unknown")],
      ]
    : [];
  const reboot = async (): Promise<void> => {
    try {
      await api.reboot(channel.device_id);
      say(t("steer.rebooting"));
    } catch (error) {
      sayError(lang, toApiError(error));
    }
  };
  return (
    <div class="steer-device">
      <h3>
        {t("steer.device")}
        <IconButton icon="refresh" label={t("common.retry")} onClick={() => void read()} />
      </h3>
      {problem && <p class="hint">{describe(lang, problem).title}</p>}
      <dl data-testid="device-status">
        {rows.map(([label, value]) => (
          <div key={label}>
            <dt>{t(label)}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      <button type="button" class="button small danger" onClick={() => setAsking(true)} data-testid="reboot">
        {t("steer.reboot")}
      </button>
      {asking && (
        <Confirm title={t("steer.rebootTitle")} text={t("steer.rebootText")} action={t("steer.reboot")}
          onClose={() => setAsking(false)} onConfirm={() => void reboot()} />
      )}
    </div>
  );
}
