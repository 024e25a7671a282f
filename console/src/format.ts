import type { Language, Translate } from "./i18n";

export function bits(perSecond: number): string {
  if (perSecond >= 999_500) return `${(perSecond / 1e6).toFixed(2)} Mbit/s`;
  return `${Math.round(perSecond / 1000)} kbit/s`;
}

export function bytes(count: number): string {
  if (count >= 1 << 20) return `${(count / (1 << 20)).toFixed(1)} MiB`;
  if (count >= 1 << 10) return `${(count / (1 << 10)).toFixed(1)} KiB`;
  return `${count} B`;
}

export function seconds(value: number): string {
  return value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(2)} s`;
}

export function percent(part: number, whole: number): string {
  if (whole <= 0) return "–";
  const value = (100 * part) / whole;
  return value === 0 ? "0 %" : value < 0.01 ? "< 0.01 %" : `${value.toFixed(2)} %`;
}

export function ago(iso: string, now: number, t: Translate): string {
  const past = Math.max(0, (now - Date.parse(iso)) / 1000);
  if (past < 5) return t("ago.now");
  if (past < 90) return t("ago.seconds", { n: Math.round(past) });
  if (past < 5400) return t("ago.minutes", { n: Math.round(past / 60) });
  if (past < 129_600) return t("ago.hours", { n: Math.round(past / 3600) });
  return t("ago.days", { n: Math.round(past / 86_400) });
}

export function when(iso: string, lang: Language): string {
  return new Date(iso).toLocaleString(lang === "zh" ? "zh-CN" : "en-GB", { dateStyle: "medium", timeStyle: "short" });
}

const CODECS: Readonly<Record<string, string>> = { H264: "H.264", H265: "H.265", PCMA: "G.711A", PCMU: "G.711U" };

export const codecName = (codec: string): string => CODECS[codec] ?? codec;
