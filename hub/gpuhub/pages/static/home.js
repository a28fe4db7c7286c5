// A person's own page at the hub: the state of the server, Open, Start and Stop.
'use strict';
(() => {
  const PAUSE_MS = 1000;
  const texts = document.getElementById('gpuhub-texts').dataset;
  const state = document.getElementById('gpuhub-state');
  const start = document.getElementById('start');
  const stop = document.getElementById('stop');
  const headers = { Accept: 'application/json', 'X-XSRFToken': window.jhdata.xsrf_token };
  const pause = () => new Promise(done => setTimeout(done, PAUSE_MS));

  async function gone() {
    for (;;) {
      await pause();
      try {
        const answer = await fetch(texts.userApi, { headers });
        if (answer.ok && !('' in (await answer.json()).servers)) return;
        if (answer.status === 403) return window.location.reload(); // signed out meanwhile
      } catch {
        // the hub is being restarted: ask again
      }
    }
  }

  function isStopping() {
    state.textContent = texts.stopping;
    stop.disabled = true;
    start.hidden = true;
  }

  async function untilStopped() {
    isStopping();
    await gone();
    state.textContent = texts.stopped;
    document.getElementById('gpuhub-about').textContent = texts.safe;
    stop.hidden = true;
    start.textContent = texts.start;
    start.href = texts.spawn;
    start.hidden = false;
    start.focus();
  }

  stop.addEventListener('click', async () => {
    isStopping();
    let taken = false;
    try {
      const answer = await fetch(texts.serverApi, { method: 'DELETE', headers });
      taken = answer.ok || answer.status === 404;
    } catch {
      // said below
    }
    if (taken) return untilStopped();
    state.textContent = texts.notStopped;
    stop.disabled = false;
    start.hidden = false;
  });
  if (texts.pending === 'stop') untilStopped();
  window._jupyterhub_page_loaded = true;
})();
