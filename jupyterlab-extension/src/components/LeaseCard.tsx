/**
 * The card of the GPU that is held, asked for, or not there yet.
 */
import {
  clock,
  countdown,
  fromNow,
  gpuName,
  gpuWithMemory,
  percent,
  sizePair,
  span
} from '../format';
import type { CardState } from '../shown';
import { aheadText, estimateText, inLine, locale, residentText, warningSentence } from '../texts';
import { Chart } from './Chart';
import { type IWithTexts, Meter, Spinner, useTick } from './marks';
import { TextButton } from './Popover';
import { keepTitle } from './SwitchDetails';

export interface ICardActions {
  keep: () => void;
  release: () => void;
  openNotebook: (path: string) => void;
}

interface ICardProps extends IWithTexts {
  card: CardState;
  asking: boolean;
  actions: ICardActions;
}

export function LeaseCard(props: ICardProps): JSX.Element {
  const { card, trans, now, actions, asking } = props;
  useTick(card.kind === 'none' ? 0 : 1000);
  switch (card.kind) {
    case 'none':
      return (
        <div className="gpuhub-Card gpuhub-mod-empty">
          <p>{trans.__('No GPU yet.')}</p>
          <p className="gpuhub-mod-secondary">
            {trans.__('Flip the switch in a notebook’s toolbar, or run “gpu on” in a terminal.')}
          </p>
        </div>
      );
    case 'queued':
      return (
        <div className="gpuhub-Card">
          <h3 className="gpuhub-Card-title">
            <span className="gpuhub-Queue" aria-hidden="true" />
            {card.place === null ? trans.__('Waiting for a GPU') : upper(inLine(card.place, trans))}
          </h3>
          <p>{card.message}</p>
          {card.ahead !== null && card.ahead > 0 && <p>{aheadText(card.ahead, trans)}</p>}
          {card.startsAt !== null && <p>{estimateText(card.startsAt, now(), trans)}</p>}
          <div className="gpuhub-Buttons">
            <TextButton
              label={trans.__('Stop waiting')}
              disabled={asking}
              onClick={actions.release}
            />
          </div>
        </div>
      );
    case 'starting':
      return (
        <div className="gpuhub-Card">
          <h3 className="gpuhub-Card-title">
            <Spinner />
            {gpuWithMemory(card.gpu, trans)}
          </h3>
          <p>{card.message || trans.__('Getting your GPU ready.')}</p>
          <div className="gpuhub-Buttons">
            <TextButton label={trans.__('Release')} disabled={asking} onClick={actions.release} />
          </div>
        </div>
      );
    case 'ending':
      return (
        <div className="gpuhub-Card gpuhub-mod-ending">
          <h3 className="gpuhub-Card-title">
            <Spinner />
            {gpuWithMemory(card.gpu, trans)}
          </h3>
          <p>{card.message}</p>
          <p className="gpuhub-mod-secondary">
            {card.deadline === null
              ? trans.__('Saving what runs on it, and moving it back.')
              : trans.__(
                  'Saving what runs on it, and moving it back: %1 left.',
                  countdown(card.deadline - now())
                )}
          </p>
        </div>
      );
    case 'held':
      return <HeldCard {...props} card={card} />;
  }
}

