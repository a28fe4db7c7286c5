/**
 * The switch in a notebook's toolbar: shows what is, and opens what one can do about it.
 */
import * as React from 'react';
import { countdown, gpuName, held, percent, size } from '../format';
import type { IAside, SwitchState } from '../shown';
import {
  announcement,
  asideLabel,
  asideTitle,
  consentLabel,
  cpuTooltip,
  movingFacts,
  movingShort,
  unknownText,
  waitingFacts,
  warningReason
} from '../texts';
import {
  AsideDetails,
  ConsentDetails,
  GpuDetails,
  PoolChoice,
  WaitingDetails
} from './SwitchDetails';
import { LiveRegion, Progress, Spinner, useTick } from './marks';
import { Cancel, Chip, type IFrame, type ISwitchProps, Label, Opener, Track } from './SwitchParts';

export function Switch(props: ISwitchProps): JSX.Element | null {
  const { state, asides, trans, now } = props;
  const [open, setOpen] = React.useState<{ what: string; byPerson: boolean } | null>(null);
  const close = React.useCallback(() => setOpen(null), []);
  const question = state.kind === 'consent' ? state.move : null;

  // A question that comes up appears by itself, where a person looks: not in another tab, not in a
  // notebook that lies behind another one, not after a reload.
  const root = React.useRef<HTMLDivElement>(null);
  const asked = React.useRef(question);
  React.useEffect(() => {
    const isNew = question !== asked.current;
    asked.current = question;
    const seen = document.hasFocus() && !root.current?.closest('.lm-mod-hidden');
    if (isNew && question !== null && seen) {
      setOpen({ what: 'state', byPerson: false });
    }
  }, [question]);
  // What was open belongs to a state that is over.
  const family = ['on', 'warning'].includes(state.kind) ? 'on' : state.kind;
  const before = React.useRef(family);
  React.useEffect(() => {
    if (before.current !== family) {
      before.current = family;
      if (question === null) {
        setOpen(current => (current?.what === 'state' ? null : current));
      }
    }
  }, [family, question]);

  if (state.kind === 'hidden') {
    return null;
  }
  const toggle = (what: string) =>
    setOpen(current => (current?.what === what ? null : { what, byPerson: true }));
  const frame = { ...props, open, toggle, close };
  return (
    <div
      ref={root}
      className={`gpuhub-Switch gpuhub-mod-${state.kind} gpuhub-room-${props.room}`}
      role="group"
      aria-label={trans.__('GPU')}
      aria-busy={props.asking}
    >
      <State {...frame} />
      {asides.map(aside => (
        <AsideChip key={aside.id} aside={aside} {...frame} />
      ))}
      <LiveRegion text={announcement(state, now(), trans)} />
    </div>
  );
}

