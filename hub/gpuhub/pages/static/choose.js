// The choice page: the live line about GPUs, and the options of the chosen environment.
'use strict';
(() => {
  const REFRESH_MS = 10000;
  const texts = document.getElementById('gpuhub-texts').dataset;
  const line = document.getElementById('gpuhub-now');
  const fill = (text, values) => text.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));

  function sentence(now) {
    if (!now.ok) return texts.unknown;
    if (!now.total) return texts.none;
    const parts = [fill(now.simulated ? texts.freeSimulated : texts.free, now)];
    const waiting = now.waiting === 0 ? texts['waiting-0'] : now.waiting === 1 ? texts['waiting-1'] : texts.waitingN;
    parts.push(fill(waiting, now));
    if (typeof now.allowed === 'number') {
      parts.push(fill(now.allowed === 1 ? texts['allowed-1'] : texts.allowedN, now));
    }
    return parts.join(' · ');
  }

  async function refresh() {
    if (document.hidden) return;
    let now = { ok: false };
    try {
      const answer = await fetch(line.dataset.url, { headers: { Accept: 'application/json' } });
      if (answer.ok) now = await answer.json();
    } catch {
      // said as "does not answer"
    }
    const text = sentence(now);
    // Said aloud only when it changed.
    if (line.textContent !== text) line.textContent = text;
    line.dataset.free = !now.ok || !now.total ? 'unknown' : now.free > 0 ? 'some' : 'none';
  }

  function showOptions() {
    const chosen = document.querySelector('input[name="profile"]:checked');
    for (const group of document.querySelectorAll('.gpuhub-options')) {
      group.hidden = !chosen || group.dataset.profile !== chosen.value;
    }
  }

  for (const pick of document.querySelectorAll('input[name="profile"]')) {
    pick.addEventListener('change', showOptions);
  }
  const form = document.getElementById('spawn_form');
  form.addEventListener('submit', () => {
    form.querySelector('button[type="submit"]').disabled = true;
  });
  window.addEventListener('pageshow', () => {
    form.querySelector('button[type="submit"]').disabled = false;
    showOptions();
  });
  document.addEventListener('visibilitychange', refresh);
  refresh();
  setInterval(refresh, REFRESH_MS);
})();
