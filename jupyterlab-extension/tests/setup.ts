/**
 * What jsdom lacks and a browser has: enough for components to be drawn, none of it measured.
 */
import { cleanup } from '@testing-library/react';
import { afterEach } from 'vitest';

class NoResizes {
  observe(): void {}
  unobserve(): void {}
  disconnect(): void {}
}

if (typeof window !== 'undefined') {
  window.ResizeObserver ??= NoResizes;
  window.matchMedia ??= query =>
    ({
      matches: false,
      media: query,
      addListener: () => undefined,
      removeListener: () => undefined,
      addEventListener: () => undefined,
      removeEventListener: () => undefined
    }) as unknown as MediaQueryList;
  window.requestIdleCallback ??= callback =>
    window.setTimeout(() => callback({ didTimeout: false, timeRemaining: () => 10 }), 0);
  window.cancelIdleCallback ??= handle => window.clearTimeout(handle);
  window.DragEvent ??= class extends MouseEvent {} as unknown as typeof DragEvent;
  window.Path2D ??= class {
    moveTo(): void {}
    lineTo(): void {}
    rect(): void {}
    arc(): void {}
    closePath(): void {}
  } as unknown as typeof Path2D;
  // A canvas that takes every stroke and shows nothing.
  const paper: CanvasRenderingContext2D = new Proxy({} as CanvasRenderingContext2D, {
    get: (_target, name) => (name === 'measureText' ? () => ({ width: 8 }) : () => undefined),
    set: () => true
  });
  HTMLCanvasElement.prototype.getContext = (() => paper) as never;
  afterEach(cleanup);
}
