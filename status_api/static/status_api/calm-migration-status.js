// How far a customer's CRM history has been brought over: docs/badge.md.

const TEXT = { // English, Indonesian, mark of a server's state
	not_started: ["Not started", "Belum dimulai", "–"],
	scheduled: ["Scheduled", "Dijadwalkan", "…"],
	in_progress: ["In progress", "Berjalan", "↻"],
	paused: ["Paused", "Dijeda", "II"],
	partial: ["Partly done", "Sebagian", "½"],
	completed: ["Completed", "Selesai", "✓"],
	delayed: ["Delayed", "Tertunda", "!"],
	loading: ["Loading…", "Memuat…"],
	error: ["Unavailable", "Belum tersedia"],
	lang: ["en", "id"],
	name: ["CRM history", "Riwayat CRM"],
	details: ["Details", "Rincian"],
	eta: ["Expected in #", "Diperkirakan dalam #"],
	late: ["May be out of date.", "Mungkin belum terbaru."],
};

const sheet = new CSSStyleSheet();
sheet.replaceSync(`
:host {
	--calm-back: light-dark(#fff, #122); --calm-line: light-dark(#cdd, #345); color: light-dark(#234, #dee); color-scheme: light dark;
	display: inline-block; width: 19rem; max-width: 100%; font-size: .875rem;
}
:host([mode=full]) {display: block; width: auto}
:host([data-state=hidden]), :host([hidden]), .unknown :is(.icon, .percent, .toggle), .full .toggle {display: none !important}
.box, [popover] {box-sizing: border-box; border: 1px solid var(--calm-line); border-radius: 1rem; background: var(--calm-back); color: inherit}
.box {
	--tone: light-dark(#567, #abb); anchor-name: --box; min-height: 2rem; padding: .125rem .5rem;
	display: flex; flex-flow: wrap; align-items: center; gap: .25rem .5rem; overflow-wrap: anywhere;
}
.in_progress {--tone: light-dark(#15c, #8bf)}
.paused, .partial, .delayed {--tone: light-dark(#850, #fb5)}
.completed {--tone: light-dark(#174, #6d9)}
.name {flex: 100%}
.icon {width: 1.25rem; border-radius: 1rem; background: var(--calm-tone, var(--tone)); color: var(--calm-back); font: bold .75rem/1.25rem system-ui; text-align: center}
.label {flex: 1 7.5rem; font-weight: 600}
.bar {flex: 0 2.75rem; border-radius: 1rem; overflow: hidden; background: var(--calm-line)}
.fill {width: 0; border-top: .375rem solid var(--calm-tone, var(--tone))}
.percent {min-width: 2.5rem; text-align: end}
.toggle {width: 1.5rem; height: 1.5rem; padding: 0; border: 0; background: none; color: inherit}
[popover] {inset: auto; width: 19rem; margin: .25rem 0; padding: .75rem; position-anchor: --box; position-area: end span-end}
.live {position: absolute; font-size: 1px; opacity: 0}
.full {align-content: start; gap: .5rem; min-height: 10rem; padding: .75rem 1rem}
.full :is(.bar, .details) {flex: 100%; order: 1}
`);

// The status in an answer; throws where there is none.
function parse(text) {
	const status = text.length < 9000 && JSON.parse(text);
	const { visible, state, message, poll_after, percent, eta } = status;
	if (visible === false) return { visible };
	const types = [visible, state, message, poll_after, percent ?? 0].map((value) => typeof value).join();
	if (types !== "boolean,string,string,number,number" || percent < 0 || percent > 100) throw TypeError();
	if (eta && !(Date.parse(eta.earliest) <= Date.parse(eta.latest))) throw TypeError();
	return status;
}

// "Expected in 2–3 hours"; nothing where that has passed.
function words({ earliest, latest }, lang, text) {
	const [low, high] = [earliest, latest].map((time) => (Date.parse(time) - Date.now()) / 60000);
	const [unit, size] = high < 90 ? ["minute", 1] : high < 2880 ? ["hour", 60] : ["day", 1440];
	const [from, to] = [low, high].map((minutes) => Math.max(1, Math.round(minutes / size)));
	const number = new Intl.NumberFormat(lang, { style: "unit", unit, unitDisplay: "long" });
	return high > 0 ? text.replace("#", from < to ? number.formatRange(from, to) : number.format(to)) : "";
}

