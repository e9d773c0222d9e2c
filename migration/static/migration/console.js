// Three conveniences; without this file every page works all the same.
//
// Keeps a page's figures fresh: elements with `data-live` are replaced by those of the same page asked for again, every so many
// seconds as the first `data-live` with a number says. Gives the cells of a
// list their column's name, for narrow screens. Closes a list's open filter where that is what people expect.
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

const closeFilters = (except) => {
    for (const filter of document.querySelectorAll(".filter[open]")) {
        if (!filter.contains(except)) {
            filter.open = false;
        }
    }
};
document.addEventListener("click", (event) => closeFilters(event.target));
document.addEventListener("keydown", (event) => {
    const open = event.key === "Escape" && document.querySelector(".filter[open]");
    if (open) {
        closeFilters(null);
        open.querySelector("summary").focus();
    }
});

const list = document.getElementById("result_list");
if (list) {
    const names = [...list.tHead.rows[0].cells].map((cell) => cell.querySelector(".text")?.textContent.trim());
    for (const row of list.tBodies[0].rows) {
        [...row.cells].forEach((cell, place) => (cell.dataset.label = names[place]));
    }
    list.classList.add("labelled");
}
