import { type ApiError } from "../api/client";
import { Store, settings, useStore } from "../store";
import { en, type Key } from "./en";
import { zh } from "./zh";

export type { Key } from "./en";
export type Language = "en" | "zh";
export const DICTIONARIES: Readonly<Record<Language, Readonly<Record<Key, string>>>> = { en, zh };

export function languageOf(saved: string | null, browser: readonly string[]): Language {
  if (saved === "en" || saved === "zh") return saved;
  const known = browser.map((tag) => tag.slice(0, 2).toLowerCase()).find((tag) => tag === "en" || tag === "zh");
  return known === "zh" ? "zh" : "en";
}

export type Values = Readonly<Record<string, string | number>>;

export function fill(text: string, values: Values = {}): string {
  return text.replace(/\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole));
}

const language = new Store<{ current: Language }>({
  current: languageOf(settings.get("language"), typeof navigator === "undefined" ? [] : navigator.languages),
});

export function setLanguage(current: Language): void {
  settings.set("language", current);
  language.set({ current });
}

export type Translate = (key: Key, values?: Values) => string;

/** The words of the language now chosen. */
export function useWords(): { t: Translate; lang: Language } {
  const { current } = useStore(language);
  return { t: (key, values) => fill(DICTIONARIES[current][key], values), lang: current };
}

export interface ErrorText {
  title: string;
  remedy: string;
  detail: string; // the server's own sentence, where the title is ours
}

/** What went wrong, in the reader's language where the cause is known, in the server's words where it is not. */
export function describe(
  lang: Language,
  error: Pick<ApiError, "code" | "message" | "remedy">,
): ErrorText {
  const words: Readonly<Record<string, string>> = DICTIONARIES[lang];
  const rejected = /^invite_rejected_(\d{3})$/.exec(error.code);
  const isBusy = rejected && ["486", "600"].includes(rejected[1]!); // Busy Here, Busy Everywhere
  const code = isBusy ? "busy" : rejected ? "invite_rejected" : error.code;
  const title = words[`error.${code}`];
  const status = rejected ? ` (SIP ${rejected[1]})` : "";
  if (title === undefined) return { title: error.message || error.code, remedy: error.remedy, detail: "" };
  return { title: title + status, remedy: words[`error.${code}.remedy`] ?? error.remedy, detail: error.message };
}
