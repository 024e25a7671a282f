import type { JSX } from "preact";
import { setLanguage, useWords } from "../i18n";
import { useStore } from "../store";
import { nextTheme, theme } from "../theme";
import { IconButton } from "./parts";

export function Preferences(): JSX.Element {
  const { t, lang } = useWords();
  const { current } = useStore(theme);
  return (
    <>
      <button
        type="button"
        class="icon-button language"
        title={t("nav.language")}
        aria-label={t("nav.language")}
        onClick={() => setLanguage(lang === "zh" ? "en" : "zh")}
        data-testid="language"
      >
        {lang === "zh" ? "EN" : "中"}
      </button>
      <IconButton
        icon={current === "auto" ? "auto" : current === "light" ? "sun" : "moon"}
        label={t("nav.theme", { theme: t(`theme.${current}`) })}
        onClick={nextTheme}
        testId="theme"
      />
    </>
  );
}
