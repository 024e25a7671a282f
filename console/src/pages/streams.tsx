import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { SessionProps } from "../app";
import { toApiError } from "../api/client";
import type { Diagnosis, Stream } from "../api/types";
import { ago, bits, codecName, percent, seconds, when } from "../format";
import { describe, useWords } from "../i18n";
import { useStore } from "../store";
import { nameOf } from "../tree";
import { useNow, usePolled } from "../ui/hooks";
import { Confirm, Dialog, Empty, ErrorNote, IconButton, say, sayError } from "../ui/parts";

export function StreamsPage(session: SessionProps): JSX.Element {
  const { api, model, may } = session;
  const { t, lang } = useWords();
  const world = useStore(model.world);
  const { data, error, reload } = usePolled(api.streams, 2000, world.events);
  const now = useNow(1000);
  const [stopping, setStopping] = useState<Stream | null>(null);
  const [shown, setShown] = useState<string | null>(null);

  const devices = [...new Set(data?.map(({ key }) => key.split("-")[0]!) ?? [])].join();
  useEffect(() => {
    for (const id of devices.split(",")) if (world.devices.has(id)) model.loadChannels(id);
  }, [devices]);
  const stop = async (stream: Stream): Promise<void> => {
    try {
      await api.stopStream(stream.key);
      say(t("streams.stopped"));
    } catch (problem) {
      sayError(lang, toApiError(problem));
    }
    reload();
  };
  return (
    <div class="page">
      <header class="page-head">
        <h1>{t("streams.title")}</h1>
        {data && <span class="count">{data.length}</span>}
      </header>
      {error && <ErrorNote error={error} onRetry={reload} />}
      {data?.length === 0 && <Empty icon="streams">{t("streams.empty")}</Empty>}
      {data && data.length > 0 && (
        <div class="table-frame card">
          <table class="cards">
            <thead>
              <tr>
                <th>{t("streams.stream")}</th>
                <th>{t("streams.state")}</th>
                <th>{t("streams.viewers")}</th>
                <th class="number">{t("streams.bitrate")}</th>
                <th class="number">{t("streams.loss")}</th>
                <th>{t("streams.media")}</th>
                <th>{t("streams.started")}</th>
                <th>
                  <span class="hidden">{t("common.details")}</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {data.map((stream) => (
                <tr key={stream.key} data-testid={`stream-${stream.key}`}>
                  <td data-label={t("streams.stream")} class="main">
                    <strong>{nameOf(world, stream.key)}</strong>
                    <span class="mono sub">{stream.key.replace("-", " / ")}</span>
                  </td>
                  <td data-label={t("streams.state")}>
                    <span class={`badge state-${stream.state}`}>{t(`state.${stream.state}`)}</span>
                    {stream.cause && stream.state === "failed" && (
                      <span class="sub">{describe(lang, stream.cause).title}</span>
                    )}
                  </td>
                  <td data-label={t("streams.viewers")}>
                    {stream.viewers}
                    {stream.viewers > 0 && (
                      <span class="sub">
                        {Object.entries(stream.viewers_by_protocol)
                          .map(([protocol, count]) => `${protocol} ${count}`)
                          .join(", ")}
                      </span>
                    )}
                  </td>
                  <td data-label={t("streams.bitrate")} class="number">
                    {stream.bitrate > 0 ? bits(stream.bitrate) : "–"}
                  </td>
                  <td
                    data-label={t("streams.loss")}
                    class="number"
                    title={t("streams.lossDetail", { ...numbers(stream) })}
                  >
                    {percent(stream.lost, stream.packets + stream.lost)}
                  </td>
                  <td data-label={t("streams.media")}>
                    {stream.tracks.map((track) => codecName(track.codec)).join(" + ") || "–"}
                    <span class="sub">
                      {[picture(stream), stream.transport].filter(Boolean).join(" · ")}
                    </span>
                  </td>
                  <td data-label={t("streams.started")} title={stream.started ? when(stream.started, lang) : ""}>
                    {stream.started ? ago(stream.started, now, t) : "–"}
                  </td>
                  <td class="actions">
                    <a class="icon-button" href={`#/live/${stream.key}`} title={t("streams.watch")} aria-label={t("streams.watch")}>
                      <svg class="icon" viewBox="0 0 24 24" width="18" height="18" aria-hidden="true">
                        <path d="M8 5.5v13l10.5-6.5z" />
                      </svg>
                    </a>
                    <IconButton
                      icon="steps"
                      label={t("streams.diagnose")}
                      onClick={() => setShown(stream.key)}
                      testId={`diagnose-${stream.key}`}
                    />
                    {may("control") && (
                      <IconButton
                        icon="stop"
                        danger
                        label={t("streams.stop")}
                        disabled={stream.state === "failed" || stream.state === "ended"}
                        onClick={() => setStopping(stream)}
                        testId={`stop-${stream.key}`}
                      />
                    )}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {stopping && (
        <Confirm
          title={t("streams.stopTitle")}
          text={t("streams.stopText", { count: stopping.viewers })}
          action={t("streams.stop")}
          onClose={() => setStopping(null)}
          onConfirm={() => void stop(stopping)}
        />
      )}
      {shown && <DiagnosisDialog session={session} streamKey={shown} name={nameOf(world, shown)} onClose={() => setShown(null)} />}
    </div>
  );
}

const numbers = ({ lost, packets, reordered, late }: Stream): Record<string, number> => ({ lost, packets, reordered, late });

function picture(stream: Stream): string {
  const video = stream.tracks.find((track) => track.kind === "video");
  if (!video?.width) return "";
  const rate = video.frame_rate ? ` @ ${Math.round(video.frame_rate * 10) / 10}` : "";
  return `${video.width}×${video.height}${rate}`;
}

function DiagnosisDialog(props: { session: SessionProps; streamKey: string; name: string; onClose: () => void }): JSX.Element {
  const { t, lang } = useWords();
  const { data, error, reload } = usePolled(() => props.session.api.diagnosis(props.streamKey), 1000);
  return (
    <Dialog title={t("streams.diagnosisTitle")} onClose={props.onClose}>
      <p class="sub">
        {props.name} <span class="mono">{props.streamKey.replace("-", " / ")}</span>
      </p>
      {error && <ErrorNote error={error} onRetry={reload} />}
      {data && (
        <>
          <p>
            <span class={`badge state-${data.state}`}>{t(`state.${data.state}`)}</span>{" "}
            {data.cause ? describe(lang, data.cause).title : lang === "en" ? data.summary : ""}
          </p>
          {data.cause && <p class="sub">{describe(lang, data.cause).remedy}</p>}
          <Ladder diagnosis={data} />
        </>
      )}
    </Dialog>
  );
}

/** The steps with the seconds since the request, and a bar that shows where the time went. */
function Ladder({ diagnosis }: { diagnosis: Diagnosis }): JSX.Element {
  const { t } = useWords();
  const words = t as (key: string) => string;
  const reached = diagnosis.steps.flatMap(({ seconds: at }) => (at === null ? [] : [at]));
  const published = diagnosis.steps.find(({ name }) => name === "published")?.seconds ?? null;
  const scale = Math.max(published ?? 0, ...(published === null ? reached : []), 0.001);
  const furthest = diagnosis.steps.findLastIndex(({ seconds: at }) => at !== null);
  let before = 0;
  return (
    <ol class="ladder" data-testid="ladder">
      {diagnosis.steps.map((step, index) => {
        const from = before;
        if (step.seconds !== null) before = step.seconds;
        const known = `step.${step.name}`;
        const name = words(known) === known ? step.name : words(known);
        const left = Math.min(100, (100 * from) / scale);
        const width = step.seconds === null ? 0 : Math.max(0.5, Math.min(100 - left, (100 * (step.seconds - from)) / scale));
        return (
          <li key={step.name} class={step.seconds !== null ? "reached" : "missing"} data-step={step.name}>
            <span class="step-name" title={step.detail}>
              {name}
            </span>
            <span class="step-bar" aria-hidden="true">
              <i style={{ marginLeft: `${Math.min(left, 99.5)}%`, width: `${width}%` }} />
            </span>
            <span class="step-time">
              {step.seconds !== null
                ? seconds(step.seconds)
                : t(index < furthest ? "streams.skipped" : "streams.notReached")}
            </span>
          </li>
        );
      })}
    </ol>
  );
}
