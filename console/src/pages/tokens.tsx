import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { SessionProps } from "../app";
import { type ApiError, toApiError } from "../api/client";
import type { Scope, Token, TokenCreated } from "../api/types";
import { when } from "../format";
import { useWords } from "../i18n";
import { usePolled } from "../ui/hooks";
import { Icon } from "../ui/icons";
import { Confirm, Dialog, ErrorNote, IconButton, say, sayError } from "../ui/parts";

const SCOPES: readonly Scope[] = ["view", "control", "admin"];
const DAYS = [1, 7, 30, 90, 365] as const;

export function TokensPage(props: SessionProps & { onOwnRevoked: () => void }): JSX.Element {
  const { api, me } = props;
  const { t, lang } = useWords();
  const { data, error, reload } = usePolled(api.tokens, 15_000);
  const [creating, setCreating] = useState(false);
  const [created, setCreated] = useState<TokenCreated | null>(null);
  const [revoking, setRevoking] = useState<Token | null>(null);
  const nameOf = (token: Token): string => token.name || t("tokens.unnamed");

  const revoke = async (token: Token): Promise<void> => {
    try {
      await api.revokeToken(token.id);
      say(t("tokens.revoked"));
      if (token.id === me.id) props.onOwnRevoked();
      else reload();
    } catch (problem) {
      sayError(lang, toApiError(problem));
    }
  };
  return (
    <div class="page">
      <header class="page-head">
        <h1>{t("tokens.title")}</h1>
        {data && <span class="count">{data.length}</span>}
        <span class="grow" />
        <button type="button" class="button primary" onClick={() => setCreating(true)} data-testid="token-create">
          <Icon name="plus" /> {t("tokens.create")}
        </button>
      </header>
      <p class="page-intro">{t("tokens.intro")}</p>
      {error && <ErrorNote error={error} onRetry={reload} />}
      {data && (
        <div class="table-frame card">
          <table class="cards">
            <thead>
              <tr>
                <th>{t("tokens.name")}</th>
                <th>{t("tokens.scope")}</th>
                <th>{t("tokens.created")}</th>
                <th>{t("tokens.expires")}</th>
                <th>
                  <span class="hidden">{t("common.details")}</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {[...data]
                .sort((a, b) => (a.created < b.created ? 1 : -1))
                .map((token) => (
                  <tr key={token.id} data-testid={`token-${token.id}`}>
                    <td data-label={t("tokens.name")} class="main">
                      <strong>{nameOf(token)}</strong>
                      {token.id === me.id && <span class="badge live">{t("tokens.yours")}</span>}
                      <span class="mono sub">{token.id}</span>
                    </td>
                    <td data-label={t("tokens.scope")}>
                      {token.scopes.map((scope) => (
                        <span key={scope} class={`badge scope-${scope}`}>
                          {scope}
                        </span>
                      ))}
                    </td>
                    <td data-label={t("tokens.created")}>{when(token.created, lang)}</td>
                    <td data-label={t("tokens.expires")}>
                      {token.expires ? when(token.expires, lang) : t("tokens.never")}
                    </td>
                    <td class="actions">
                      <IconButton
                        icon="trash"
                        danger
                        label={t("tokens.revoke")}
                        onClick={() => setRevoking(token)}
                        testId={`token-revoke-${token.id}`}
                      />
                    </td>
                  </tr>
                ))}
            </tbody>
          </table>
        </div>
      )}
      {creating && (
        <CreateToken
          session={props}
          onClose={() => setCreating(false)}
          onCreated={(token) => {
            setCreating(false);
            setCreated(token);
            reload();
          }}
        />
      )}
      {created && <ShowToken token={created} onClose={() => setCreated(null)} />}
      {revoking && (
        <Confirm
          title={t("tokens.revokeTitle", { name: nameOf(revoking) })}
          text={t(revoking.id === me.id ? "tokens.revokeOwn" : "tokens.revokeText")}
          action={t("tokens.revoke")}
          onClose={() => setRevoking(null)}
          onConfirm={() => void revoke(revoking)}
        />
      )}
    </div>
  );
}

function CreateToken(props: {
  session: SessionProps;
  onClose: () => void;
  onCreated: (token: TokenCreated) => void;
}): JSX.Element {
  const { t } = useWords();
  const [name, setName] = useState("");
  const [scope, setScope] = useState<Scope>("view");
  const [days, setDays] = useState("");
  const [error, setError] = useState<ApiError | null>(null);
  const [busy, setBusy] = useState(false);

  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      const expires = days === "" ? {} : { expires: new Date(Date.now() + Number(days) * 86_400_000).toISOString() };
      props.onCreated(await props.session.api.createToken({ name: name.trim(), scopes: [scope], ...expires }));
    } catch (problem) {
      setError(toApiError(problem));
      setBusy(false);
    }
  };
  return (
    <Dialog title={t("tokens.create")} onClose={props.onClose}>
      <form onSubmit={(event) => void submit(event)} autocomplete="off">
        <label for="token-name">{t("tokens.name")}</label>
        <input
          id="token-name"
          maxLength={128}
          autofocus
          placeholder={t("tokens.namePlaceholder")}
          value={name}
          data-testid="token-name"
          onInput={(event) => setName(event.currentTarget.value)}
        />
        <fieldset>
          <legend>{t("tokens.scope")}</legend>
          {SCOPES.map((one) => (
            <label key={one} class="check">
              <input
                type="radio"
                name="scope"
                value={one}
                checked={scope === one}
                onChange={() => setScope(one)}
                data-testid={`token-scope-${one}`}
              />
              {t(`tokens.${one}`)}
            </label>
          ))}
        </fieldset>
        <label for="token-days">{t("tokens.expires")}</label>
        <select id="token-days" value={days} onChange={(event) => setDays(event.currentTarget.value)}>
          <option value="">{t("tokens.never")}</option>
          {DAYS.map((count) => (
            <option key={count} value={count}>
              {t("tokens.days", { count })}
            </option>
          ))}
        </select>
        {error && <ErrorNote error={error} />}
        <footer>
          <button type="button" class="button" onClick={props.onClose}>
            {t("common.cancel")}
          </button>
          <button type="submit" class="button primary" disabled={busy} data-testid="token-submit">
            {t("tokens.create")}
          </button>
        </footer>
      </form>
    </Dialog>
  );
}

function ShowToken({ token, onClose }: { token: TokenCreated; onClose: () => void }): JSX.Element {
  const { t } = useWords();
  const copy = async (): Promise<void> => {
    try {
      await navigator.clipboard.writeText(token.token);
      say(t("common.copied"));
    } catch {
      // Only secure origins have a clipboard: leave it selected for Ctrl-C.
      const element = document.getElementById("new-token");
      if (element) getSelection()?.selectAllChildren(element);
    }
  };
  return (
    <Dialog title={t("tokens.newTitle")} onClose={onClose}>
      <p>{t("tokens.newText")}</p>
      <div class="secret">
        <code id="new-token" data-testid="token-secret">
          {token.token}
        </code>
        <IconButton icon="copy" label={t("common.copy")} onClick={() => void copy()} />
      </div>
      <footer>
        <button type="button" class="button primary" onClick={onClose}>
          {t("common.close")}
        </button>
      </footer>
    </Dialog>
  );
}
