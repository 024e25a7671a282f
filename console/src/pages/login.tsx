import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Api, ApiError, allows, toApiError } from "../api/client";
import type { WhoAmI } from "../api/types";
import { type Key, describe, useWords } from "../i18n";
import { Icon, Logo } from "../ui/icons";
import { IconButton } from "../ui/parts";
import { Preferences } from "../ui/preferences";

interface Props {
  base: string;
  expired: boolean;
  saved: string | null;
  onSavedWrong: () => void;
  /** remember: null where the token came out of the storage and stays where it was. */
  onOpen: (token: string, me: WhoAmI, remember: boolean | null) => void;
}

export function LoginPage({ base, expired, saved, onSavedWrong, onOpen }: Props): JSX.Element {
  const { t, lang } = useWords();
  const [token, setToken] = useState("");
  const [visible, setVisible] = useState(false);
  const [remember, setRemember] = useState(false);
  const [busy, setBusy] = useState(saved !== null);
  const [resuming, setResuming] = useState(saved !== null);
  const [problem, setProblem] = useState<Key | ApiError | null>(expired ? "login.expired" : null);
  const input = useRef<HTMLInputElement>(null);

  const enter = async (text: string, keep: boolean | null): Promise<void> => {
    setBusy(true);
    setProblem(null);
    try {
      const me = await new Api(base, text).whoami();
      if (!allows(me.scopes, "view")) throw new ApiError(403, "scope_missing", "");
      onOpen(text, me, keep);
    } catch (caught) {
      const error = toApiError(caught);
      if (error.status === 401) {
        if (keep === null) onSavedWrong();
        setProblem(keep === null ? "login.expired" : "login.wrong");
      } else if (error.code === "scope_missing") setProblem("login.noScope");
      else if (error.status === 0 && error.code === "unreachable") setProblem("login.unreachable");
      else setProblem(error);
      setBusy(false);
      setResuming(false);
      input.current?.focus();
    }
  };
  useEffect(() => {
    if (saved) void enter(saved, null);
    else input.current?.focus();
  }, []);

  const submit = (event: Event): void => {
    event.preventDefault();
    const text = token.trim();
    if (text === "") {
      setProblem("login.empty");
      input.current?.focus();
      // A token is visible ASCII; what is not cannot even be sent in a header.
    } else if (!/^[\x21-\x7e]+$/.test(text)) setProblem("login.wrong");
    else void enter(text, remember);
  };
  const told = problem === null ? "" : problem instanceof ApiError ? describe(lang, problem).title : t(problem);

  if (resuming) {
    return (
      <div class="login" aria-busy="true">
        <Logo size={44} />
      </div>
    );
  }
  return (
    <div class="login">
      <div class="login-tools">
        <Preferences />
      </div>
      <form class="card login-card" onSubmit={submit} noValidate>
        <div class="login-brand">
          <Logo size={44} />
          <div>
            <strong>gbgw</strong>
            <span>{t("app.tagline")}</span>
          </div>
        </div>
        <h1>{t("login.title")}</h1>
        <p class="hint" id="login-hint">
          {t("login.hint")}
        </p>
        <label for="token">{t("login.token")}</label>
        <div class="with-button">
          <input
            ref={input}
            id="token"
            data-testid="login-token"
            {...(visible ? { type: "text" as const } : { type: "password" as const })}
            autocomplete="current-password"
            autocapitalize="off"
            spellcheck={false}
            maxLength={256}
            value={token}
            aria-describedby="login-hint login-error"
            aria-invalid={problem !== null}
            onInput={(event) => setToken(event.currentTarget.value)}
          />
          <IconButton
            icon="eye"
            label={t(visible ? "login.hide" : "login.show")}
            pressed={visible}
            onClick={() => setVisible(!visible)}
          />
        </div>
        <label class="check">
          <input type="checkbox" checked={remember} onChange={(event) => setRemember(event.currentTarget.checked)} />
          {t("login.remember")}
        </label>
        <div id="login-error" role="alert" data-testid="login-error" class={told ? "problem" : ""}>
          {told && <Icon name="alert" />}
          {told}
        </div>
        <button type="submit" class="button primary wide" disabled={busy} data-testid="login-submit">
          {t(busy ? "login.busy" : "login.submit")}
        </button>
      </form>
    </div>
  );
}
