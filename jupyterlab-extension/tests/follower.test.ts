import { beforeEach, describe, expect, it } from 'vitest';
import {
  BACK_OFF_MS,
  type Connection,
  DOUBT_MS,
  FIRST_EVENT_MS,
  Follower,
  HIDDEN_AFTER_MS,
  HIDDEN_POLL_MS,
  POLL_MS,
  POLLS_BETWEEN_STREAMS
} from '../src/model/follower';
import { ClockByHand, PageByHand, ServerByHand, settle } from './fakes';

let server: ServerByHand;
let clock: ClockByHand;
let page: PageByHand;
let connections: Connection[];
let statuses: number;
let follower: Follower;

beforeEach(() => {
  server = new ServerByHand();
  clock = new ClockByHand();
  page = new PageByHand();
  connections = [];
  statuses = 0;
  follower = new Follower(server, clock, page, () => 0.5, {
    onStatus: () => (statuses += 1),
    onEvent: () => undefined,
    onConnection: connection => connections.push(connection)
  });
});

const count = (what: string) => server.asked.filter(one => one === what).length;

describe('the follower', () => {
  it('reads the whole state first, then follows the stream', async () => {
    follower.start();
    await settle();
    expect(server.asked).toEqual(['status', 'events']);
    expect(connections).toEqual(['live']);
  });

  it('comes back at once when the stream breaks, and ever more slowly while nobody answers', async () => {
    follower.start();
    await settle();
    server.trouble = 'unreachable';
    server.breakStreams();
    await clock.pass(BACK_OFF_MS[0] as number);
    expect(connections.at(-1)).toBe('away');
    for (const pause of BACK_OFF_MS.slice(1)) {
      const before = count('status');
      await clock.pass(pause - 1);
      expect(count('status')).toBe(before);
      await clock.pass(1);
      expect(count('status')).toBe(before + 1);
    }
    server.trouble = 'none';
    await clock.pass(BACK_OFF_MS.at(-1) as number);
    expect(connections.at(-1)).toBe('live');
  });

  it('polls where streams are held back on the way', async () => {
    server.holdsStreamsBack = true;
    follower.start();
    await clock.pass(FIRST_EVENT_MS);
    const before = statuses;
    await clock.pass(POLL_MS);
    expect(statuses).toBe(before + 1);
    expect(follower.connection).toBe('polling');
    await clock.pass(3 * POLL_MS);
    expect(statuses).toBe(before + 4);
    expect(count('events')).toBe(1);
  });

  it('tries the stream again now and then where it was held back', async () => {
    server.holdsStreamsBack = true;
    follower.start();
    await clock.pass(FIRST_EVENT_MS);
    server.holdsStreamsBack = false;
    await clock.pass((POLLS_BETWEEN_STREAMS + 2) * POLL_MS);
    expect(follower.connection).toBe('live');
    expect(server.streams).toBe(1);
  });

  it('is right at once after the page woke up', async () => {
    follower.start();
    await settle();
    const before = statuses;
    page.woke.emit();
    await settle();
    expect(statuses).toBe(before + 1);
    expect(follower.connection).toBe('live');
    expect(server.streams).toBe(1);
  });

  it('looks at once when it woke up during a long pause', async () => {
    server.trouble = 'unreachable';
    follower.start();
    await clock.pass(30_000);
    server.trouble = 'none';
    page.woke.emit();
    await settle();
    expect(follower.connection).toBe('live');
  });

  it('does not show old news for long when the line is dead after a sleep', async () => {
    follower.start();
    await settle();
    server.trouble = 'hangs';
    page.woke.emit();
    await clock.pass(DOUBT_MS - 1);
    expect(follower.connection).toBe('live');
    await clock.pass(1);
    expect(follower.connection).toBe('away');
  });

  it('lets go of the stream while nobody sees the page, and looks now and then', async () => {
    follower.start();
    await settle();
    page.hide();
    await clock.pass(HIDDEN_AFTER_MS);
    expect(server.streams).toBe(0);
    const before = statuses;
    await clock.pass(2 * HIDDEN_POLL_MS);
    expect(statuses).toBeGreaterThan(before);
    expect(server.streams).toBe(0);
    page.show();
    await settle();
    expect(server.streams).toBe(1);
    expect(follower.connection).toBe('live');
  });

  it('keeps the stream when the page is hidden for a moment', async () => {
    follower.start();
    await settle();
    page.hide();
    await clock.pass(HIDDEN_AFTER_MS / 2);
    page.show();
    await clock.pass(HIDDEN_AFTER_MS);
    expect(server.streams).toBe(1);
  });

  it('leaves a server without the interface alone', async () => {
    server.trouble = 'no-such-interface';
    follower.start();
    await clock.pass(30_000);
    expect(connections).toEqual(['absent']);
    expect(count('status')).toBe(1);
  });

  it('says that one is signed out', async () => {
    server.trouble = 'signed-out';
    follower.start();
    await settle();
    expect(connections).toEqual(['signed-out']);
  });

  it('asks nothing more after its end', async () => {
    follower.start();
    await settle();
    follower.stop();
    await clock.pass(120_000);
    expect(server.asked).toEqual(['status', 'events']);
    expect(server.streams).toBe(0);
  });
});
