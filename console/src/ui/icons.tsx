import type { JSX } from "preact";

const PATHS = {
  search: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM16.2 16.2 21 21",
  close: "M6 6l12 12M18 6 6 18",
  chevron: "M9 6l6 6-6 6",
  play: "M8 5.5v13l10.5-6.5z",
  pause: "M8 5v14M16 5v14",
  stop: "M7 7h10v10H7z",
  sound: "M4 10v4h3l5 4V6L7 10zM15.5 9a4.2 4.2 0 0 1 0 6M18 6.5a8 8 0 0 1 0 11",
  muted: "M4 10v4h3l5 4V6L7 10zM16 9.5l5 5M21 9.5l-5 5",
  camera: "M4 8h3.5L9 5.5h6L16.5 8H20v11H4zM12 10a3.2 3.2 0 1 0 0 6.4 3.2 3.2 0 0 0 0-6.4z",
  fullscreen: "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5",
  keyframe: "M4 6h16v12H4zM8 6v12M16 6v12M4 12h4M16 12h4",
  live: "M3.5 6.5h12v11h-12zM15.5 10.5l5-2.5v8l-5-2.5",
  recordings: "M12 4.5a7.5 7.5 0 1 0 7.5 7.5M12 8v4.2l2.8 1.8M19.5 4.5v4h-4",
  streams: "M3 12h3l2.5-7 4 14 3-9 1.5 2h4",
  devices: "M4 5h16v6H4zM4 13h16v6H4zM7.5 8h.01M7.5 16h.01M11 8h5M11 16h5",
  tokens: "M14.5 4a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11zM10.6 13.4 4 20M4 20v-3M6.5 17.5l2 2M15.5 8.5h.01",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M5.3 18.7l1.4-1.4M17.3 6.7l1.4-1.4",
  moon: "M20 14.2A8.2 8.2 0 0 1 9.8 4 8.2 8.2 0 1 0 20 14.2z",
  auto: "M3.5 5h17v11h-17zM9 20h6M12 16v4",
  exit: "M14 4H5v16h9M10.5 12H21M17.5 8.5 21 12l-3.5 3.5",
  refresh: "M19.5 9A8 8 0 0 0 5 7.6M4.5 15A8 8 0 0 0 19 16.4M5 3.5v4h4M19 20.5v-4h-4",
  trash: "M4.5 7h15M9.5 7V4.5h5V7M6.5 7l1 13h9l1-13M10 11v5.5M14 11v5.5",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  arrow: "M12 19V6M6.5 11.5 12 6l5.5 5.5",
  alert: "M12 4 2.8 19.5h18.4zM12 10v4.5M12 17.2h.01",
  info: "M12 3.5a8.5 8.5 0 1 0 0 17 8.5 8.5 0 0 0 0-17zM12 11v5.5M12 7.7h.01",
  copy: "M9 9h10v11H9zM15 9V4.5H5V15h4",
  eye: "M2.5 12S6 5.5 12 5.5 21.5 12 21.5 12 18 18.5 12 18.5 2.5 12 2.5 12zM12 9.2a2.8 2.8 0 1 0 0 5.6 2.8 2.8 0 0 0 0-5.6z",
  steps: "M5 5h.01M5 12h.01M5 19h.01M9 5h11M9 12h11M9 19h11",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, size = 18 }: { name: IconName; size?: number }): JSX.Element {
  return (
    <svg class={`icon icon-${name}`} viewBox="0 0 24 24" width={size} height={size} aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}

export function Logo({ size = 28 }: { size?: number }): JSX.Element {
  return (
    <svg class="logo" viewBox="0 0 32 32" width={size} height={size} aria-hidden="true" focusable="false">
      <rect width="32" height="32" rx="8" class="logo-ground" />
      <path d="M16 6.2a9.8 9.8 0 1 0 9.8 9.8" class="logo-ring" />
      <path d="M13.2 11.6v8.8l7.4-4.4z" class="logo-play" />
      <circle cx="23.4" cy="8.6" r="2.4" class="logo-dot" />
    </svg>
  );
}
