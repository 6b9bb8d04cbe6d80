"use strict";
// Asks the server for new content every few seconds, and keeps what the reader has chosen.
(() => {
  const PERIOD = 2000; // milliseconds
  const status = document.getElementById("live");
  const say = (text, isLost = false) => {
    if (status.textContent !== text) status.textContent = text;
    status.classList.toggle("lost", isLost);
  };
  let tag = document.getElementById("content").dataset.tag;

  async function ask() {
    try {
      const answer = await fetch("content", { headers: { "If-None-Match": tag }, cache: "no-store" });
      if (answer.status === 200) {
        tag = answer.headers.get("ETag");
        replace(await answer.text());
      }
      if (answer.status === 200 || answer.status === 304) {
        const problem = answer.headers.get("X-Problem");
        if (problem) say(`The run folder cannot be read: ${decodeURIComponent(problem)}`, true);
        else say("Live: this page follows the run.");
      }
    } catch {
      say("pliant watch has ended, or cannot be reached: this page shows what it last sent.", true);
    }
    setTimeout(ask, PERIOD);
  }

  function replace(html) {
    const chosen = controls.remember();
    const focused = pathOf(document.activeElement);
    const top = scrollY;
    document.getElementById("content").innerHTML = html;
    controls.begin();
    controls.restore(chosen);
    controls.start();
    scrollTo(0, top);
    if (focused) document.querySelector(focused)?.focus({ preventScroll: true });
  }

  // A selector of the control that has the focus.
  function pathOf(element) {
    const section = element?.closest("section.run");
    if (!section) return null;
    for (const name of ["shows", "option", "menu", "find", "set"]) {
      const value = element.dataset[name];
      if (value !== undefined) return `#${section.id} [data-${name}="${CSS.escape(value)}"]`;
    }
    return null;
  }

  setTimeout(ask, PERIOD);
})();
