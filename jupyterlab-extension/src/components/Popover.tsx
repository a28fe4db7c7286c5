/**
 * A small dialog that hangs on a button: closes on Escape and on a click elsewhere, gives the
 * focus back, and takes it only when a person opened it.
 */
import * as React from 'react';
import { createPortal } from 'react-dom';

const GAP_PX = 4;
const EDGE_PX = 8;

export interface IPopoverProps {
  anchor: HTMLElement | null;
  title: string;
  /** A person asked for it: the focus moves in. Otherwise it appears beside what he is doing. */
  takeFocus: boolean;
  onClose: () => void;
  children: React.ReactNode;
}

export function Popover(props: IPopoverProps): JSX.Element {
  const { anchor, onClose, takeFocus } = props;
  const node = React.useRef<HTMLDivElement>(null);
  const titleId = React.useId();

  React.useLayoutEffect(() => {
    const place = () => {
      const box = node.current;
      if (!box || !anchor) {
        return;
      }
      const at = anchor.getBoundingClientRect();
      const left = Math.min(at.left, window.innerWidth - box.offsetWidth - EDGE_PX);
      box.style.left = `${Math.max(EDGE_PX, left)}px`;
      box.style.top = `${at.bottom + GAP_PX}px`;
      box.style.maxHeight = `${window.innerHeight - at.bottom - GAP_PX - EDGE_PX}px`;
    };
    place();
    const observer = new ResizeObserver(() => {
      if (anchor && anchor.getClientRects().length === 0) {
        // What it hangs on is out of sight: another notebook came to the front.
        onClose();
      } else {
        place();
      }
    });
    if (anchor) {
      observer.observe(anchor);
    }
    if (node.current) {
      observer.observe(node.current);
    }
    window.addEventListener('resize', place);
    return () => {
      observer.disconnect();
      window.removeEventListener('resize', place);
    };
  }, [anchor, onClose]);

  React.useEffect(() => {
    if (!takeFocus) {
      return undefined;
    }
    const before = document.activeElement;
    const box = node.current;
    box?.focus();
    return () => {
      // Only if the focus is still here: who has clicked elsewhere stays there.
      const now = document.activeElement;
      if (before instanceof HTMLElement && (now === document.body || box?.contains(now))) {
        before.focus();
      }
    };
  }, [takeFocus]);

  React.useEffect(() => {
    const outside = (event: PointerEvent) => {
      const target = event.target as Node;
      if (!node.current?.contains(target) && !anchor?.contains(target)) {
        onClose();
      }
    };
    document.addEventListener('pointerdown', outside, true);
    return () => document.removeEventListener('pointerdown', outside, true);
  }, [anchor, onClose]);

  const onKeyDown = (event: React.KeyboardEvent) => {
    // JupyterLab's shortcuts (a lone "d" deletes a cell) must not see what is typed here.
    event.stopPropagation();
    if (event.key === 'Escape') {
      anchor?.focus();
      onClose();
    }
  };

  return createPortal(
    <div
      ref={node}
      className="gpuhub-Popover jp-ThemedContainer"
      role="dialog"
      aria-labelledby={titleId}
      tabIndex={-1}
      onKeyDown={onKeyDown}
    >
      <h2 id={titleId} className="gpuhub-Popover-title">
        {props.title}
      </h2>
      {props.children}
    </div>,
    document.body
  );
}

export function PopoverButtons(props: { children: React.ReactNode }): JSX.Element {
  return <div className="gpuhub-Buttons">{props.children}</div>;
}

export function TextButton(props: {
  label: string;
  onClick: () => void;
  kind?: 'accept' | 'warn' | 'plain';
  disabled?: boolean;
  title?: string;
}): JSX.Element {
  const look = { accept: 'jp-mod-accept', warn: 'jp-mod-warn', plain: 'jp-mod-reject' };
  return (
    <button
      type="button"
      className={`gpuhub-Button jp-mod-styled ${look[props.kind ?? 'plain']}`}
      disabled={props.disabled}
      title={props.title}
      onClick={props.onClick}
    >
      {props.label}
    </button>
  );
}
