// The waiting page: real steps in plain words, and a Stop that works at any moment.
'use strict';
(() => {
  const TRIES = 60;
  const PAUSE_MS = 1000;
  const texts = document.getElementById('gpuhub-texts').dataset;
  const progress = document.getElementById('gpuhub-progress');
  const bar = document.getElementById('progress-bar');
  const message = document.getElementById('progress-message');
  const log = document.getElementById('progress-log');
  const stop = document.getElementById('stop-server-btn');
  const again = document.getElementById('gpuhub-again');
  let stopped = false;

  function step(event) {
    if (typeof event.progress === 'number') {
      progress.setAttribute('aria-valuenow', String(event.progress));
      bar.style.width = `${event.progress}%`;
    }
    const last = log.lastElementChild;
    // At 0 the hub says in its own words what the first step says already.
    if (!event.message || !event.progress || event.failed || event.ready) return;
    if (last?.textContent === event.message) return;
    if (event.again && last) {
      // The same step, going on: only its time has changed.
      last.textContent = event.message;
      return;
    }
    last?.classList.remove('gpuhub-step-now');
    const entry = document.createElement('li');
    entry.className = 'gpuhub-step-now';
    entry.textContent = event.message;
    log.append(entry);
  }

  function failed(event) {
    bar.classList.add('bg-danger');
    bar.classList.remove('progress-bar-animated', 'progress-bar-striped');
    log.lastElementChild?.classList.replace('gpuhub-step-now', 'gpuhub-step-failed');
    document.getElementById('gpuhub-heading').textContent = texts.notStarted;
    const place = document.getElementById('gpuhub-failed');
    if (event.html_message) place.innerHTML = event.html_message;
    else place.textContent = event.message || texts.failed;
    place.hidden = false;
    stop.hidden = true;
    again.hidden = false;
    again.focus();
  }

  const source = new EventSource(texts.progressUrl);
  source.onmessage = message_event => {
    const event = JSON.parse(message_event.data);
    if (stopped) return;
    step(event);
    if (event.ready) {
      source.close();
      window.location.reload();
    } else if (event.failed) {
      source.close();
      failed(event);
    }
  };

  stop.addEventListener('click', async () => {
    stopped = true;
    stop.disabled = true;
    message.textContent = texts.stopping;
    const headers = { Accept: 'application/json', 'X-XSRFToken': window.jhdata.xsrf_token };
    // A server that is only just being asked for cannot be stopped yet: ask until it can.
    for (let attempt = 0; attempt < TRIES; attempt++) {
      try {
        const answer = await fetch(texts.serverApi, { method: 'DELETE', headers });
        if (answer.ok || answer.status === 404) {
          source.close();
          message.textContent = texts.stopped;
          window.location.assign(texts.home);
          return;
        }
      } catch {
        // the hub is being restarted: ask again
      }
      await new Promise(done => setTimeout(done, PAUSE_MS));
    }
    message.textContent = texts.notStopped;
    stop.disabled = false;
    stopped = false;
  });
  window._jupyterhub_page_loaded = true;
})();
