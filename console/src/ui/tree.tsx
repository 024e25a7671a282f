import type { JSX } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { useWords } from "../i18n";
import type { Model } from "../model";
import { useStore } from "../store";
import { type Row, rowsOf, titleOf } from "../tree";
import { Icon } from "./icons";
import { Dot, Empty, ErrorNote, IconButton } from "./parts";

const ROW = 44; // px, as in style.css
const OVERSCAN = 8;
const OPEN_AT_START = 24; // so few devices are shown opened ...
const OPEN_CHANNELS = 64; // ... unless they have more channels than this
const SEARCH_ALL_FROM = 2; // characters, before every device's channels are read

interface Props {
  model: Model;
  current: string | null; // stream key now in the player
  onPlay: (key: string) => void;
}

/** Devices and their channels. Only the rows in sight exist; arrow keys move, Enter plays (WAI-ARIA tree pattern). */
export function Tree({ model, current, onPlay }: Props): JSX.Element {
  const { t } = useWords();
  const world = useStore(model.world);
  const [open, setOpen] = useState<ReadonlySet<string> | null>(null);
  const [query, setQuery] = useState("");
  const [active, setActive] = useState<string | null>(current);
  const [view, setView] = useState({ top: 0, height: 600 });
  const scroller = useRef<HTMLDivElement>(null);
  const focusActive = useRef(false);

  const opened = useMemo(() => {
    if (open) return open;
    const few = world.devices.size <= OPEN_AT_START ? [...world.devices.values()] : [];
    return new Set(few.filter((device) => device.channel_count <= OPEN_CHANNELS).map(({ id }) => id));
  }, [open, world.devices]);
  useEffect(() => {
    for (const id of opened) if (world.devices.has(id)) model.loadChannels(id);
  }, [opened, world.devices]);
  useEffect(() => {
    if (query.trim().length < SEARCH_ALL_FROM) return;
    const timer = window.setTimeout(() => model.loadAllChannels(), 250);
    return () => clearTimeout(timer);
  }, [query]);

  const rows = useMemo(
    () => rowsOf(world.devices.values(), world.channels, opened, query),
    [world.devices, world.channels, opened, query],
  );
  const place = useMemo(() => new Map(rows.map((row, index) => [row.id, index])), [rows]);
  const activeIndex = active !== null ? (place.get(active) ?? -1) : -1;
  const tabStop = activeIndex >= 0 ? activeIndex : 0;

  useLayoutEffect(() => {
    const element = scroller.current;
    if (!element) return;
    const measure = (): void => setView({ top: element.scrollTop, height: element.clientHeight });
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    element.addEventListener("scroll", measure, { passive: true });
    return () => {
      observer.disconnect();
      element.removeEventListener("scroll", measure);
    };
  }, [rows.length === 0]);

  // Focus follows the arrow keys, once the row exists.
  useLayoutEffect(() => {
    if (!focusActive.current || activeIndex < 0) return;
    const element = scroller.current?.querySelector<HTMLElement>(`[data-index="${activeIndex}"]`);
    if (element) {
      focusActive.current = false;
      element.focus({ preventScroll: true });
    }
  });

  const toggle = (id: string, to: boolean): void => {
    const next = new Set(opened);
    if (to) next.add(id);
    else next.delete(id);
    setOpen(next);
  };
  const moveTo = (index: number): void => {
    const row = rows[Math.max(0, Math.min(rows.length - 1, index))];
    const element = scroller.current;
    if (!row || !element) return;
    const at = (place.get(row.id) ?? 0) * ROW;
    if (at < element.scrollTop) element.scrollTop = at;
    else if (at + ROW > element.scrollTop + element.clientHeight) element.scrollTop = at + ROW - element.clientHeight;
    focusActive.current = true;
    setActive(row.id);
  };
  const act = (row: Row): void => {
    if (row.kind === "device") toggle(row.id, !row.open);
    else if (row.kind === "channel" && row.channel.playable) onPlay(row.id);
    else if (row.kind === "note" && row.note === "failed") model.loadChannels(row.device.id);
  };
  const onKey = (event: KeyboardEvent): void => {
    const row = rows[tabStop];
    if (!row || event.altKey || event.ctrlKey || event.metaKey) return;
    const page = Math.max(1, Math.floor(view.height / ROW) - 1);
    switch (event.key) {
      case "ArrowDown": moveTo(activeIndex < 0 ? 0 : tabStop + 1); break;
      case "ArrowUp": moveTo(tabStop - 1); break;
      case "PageDown": moveTo(tabStop + page); break;
      case "PageUp": moveTo(tabStop - page); break;
      case "Home": moveTo(0); break;
      case "End": moveTo(rows.length - 1); break;
      case "ArrowRight":
        if (row.kind !== "device") return;
        if (row.open) moveTo(tabStop + 1);
        else toggle(row.id, true);
        break;
      case "ArrowLeft":
        if (row.kind === "device") toggle(row.id, false);
        else moveTo(place.get(row.kind === "channel" ? row.channel.device_id : row.device.id) ?? 0);
        break;
      case "Enter":
      case " ": act(row); break;
      default: return;
    }
    event.preventDefault();
  };

  const online = useMemo(() => [...world.devices.values()].filter((device) => device.online).length, [world.devices]);
  const searching = query.trim().length >= SEARCH_ALL_FROM && [...world.channels.values()].includes("loading");
  const first = Math.max(0, Math.floor(view.top / ROW) - OVERSCAN);
  const last = Math.min(rows.length, Math.ceil((view.top + view.height) / ROW) + OVERSCAN);
  const shown = rows.slice(first, last).map((row, offset) => ({ row, index: first + offset }));
  // The row with the focus must not vanish while it scrolls out of sight.
  const held = rows[tabStop];
  if (held && (tabStop < first || tabStop >= last)) shown.push({ row: held, index: tabStop });

  return (
    <section class="tree card" aria-label={t("tree.title")}>
      <div class="tree-head">
        <div class="search">
          <Icon name="search" />
          <input
            type="search"
            placeholder={t("tree.search")}
            aria-label={t("tree.search")}
            value={query}
            data-testid="tree-search"
            onInput={(event) => setQuery(event.currentTarget.value)}
            onKeyDown={(event) => {
              if (event.key === "ArrowDown") {
                event.preventDefault();
                moveTo(0);
              } else if (event.key === "Escape") setQuery("");
            }}
          />
          {query && <IconButton icon="close" label={t("tree.clear")} onClick={() => setQuery("")} />}
        </div>
        <p class="tree-summary" aria-live="polite">
          {searching ? t("tree.searching") : t("tree.summary", { online, total: world.devices.size })}
        </p>
      </div>
      {world.error && <ErrorNote error={world.error} onRetry={() => void model.reload()} />}
      {rows.length > 0 && (
        <div class="tree-rows" ref={scroller} role="tree" aria-label={t("tree.title")} onKeyDown={onKey}>
          <div class="tree-space" role="presentation" style={{ height: `${rows.length * ROW}px` }}>
            {shown.map(({ row, index }) => (
              <TreeRow
                key={row.id}
                row={row}
                index={index}
                isTabStop={index === tabStop}
                isCurrent={row.id === current}
                state={row.kind === "channel" ? world.streams.get(row.id) : undefined}
                onFocus={() => setActive(row.id)}
                onAct={() => act(row)}
              />
            ))}
          </div>
        </div>
      )}
      {rows.length === 0 && world.loaded && !world.error && (
        <Empty icon={query ? "search" : "devices"}>{query ? t("tree.noMatch", { query }) : t("tree.empty")}</Empty>
      )}
    </section>
  );
}

