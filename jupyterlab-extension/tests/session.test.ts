import { beforeEach, describe, expect, it } from 'vitest';
import { Refusal } from '../src/client';
import { SessionModel } from '../src/model/session';
import { switchState } from '../src/model/switch';
import { at, kernel, lease, move, notice, NOON, onGpu, snapshot, status } from './builders';
import { ClockByHand, PageByHand, ServerByHand, settle } from './fakes';

let server: ServerByHand;
let clock: ClockByHand;

const tab = async (): Promise<SessionModel> => {
  const model = new SessionModel(server, clock, new PageByHand(), () => 0.5);
  model.start();
  await settle();
  return model;
};

const kind = (model: SessionModel) =>
  switchState({
    status: model.status,
    connection: model.connection,
    kernel: 'k1',
    answered: () => false
  }).kind;

beforeEach(() => {
  server = new ServerByHand();
  clock = new ClockByHand();
});

describe('two tabs', () => {
  it('show the same, whoever asked', async () => {
    const [one, two] = [await tab(), await tab()];
    server.state = status({ kernels: [kernel({ move: move('waiting') })] });
    await one.move('k1', 'worker', false, null);
    expect(kind(one)).toBe('waiting');
    await server.become(server.state);
    expect([kind(one), kind(two)]).toEqual(['waiting', 'waiting']);
    await server.become(status({ lease: lease(), kernels: [onGpu()] }));
    expect([kind(one), kind(two)]).toEqual(['on', 'on']);
  });

  it('both show where the notebook is when both flip at once', async () => {
    const [one, two] = [await tab(), await tab()];
    server.state = status({ kernels: [kernel({ move: move('starting') })] });
    await Promise.all([
      one.move('k1', 'worker', false, null),
      two.move('k1', 'worker', false, null)
    ]);
    expect([kind(one), kind(two)]).toEqual(['starting', 'starting']);
  });
});

describe('what is shown', () => {
  it('is what the server said, not what was asked for', async () => {
    const model = await tab();
    let open = () => {};
    server.gate = new Promise(resolve => (open = resolve));
    const asked = model.move('k1', 'worker', false, null);
    await settle();
    expect(kind(model)).toBe('cpu');
    server.state = status({ kernels: [kernel({ move: move('starting') })] });
    open();
    await asked;
  });

  it('is not set back by an answer that an event has overtaken', async () => {
    const model = await tab();
    let open = () => {};
    server.gate = new Promise(resolve => (open = resolve));
    const asked = model.cancelMove('k1');
    await settle();
    await server.become(status({ lease: lease(), kernels: [onGpu()] }));
    open();
    await asked;
    expect(kind(model)).toBe('on');
  });

  it('stays as it is when the server says no', async () => {
    const model = await tab();
    server.refusal = new Refusal(409, { code: 'move-in-progress', message: 'It is moving.' });
    await expect(model.move('k1', 'worker', false, null)).rejects.toThrow('It is moving.');
    expect(kind(model)).toBe('cpu');
  });

  it('takes a kernel that it has not seen before', async () => {
    const model = await tab();
    server.say('kernel', kernel({ id: 'k2' }));
    expect(model.status?.kernels.map(one => one.id)).toEqual(['k1', 'k2']);
  });

  it('passes consent and the kind of GPU on', async () => {
    const model = await tab();
    await model.move('k1', 'worker', true, 'a100');
    expect(server.asked.at(-1)).toBe('place k1 worker accept a100');
  });

  it('drops a lease that was given back', async () => {
    server.state = status({ lease: lease({ state: 'queued' }) });
    const model = await tab();
    await model.release();
    expect(model.status?.lease).toBeNull();
  });

  it('does not take an older word about the lease', async () => {
    server.state = status({ lease: lease({ revision: 7, state: 'ending' }) });
    const model = await tab();
    server.state = status({ lease: lease({ revision: 6 }) });
    await model.keep();
    expect(model.status?.lease?.state).toBe('ending');
  });
});

describe('the clock', () => {
  it('is the server’s where the browser’s is wrong', async () => {
    server.serverTime = NOON + 3_600_000;
    const model = await tab();
    expect(model.now()).toBe(NOON + 3_600_000);
  });

  it('is the browser’s where the two differ by what the line takes', async () => {
    server.serverTime = NOON + 900;
    expect((await tab()).now()).toBe(NOON);
  });
});

describe('telemetry', () => {
  beforeEach(() => {
    server.state = status({ lease: lease(), kernels: [onGpu()] });
    server.series = {
      times: [(NOON - 20_000) / 1000, (NOON - 10_000) / 1000],
      utilisation_percent: [10, 20],
      memory_bytes: [1, 2]
    };
  });

  const sample = (seconds: number, percent: number, id = 'lease-1') => ({
    lease: id,
    usage: { ...lease().usage, at: at(seconds / 60), utilisation_percent: percent },
    idle_seconds: 0
  });

  it('joins what was stored with what comes live', async () => {
    const model = await tab();
    server.say('usage', sample(5, 50));
    expect(model.series.utilisationPercent).toEqual([10, 20, 37, 50]);
    expect(model.status?.lease?.usage?.utilisation_percent).toBe(50);
  });

  it('ignores samples of another lease, and samples twice', async () => {
    const model = await tab();
    server.say('usage', sample(5, 50, 'lease-0'));
    server.say('usage', sample(6, 60));
    server.say('usage', sample(6, 60));
    expect(model.series.utilisationPercent).toEqual([10, 20, 37, 60]);
  });

  it('keeps ten minutes', async () => {
    const model = await tab();
    for (let seconds = 5; seconds <= 1200; seconds += 5) {
      server.say('usage', sample(seconds, 1));
    }
    const { times } = model.series;
    expect((times.at(-1) ?? 0) - (times[0] ?? 0)).toBe(600_000);
  });

  it('starts over with another lease', async () => {
    const model = await tab();
    server.series = { times: [], utilisation_percent: [], memory_bytes: [] };
    await server.become(status({ lease: lease({ id: 'lease-2', usage: null }) }));
    expect(model.series.times).toEqual([]);
  });
});

describe('saved states', () => {
  it('are listed newest first', async () => {
    server.saved = [snapshot('old', { created_at: at(-90) }), snapshot('new')];
    const model = await tab();
    await model.readSnapshots();
    expect(model.snapshots?.map(one => one.id)).toEqual(['new', 'old']);
  });

  it('are read again when something was saved, and not otherwise', async () => {
    const model = await tab();
    await model.readSnapshots();
    await server.become(status());
    const before = server.asked.filter(one => one === 'snapshots').length;
    await server.become(status());
    expect(server.asked.filter(one => one === 'snapshots')).toHaveLength(before);
    await server.become(status({ snapshots_bytes: 5 }));
    expect(server.asked.filter(one => one === 'snapshots')).toHaveLength(before + 1);
  });

  it('are read when a notice speaks of one, so that its time can be told', async () => {
    server.saved = [snapshot('s1')];
    server.state = status({
      kernels: [kernel({ notices: [notice('lost', { snapshot: 's1' })] })]
    });
    expect((await tab()).snapshots?.[0]?.id).toBe('s1');
  });
});
