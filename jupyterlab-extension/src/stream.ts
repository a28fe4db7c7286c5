/**
 * Reads `text/event-stream`: bytes in, events out. Knows no network.
 *
 * Source: WHATWG HTML, "Server-sent events", the parsing steps.
 */

export interface IStreamEvent {
  kind: string;
  data: string;
}

export class StreamDecoder {
  /** Take what has arrived; return the events that it completes. Comments are signs of life only. */
  feed(text: string): IStreamEvent[] {
    const events: IStreamEvent[] = [];
    this._rest += text;
    // A lone CR at the end may be the first half of CRLF: it waits for what follows.
    const lines = this._rest.split(/\r\n|\n|\r(?!$)/);
    this._rest = lines.pop() ?? '';
    for (const line of lines) {
      if (line === '') {
        if (this._data.length > 0) {
          events.push({ kind: this._kind || 'message', data: this._data.join('\n') });
        }
        this._kind = '';
        this._data = [];
      } else if (!line.startsWith(':')) {
        const colon = line.indexOf(':');
        const field = colon < 0 ? line : line.slice(0, colon);
        const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
        if (field === 'event') {
          this._kind = value;
        } else if (field === 'data') {
          this._data.push(value);
        }
      }
    }
    return events;
  }

  private _rest = '';
  private _kind = '';
  private _data: string[] = [];
}
