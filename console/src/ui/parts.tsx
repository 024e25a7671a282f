import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { type ApiError } from "../api/client";
import { type Language, describe, useWords } from "../i18n";
import { Store, useStore } from "../store";
import { Icon, type IconName } from "./icons";

export function IconButton(props: {
  icon: IconName;
  label: string;
  onClick: () => void;
  disabled?: boolean;
  danger?: boolean;
  pressed?: boolean;
  busy?: boolean;
  testId?: string;
}): JSX.Element {
  const { icon, label, onClick, disabled, danger, pressed, busy, testId } = props;
  return (
    <button
      type="button"
      class={`icon-button${danger ? " danger" : ""}${busy ? " busy" : ""}`}
      title={label}
      aria-label={label}
      aria-pressed={pressed}
      disabled={disabled || busy}
      onClick={onClick}
      data-testid={testId}
    >
      <Icon name={icon} />
    </button>
  );
}

export function Dot({ on, label }: { on: boolean; label: string }): JSX.Element {
  return <span class={`dot ${on ? "on" : "off"}`} role="img" aria-label={label} title={label} />;
}

/** A modal dialog; Escape and the backdrop close it. */
export function Dialog(props: {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
  wide?: boolean;
}): JSX.Element {
  const { t } = useWords();
  const element = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const dialog = element.current!;
    dialog.showModal();
    return () => dialog.close();
  }, []);
  return (
    <dialog
      ref={element}
      class={props.wide ? "wide" : ""}
      aria-labelledby="dialog-title"
      onCancel={(event) => {
        event.preventDefault();
        props.onClose();
      }}
      onMouseDown={(event) => {
        if (event.target === element.current) props.onClose();
      }}
    >
      <div class="dialog-body">
        <header>
          <h2 id="dialog-title">{props.title}</h2>
          <IconButton icon="close" label={t("common.close")} onClick={props.onClose} />
        </header>
        {props.children}
      </div>
    </dialog>
  );
}

export function Confirm(props: {
  title: string;
  text: string;
  action: string;
  onConfirm: () => void;
  onClose: () => void;
}): JSX.Element {
  const { t } = useWords();
  return (
    <Dialog title={props.title} onClose={props.onClose}>
      <p>{props.text}</p>
      <footer>
        <button type="button" class="button" onClick={props.onClose}>
          {t("common.cancel")}
        </button>
        <button
          type="button"
          class="button danger"
          data-testid="confirm"
          onClick={() => {
            props.onClose();
            props.onConfirm();
          }}
        >
          {props.action}
        </button>
      </footer>
    </Dialog>
  );
}

export function ErrorNote({ error, onRetry }: { error: ApiError; onRetry?: () => void }): JSX.Element {
  const { t, lang } = useWords();
  const text = describe(lang, error);
  return (
    <div class="error-note" role="alert">
      <Icon name="alert" />
      <div>
        <strong>{text.title}</strong>
        {text.remedy && <span> {text.remedy}</span>}
        <small>{[text.detail, error.code].filter(Boolean).join(" · ")}</small>
      </div>
      {onRetry && (
        <button type="button" class="button small" onClick={onRetry}>
          {t("common.retry")}
        </button>
      )}
    </div>
  );
}

export function Empty({ icon, children }: { icon: IconName; children: ComponentChildren }): JSX.Element {
  return (
    <div class="empty">
      <Icon name={icon} size={36} />
      <p>{children}</p>
    </div>
  );
}

interface Toast {
  id: number;
  text: string;
  bad: boolean;
}

const toasts = new Store<{ list: Toast[] }>({ list: [] });
let nextToast = 1;

export function say(text: string, bad = false): void {
  const toast = { id: nextToast++, text, bad };
  toasts.set({ list: [...toasts.get().list.slice(-3), toast] });
  window.setTimeout(
    () => toasts.set({ list: toasts.get().list.filter(({ id }) => id !== toast.id) }),
    bad ? 8000 : 4000,
  );
}

export function sayError(lang: Language, error: ApiError): void {
  const { title, remedy } = describe(lang, error);
  say([title, remedy].filter(Boolean).join(". ").replace("。. ", "。"), true);
}

export function Toasts(): JSX.Element {
  const { list } = useStore(toasts);
  return (
    <div class="toasts" role="status" aria-live="polite">
      {list.map(({ id, text, bad }) => (
        <div key={id} class={`toast${bad ? " bad" : ""}`}>
          {text}
        </div>
      ))}
    </div>
  );
}
