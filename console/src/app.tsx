import type { JSX } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";
import { baseOf } from "./api/base";
import { Api, allows } from "./api/client";
import type { Scope, WhoAmI } from "./api/types";
import { type Key, useWords } from "./i18n";
import { Model } from "./model";
import { DevicesPage } from "./pages/devices";
import { LivePage } from "./pages/live";
import { LoginPage } from "./pages/login";
import { RecordingsPage } from "./pages/recordings";
import { StreamsPage } from "./pages/streams";
import { TokensPage } from "./pages/tokens";
import { settings, useStore } from "./store";
import { Icon, type IconName, Logo } from "./ui/icons";
import { IconButton, Toasts } from "./ui/parts";
import { Preferences } from "./ui/preferences";

const BASE = baseOf(document.baseURI);

export interface SessionProps {
  model: Model;
  api: Api;
  me: WhoAmI;
  may: (scope: Scope) => boolean;
}

const PAGES: readonly { name: string; label: Key; icon: IconName; scope: Scope }[] = [
  { name: "live", label: "nav.live", icon: "live", scope: "view" },
  { name: "recordings", label: "nav.recordings", icon: "recordings", scope: "view" },
  { name: "streams", label: "nav.streams", icon: "streams", scope: "view" },
  { name: "devices", label: "nav.devices", icon: "devices", scope: "view" },
  { name: "tokens", label: "nav.tokens", icon: "tokens", scope: "admin" },
];

/** The place in the address: "#/live/KEY" is ["live", "KEY"]. The part after "#" needs nothing from any proxy. */
function usePlace(): string[] {
  const read = (): string[] => location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  const [place, show] = useState(read);
  useEffect(() => {
    const changed = (): void => show(read());
    window.addEventListener("hashchange", changed);
    return () => window.removeEventListener("hashchange", changed);
  }, []);
  return place;
}

function forget(): void {
  settings.set("token", null, "local");
  settings.set("token", null, "session");
}

export function App(): JSX.Element {
  const { t, lang } = useWords();
  const [session, open] = useState<{ token: string; me: WhoAmI } | null>(null);
  const [expired, setExpired] = useState(false);
  useEffect(() => {
    document.documentElement.lang = lang === "zh" ? "zh-CN" : "en";
    document.title = t("app.title");
  }, [lang]);

  const leave = (isExpired: boolean): void => {
    forget();
    setExpired(isExpired);
    open(null);
  };
  return (
    <>
      {session ? (
        <Shell key={session.me.id} {...session} onLeave={leave} />
      ) : (
        <LoginPage
          base={BASE}
          expired={expired}
          saved={settings.get("token", "session") ?? settings.get("token", "local")}
          onSavedWrong={forget}
          onOpen={(token, me, remember) => {
            if (remember !== null) {
              forget();
              settings.set("token", token, remember ? "local" : "session");
            }
            setExpired(false);
            open({ token, me });
          }}
        />
      )}
      <Toasts />
    </>
  );
}

function Shell(props: { token: string; me: WhoAmI; onLeave: (expired: boolean) => void }): JSX.Element {
  const { t } = useWords();
  const { me } = props;
  const model = useMemo(() => new Model(new Api(BASE, props.token, () => props.onLeave(true))), [props.token]);
  useEffect(() => {
    model.start();
    return () => model.stop();
  }, [model]);
  const { connected, loaded } = useStore(model.world);
  const [page = "live", detail] = usePlace();
  const may = (scope: Scope): boolean => allows(me.scopes, scope);
  const pages = PAGES.filter(({ scope }) => may(scope));
  const shown = pages.some(({ name }) => name === page) ? page : "live";
  const session: SessionProps = { model, api: model.api, me, may };

  return (
    <div class="shell">
      <a class="skip" href="#content" onClick={(event) => {
        event.preventDefault();
        document.getElementById("content")?.focus();
      }}>
        {t("nav.skip")}
      </a>
      <header class="top">
        <a class="brand" href="#/live" aria-label={t("app.title")}>
          <Logo />
          <span>gbgw</span>
        </a>
        <nav aria-label={t("nav.main")}>
          {pages.map(({ name, label, icon }) => (
            <a key={name} href={`#/${name}`} aria-current={shown === name ? "page" : undefined} data-testid={`nav-${name}`}>
              <Icon name={icon} />
              <span>{t(label)}</span>
            </a>
          ))}
        </nav>
        <div class="tools">
          {loaded && (
            <span class={`link ${connected ? "up" : "down"}`} role="status" title={t(connected ? "link.up" : "link.down")}>
              <i />
              <span>{t(connected ? "link.up" : "link.down")}</span>
            </span>
          )}
          <Preferences />
          <IconButton icon="exit" label={me.name ? `${t("nav.signOut")} (${me.name})` : t("nav.signOut")} onClick={() => props.onLeave(false)} testId="sign-out" />
        </div>
      </header>
      <main id="content" tabIndex={-1}>
        {/* The live page stays while others are shown only as an address: its player stops when it is left. */}
        {shown === "live" && <LivePage {...session} wanted={detail ?? null} />}
        {shown === "recordings" && <RecordingsPage {...session} wanted={detail ?? null} />}
        {shown === "streams" && <StreamsPage {...session} />}
        {shown === "devices" && <DevicesPage {...session} />}
        {shown === "tokens" && <TokensPage {...session} onOwnRevoked={() => props.onLeave(false)} />}
      </main>
    </div>
  );
}