function make(part, ...inside) {
	const element = document.createElement(part === "toggle" ? "button" : "div");
	element.part = element.className = part;
	element.append(...inside);
	return element;
}

function badge(host) {
	const root = host.attachShadow({ mode: "open" });
	root.adoptedStyleSheets = [sheet];
	root.append(
		make("box", make("name"), make("icon"), make("label"), make("bar", make("fill")), make("percent"), make("toggle", "▾"), make("details"), make("live")),
	);
	const [box, name, icon, label, bar, fill, percent, toggle, details, live] = root.querySelectorAll("*");
	box.role = "group";
	bar.role = "progressbar";
	live.role = "status";
	icon.ariaHidden = percent.ariaHidden = "true";
	toggle.popoverTargetElement = details;

	let status, etag; // of the last good answer
	let failures = 0; // since then
	let request, timer, notBefore;

	async function ask() {
		const src = host.getAttribute("src");
		if (!src || document.hidden || request || status?.state === "completed" || performance.now() < notBefore) return;
		clearTimeout(timer);
		const mine = (request = new AbortController());
		const limit = setTimeout(() => mine.abort(), 1e4);
		const headers = { "Accept-Language": say("lang"), ...(etag && { "If-None-Match": etag }) };
		let answer, found;
		try {
			answer = await fetch(src, { headers, credentials: "include", signal: mine.signal });
			if (answer.ok) found = parse(await answer.text());
			else if (answer.status === 304) found = status;
			else if (/40[134]/.test(answer.status)) found = { visible: false };
		} catch {} // no network, too slow, not a status
		clearTimeout(limit);
		if (mine !== request) return; // stopped meanwhile
		request = null;
		timer = setTimeout(ask, 1000 * wait(found, answer));
		show();
	}

	// Seconds to the next request.
	function wait(found, answer) {
		if (found) {
			if (found !== status) etag = answer.headers.get("ETag");
			status = found;
			failures = 0;
			return Math.min(3600, Math.max(5, status.poll_after ?? 300));
		}
		const after = answer?.headers.get("Retry-After");
		const asked = Math.min(3600, Math.max(0, +after || (Date.parse(after) - Date.now()) / 1000 || 0));
		notBefore = performance.now() + asked * 1000;
		return asked + Math.min(300, 5 * 2 ** failures++) * (0.5 + Math.random() / 2);
	}

	const say = (key) => TEXT[key]?.[+host.matches(":lang(id)")];

	function show() {
		const mark = TEXT[status?.state]?.[2];
		const shown = !status ? (failures ? "error" : "loading") : !status.visible ? "hidden" : mark ? status.state : "unknown";
		const known = mark ? status : {};
		const full = host.matches("[mode=full]");
		box.className = `box ${shown} ${full ? "full" : ""}`;
		box.ariaLabel = bar.ariaLabel = name.textContent = say("name");
		icon.textContent = mark ?? "…";
		label.textContent = say(shown) ?? status.message;
		bar.hidden = known.percent == null && shown !== "loading";
		bar.ariaValueNow = known.percent;
		percent.textContent = fill.style.width = bar.ariaValueNow && `${known.percent}%`;
		name.hidden = !full;
		toggle.style.visibility = mark ? "" : "hidden";
		toggle.ariaLabel = say("details");
		details.popover = full ? null : "auto";
		details.replaceChildren(
			make("message", known.message ?? ""),
			make("eta", known.eta ? words(known.eta, say("lang"), say("eta")) : ""),
			make("hint", mark && (failures || status.stale) ? say("late") : ""),
		);
		const before = host.dataset.state;
		if (shown === before) return;
		host.dataset.state = shown;
		if (TEXT[before]?.[2]) live.textContent = `${say("name")}: ${label.textContent}`;
		host.dispatchEvent(new Event("calm-state"));
	}

	// It came, went, or changed.
	return (anew) => {
		const here = host.isConnected;
		document[here ? "addEventListener" : "removeEventListener"]("visibilitychange", ask);
		if (anew || !here) {
			clearTimeout(timer);
			request = request?.abort();
		}
		if (anew) status = etag = failures = notBefore = 0;
		show();
		if (here && anew !== false) ask();
	};
}

customElements.define("calm-migration-status", class extends HTMLElement {
	static observedAttributes = ["src", "mode"];
	#changed = badge(this);
	connectedCallback() { this.#changed(); }
	disconnectedCallback() { this.#changed(); }
	attributeChangedCallback(name) { this.#changed(name === "src"); }
});
