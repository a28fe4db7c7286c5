/**
 * The sentences of the switch: what it shows, what its tooltip says, what a screen reader hears.
 *
 * Whole sentences for the translator; facts that stand side by side are separate texts, and the
 * component sets the dots between them.
 */
import type { TranslationBundle } from '@jupyterlab/translation';
import { about, clock, countdown, fromNow, gpuName, percent, size, sizePair } from './format';
import type { EndReason, IAside, IPoolShown, ISavedState, Room, SwitchState } from './shown';

/** "2nd in line". English has four endings; each is a text of its own, so that any language can say it. */
export function inLine(place: number, trans: TranslationBundle): string {
  if (place <= 1) {
    return trans.__('next in line');
  }
  switch (new Intl.PluralRules('en', { type: 'ordinal' }).select(place)) {
    case 'one':
      return trans.__('%1st in line', place);
    case 'two':
      return trans.__('%1nd in line', place);
    case 'few':
      return trans.__('%1rd in line', place);
    default:
      return trans.__('%1th in line', place);
  }
}

export function freeText(pools: IPoolShown[], trans: TranslationBundle): string {
  const free = pools.reduce((sum, pool) => sum + pool.free, 0);
  const total = pools.reduce((sum, pool) => sum + pool.total, 0);
  if (total === 0) {
    return trans.__('No GPU works at the moment.');
  }
  if (pools.every(pool => pool.gpu.simulated)) {
    return trans._n('%1 simulated GPU is free.', '%1 simulated GPUs are free.', free);
  }
  return trans._n('%1 GPU is free.', '%1 GPUs are free.', free);
}

export function waitingCount(pools: IPoolShown[], trans: TranslationBundle): string {
  const waiting = pools.reduce((sum, pool) => sum + pool.waiting, 0);
  return waiting === 0
    ? trans.__('Nobody waits.')
    : trans._n('%1 person waits.', '%1 people wait.', waiting);
}

/** The tooltip of the switch while the notebook is on the CPU. */
export function cpuTooltip(
  state: Extract<SwitchState, { kind: 'cpu' }>,
  trans: TranslationBundle
): string {
  if (state.serviceAway) {
    return trans.__('The GPU service does not answer at the moment. It is asked again by itself.');
  }
  const lines = [
    state.held
      ? trans.__('Run this notebook on your %1 too.', gpuName(state.held, trans))
      : trans.__('Run this notebook on a GPU.')
  ];
  if (!state.held) {
    lines.push(freeText(state.pools, trans));
    if (state.pools.some(pool => pool.waiting > 0)) {
      lines.push(waitingCount(state.pools, trans));
    }
  }
  lines.push(
    state.startsAnew
      ? trans.__('It starts anew there: only Python notebooks carry their variables.')
      : trans.__('Its variables move with it.')
  );
  return lines.join(' ');
}

export function unknownText(
  why: Extract<SwitchState, { kind: 'unknown' }>['why'],
  trans: TranslationBundle
): { label: string; tooltip: string } {
  switch (why) {
    case 'away':
      return {
        label: trans.__('no connection'),
        tooltip: trans.__(
          'The server does not answer: where this notebook runs is not known. It is asked again by itself.'
        )
      };
    case 'signed-out':
      return {
        label: trans.__('signed out'),
        tooltip: trans.__('You are not signed in any more. Reload the page to sign in.')
      };
    case 'no-kernel':
      return {
        label: trans.__('no kernel'),
        tooltip: trans.__('This notebook has no running kernel. Choose one, then switch to a GPU.')
      };
    default:
      return { label: trans.__('connecting'), tooltip: trans.__('Asking the server…') };
  }
}

export function waitingFacts(
  state: { place: number | null; startsAt: number | null },
  now: number,
  trans: TranslationBundle
): string[] {
  const facts = [state.place === null ? trans.__('waiting') : inLine(state.place, trans)];
  if (state.startsAt !== null) {
    facts.push(about(state.startsAt - now, trans));
  }
  return facts;
}