function State(props: IFrame): JSX.Element | null {
  const { state, trans, now, actions, room } = props;
  switch (state.kind) {
    case 'hidden':
      return null;
    case 'unknown': {
      const { label, tooltip } = unknownText(state.why, trans);
      return (
        <span className="gpuhub-Track-group">
          <Track on="unknown" disabled title={tooltip} {...props} />
          <span className="gpuhub-Switch-quiet" title={tooltip}>
            {label}
          </span>
        </span>
      );
    }
    case 'cpu':
      return <CpuState {...props} state={state} />;
    case 'waiting':
      return (
        <>
          <Chip
            {...props}
            what="state"
            mark={<span className="gpuhub-Queue" aria-hidden="true" />}
            facts={waitingFacts(state, now(), trans).slice(0, room === 'wide' ? 2 : 1)}
            title={state.message}
            dialogTitle={trans.__('Waiting for a GPU')}
          >
            <WaitingDetails waiting={state} trans={trans} now={now} onPanel={actions.openPanel} />
          </Chip>
          {state.canCancel && <Cancel {...props} label={trans.__('Stop waiting')} />}
        </>
      );
    case 'starting':
      return (
        <>
          <Label
            mark={<Spinner />}
            facts={[
              state.target === 'worker'
                ? trans.__('getting your GPU…')
                : trans.__('getting ready to move back…')
            ]}
            hidden={room === 'tiny'}
            title={state.message}
          />
          {state.canCancel && <Cancel {...props} label={trans.__('Cancel the move')} />}
        </>
      );
    case 'checking':
      return (
        <>
          <Label
            mark={<Spinner />}
            facts={[trans.__('checking what can move…')]}
            hidden={room === 'tiny'}
            title={state.message}
          />
          {state.canCancel && <Cancel {...props} label={trans.__('Cancel the move')} />}
        </>
      );
    case 'recovering':
      return (
        <Label
          mark={<Spinner />}
          facts={[trans.__('bringing it back…')]}
          hidden={room === 'tiny'}
          title={state.message}
        />
      );
    case 'consent':
      return (
        <Chip
          {...props}
          what="state"
          look="attention"
          mark={<span className="gpuhub-Bang" aria-hidden="true" />}
          facts={[
            room === 'tiny'
              ? trans.__('%1 of %2', state.left.length, state.total)
              : consentLabel(state.left.length, state.total, trans, room === 'narrow')
          ]}
          name={consentLabel(state.left.length, state.total, trans)}
          title={trans.__('Nothing was moved. Choose what should happen.')}
          dialogTitle={
            state.target === 'worker'
              ? trans.__('Before it moves to the GPU')
              : trans.__('Before it moves back')
          }
        >
          <ConsentDetails
            state={state}
            trans={trans}
            onMove={actions.moveAnyway}
            onStay={actions.stay}
          />
        </Chip>
      );
    case 'moving': {
      const share =
        state.bytesTotal && (state.phase === 'saving' || state.phase === 'loading')
          ? state.bytesDone / state.bytesTotal
          : null;
      const all = movingFacts(state, trans);
      return (
        <>
          <Label
            mark={
              <span
                className={`gpuhub-Arrow ${state.target === 'worker' ? 'gpuhub-mod-up' : 'gpuhub-mod-down'}`}
                aria-hidden="true"
              />
            }
            facts={room === 'wide' ? all : movingShort(state, share, room, trans)}
            hidden={false}
            title={[state.because ?? state.message, all.join(' · ')].join('\n')}
          />
          <Progress share={share} label={trans.__('Progress of the move')} />
          {state.canCancel && <Cancel {...props} label={trans.__('Cancel the move')} />}
        </>
      );
    }
    case 'on':
      return <OnState {...props} state={state} />;
    case 'warning':
      return <WarningState {...props} state={state} />;
    case 'ending':
      return <EndingState {...props} state={state} />;
  }
}

function CpuState(props: IFrame & { state: Extract<SwitchState, { kind: 'cpu' }> }): JSX.Element {
  const { state, trans, actions, asking } = props;
  const title = cpuTooltip(state, trans);
  const choice = state.pools.length > 1 && !state.held;
  return (
    <span className="gpuhub-Track-group">
      <Track
        on={false}
        disabled={state.serviceAway || asking}
        title={title}
        onClick={() => actions.on()}
        {...props}
      />
      {choice && (
        <Opener
          {...props}
          what="pools"
          label={trans.__('Choose a kind of GPU')}
          dialogTitle={trans.__('Which GPU?')}
        >
          <PoolChoice
            pools={state.pools}
            trans={trans}
            onChoose={pool => {
              props.close();
              actions.on(pool);
            }}
          />
        </Opener>
      )}
    </span>
  );
}