function TreeRow(props: {
  row: Row;
  index: number;
  isTabStop: boolean;
  isCurrent: boolean;
  state: string | undefined;
  onFocus: () => void;
  onAct: () => void;
}): JSX.Element {
  const { t } = useWords();
  const { row, index, isCurrent } = props;
  const common = {
    role: "treeitem" as const,
    "data-index": index,
    tabIndex: props.isTabStop ? 0 : -1,
    style: { transform: `translateY(${index * ROW}px)` },
    onFocus: props.onFocus,
    onClick: props.onAct,
  };
  if (row.kind === "device") {
    const { device } = row;
    return (
      <div
        {...common}
        class={`row device${device.online ? "" : " offline"}`}
        aria-level={1}
        aria-expanded={row.open}
        data-testid={`device-${device.id}`}
      >
        <span class={`chevron${row.open ? " open" : ""}`}>
          <Icon name="chevron" size={14} />
        </span>
        <Dot on={device.online} label={t(device.online ? "common.online" : "common.offline")} />
        <span class="row-text">
          <span class="row-title">{titleOf(device)}</span>
          <span class="row-sub mono">{device.id}</span>
        </span>
        <span class="row-tail">{t("tree.channels", { count: device.channel_count })}</span>
      </div>
    );
  }
  if (row.kind === "note") {
    const words = { loading: "tree.loading", empty: "tree.noChannels", failed: "tree.failed" } as const;
    return (
      <div {...common} class="row note" aria-level={2}>
        {t(words[row.note])}
        {row.note === "failed" && <u>{t("common.retry")}</u>}
      </div>
    );
  }
  const { channel } = row;
  const streaming = props.state === "playing" || props.state === "lingering";
  return (
    <div
      {...common}
      class={`row channel${row.online ? "" : " offline"}${isCurrent ? " current" : ""}${channel.playable ? "" : " group"}`}
      aria-level={2}
      aria-setsize={row.of}
      aria-posinset={row.index + 1}
      aria-selected={isCurrent}
      aria-disabled={!channel.playable}
      data-testid={`channel-${channel.device_id}-${channel.id}`}
    >
      <Dot on={row.online} label={t(row.online ? "common.online" : "common.offline")} />
      <span class="row-text">
        <span class="row-title">{titleOf(channel)}</span>
        <span class="row-sub mono">{channel.id}</span>
      </span>
      {streaming && <span class="badge live">{t("tree.playing")}</span>}
      {props.state === "starting" && <span class="badge state-starting">{t("state.starting")}</span>}
      {!channel.playable && <span class="badge">{t("tree.group")}</span>}
    </div>
  );
}