function HeldCard(props: ICardProps & { card: Extract<CardState, { kind: 'held' }> }): JSX.Element {
  const { card, trans, now, actions, asking } = props;
  const { meter, warning } = card;
  const at = (when: number) => clock(when, now(), locale(trans));
  const total = meter?.memoryTotalBytes ?? card.gpu.memoryBytes;
  const terms: string[] = [];
  if (card.idleSeconds !== null && card.idleSeconds >= 60) {
    terms.push(trans.__('Idle for %1.', span(card.idleSeconds * 1000, trans)));
  } else if (card.idleAfterSeconds !== null) {
    terms.push(
      trans.__('Counts as idle after %1 without use.', span(card.idleAfterSeconds * 1000, trans))
    );
  }
  if (card.latestEnd !== null) {
    const left = fromNow(card.latestEnd - now(), trans);
    terms.push(trans.__('Ends %1 at the latest, %2.', at(card.latestEnd), left));
  }
  return (
    <div className={`gpuhub-Card ${warning ? 'gpuhub-mod-warning' : ''}`}>
      <h3 className="gpuhub-Card-title">
        <span className="gpuhub-Dot" aria-hidden="true" />
        <span className="gpuhub-Card-name">{gpuName(card.gpu, trans)}</span>
        {card.since !== null && (
          <span
            className="gpuhub-Card-since"
            title={trans.__('Held for %1.', span(now() - card.since, trans))}
          >
            {trans.__('on since %1', at(card.since))}
          </span>
        )}
      </h3>
      {warning && (
        <div className="gpuhub-Warning" role="alert">
          <p>{warning.message}</p>
          <p>{warningSentence(warning.at, now(), trans)}</p>
          {warning.residentBytes ? <p>{residentText(warning.residentBytes, trans)}</p> : null}
        </div>
      )}
      <div className="gpuhub-Card-meters">
        <span>{trans.__('Use')}</span>
        <Meter
          share={(meter?.utilisationPercent ?? 0) / 100}
          label={trans.__('Use')}
          text={meter ? percent(meter.utilisationPercent, trans) : trans.__('not known')}
        />
        <span className="gpuhub-mod-number">
          {meter ? percent(meter.utilisationPercent, trans) : '–'}
        </span>
        <span>{trans.__('Memory')}</span>
        <Meter
          share={meter && total ? meter.memoryBytes / total : 0}
          label={trans.__('Memory')}
          text={meter ? sizePair(meter.memoryBytes, total, trans) : trans.__('not known')}
        />
        <span className="gpuhub-mod-number">
          {meter ? sizePair(meter.memoryBytes, total, trans) : '–'}
        </span>
      </div>
      <Chart series={card.series} memoryTotalBytes={total} now={now()} trans={trans} />
      <Here {...props} />
      {terms.map(term => (
        <p key={term} className="gpuhub-mod-secondary">
          {term}
        </p>
      ))}
      <div className="gpuhub-Buttons">
        <TextButton
          label={trans.__('Release')}
          title={trans.__('Give the GPU back. Every notebook on it moves back with its variables.')}
          disabled={asking}
          onClick={actions.release}
        />
        {warning && (
          <TextButton
            kind="accept"
            label={trans.__('Keep')}
            title={keepTitle(warning, trans)}
            disabled={asking || warning.keep.timesLeft <= 0}
            onClick={actions.keep}
          />
        )}
      </div>
    </div>
  );
}

/** What runs on it. */
function Here(props: ICardProps & { card: Extract<CardState, { kind: 'held' }> }): JSX.Element {
  const { card, trans, now, actions } = props;
  if (card.notebooks.length === 0 && card.commands.length === 0) {
    return (
      <p className="gpuhub-mod-secondary">
        {trans.__('Nothing runs on it yet. A notebook whose switch you flip joins at once.')}
      </p>
    );
  }
  return (
    <ul className="gpuhub-Here" aria-label={trans.__('What runs on this GPU')}>
      {card.notebooks.map(one => (
        <li key={one.kernel}>
          {one.path === null ? (
            <span>{one.name}</span>
          ) : (
            <button
              type="button"
              className="gpuhub-Link"
              title={one.path}
              onClick={() => actions.openNotebook(one.path ?? '')}
            >
              {one.name}
            </button>
          )}
          {one.busy && <span className="gpuhub-mod-secondary">{trans.__('running')}</span>}
        </li>
      ))}
      {card.commands.map(one => (
        <li key={one.id}>
          <code title={one.command}>{one.command}</code>
          <span className="gpuhub-mod-secondary">{span(now() - one.since, trans)}</span>
        </li>
      ))}
    </ul>
  );
}

function upper(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
