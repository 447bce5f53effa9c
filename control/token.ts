import { existsSync } from 'node:fs';
import { option, runCommand } from '../mesh/config/index.js';
import { TokenAuthority, writeFileAtomically } from './ca/index.js';
import { ENV_PREFIX } from './options.js';

const USAGE = 'node dist/control/token.js --state DIR --node NAME [--out FILE] [options]';
const HOUR_MS = 3_600_000;
const DNS_NAME = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/;

const OPTIONS = {
  state: option.text({ metavar: 'DIR', help: "The controller's state folder." }),
  node: option.text({
    metavar: 'NAME',
    help: 'The one node whose agent may use the token.',
    check: (text) => (DNS_NAME.test(text) ? null : 'must be the name of a node'),
  }),
  account: option.text({
    metavar: 'NS/NAME',
    help: "The agent's service account.",
    fallback: 'culvert-system/culvert-agent',
    check: (text) => (/^[a-z0-9-]+\/[a-z0-9.-]+$/.test(text) ? null : 'must be namespace/name'),
  }),
  pod: option.text({
    metavar: 'NAME',
    help: "The agent's pod; then the token ends with the pod.",
    fallback: '',
  }),
  podUid: option.text({ metavar: 'UID', help: "metadata.uid of the agent's pod.", fallback: '' }),
  lifetime: option.duration({
    help: 'How long the token is good.',
    fallback: 24 * HOUR_MS,
    minMs: 1000,
    maxMs: 10 * 365 * 24 * HOUR_MS,
  }),
  out: option.text({ metavar: 'FILE', help: 'Written with mode 600; none: standard output.', fallback: '' }),
};

/** Mints the join token of one node, with the key that the controller keeps in its state folder (and makes it, if the controller has not yet). */
await runCommand(
  {
    options: OPTIONS,
    usage: USAGE,
    envPrefix: ENV_PREFIX,
    failure: 'no token was minted',
    validate: ({ pod, podUid }) =>
      (pod === '') === (podUid === '') ? [] : ['--pod and --pod-uid go together'],
  },
  async (options) => {
    const [namespace, serviceAccount] = options.account.split('/') as [string, string];
    const pod = options.pod === '' ? {} : { pod: { name: options.pod, uid: options.podUid } };
    const subject = { namespace, serviceAccount, nodeName: options.node, ...pod };
    const isFirst = !existsSync(options.state);
    const token = await TokenAuthority.load(options.state).mint(subject, options.lifetime);
    if (isFirst)
      process.stderr.write(
        `${options.state} was not there: a new key is in it, and a controller takes the token only with --state ${options.state}\n`,
      );
    if (options.out === '') process.stdout.write(`${token}\n`);
    else writeFileAtomically(options.out, `${token}\n`, 0o600);
    return 0;
  },
);
