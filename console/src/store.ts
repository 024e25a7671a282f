import { useEffect, useState } from "preact/hooks";

/** A value that components follow. Listeners are called after every change. */
export class Store<T extends object> {
  private readonly listeners = new Set<() => void>();

  constructor(private value: T) {}

  get(): T {
    return this.value;
  }

  set(change: Partial<T>): void {
    this.value = { ...this.value, ...change };
    for (const listener of [...this.listeners]) listener();
  }

  follow(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}

/** The store's value; the component renders anew when it changes. */
export function useStore<T extends object>(store: Store<T>): T {
  const [value, show] = useState(store.get());
  useEffect(() => {
    show(store.get());
    return store.follow(() => show(store.get()));
  }, [store]);
  return value;
}

/** localStorage and sessionStorage may be switched off; then settings last as long as the page. */
export const settings = {
  get(name: string, area: "local" | "session" = "local"): string | null {
    try {
      return (area === "local" ? localStorage : sessionStorage).getItem(`gbgw.${name}`);
    } catch {
      return null;
    }
  },
  set(name: string, value: string | null, area: "local" | "session" = "local"): void {
    try {
      const storage = area === "local" ? localStorage : sessionStorage;
      if (value === null) storage.removeItem(`gbgw.${name}`);
      else storage.setItem(`gbgw.${name}`, value);
    } catch {
      // Refused by the browser's settings: kept in memory only.
    }
  },
};
