/**
 * What the switch is made of: the track, labels, chips that open pop-overs, Cancel.
 */
import { caretDownEmptyIcon, closeIcon } from '@jupyterlab/ui-components';
import * as React from 'react';
import type { IAside, ISeries, Room, SwitchState } from '../shown';
import { Facts, type IWithTexts } from './marks';
import { Popover } from './Popover';

export interface ISwitchActions {
  on: (pool?: string) => void;
  off: () => void;
  cancel: () => void;
  moveAnyway: (remember: boolean) => void;
  stay: () => void;
  keep: () => void;
  release: () => void;
  openPanel: () => void;
  dismiss: (aside: IAside) => void;
  restore: (aside: IAside) => void;
  choose: (aside: IAside) => void;
}

export interface ISwitchProps extends IWithTexts {
  state: SwitchState;
  asides: IAside[];
  series: ISeries;
  /** With less room, only what matters most is shown; the pop-overs and tooltips have the rest. */
  room: Room;
  /** A request of this tab is on its way; what is shown does not change before it is answered. */
  asking: boolean;
  actions: ISwitchActions;
}

/** What the parts need to know of the whole: the pop-over that is open, and how to open another. */
export interface IFrame extends ISwitchProps {
  open: { what: string; byPerson: boolean } | null;
  toggle: (what: string) => void;
  close: () => void;
}

/** The switch itself. It shows where the notebook is; a click asks, and changes nothing here. */
export function Track(
  props: IFrame & {
    on: boolean | 'unknown';
    disabled?: boolean;
    title: string;
    onClick?: () => void;
  }
): JSX.Element {
  const { on, trans } = props;
  return (
    <button
      type="button"
      role="switch"
      className={`gpuhub-Track ${on === 'unknown' ? 'gpuhub-mod-unknown' : ''}`}
      aria-checked={on === true}
      aria-label={trans.__('Run on a GPU')}
      aria-description={props.title}
      aria-disabled={props.disabled ?? false}
      title={props.title}
      onClick={() => {
        if (!props.disabled) {
          props.onClick?.();
        }
      }}
    >
      <span className="gpuhub-Track-label" aria-hidden="true">
        {trans.__('GPU')}
      </span>
      <span className="gpuhub-Track-rail" aria-hidden="true" />
    </button>
  );
}

/** Facts without a pop-over. */
export function Label(props: {
  mark: React.ReactNode;
  facts: React.ReactNode[];
  hidden: boolean;
  title: string;
}): JSX.Element {
  return (
    <span className="gpuhub-Label" title={props.title}>
      {props.mark}
      {!props.hidden && <Facts facts={props.facts} />}
    </span>
  );
}

/** Facts that open a pop-over. */
export function Chip(
  props: IFrame & {
    what: string;
    look?: 'plain' | 'attention' | 'warning' | 'news';
    mark?: React.ReactNode;
    facts: React.ReactNode[];
    /** What a screen reader says where the facts alone would be too few. */
    name?: string;
    title: string;
    dialogTitle: string;
    children: React.ReactNode;
  }
): JSX.Element {
  const [anchor, setAnchor] = React.useState<HTMLButtonElement | null>(null);
  const isOpen = props.open?.what === props.what;
  return (
    <>
      <button
        ref={setAnchor}
        type="button"
        aria-label={props.name}
        className={`gpuhub-Chip gpuhub-mod-${props.look ?? 'plain'}`}
        title={isOpen ? undefined : props.title}
        aria-haspopup="dialog"
        aria-expanded={isOpen}
        onClick={() => props.toggle(props.what)}
      >
        {props.mark}
        <Facts facts={props.facts} />
        <caretDownEmptyIcon.react
          tag="span"
          className="gpuhub-Chip-caret"
          width="10px"
          aria-hidden="true"
        />
      </button>
      {isOpen && (
        <Popover
          anchor={anchor}
          title={props.dialogTitle}
          takeFocus={props.open?.byPerson ?? false}
          onClose={props.close}
        >
          {props.children}
        </Popover>
      )}
    </>
  );
}

/** A caret alone that opens a pop-over. */
export function Opener(
  props: IFrame & { what: string; label: string; dialogTitle: string; children: React.ReactNode }
): JSX.Element {
  const [anchor, setAnchor] = React.useState<HTMLButtonElement | null>(null);
  const isOpen = props.open?.what === props.what;
  return (
    <>
      <button
        ref={setAnchor}
        type="button"
        className="gpuhub-Opener"
        title={props.label}
        aria-label={props.label}
        aria-haspopup="dialog"
        aria-expanded={isOpen}
        onClick={() => props.toggle(props.what)}
      >
        <caretDownEmptyIcon.react tag="span" width="10px" aria-hidden="true" />
      </button>
      {isOpen && (
        <Popover anchor={anchor} title={props.dialogTitle} takeFocus onClose={props.close}>
          {props.children}
        </Popover>
      )}
    </>
  );
}

export function Cancel(props: IFrame & { label: string }): JSX.Element {
  return (
    <button
      type="button"
      className="gpuhub-Cancel"
      title={props.label}
      aria-label={props.label}
      disabled={props.asking}
      onClick={props.actions.cancel}
    >
      <closeIcon.react tag="span" width="12px" aria-hidden="true" />
    </button>
  );
}
