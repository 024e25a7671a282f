/** Folder the console is served from, with its trailing slash: "/" or "/prefix/". */
export function baseOf(documentUri: string): string {
  return new URL(".", documentUri.replace(/[?#].*$/, "")).href;
}

/**
 * Put a URL of the gateway's API below `base`, with the scheme that `base` has for this kind of URL.
 *
 * The API names absolute URLs by `http.public_url` or the Host header, which behind a proxy need not be what this page
 * was opened by; and the CSP only lets us talk to our own origin.
 */
export function rebase(url: string, base: string): string {
  const given = new URL(url, base);
  const at = given.pathname.indexOf("/live/");
  const below = at >= 0 ? given.pathname.slice(at + 1) : given.pathname.replace(/^\//, "");
  const result = new URL(below + given.search, base);
  if (given.protocol === "ws:" || given.protocol === "wss:") {
    result.protocol = result.protocol === "https:" ? "wss:" : "ws:";
  }
  return result.href;
}

/** Set query parameters of a URL, keeping the others. */
export function withQuery(url: string, values: Record<string, string>): string {
  const result = new URL(url);
  for (const [name, value] of Object.entries(values)) result.searchParams.set(name, value);
  return result.href;
}
