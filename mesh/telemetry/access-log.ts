import { formatSocketAddress } from '../common/address.js';
import type { ConnectionInfo, Party, PolicyDecision, PolicyVerdict } from './types.js';

/** More denials on trial than so many are not named in one line. */
const maxDryRunShown = 8;

export type AccessLogFormat = 'text' | 'json';

/** A finished connection, as the log tells it. */
export interface AccessLogEntry {
  readonly level: 'debug' | 'info' | 'warn' | 'error';
  readonly message: 'connection opened' | 'connection complete' | 'connection failed';
  readonly info: ConnectionInfo;
  readonly wallClockMs: number;
  /** Null where nothing has been transferred yet. */
  readonly transfer: {
    /** Server to client, as in the metrics. */
    readonly sentBytes: number;
    /** Client to server. */
    readonly receivedBytes: number;
    readonly durationMs: number;
  } | null;
  /** What policies said; null: they were not asked. */
  readonly verdict: PolicyVerdict | null;
  readonly error: string | null;
  /** Why the mesh itself ended a connection. */
  readonly reason?: string | null;
}

/**
 * One line, with its line feed, fields in the order of the sheet (7.2); fields without a value are left out. `bytes_sent` is
 * from the reporter's side (a client's agent: request bytes), which is not the sense of the metric of that name.
 * Strings are escaped: a baggage value cannot forge a line.
 */
export function formatAccessLog(entry: AccessLogEntry, format: AccessLogFormat): string {
  const time = new Date(entry.wallClockMs).toISOString();
  const json = format === 'json';
  const head = json
    ? `{"level":"${entry.level}","time":"${time}","scope":"access","message":"${entry.message}"`
    : `${time}\t${entry.level}\taccess\t${entry.message}\t`;
  const fields = json ? new JsonFields(head) : new TextFields(head);
  writeParties(fields, entry.info);
  writeOutcome(fields, entry);
  return json ? `${fields.line}}\n` : `${fields.line}\n`;
}

interface Fields {
  readonly line: string;
  /** A token that needs no escaping in text. */
  token(name: string, value: string): void;
  text(name: string, value: string | null | undefined): void;
  number(name: string, value: number): void;
}

class TextFields implements Fields {
  line: string;
  #separator = '';

  constructor(head: string) {
    this.line = head;
  }

  token(name: string, value: string): void {
    this.line += `${this.#separator}${name}=${value}`;
    this.#separator = ' ';
  }

  text(name: string, value: string | null | undefined): void {
    if (value !== null && value !== undefined && value !== '') this.token(name, JSON.stringify(value));
  }

  number(name: string, value: number): void {
    this.token(name, String(value));
  }
}

class JsonFields implements Fields {
  line: string;

  constructor(head: string) {
    this.line = head;
  }

  token(name: string, value: string): void {
    this.text(name, value);
  }

  text(name: string, value: string | null | undefined): void {
    if (value !== null && value !== undefined && value !== '')
      this.line += `,"${name}":${JSON.stringify(value)}`;
  }

  number(name: string, value: number): void {
    this.line += `,"${name}":${value}`;
  }
}

function writeParties(fields: Fields, info: ConnectionInfo): void {
  const { source, destination, service } = info;
  fields.token('src.addr', formatSocketAddress(info.sourceAddress));
  writeParty(fields, 'src', source, info.mutualTls);
  fields.token('dst.addr', formatSocketAddress(info.destinationAddress));
  if (info.hboneAddress !== null) fields.token('dst.hbone_addr', formatSocketAddress(info.hboneAddress));
  fields.text('dst.service', service?.hostname);
  writeParty(fields, 'dst', destination, info.mutualTls);
  fields.text('direction', info.reporter === 'source' ? 'outbound' : 'inbound');
}

function writeParty(fields: Fields, side: 'src' | 'dst', party: Party, mutualTls: boolean): void {
  const { workload, baggage } = party;
  fields.text(`${side}.workload`, workload?.name ?? baggage?.workloadName);
  fields.text(`${side}.namespace`, workload?.namespace ?? baggage?.namespace);
  if (mutualTls) fields.text(`${side}.identity`, party.identity);
  fields.text(`${side}.cluster`, workload?.clusterId ?? baggage?.clusterName);
}

function writeOutcome(fields: Fields, entry: AccessLogEntry): void {
  if (entry.transfer !== null) {
    const { sentBytes, receivedBytes, durationMs } = entry.transfer;
    const isClientSide = entry.info.reporter === 'source';
    fields.number('bytes_sent', isClientSide ? receivedBytes : sentBytes);
    fields.number('bytes_recv', isClientSide ? sentBytes : receivedBytes);
    fields.text('duration', `${Math.round(durationMs)}ms`);
  }
  if (entry.verdict !== null) writeVerdict(fields, entry.verdict);
  fields.text('error', entry.error);
  fields.text('reason', entry.reason);
}

/** `policy`: what allowed or denied it; `policy_dry_run`: what would have denied it. */
function writeVerdict(fields: Fields, verdict: PolicyVerdict): void {
  if (verdict.policy !== null) fields.text('policy', decisionText(verdict));
  if (verdict.dryRun.length === 0) return;
  const named = verdict.dryRun.slice(0, maxDryRunShown).map(decisionText).join(' ');
  const more = verdict.dryRun.length - maxDryRunShown;
  fields.text('policy_dry_run', more > 0 ? `${named} and ${more} more` : named);
}

/** `ns/name#rule`; names hold no `#`. */
function decisionText({ policy, rule, reason }: PolicyDecision): string {
  if (policy === null) return reason;
  return rule === null ? policy : `${policy}#${rule}`;
}
