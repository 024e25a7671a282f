import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { type ApiError, toApiError } from "../api/client";

export interface Polled<T> {
  data: T | null;
  error: ApiError | null;
  reload: () => void;
}

/** Read again every `everyMs` while the page is seen, and whenever `trigger` changes. The last good answer stays. */
export function usePolled<T>(read: () => Promise<T>, everyMs: number, trigger: unknown = null): Polled<T> {
  const [state, show] = useState<{ data: T | null; error: ApiError | null }>({ data: null, error: null });
  const latest = useRef(read);
  latest.current = read;
  const turn = useRef(0);
  const reload = useCallback(() => {
    const mine = ++turn.current;
    latest
      .current()
      .then((data) => mine === turn.current && show({ data, error: null }))
      .catch((error: unknown) => {
        if (mine === turn.current) show((old) => ({ data: old.data, error: toApiError(error) }));
      });
  }, []);
  useEffect(() => {
    reload();
    const timer = window.setInterval(() => !document.hidden && reload(), everyMs);
    return () => {
      clearInterval(timer);
      turn.current += 1;
    };
  }, [everyMs]);
  const first = useRef(true);
  useEffect(() => {
    if (first.current) first.current = false;
    else reload();
  }, [trigger]);
  return { ...state, reload };
}

/** The time, anew every `everyMs`. */
export function useNow(everyMs: number): number {
  const [now, show] = useState(Date.now());
  useEffect(() => {
    const timer = window.setInterval(() => show(Date.now()), everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
  return now;
}
