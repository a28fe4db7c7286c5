/**
 * The sidebar: the card, the queue, the week, the saved states.
 */
import { refreshIcon, ToolbarButtonComponent } from '@jupyterlab/ui-components';
import type { TranslationBundle } from '@jupyterlab/translation';
import * as React from 'react';
import { day, gpuWithMemory } from '../format';
import type { IPanelState, IPoolShown, IQuotaShown } from '../shown';
import { locale } from '../texts';
import { type ICardActions, LeaseCard } from './LeaseCard';
import { type IWithTexts, LiveRegion, Meter } from './marks';
import { type ISavedActions, SavedStates } from './SavedStates';

export interface IPanelActions extends ICardActions, ISavedActions {
  refresh: () => void;
}

export interface IPanelProps extends IWithTexts {
  state: IPanelState;
  asking: boolean;
  /** The GPU service's own page, with the leases that are over; null: there is none. */
  moreUrl: string | null;
  actions: IPanelActions;
}

export function Panel(props: IPanelProps): JSX.Element {
  const { state, trans, now, actions } = props;
  const trouble = troubleText(state, trans);
  return (
    <div className="gpuhub-Panel">
      <header className="gpuhub-Panel-head">
        <h2>{trans.__('GPU')}</h2>
        <ToolbarButtonComponent
          icon={refreshIcon}
          tooltip={trans.__('Refresh')}
          onClick={actions.refresh}
        />
      </header>
      <LiveRegion text={trouble ?? ''} />
      {trouble && <p className="gpuhub-Trouble">{trouble}</p>}
      {state.connection !== 'absent' && (
        <>
          <LeaseCard
            card={state.card}
            trans={trans}
            now={now}
            asking={props.asking}
            actions={actions}
          />
          <Section title={trans.__('Queue')}>
            <Pools pools={state.pools} trans={trans} />
          </Section>
          <Section title={trans.__('Your limits')}>
            <Quotas quotas={state.quotas} now={now()} trans={trans} />
          </Section>
          <Section title={trans.__('Saved states')}>
            <SavedStates
              saved={state.saved}
              savedBytes={state.savedBytes}
              trans={trans}
              now={now}
              actions={actions}
            />
          </Section>
          {props.moreUrl !== null && (
            <section className="gpuhub-Section">
              <a className="gpuhub-Link" href={props.moreUrl} target="_blank" rel="noreferrer">
                {trans.__('All your leases and limits')}
              </a>
            </section>
          )}
        </>
      )}
    </div>
  );
}

function troubleText(state: IPanelState, trans: TranslationBundle): string | null {
  switch (state.connection) {
    case 'absent':
      return trans.__('This server offers no GPUs. Start it through the hub to use one.');
    case 'signed-out':
      return trans.__('You are not signed in any more. Reload the page to sign in.');
    case 'away':
      return trans.__(
        'The server does not answer; what stands here may be old. It is asked again by itself.'
      );
    default:
      return state.serviceAway
        ? trans.__(
            'The GPU service does not answer at the moment. What runs goes on; it is asked again by itself.'
          )
        : null;
  }
}

function Section(props: { title: string; children: React.ReactNode }): JSX.Element {
  const id = React.useId();
  return (
    <section className="gpuhub-Section" aria-labelledby={id}>
      <h3 id={id}>{props.title}</h3>
      {props.children}
    </section>
  );
}

function Pools(props: { pools: IPoolShown[]; trans: TranslationBundle }): JSX.Element {
  const { pools, trans } = props;
  if (pools.length === 0) {
    return <p className="gpuhub-mod-secondary">{trans.__('No GPU is on offer to you.')}</p>;
  }
  return (
    <ul className="gpuhub-Rows">
      {pools.map(pool => (
        <li key={pool.name} title={trans.__('Kind: %1', pool.name)}>
          <span>{gpuWithMemory(pool.gpu, trans)}</span>
          <span className="gpuhub-mod-secondary">
            {pool.total === 0
              ? trans.__('none works now')
              : trans.__('%1 of %2 free', pool.free, pool.total)}
            {' · '}
            {pool.waiting === 0
              ? trans.__('nobody waits')
              : trans._n('%1 waits', '%1 wait', pool.waiting)}
          </span>
        </li>
      ))}
    </ul>
  );
}

function Quotas(props: {
  quotas: IQuotaShown[];
  now: number;
  trans: TranslationBundle;
}): JSX.Element {
  const { quotas, now, trans } = props;
  if (quotas.length === 0) {
    return <p className="gpuhub-mod-secondary">{trans.__('Not known yet.')}</p>;
  }
  return (
    <ul className="gpuhub-Rows">
      {quotas.map(quota => (
        <li key={quota.name}>
          <Quota quota={quota} now={now} trans={trans} />
        </li>
      ))}
    </ul>
  );
}

function Quota(props: { quota: IQuotaShown; now: number; trans: TranslationBundle }): JSX.Element {
  const { quota, now, trans } = props;
  const { used, allowed } = quota;
  if (quota.name === 'longest_lease_hours') {
    return (
      <span>
        {allowed === null
          ? trans.__('No limit for one use of a GPU')
          : trans._n('At most %1 hour at a time', 'At most %1 hours at a time', allowed)}
      </span>
    );
  }
  if (quota.name === 'gpus_at_once') {
    return (
      <span>
        {allowed === null
          ? trans._n('%1 GPU in use, no limit', '%1 GPUs in use, no limit', used ?? 0)
          : trans._n('%2 of %1 GPU in use', '%2 of %1 GPUs in use', allowed, used ?? 0)}
      </span>
    );
  }
  const hours = (used ?? 0).toFixed(1);
  if (allowed === null) {
    return <span>{trans.__('This week: %1 GPU-hours, no limit', hours)}</span>;
  }
  const text = trans.__('%1 of %2 GPU-hours', hours, allowed);
  return (
    <>
      <span>{trans.__('This week')}</span>
      <span>{text}</span>
      <span className="gpuhub-Quota">
        <Meter
          share={allowed > 0 ? (used ?? 0) / allowed : 1}
          label={trans.__('GPU-hours this week')}
          text={text}
          full={(used ?? 0) >= allowed}
        />
      </span>
      {quota.freesAt !== null && (
        <span className="gpuhub-mod-secondary">
          {trans.__('Hours come back from %1 on.', day(quota.freesAt, now, locale(trans)))}
        </span>
      )}
    </>
  );
}