export function aheadText(ahead: number, trans: TranslationBundle): string {
  return ahead === 0
    ? trans.__('Nobody is ahead of you.')
    : trans._n('%1 person is ahead of you.', '%1 people are ahead of you.', ahead);
}

export function estimateText(startsAt: number, now: number, trans: TranslationBundle): string {
  return trans.__(
    'Expected at %1, %2.',
    clock(startsAt, now, locale(trans)),
    fromNow(startsAt - now, trans)
  );
}

export function movingFacts(
  state: Extract<SwitchState, { kind: 'moving' }>,
  trans: TranslationBundle
): string[] {
  const first = state.target === 'worker' ? trans.__('moving') : trans.__('moving back');
  switch (state.phase) {
    case 'holding':
      return [first, trans.__('waiting for the running cell')];
    case 'saving':
      return [
        first,
        state.bytesTotal
          ? trans.__('saving %1', sizePair(state.bytesDone, state.bytesTotal, trans))
          : trans.__('saving')
      ];
    case 'loading':
      return [
        first,
        state.bytesTotal
          ? trans.__('restoring %1', sizePair(state.bytesDone, state.bytesTotal, trans))
          : trans.__('restoring')
      ];
    default:
      return [first, trans.__('almost there')];
  }
}

/** A move where there is little room: how far it is instead of how much; the tooltip has the sizes. */
export function movingShort(
  state: Extract<SwitchState, { kind: 'moving' }>,
  share: number | null,
  room: Room,
  trans: TranslationBundle
): string[] {
  const done = share === null ? null : percent(100 * share, trans);
  if (room === 'tiny') {
    return done === null ? [] : [done];
  }
  if (state.phase === 'holding') {
    return [trans.__('waiting for your cell')];
  }
  const [first = '', second = ''] = movingFacts(state, trans);
  if (done === null) {
    return [first, second];
  }
  return [
    first,
    state.phase === 'saving' ? trans.__('saving %1', done) : trans.__('restoring %1', done)
  ];
}

export function consentLabel(
  left: number,
  total: number,
  trans: TranslationBundle,
  brief = false
): string {
  if (brief) {
    return trans._n('%1 of %2 stays behind', '%1 of %2 stay behind', left, total);
  }
  return trans._n('%1 of %2 variables stays behind', '%1 of %2 variables stay behind', left, total);
}

/** Why a GPU is being taken, in the two or three words that fit a toolbar. */
export function warningReason(reason: EndReason, trans: TranslationBundle): string {
  switch (reason) {
    case 'idle':
      return trans.__('idle');
    case 'expired':
      return trans.__('time is up');
    case 'preempted':
      return trans.__('needed by others');
    case 'quota':
      return trans.__('hours used up');
    case 'revoked':
      return trans.__('taken by an operator');
    default:
      return trans.__('ending');
  }
}

export function asideLabel(
  aside: IAside,
  now: number,
  trans: TranslationBundle,
  brief = false
): string {
  const at = (when: number) => clock(when, now, locale(trans));
  switch (aside.kind) {
    case 'moved-back':
      return trans.__('moved back at %1', at(aside.at));
    case 'restored':
      return aside.savedAt === null
        ? trans.__('restored at %1', at(aside.at))
        : trans.__('restored to %1', at(aside.savedAt));
    case 'lost':
      if (brief) {
        return trans.__('GPU lost');
      }
      return aside.savedAt === null
        ? trans.__('GPU lost at %1', at(aside.at))
        : trans.__('GPU lost · restored to %1', at(aside.savedAt));
    case 'cut':
      return trans.__('cell interrupted at %1', at(aside.at));
    case 'restore-offer':
      return aside.savedAt === null
        ? trans.__('restore your variables?')
        : trans.__('restore %1?', at(aside.savedAt));
    default:
      return trans.__('not moved');
  }
}

