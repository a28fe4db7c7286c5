/**
 * Numbers and times as people read them. Every word goes through the translator.
 */
import type { TranslationBundle } from '@jupyterlab/translation';
import type { IGpu } from './shown';

const GB = 1e9;
const MB = 1e6;
const KB = 1e3;

/** "12.4 GB"; what is below 0.1 GB in MB or kB. */
export function size(bytes: number, trans: TranslationBundle): string {
  if (bytes >= GB / 10) {
    return trans.__('%1 GB', (bytes / GB).toFixed(1));
  }
  return bytes >= MB / 10
    ? trans.__('%1 MB', (bytes / MB).toFixed(1))
    : trans.__('%1 kB', Math.round(bytes / KB));
}

/** "0.8 of 1.2 GB": both in the unit of the larger one. */
export function sizePair(part: number, whole: number, trans: TranslationBundle): string {
  if (whole >= GB / 10) {
    return trans.__('%1 of %2 GB', (part / GB).toFixed(1), (whole / GB).toFixed(1));
  }
  return whole >= MB / 10
    ? trans.__('%1 of %2 MB', (part / MB).toFixed(1), (whole / MB).toFixed(1))
    : trans.__('%1 of %2 kB', Math.round(part / KB), Math.round(whole / KB));
}

export function percent(value: number, trans: TranslationBundle): string {
  return trans.__('%1 %', Math.round(value));
}

/** Time left: "4:31", from an hour on "1:04:31". Never below zero. */
export function countdown(ms: number): string {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60), seconds % 60];
  const tail = `${String(s).padStart(2, '0')}`;
  return h > 0 ? `${h}:${String(m).padStart(2, '0')}:${tail}` : `${m}:${tail}`;
}

/** Time held, in hours and minutes: "0:42". */
export function held(ms: number): string {
  const minutes = Math.max(0, Math.floor(ms / 60_000));
  return `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, '0')}`;
}

/** "14:30"; on another day "27 Nov, 14:30". */
export function clock(at: number, now: number, locale?: string): string {
  const then = new Date(at);
  const sameDay = then.toDateString() === new Date(now).toDateString();
  const day: Intl.DateTimeFormatOptions = sameDay ? {} : { day: 'numeric', month: 'short' };
  return new Intl.DateTimeFormat(locale ?? 'en-GB', {
    ...day,
    hour: '2-digit',
    minute: '2-digit',
    hour12: false
  }).format(then);
}

/** "Monday" within the next six days, else "27 Nov". */
export function day(at: number, now: number, locale?: string): string {
  const soon = at - now < 6 * 24 * 3600 * 1000;
  const form: Intl.DateTimeFormatOptions = soon
    ? { weekday: 'long' }
    : { day: 'numeric', month: 'short' };
  return new Intl.DateTimeFormat(locale ?? 'en-GB', form).format(new Date(at));
}

/** "in 4 min", "in 2 h 5 min", "in a moment". */
export function fromNow(ms: number, trans: TranslationBundle): string {
  const minutes = Math.round(ms / 60_000);
  if (minutes < 1) {
    return trans.__('in a moment');
  }
  if (minutes < 60) {
    return trans.__('in %1 min', minutes);
  }
  return minutes % 60 === 0
    ? trans.__('in %1 h', minutes / 60)
    : trans.__('in %1 h %2 min', Math.floor(minutes / 60), minutes % 60);
}

/** "about 6 min", "any moment now", for a wait. */
export function about(ms: number, trans: TranslationBundle): string {
  if (ms < 15_000) {
    return trans.__('any moment now');
  }
  const minutes = Math.max(1, Math.ceil(ms / 60_000));
  if (minutes < 60) {
    return trans.__('about %1 min', minutes);
  }
  return trans.__('about %1 h', Math.round(minutes / 60));
}

/** "42 min", "3 h 5 min", for a span that has passed. */
export function span(ms: number, trans: TranslationBundle): string {
  const minutes = Math.max(0, Math.floor(ms / 60_000));
  if (minutes < 1) {
    return trans.__('less than a minute');
  }
  if (minutes < 60) {
    return trans.__('%1 min', minutes);
  }
  return minutes % 60 === 0
    ? trans.__('%1 h', minutes / 60)
    : trans.__('%1 h %2 min', Math.floor(minutes / 60), minutes % 60);
}

/** How a GPU is called: "H100", "2 × H100", "simulated GPU". A simulated one always says so. */
export function gpuName(gpu: IGpu, trans: TranslationBundle): string {
  let one = gpu.model || trans.__('GPU');
  if (gpu.simulated) {
    const index = /\b(\d+)$/.exec(gpu.model)?.[1];
    const plain = /^simulated(\s+GPU)?(\s+\d+)?$/i.test(gpu.model.trim());
    if (!plain) {
      one = trans.__('%1 (simulated)', gpu.model.replace(/\s*\(?simulated\)?\s*/i, ' ').trim());
    } else if (index !== undefined && gpu.count === 1) {
      one = trans.__('simulated GPU %1', index);
    } else {
      one = trans.__('simulated GPU');
    }
  }
  return gpu.count > 1 ? trans.__('%1 × %2', gpu.count, one) : one;
}

/** "simulated GPU, 8.0 GB" for a list of kinds. */
export function gpuWithMemory(gpu: IGpu, trans: TranslationBundle): string {
  const name = gpuName(gpu, trans);
  return gpu.memoryBytes > 0 ? trans.__('%1, %2', name, size(gpu.memoryBytes, trans)) : name;
}
