import { describe, expect, it } from 'vitest';
import { StreamDecoder } from '../src/stream';

describe('the decoder of event streams', () => {
  it('gives an event when its empty line has come, wherever the pieces were cut', () => {
    const whole = 'event: status\ndata: {"a":1}\n\nevent: kernel\ndata: {"b":2}\n\n';
    for (let cut = 0; cut <= whole.length; cut += 1) {
      const decoder = new StreamDecoder();
      const events = [...decoder.feed(whole.slice(0, cut)), ...decoder.feed(whole.slice(cut))];
      expect(events).toEqual([
        { kind: 'status', data: '{"a":1}' },
        { kind: 'kernel', data: '{"b":2}' }
      ]);
    }
  });

  it('takes comments as signs of life and nothing more', () => {
    expect(new StreamDecoder().feed(': still here\n\n')).toEqual([]);
  });

  it('reads lines that end as on other systems', () => {
    expect(new StreamDecoder().feed('event: a\r\ndata: 1\r\n\r\n')).toEqual([
      { kind: 'a', data: '1' }
    ]);
  });

  it('joins data lines and names events without a name', () => {
    expect(new StreamDecoder().feed('data: 1\ndata: 2\n\n')).toEqual([
      { kind: 'message', data: '1\n2' }
    ]);
  });
});
