// Colours of the page and of the plots. Exported pictures are always light, on white, for papers.

const THEMES = {
  light: {
    ink: "#1b1f24", muted: "#66707b", line: "#d9dde2", grid: "#eceef1", panel: "#ffffff", empty: "#f3f4f6",
    accent: "#0b6bcb", signal: "#0b6bcb", noise: "#aab4bf", mark: "#d6249f", curve: "#c2410c", second: "#15803d",
    faint: "#c3cad2",
  },
  dark: {
    ink: "#e6e9ec", muted: "#97a1ac", line: "#363d46", grid: "#232932", panel: "#161a20", empty: "#1c2129",
    accent: "#6cb6ff", signal: "#6cb6ff", noise: "#5b6672", mark: "#ff6ad5", curve: "#ff9d5c", second: "#5fd68b",
    faint: "#4a545f",
  },
};
const SCALE = "Viridis";
const DIVERGING = [[0, "#2166ac"], [0.25, "#92c5de"], [0.5, "#f7f7f7"], [0.75, "#f4a582"], [1, "#b2182b"]];
const DIVERGING_DARK = [[0, "#4393c3"], [0.25, "#2b5a7c"], [0.5, "#262b33"], [0.75, "#8a4634"], [1, "#e0705a"]];
const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';

const systemDark = window.matchMedia("(prefers-color-scheme: dark)");
let themeChoice = "auto";

function themeName() {
  return themeChoice === "auto" ? (systemDark.matches ? "dark" : "light") : themeChoice;
}

function applyTheme() {
  document.documentElement.dataset.theme = themeName();
  const button = document.getElementById("theme");
  button.textContent = { auto: "◐ auto", light: "☀ light", dark: "☾ dark" }[themeChoice];
}

function onThemeChange(redraw) {
  document.getElementById("theme").addEventListener("click", () => {
    const choices = ["auto", "light", "dark"];
    themeChoice = choices[(choices.indexOf(themeChoice) + 1) % choices.length];
    applyTheme();
    redraw();
  });
  systemDark.addEventListener("change", () => {
    applyTheme();
    redraw();
  });
}

/** An axis without decoration that carries no information. */
function axis(colours, extra = {}) {
  return {
    color: colours.muted, gridcolor: colours.grid, linecolor: colours.line, zeroline: false, showline: true,
    tickcolor: colours.line, ticks: "outside", ticklen: 3, automargin: true, fixedrange: false, ...extra,
  };
}

function baseLayout(colours, extra = {}) {
  return {
    paper_bgcolor: colours.panel, plot_bgcolor: colours.panel, font: { family: FONT, size: 12, color: colours.ink },
    margin: { l: 8, r: 8, t: 8, b: 8 }, showlegend: false, hovermode: "closest",
    hoverlabel: { bgcolor: colours.panel, bordercolor: colours.line, font: { color: colours.ink, family: FONT, size: 12 }, align: "left" },
    dragmode: "zoom", ...extra,
  };
}
