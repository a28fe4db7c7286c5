// The waiting page: real steps in plain words, and a Stop that works at any moment.
'use strict';
(() => {
  const texts = document.getElementById('gpuhub-texts').dataset;
  const bar = document.getElementById('progress-bar');
  const message = document.getElementById('progress-message');
  const log = document.getElementById('progress-log');
  const stop = document.getElementById('stop-server-btn');
  const again = document.getElementById('gpuhub-again');
  let stopped = false;

  function step(event) {
    if (typeof event.progress === 'number') {
      bar.setAttribute('aria-valuenow', String(event.progress));
      bar.style.width = `${event.progress}%`;
    }
    const text = event.message;
    if (text && !event.failed) {
      message.textContent = text;
      const entry = document.createElement('li');
      entry.textContent = `${new Date().toLocaleTimeString()}  ${text}`;
      log.append(entry);
    }
  }

  function failed(event) {
    bar.classList.add('bg-danger');
    bar.classList.remove('progress-bar-animated', 'progress-bar-striped');
    message.hidden = true;
    const place = document.getElementById('gpuhub-failed');
    if (event.html_message) place.innerHTML = event.html_message;
    else place.textContent = event.message || texts.failed;
    place.hidden = false;
    stop.hidden = true;
    again.hidden = false;
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
    const url = `${texts.serverApi}?_xsrf=${encodeURIComponent(window.jhdata.xsrf_token)}`;
    // A server that is only just being asked for cannot be stopped yet: ask until it can.
    for (let attempt = 0; attempt < 60; attempt++) {
      try {
        const answer = await fetch(url, { method: 'DELETE' });
        if (answer.ok || answer.status === 404) {
          source.close();
          message.textContent = texts.stopped;
          window.location.assign(texts.home);
          return;
        }
      } catch {
        // the hub is being restarted: ask again
      }
      await new Promise(done => setTimeout(done, 1000));
    }
    message.textContent = texts.notStopped;
    stop.disabled = false;
    stopped = false;
  });
  window._jupyterhub_page_loaded = true;
})();
