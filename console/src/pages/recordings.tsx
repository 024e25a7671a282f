import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { SessionProps } from "../app";
import { toApiError } from "../api/client";
import type { Download, Playback, Recording } from "../api/types";
import { bytes } from "../format";
import { useWords } from "../i18n";
import { useStore } from "../store";
import { DAY_MS, SPEEDS, blocks, dayOf, midnight, momentAt } from "../timeline";
import { nameOf } from "../tree";
import { IconButton, sayError } from "../ui/parts";
import { PlayerView, usePlayer } from "../ui/player";
import { Tree } from "../ui/tree";

const POLL_MS = 1000;
const DOWNLOAD_SECONDS = 600; // from the position on: what one asks for with one press

/** What a channel has recorded on its device: a day as a line to drag, and a player. */
export function RecordingsPage(props: SessionProps & { wanted: string | null }): JSX.Element {
  const { t, lang } = useWords();
  const { api, model, wanted } = props;
  const player = usePlayer(props);
  const { phase } = useStore(player.state);
  const world = useStore(model.world);
  const [day, setDay] = useState(() => dayOf(Date.now()));
  const [records, setRecords] = useState<Recording[] | null>(null);
  const [partial, setPartial] = useState(false);
  const [playback, setPlayback] = useState<Playback | null>(null);
  const [download, setDownload] = useState<Download | null>(null);
  const [pointed, setPointed] = useState<number | null>(null); // part of the day under the pointer
  const asked = useRef(0);
  const start = midnight(day);
  const [deviceId = "", channelId = ""] = (wanted ?? "").split("-");
  const fail = (error: unknown): void => sayError(lang, toApiError(error));

  const stop = (): void => {
    player.stop();
    if (playback) void api.endPlayback(playback.id).catch(() => undefined); // it ends by itself without viewers
    setPlayback(null);
  };
  useEffect(() => {
    stop();
    setRecords(null);
    if (!wanted) return;
    const mine = ++asked.current;
    api.recordings(deviceId, channelId, start, start + DAY_MS).then(
      (list) => {
        if (mine !== asked.current) return;
        setRecords(list.items);
        setPartial(!list.complete);
      },
      (error) => mine === asked.current && (setRecords([]), fail(error)),
    );
  }, [wanted, day]);
  useEffect(() => {
    if (!playback) return;
    const timer = window.setInterval(() => {
      api.playback(playback.id).then((now) => setPlayback((old) => (old?.id === now.id ? now : old)), () => undefined);
    }, POLL_MS);
    return () => window.clearInterval(timer);
  }, [playback?.id]);
  useEffect(() => {
    if (!download || download.state === "done" || download.state === "failed") return;
    const timer = window.setTimeout(() => api.download(download.id).then(setDownload, fail), POLL_MS);
    return () => window.clearTimeout(timer);
  }, [download]);

  const change = (body: { position?: string; speed?: number; paused?: boolean }): void => {
    if (playback) api.changePlayback(playback.id, body).then(setPlayback, fail);
  };
  const goTo = (part: number): void => {
    const at = momentAt(part, records ?? [], start);
    if (at === null || !wanted) return;
    const moment = new Date(at).toISOString();
    if (playback && phase === "playing" && at >= Date.parse(playback.start)) return change({ position: moment });
    stop();
    api.makePlayback(wanted, moment, new Date(start + DAY_MS).toISOString()).then((made) => {
      setPlayback(made);
      player.play(made.stream);
    }, fail);
  };
  const partOf = (event: PointerEvent): number => {
    const box = (event.currentTarget as HTMLElement).getBoundingClientRect();
    return Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
  };
  const position = playback?.position ? Date.parse(playback.position) : null;
  const clock = (at: number): string => new Date(at).toLocaleTimeString(lang === "zh" ? "zh-CN" : "en-GB");
  const fetchFile = (): void => {
    const from = position ?? momentAt(0, records ?? [], start);
    if (from === null || !wanted) return;
    const body = { key: wanted, start: new Date(from).toISOString(), end: new Date(from + DOWNLOAD_SECONDS * 1000).toISOString() };
    api.makeDownload(body).then(setDownload, fail);
  };
  const title = wanted ? nameOf(world, wanted) : "";
  return (
    <div class="live-page">
      <h1 class="hidden">{t("nav.recordings")}</h1>
      <PlayerView player={player} title={title} session={props} onStop={stop}>
        {wanted && (
          <div class="recordings" data-testid="recordings">
            <div class="recordings-tools">
              <input type="date" aria-label={t("recordings.day")} value={day} max={dayOf(Date.now())} data-testid="day"
                onChange={(event) => event.currentTarget.value && setDay(event.currentTarget.value)} />
              <IconButton icon={playback?.paused ? "play" : "pause"} label={t(playback?.paused ? "recordings.resume" : "recordings.pause")}
                disabled={phase !== "playing" || !playback} onClick={() => change({ paused: !playback?.paused })} testId="recording-pause" />
              <select aria-label={t("recordings.speed")} value={String(playback?.speed ?? 1)} disabled={phase !== "playing" || !playback}
                data-testid="speed" onChange={(event) => change({ speed: Number(event.currentTarget.value) })}>
                {[...SPEEDS, -1].map((speed) => <option key={speed} value={String(speed)}>{speed < 0 ? t("recordings.backwards") : `${speed}×`}</option>)}
              </select>
              <strong class="recordings-clock" data-testid="position">{position === null ? "--:--:--" : clock(position)}</strong>
              {props.may("control") && (
                <button type="button" onClick={fetchFile} disabled={!records?.length} data-testid="download">{t("recordings.download")}</button>
              )}
              {download && (
                <span role="status" data-testid="download-state">
                  {download.state === "done"
                    ? <a href={api.downloadUrl(download.id)} download>{t("recordings.save", { size: bytes(download.bytes) })}</a>
                    : download.cause ? download.cause.message : `${download.percent} % · ${bytes(download.bytes)}`}
                </span>
              )}
            </div>
            <div class="timeline" role="slider" tabIndex={0} aria-label={t("recordings.timeline")} aria-valuemin={0} aria-valuemax={86_400}
              aria-valuenow={position === null ? 0 : Math.round((position - start) / 1000)} aria-valuetext={position === null ? "" : clock(position)}
              data-testid="timeline"
              onPointerDown={(event) => event.currentTarget.setPointerCapture(event.pointerId)}
              onPointerMove={(event) => setPointed(partOf(event))}
              onPointerLeave={() => setPointed(null)}
              onPointerUp={(event) => goTo(partOf(event))}
              onKeyDown={(event) => {
                const by = { ArrowLeft: -60, ArrowRight: 60 }[event.key];
                if (by && position !== null) goTo((position + by * 1000 - start) / DAY_MS);
              }}>
              {blocks(records ?? [], start).map(({ left, width, kind }) => (
                <i key={left} class={kind === "alarm" ? "alarm" : ""} style={{ left: `${left * 100}%`, width: `${width * 100}%` }} />
              ))}
              {[0, 3, 6, 9, 12, 15, 18, 21].map((hour) => <span key={hour} style={{ left: `${hour / 0.24}%` }}>{hour}:00</span>)}
              {position !== null && <b style={{ left: `${((position - start) / DAY_MS) * 100}%` }} />}
              {pointed !== null && <em style={{ left: `${pointed * 100}%` }}>{clock(start + pointed * DAY_MS)}</em>}
            </div>
            <p class="quiet" role="status">
              {records === null ? t("common.loading") : records.length === 0 ? t("recordings.none") : t(partial ? "recordings.partial" : "recordings.hint")}
            </p>
          </div>
        )}
      </PlayerView>
      <Tree model={model} current={wanted} onPlay={(key) => (location.hash = `#/recordings/${key}`)} />
    </div>
  );
}
