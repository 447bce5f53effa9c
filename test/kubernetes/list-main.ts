// Lists ConfigMaps and prints what that took: `node list-main.js KUBECONFIG stream|pages`, with a heap that the JSON of all would not fit in.
import {
  API_CLIENT_DEFAULTS,
  ApiClient,
  KUBERNETES_SOURCE_DEFAULTS,
  KubernetesSource,
  openAccess,
} from '../../mesh/kube/index.js';
import { createLog } from '../../mesh/log/index.js';
import { decoderOf } from '../../mesh/manifests/index.js';

const [kubeconfig = '', how = ''] = process.argv.slice(2);
const kinds = [{ kind: 'ConfigMap', apiVersions: ['v1'] }];
const decode = decoderOf<number>(
  new Map([
    [
      'v1 ConfigMap',
      {
        namespaced: true,
        nameForm: 'subdomain',
        decode: (fields) => fields.object('data').text('text').length,
      },
    ],
  ]),
);
const client = new ApiClient(
  { ...API_CLIENT_DEFAULTS, userAgent: 'test' },
  { access: openAccess({ kubeconfig }) },
);
const source = new KubernetesSource<number>(
  { ...KUBERNETES_SOURCE_DEFAULTS, streamsLists: how === 'stream', kinds },
  { client, decode, onBatch: () => {}, log: createLog({ level: 'silent', component: 'test' }) },
);
const begunMs = performance.now();
await source.start();
const bytes = [...source.values()].reduce((sum, length) => sum + length, 0);
const ms = Math.round(performance.now() - begunMs);
const rssKb = process.resourceUsage().maxRSS;
process.stdout.write(
  JSON.stringify({ objects: source.status[0]!.objects, bytes, ms, rssMb: Math.round(rssKb / 1024) }),
);
source.stop();
client.close();
