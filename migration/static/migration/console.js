// Keeps a page's figures fresh: elements with `data-live` are replaced by those of the same page asked for again, every so many
// seconds as the first `data-live` with a number says. Without it the page is the same, only as old as its last load.
"use strict";

const clock = document.querySelector('[data-live]:not([data-live=""])');

async function refresh() {
    if (document.hidden) {
        return;
    }
    const answer = await fetch(location.href, { credentials: "same-origin" });
    if (!answer.ok || answer.redirected) {
        throw new Error(`the page answers ${answer.status}`);
    }
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    const state = (page) => page.querySelector("[data-state]")?.dataset.state;
    if (state(fresh) !== state(document)) {
        location.reload(); // other parts appear with another state
        return;
    }
    for (const part of document.querySelectorAll("[data-live]")) {
        const newer = fresh.getElementById(part.id);
        if (newer && !part.contains(document.activeElement) && newer.innerHTML !== part.innerHTML) {
            part.replaceChildren(...newer.childNodes);
        }
    }
}

if (clock) {
    const note = (isHidden) => document.querySelector(".not-fresh")?.toggleAttribute("hidden", isHidden);
    setInterval(() => refresh().then(() => note(true), () => note(false)), 1000 * Number(clock.dataset.live));
}
