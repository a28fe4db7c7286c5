import { describe, expect, it } from 'vitest';
import { news } from '../src/model/news';
import { at, kernel, lease, notice, onGpu, pool, status } from './builders';

const warning = (minutes: number) => ({
  reason: 'idle' as const,
  at: at(minutes),
  message: 'Idle for 5 minutes.',
  keep: { minutes: 30, times_left: 2 },
  resident_bytes: null
});
const warned = (minutes: number) =>
  status({ lease: lease({ warning: warning(minutes) }), kernels: [onGpu()] });

describe('news', () => {
  it('is a warning, told once', () => {
    expect(news(status({ lease: lease() }), warned(5))).toMatchObject([{ kind: 'warning' }]);
    expect(news(warned(5), warned(5))).toEqual([]);
  });

  it('is a countdown that runs already when the page is opened', () => {
    expect(news(null, warned(5))).toMatchObject([{ kind: 'warning' }]);
  });

  it('is a warning with another end', () => {
    expect(news(warned(5), warned(35))).toMatchObject([{ kind: 'warning' }]);
  });

  it('is that a warning is over', () => {
    expect(news(warned(5), status({ lease: lease() }))).toEqual([{ kind: 'warning-over' }]);
    expect(news(warned(5), status())).toEqual([{ kind: 'warning-over' }]);
  });

  it('is a GPU after a wait, and not one that came at once', () => {
    const queued = status({ lease: lease({ state: 'queued' }), pools: [pool()] });
    const active = status({ lease: lease(), pools: [pool()] });
    expect(news(queued, active)).toMatchObject([{ kind: 'granted', simulated: false }]);
    expect(news(status(), active)).toEqual([]);
    expect(news(queued, status())).toEqual([]);
    const atOnce = lease({ created_at: at(-43), granted_at: at(-43) });
    expect(news(queued, status({ lease: atOnce, pools: [pool()] }))).toEqual([]);
  });

  it('is each new notice of a notebook, once', () => {
    const back = status({ kernels: [kernel({ notices: [notice('moved-back')] })] });
    expect(news(status(), back)).toMatchObject([
      { kind: 'notice', kernel: 'k1', notice: { kind: 'moved-back' } }
    ]);
    expect(news(back, back)).toEqual([]);
  });

  it('is not what was so before the page was opened, but an open offer is', () => {
    const offered = status({
      kernels: [kernel({ notices: [notice('moved-back'), notice('restore-offer')] })]
    });
    expect(news(null, offered)).toMatchObject([{ notice: { kind: 'restore-offer' } }]);
  });
});