export function asideTitle(aside: IAside, trans: TranslationBundle): string {
  switch (aside.kind) {
    case 'moved-back':
      return trans.__('Moved back to the CPU');
    case 'restored':
      return trans.__('Restored');
    case 'lost':
      return trans.__('The GPU was lost');
    case 'cut':
      return trans.__('A cell was interrupted');
    case 'restore-offer':
      return trans.__('A saved state is waiting');
    default:
      return trans.__('The notebook was not moved');
  }
}

export function savedReason(reason: ISavedState['reason'], trans: TranslationBundle): string {
  switch (reason) {
    case 'move':
      return trans.__('for a move');
    case 'release':
      return trans.__('before release');
    case 'idle':
      return trans.__('because the GPU was idle');
    case 'ending':
      return trans.__('before the GPU was taken');
    case 'server-stop':
      return trans.__('before the server stopped');
    case 'worker-stop':
      return trans.__('when the GPU went away');
    case 'manual':
      return trans.__('by you');
    default:
      return trans.__('by itself');
  }
}

/** What a screen reader hears when the state changes; it says nothing that only counts on. */
export function announcement(state: SwitchState, now: number, trans: TranslationBundle): string {
  switch (state.kind) {
    case 'hidden':
      return '';
    case 'unknown':
      return state.why === 'connecting' ? '' : unknownText(state.why, trans).tooltip;
    case 'cpu':
      return trans.__('This notebook runs on the CPU.');
    case 'waiting':
      return state.place === null
        ? state.message
        : trans.__('Waiting for a GPU: %1.', inLine(state.place, trans));
    case 'starting':
    case 'checking':
    case 'recovering':
    case 'ending':
      return state.message;
    case 'consent':
      return trans._n(
        '%1 of %2 variables would stay behind. Nothing was moved.',
        '%1 of %2 variables would stay behind. Nothing was moved.',
        state.left.length,
        state.total
      );
    case 'moving':
      return movingAnnouncement(state, trans);
    case 'on':
      return trans.__('This notebook runs on a GPU: %1.', gpuName(state.gpu, trans));
    case 'warning':
      return trans.__(
        'Back to the CPU at %1. %2',
        clock(state.warning.at, now, locale(trans)),
        state.warning.message
      );
  }
}

function movingAnnouncement(
  state: Extract<SwitchState, { kind: 'moving' }>,
  trans: TranslationBundle
): string {
  switch (state.phase) {
    case 'saving':
      return trans.__('Moving: saving the variables.');
    case 'loading':
      return trans.__('Moving: restoring the variables.');
    case 'holding':
      return state.message;
    default:
      return trans.__('Moving: almost there.');
  }
}

export function warningSentence(at: number, now: number, trans: TranslationBundle): string {
  return trans.__(
    'Back to the CPU at %1, in %2.',
    clock(at, now, locale(trans)),
    countdown(at - now)
  );
}

export function residentText(bytes: number, trans: TranslationBundle): string {
  return trans.__(
    '%1 of GPU memory are still held by silent processes; memory alone does not count as use.',
    size(bytes, trans)
  );
}

/** The language for dates: the interface's own, which need not be the browser's. */
export function locale(trans: TranslationBundle): string | undefined {
  const said = (trans as { locale?: string }).locale?.replace('_', '-');
  return said && said !== 'en' && said !== 'default' ? said : undefined;
}

/** "data, model, scores and 9 more", as the lead of a list that has its own place. */
export function savedSummary(
  variables: { name: string }[],
  offered: boolean,
  trans: TranslationBundle
): string {
  const first = variables
    .slice(0, 4)
    .map(one => one.name)
    .join(', ');
  const more = variables.length - 4;
  if (offered) {
    return more > 0
      ? trans._n('Saved: %2 and %1 more.', 'Saved: %2 and %1 more.', more, first)
      : trans.__('Saved: %1.', first);
  }
  return more > 0
    ? trans._n('Back again: %2 and %1 more.', 'Back again: %2 and %1 more.', more, first)
    : trans.__('Back again: %1.', first);
}
