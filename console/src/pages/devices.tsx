import type { JSX } from "preact";
import { useMemo, useState } from "preact/hooks";
import type { SessionProps } from "../app";
import { type ApiError, toApiError } from "../api/client";
import type { Device, Transport } from "../api/types";
import { ago, when } from "../format";
import { useWords } from "../i18n";
import { useStore } from "../store";
import { titleOf } from "../tree";
import { useNow } from "../ui/hooks";
import { Icon } from "../ui/icons";
import { Confirm, Dialog, Dot, Empty, ErrorNote, IconButton, say, sayError } from "../ui/parts";

const AT_ONCE = 200; // rows; a search finds the others

export function DevicesPage(session: SessionProps): JSX.Element {
  const { api, model, may } = session;
  const { t, lang } = useWords();
  const world = useStore(model.world);
  const now = useNow(5000);
  const [query, setQuery] = useState("");
  const [adding, setAdding] = useState(false);
  const [deleting, setDeleting] = useState<Device | null>(null);
  const [busy, setBusy] = useState<ReadonlySet<string>>(new Set());
  const [limit, setLimit] = useState(AT_ONCE);

  const wanted = query.trim().toLowerCase();
  const all = useMemo(() => [...world.devices.values()], [world.devices]);
  const fitting = all.filter((device) =>
    [device.id, device.name, device.address ?? "", device.manufacturer].some((text) => text.toLowerCase().includes(wanted)),
  );
  const online = all.filter((device) => device.online).length;

  const refresh = async (device: Device): Promise<void> => {
    setBusy((old) => new Set(old).add(device.id));
    try {
      const channels = await api.refreshCatalog(device.id);
      say(t("devices.refreshed", { count: channels.length }));
      model.loadChannels(device.id, true);
    } catch (error) {
      sayError(lang, toApiError(error));
    }
    setBusy((old) => {
      const next = new Set(old);
      next.delete(device.id);
      return next;
    });
  };
  const remove = async (device: Device): Promise<void> => {
    try {
      await api.deleteDevice(device.id);
      say(t("devices.deleted"));
    } catch (error) {
      sayError(lang, toApiError(error));
    }
    void model.reload();
  };

  return (
    <div class="page">
      <header class="page-head">
        <h1>{t("devices.title")}</h1>
        <span class="count">{t("devices.count", { online, total: all.length })}</span>
        <span class="grow" />
        {all.length > 8 && (
          <div class="search">
            <Icon name="search" />
            <input
              type="search"
              placeholder={t("devices.search")}
              aria-label={t("devices.search")}
              value={query}
              onInput={(event) => setQuery(event.currentTarget.value)}
            />
          </div>
        )}
        {may("admin") && (
          <button type="button" class="button primary" onClick={() => setAdding(true)} data-testid="device-add">
            <Icon name="plus" /> {t("devices.add")}
          </button>
        )}
      </header>
      {world.error && <ErrorNote error={world.error} onRetry={() => void model.reload()} />}
      {world.loaded && all.length === 0 && !world.error && <Empty icon="devices">{t("devices.empty")}</Empty>}
      {all.length > 0 && fitting.length === 0 && <Empty icon="search">{t("tree.noMatch", { query })}</Empty>}
      {fitting.length > 0 && (
        <div class="table-frame card">
          <table class="cards">
            <thead>
              <tr>
                <th>{t("devices.name")}</th>
                <th class="number">{t("devices.channels")}</th>
                <th>{t("devices.address")}</th>
                <th>{t("devices.model")}</th>
                <th>{t("devices.transport")}</th>
                <th>{t("devices.lastSeen")}</th>
                <th>
                  <span class="hidden">{t("common.details")}</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {fitting.slice(0, limit).map((device) => (
                <tr key={device.id} data-testid={`device-row-${device.id}`}>
                  <td data-label={t("devices.name")} class="main">
                    <span class="with-dot">
                      <Dot on={device.online} label={t(device.online ? "common.online" : "common.offline")} />
                      <strong>{titleOf(device)}</strong>
                    </span>
                    <span class="mono sub">{device.id}</span>
                  </td>
                  <td data-label={t("devices.channels")} class="number">
                    {device.channel_count}
                  </td>
                  <td data-label={t("devices.address")}>
                    <span class="mono">{device.address ?? "–"}</span>
                    {device.transport && <span class="sub">SIP {device.transport.toUpperCase()}</span>}
                  </td>
                  <td data-label={t("devices.model")}>
                    {[device.manufacturer, device.model].filter(Boolean).join(" ") || "–"}
                    {device.edition && <span class="sub">X-GB-Ver {device.edition}</span>}
                  </td>
                  <td data-label={t("devices.transport")}>{device.media_transport ?? t("devices.transportDefault")}</td>
                  <td
                    data-label={t("devices.lastSeen")}
                    title={device.last_seen ? when(device.last_seen, lang) : ""}
                  >
                    {device.last_seen ? ago(device.last_seen, now, t) : t("common.never")}
                  </td>
                  <td class="actions">
                    {may("control") && (
                      <IconButton
                        icon="refresh"
                        label={t("devices.refresh")}
                        disabled={!device.online}
                        busy={busy.has(device.id)}
                        onClick={() => void refresh(device)}
                        testId={`device-refresh-${device.id}`}
                      />
                    )}
                    {may("admin") && (
                      <IconButton
                        icon="trash"
                        danger
                        label={t("common.delete")}
                        onClick={() => setDeleting(device)}
                        testId={`device-delete-${device.id}`}
                      />
                    )}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
          {fitting.length > limit && (
            <button type="button" class="button more" onClick={() => setLimit(limit + AT_ONCE)}>
              + {Math.min(AT_ONCE, fitting.length - limit)}
            </button>
          )}
        </div>
      )}
      {adding && (
        <AddDevice
          session={session}
          onClose={() => setAdding(false)}
          onAdded={(device) => {
            setAdding(false);
            say(t("devices.added", { name: titleOf(device) }));
            void model.reload();
          }}
        />
      )}
      {deleting && (
        <Confirm
          title={t("devices.deleteTitle", { name: titleOf(deleting) })}
          text={t("devices.deleteText")}
          action={t("common.delete")}
          onClose={() => setDeleting(null)}
          onConfirm={() => void remove(deleting)}
        />
      )}
    </div>
  );
}

function AddDevice(props: { session: SessionProps; onClose: () => void; onAdded: (device: Device) => void }): JSX.Element {
  const { t } = useWords();
  const [id, setId] = useState("");
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const [transport, setTransport] = useState<Transport | "">("");
  const [wrongId, setWrongId] = useState(false);
  const [error, setError] = useState<ApiError | null>(null);
  const [busy, setBusy] = useState(false);

  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    setError(null);
    setWrongId(!/^\d{20}$/.test(id.trim()));
    if (!/^\d{20}$/.test(id.trim())) return;
    setBusy(true);
    try {
      props.onAdded(
        await props.session.api.addDevice({
          id: id.trim(),
          name: name.trim(),
          ...(password ? { password } : {}),
          ...(transport ? { media_transport: transport } : {}),
        }),
      );
    } catch (problem) {
      setError(toApiError(problem));
      setBusy(false);
    }
  };
  return (
    <Dialog title={t("devices.add")} onClose={props.onClose}>
      <form onSubmit={(event) => void submit(event)} noValidate autocomplete="off">
        <label for="device-id">{t("devices.id")}</label>
        <input
          id="device-id"
          class="mono"
          inputMode="numeric"
          maxLength={20}
          value={id}
          autofocus
          aria-invalid={wrongId}
          aria-describedby="device-id-hint"
          data-testid="device-id"
          onInput={(event) => setId(event.currentTarget.value)}
        />
        <p id="device-id-hint" class={wrongId ? "problem" : "hint"}>
          {wrongId ? t("devices.idWrong") : t("devices.idHint")} <span class="mono">{id.length}/20</span>
        </p>
        <label for="device-name">
          {t("devices.name")} <small>({t("common.optional")})</small>
        </label>
        <input
          id="device-name"
          maxLength={128}
          value={name}
          data-testid="device-name"
          onInput={(event) => setName(event.currentTarget.value)}
        />
        <label for="device-password">
          {t("devices.password")} <small>({t("common.optional")})</small>
        </label>
        <input
          id="device-password"
          type="password"
          autocomplete="new-password"
          maxLength={64}
          value={password}
          data-testid="device-password"
          onInput={(event) => setPassword(event.currentTarget.value)}
        />
        <p class="hint">{t("devices.passwordHint")}</p>
        <label for="device-transport">{t("devices.transport")}</label>
        <select
          id="device-transport"
          value={transport}
          onChange={(event) => setTransport(event.currentTarget.value as Transport | "")}
        >
          <option value="">{t("devices.transportDefault")}</option>
          <option value="udp">UDP</option>
          <option value="tcp-passive">TCP passive</option>
          <option value="tcp-active">TCP active</option>
        </select>
        {error && <ErrorNote error={error} />}
        <footer>
          <button type="button" class="button" onClick={props.onClose}>
            {t("common.cancel")}
          </button>
          <button type="submit" class="button primary" disabled={busy} data-testid="device-submit">
            {t("common.add")}
          </button>
        </footer>
      </form>
    </Dialog>
  );
}
