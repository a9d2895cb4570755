// What the pages do beside htmx: times in the reader's zone, copy buttons, and the title of a page that changes.
"use strict";
(() => {
  const MOMENT = new Intl.DateTimeFormat(undefined, {dateStyle: "medium", timeStyle: "medium"});

  function localizeTimes() {
    for (const time of document.querySelectorAll("time[datetime]")) {
      const at = new Date(time.dateTime);
      if (Number.isNaN(at.valueOf())) continue;
      const words = MOMENT.format(at);
      if (!time.hasAttribute("data-full")) time.title = words;
      else if (time.textContent !== words) time.textContent = words;
    }
  }

  function showCopyButtons() {
    if (!navigator.clipboard) return;
    for (const button of document.querySelectorAll("button[data-copy], button[data-copy-output]")) button.hidden = false;
  }

  function updateTitle() {
    const live = document.querySelector("#live [data-title]");
    if (live && document.title !== live.dataset.title) document.title = live.dataset.title;
  }

  async function readOutput(path) {
    const answer = await fetch(path);
    if (!answer.ok) throw new Error(answer.statusText);
    return (await answer.json()).output || "";
  }

  async function copy(button) {
    const {copy: text, copyOutput: path} = button.dataset;
    const words = button.textContent;
    try {
      await navigator.clipboard.writeText(path ? await readOutput(path) : text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not copied";
    }
    setTimeout(() => { button.textContent = words; }, 2000);
  }

  function refresh() {
    localizeTimes();
    showCopyButtons();
    updateTitle();
  }

  document.addEventListener("DOMContentLoaded", () => {
    refresh();
    const live = document.getElementById("live");
    if (live) new MutationObserver(refresh).observe(live, {childList: true, subtree: true});
  });
  document.addEventListener("click", event => {
    const button = event.target.closest("button[data-copy], button[data-copy-output]");
    if (button) copy(button);
  });
})();
