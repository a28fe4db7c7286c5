/**
 * The switch, saying as much as there is room for.
 *
 * Each change tries the most first; before anything is painted, what does not fit says less. So it
 * depends on what is really written (a GPU's name, a language), not on a guess of its width.
 */
import * as React from 'react';
import type { Room } from '../shown';
import { Switch } from './Switch';
import type { ISwitchProps } from './SwitchParts';

const LESS: Record<Room, Room | null> = { wide: 'narrow', narrow: 'tiny', tiny: null };

export function Fitted(props: Omit<ISwitchProps, 'room'> & { mostPx: number }): JSX.Element {
  const { mostPx, ...said } = props;
  const node = React.useRef<HTMLDivElement>(null);
  const [tried, setTried] = React.useState<{ what: object; room: Room }>({
    what: props,
    room: 'wide'
  });
  const room = tried.what === props ? tried.room : 'wide';
  React.useLayoutEffect(() => {
    const less = LESS[room];
    if (less !== null && node.current !== null && naturalWidth(node.current) > mostPx) {
      setTried({ what: props, room: less });
    }
  }, [props, room, mostPx]);
  return (
    <div ref={node} className="gpuhub-Fitted">
      <Switch {...said} room={room} />
    </div>
  );
}

/** What it would take if nothing in it had to give way. */
function naturalWidth(node: HTMLElement): number {
  node.classList.add('gpuhub-mod-measured');
  const { width } = node.getBoundingClientRect();
  node.classList.remove('gpuhub-mod-measured');
  return width;
}
