import { nullTranslator } from '@jupyterlab/translation';
import { render } from '@testing-library/react';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { Fitted } from '../src/components/Fitted';
import type { ISwitchActions } from '../src/components/SwitchParts';
import { switchState } from '../src/model/switch';
import { lease, NOON, onGpu, status } from './builders';

const trans = nullTranslator.load('jupyterlab_gpuhub');
const PX_A_LETTER = 8;

/** A browser in which each letter is as wide as the next. */
function lettersHaveAWidth(): void {
  vi.spyOn(HTMLElement.prototype, 'getBoundingClientRect').mockImplementation(function (
    this: HTMLElement
  ) {
    return { width: (this.textContent ?? '').length * PX_A_LETTER } as DOMRect;
  });
}

function drawn(mostPx: number) {
  const seen = {
    status: status({ lease: lease(), kernels: [onGpu()] }),
    connection: 'live' as const,
    kernel: 'k1',
    answered: () => false
  };
  const element = (most: number) => (
    <Fitted
      state={switchState(seen)}
      asides={[]}
      series={{ times: [], utilisationPercent: [], memoryBytes: [] }}
      trans={trans}
      now={() => NOON}
      mostPx={most}
      asking={false}
      actions={{} as ISwitchActions}
    />
  );
  const view = render(element(mostPx));
  const room = () => /gpuhub-room-(\w+)/.exec(view.container.innerHTML)?.[1];
  return { room, resized: (most: number) => view.rerender(element(most)) };
}

afterEach(() => vi.restoreAllMocks());

describe('a switch that fits', () => {
  it('says all where there is room, less where there is less, and all again', () => {
    lettersHaveAWidth();
    const { room, resized } = drawn(2000);
    expect(room()).toBe('wide');
    const atLeast = (document.body.textContent ?? '').length * PX_A_LETTER;
    resized(atLeast - 1);
    expect(room()).toBe('narrow');
    resized(0);
    expect(room()).toBe('tiny');
    resized(2000);
    expect(room()).toBe('wide');
  });
});