function OnState(props: IFrame & { state: Extract<SwitchState, { kind: 'on' }> }): JSX.Element {
  const { state, trans, now, actions, room } = props;
  useTick(10_000);
  const facts: React.ReactNode[] = room === 'tiny' ? [] : [gpuName(state.gpu, trans)];
  if (state.meter) {
    facts.push(percent(state.meter.utilisationPercent, trans));
    if (room === 'wide') {
      facts.push(size(state.meter.memoryBytes, trans));
    }
  }
  if (state.since !== null && (room === 'wide' || !state.meter)) {
    facts.push(held(now() - state.since));
  }
  const off = trans.__('Move this notebook back to the CPU, with its variables.');
  return (
    <span className="gpuhub-Track-group">
      <Track on disabled={props.asking} title={off} onClick={actions.off} {...props} />
      <Chip
        {...props}
        what="state"
        facts={facts}
        name={room === 'tiny' ? gpuName(state.gpu, trans) : undefined}
        title={trans.__('Use, memory and time of your GPU. Click for more.')}
        dialogTitle={gpuName(state.gpu, trans)}
      >
        <GpuDetails {...props} state={state} warning={null} stayedBehind={state.stayedBehind} />
      </Chip>
    </span>
  );
}

function WarningState(
  props: IFrame & { state: Extract<SwitchState, { kind: 'warning' }> }
): JSX.Element {
  const { state, trans, now, actions, room } = props;
  useTick(1000);
  const { warning } = state;
  const left = countdown(warning.at - now());
  const facts =
    room === 'wide'
      ? [warningReason(warning.reason, trans), trans.__('back to CPU in %1', left)]
      : [warningReason(warning.reason, trans), left];
  const off = trans.__('Move this notebook back to the CPU, with its variables.');
  return (
    <span className="gpuhub-Track-group">
      {room !== 'tiny' && (
        <Track on disabled={props.asking} title={off} onClick={actions.off} {...props} />
      )}
      <Chip
        {...props}
        what="state"
        look="warning"
        mark={<span className="gpuhub-Triangle" aria-hidden="true" />}
        facts={room === 'tiny' ? [left] : facts}
        title={warning.message}
        dialogTitle={gpuName(state.gpu, trans)}
      >
        <GpuDetails {...props} state={state} warning={warning} stayedBehind={[]} />
      </Chip>
      {warning.keep.timesLeft > 0 && (
        <button
          type="button"
          className="gpuhub-Keep"
          disabled={props.asking}
          title={trans.__('Keep the GPU for %1 more minutes.', warning.keep.minutes)}
          onClick={actions.keep}
        >
          {trans.__('Keep')}
        </button>
      )}
    </span>
  );
}

function EndingState(
  props: IFrame & { state: Extract<SwitchState, { kind: 'ending' }> }
): JSX.Element {
  const { state, trans, now } = props;
  useTick(1000);
  const facts = [trans.__('saving, then back to CPU')];
  if (state.deadline !== null && props.room === 'wide') {
    facts.push(trans.__('%1 left', countdown(state.deadline - now())));
  }
  return (
    <Label mark={<Spinner />} facts={facts} hidden={props.room === 'tiny'} title={state.message} />
  );
}

function AsideChip(props: IFrame & { aside: IAside }): JSX.Element {
  const { aside, trans, now, actions } = props;
  const bad = aside.kind === 'lost' || aside.kind === 'failed' || aside.kind === 'cut';
  return (
    <Chip
      {...props}
      what={aside.id}
      look={bad ? 'attention' : 'news'}
      mark={<span className={bad ? 'gpuhub-Bang' : 'gpuhub-Back'} aria-hidden="true" />}
      facts={
        props.room === 'tiny' ? [] : [asideLabel(aside, now(), trans, props.room === 'narrow')]
      }
      name={asideLabel(aside, now(), trans)}
      title={aside.message}
      dialogTitle={asideTitle(aside, trans)}
    >
      <AsideDetails
        aside={aside}
        trans={trans}
        now={now}
        onDismiss={() => {
          props.close();
          actions.dismiss(aside);
        }}
        onRestore={() => {
          props.close();
          actions.restore(aside);
        }}
        onChoose={() => {
          props.close();
          actions.choose(aside);
        }}
        onAgain={() => {
          props.close();
          actions.dismiss(aside);
          actions.on();
        }}
      />
    </Chip>
  );
}
