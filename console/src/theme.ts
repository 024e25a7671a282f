import { Store, settings } from "./store";

export type Theme = "auto" | "light" | "dark";

const saved = settings.get("theme");
const system = matchMedia("(prefers-color-scheme: dark)");
export const theme = new Store<{ current: Theme }>({ current: saved === "light" || saved === "dark" ? saved : "auto" });

export function applyTheme(): void {
  const { current } = theme.get();
  document.documentElement.dataset["theme"] = current === "auto" ? (system.matches ? "dark" : "light") : current;
}

system.addEventListener("change", applyTheme);

export function nextTheme(): void {
  const order: Theme[] = ["auto", "light", "dark"];
  const current = order[(order.indexOf(theme.get().current) + 1) % order.length]!;
  settings.set("theme", current === "auto" ? null : current);
  theme.set({ current });
  applyTheme();
}
